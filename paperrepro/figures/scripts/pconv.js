// A partial convolution: which channels it convolves, and what that saves.
figure("pconv", (figure, { draw, slider, number }) => {
  const { sides, channels: widths } = figure.data;
  const state = { ratio: 2, side: 2, width: 1 }, kernel = 3;

  const counts = (side, channels) => ({
    macs: side * side * kernel * kernel * channels * channels,
    memory: side * side * 2 * channels + kernel * kernel * channels * channels,
  });

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g");
    const side = sides[state.side], channels = widths[state.width], n = 2 ** state.ratio;
    const touched = channels / n, bars = 32, convolved = bars / n, step = 326 / bars;
    draw(all, "text", { x: 10, y: 14, class: "pr-title" }, `${touched} convolved`);
    draw(all, "text", { x: 336, y: 14, "text-anchor": "end" },
      n > 1 ? `${channels - touched} pass` : "none pass");
    for (let i = 0; i < bars; i++) {
      const kind = i < convolved ? "dense" : "pass", x = 10 + i * step;
      draw(all, "rect", { x, y: 22, width: step - 2, height: 26, rx: 2, class: `pr-${kind}` });
      draw(all, "rect", { x, y: 96, width: step - 2, height: 26, rx: 2, class: `pr-${kind}` });
      if (i >= convolved)
        draw(all, "line", { x1: x + step / 2 - 1, x2: x + step / 2 - 1, y1: 48, y2: 96,
          class: "pr-pass" });
    }
    const width = convolved * step - 2;
    draw(all, "rect", { x: 10, y: 52, width, height: 40, rx: 4, class: "pr-dense" });
    if (width > 60)
      draw(all, "text", { x: 10 + width / 2, y: 76, "text-anchor": "middle", class: "pr-title" },
        "3 × 3");
    const whole = counts(side, channels), part = counts(side, touched);
    bar(all, 152, "multiply-adds", part.macs / 1e6, whole.macs / 1e6, "million");
    bar(all, 204, "memory access", part.memory / 1e3, whole.memory / 1e3, "thousand");
    figure.say(`r = 1/${n}: ${number(part.macs)} multiply-adds, ${percent(part.macs, whole.macs)} of`
      + ` a full convolution's; ${number(part.memory)} numbers read and written, `
      + `${percent(part.memory, whole.memory)}.`);
  }

  const percent = (part, whole) => `${+(100 * part / whole).toPrecision(3)} %`;

  function bar(all, y, words, part, whole, unit) {
    draw(all, "text", { x: 10, y, class: "pr-title" }, words);
    draw(all, "text", { x: 336, y, "text-anchor": "end" },
      `${number(+part.toFixed(1))} of ${number(+whole.toFixed(1))} ${unit}`);
    draw(all, "rect", { x: 10, y: y + 8, width: 326, height: 16, rx: 3, class: "pr-norm" });
    draw(all, "rect", { x: 10, y: y + 8, width: Math.max(326 * part / whole, 1), height: 16, rx: 3,
      class: "pr-on-dense" });
  }

  const set = name => value => { state[name] = value; render(); };
  slider(figure, "Convolved part r", { min: 0, max: 4, value: state.ratio,
    show: value => value ? `1/${2 ** value}` : "1" }, set("ratio"));
  slider(figure, "Channels", { min: 0, max: widths.length - 1, value: state.width,
    show: value => String(widths[value]) }, set("width"));
  slider(figure, "Map", { min: 0, max: sides.length - 1, value: state.side,
    show: value => `${sides[value]} × ${sides[value]}` }, set("side"));
  render();
});
