// The way of integrated gradients: attributions add up to what the logit has risen.
figure("path", (figure, { draw, slider, path }) => {
  const { name, logits, sums, maps, colors, grey } = figure.data, side = 16, cell = 9.5;
  const last = logits.length - 1, rises = logits.map(value => value - logits[0]);
  const ends = [...rises, ...sums], low = Math.min(...ends, 0), high = Math.max(...ends);
  const most = Math.max(...maps.flat().map(Math.abs)), x = i => 36 + i / last * 298;
  const y = value => 316 - (value - low) / (high - low) * 106;
  let at = last;

  // One path for all blocks that look alike, in units of a block.
  const squares = (all, left, look) => {
    const group = draw(all, "g", { transform: `translate(${left} 24) scale(${cell})` }), alike = {};
    for (let i = 0; i < side * side; i++) {
      const how = look(i);
      if (how) (alike[JSON.stringify(how)] ??= []).push(
        `M${i % side} ${Math.floor(i / side)}h1.02v1.02h-1.02z`);
    }
    for (const [how, cells] of Object.entries(alike))
      draw(group, "path", { d: cells.join(""), ...JSON.parse(how) });
  };

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g"), share = at / last;
    draw(all, "text", { x: 12, y: 16, class: "pr-title" }, `${Math.round(100 * share)} % picture`);
    draw(all, "text", { x: 182, y: 16, class: "pr-title" }, "what speaks for it");
    squares(all, 12, i => ({ fill: "#" + grey.map((base, c) => Math.round((base + share
      * (parseInt(colors[i][c], 16) * 17 - base)) / 17).toString(16)).join("") }));
    draw(all, "rect", { x: 182, y: 24, width: side * cell, height: side * cell, class: "pr-frame" });
    squares(all, 182, i => {
      const part = Math.abs(maps[at][i]) / most;
      return part > 0.04 && { class: maps[at][i] > 0 ? "pr-on-depthwise" : "pr-on-graph",
        "fill-opacity": Math.ceil(8 * Math.sqrt(part)) / 8 };
    });
    draw(all, "line", { x1: 36, x2: 334, y1: y(0), y2: y(0), class: "pr-line" });
    draw(all, "text", { x: 30, y: y(0) + 4, "text-anchor": "end" }, "0");
    draw(all, "text", { x: 30, y: y(high) + 4, "text-anchor": "end" }, high.toFixed(1));
    draw(all, "text", { x: 36, y: 198, class: "pr-muted" }, "line: rise of the logit, dots: the sum");
    draw(all, "path", { d: path(rises.map((value, i) => [x(i), y(value)])), class: "pr-line" });
    sums.forEach((value, i) => { if (i <= at) draw(all, "circle", { cx: x(i), cy: y(value), r: 3.5,
      class: "pr-on-depthwise", "data-sum": value }); });
    draw(all, "text", { x: 36, y: 334 }, "grey");
    draw(all, "text", { x: 334, y: 334, "text-anchor": "end" }, `the ${name}`);
    const way = at === last ? "The whole way" : `${Math.round(100 * share)} % of the way`;
    figure.say(`${way} from a grey picture to a ${name}: the attributions of all pixels add up to `
      + `${sums[at].toFixed(2)}; the logit has risen by ${rises[at].toFixed(2)}.`);
  }

  slider(figure, "Along the way", { min: 0, max: last, value: at,
    show: value => `${Math.round(100 * value / last)} %` }, value => { at = value; render(); });
  render();
});
