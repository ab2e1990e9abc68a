// A real layer's weights on a grid of few bits: what is lost, and which channel loses most.
figure("rounding", (figure, { draw, slider, choice }) => {
  const { weights, bits } = figure.data, left = 12, right = 334;
  const largest = values => Math.max(...values.map(Math.abs));
  const length = values => Math.hypot(...values), most = largest(weights.flat());
  const x = value => 173 + value / most * 155;
  const state = { bits: 4, scales: "layer", channel: null };

  const scale = channel => (state.scales === "layer" ? most : largest(weights[channel]))
    / (2 ** (state.bits - 1) - 1);
  const rounded = channel => weights[channel].map(w =>
    Math.round(w / scale(channel)) * scale(channel));
  const errors = channel => rounded(channel).map((value, i) => value - weights[channel][i]);

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g");
    const shares = weights.map((own, channel) => length(errors(channel)) / length(own));
    const worst = shares.indexOf(Math.max(...shares)), channel = state.channel ?? worst;
    const step = scale(channel), steps = 2 ** (state.bits - 1) - 1, grid = rounded(channel);
    draw(all, "text", { x: left, y: 16, class: "pr-title" }, `Channel ${channel + 1}: nine weights, `
      + "and the grid below");
    for (let i = -steps; i <= steps; i++)
      draw(all, "line", { x1: x(i * step), x2: x(i * step), y1: 84, y2: i ? 94 : 100,
        class: "pr-line", "stroke-width": 1, style: state.bits > 6 ? "stroke-width:.4" : "" });
    draw(all, "line", { x1: left, x2: right, y1: 84, y2: 84, class: "pr-line" });
    weights[channel].forEach((value, i) => {
      draw(all, "path", { d: `M${x(value)} 40L${x(grid[i])} 84`, class: "pr-line" });
      draw(all, "circle", { cx: x(value), cy: 40, r: 4, class: "pr-depthwise" });
      draw(all, "circle", { cx: x(grid[i]), cy: 84, r: 4, class: "pr-on-depthwise",
        "data-grid": grid[i].toFixed(4) });
    });
    [-most, 0, most].forEach((value, i) => draw(all, "text", { x: x(value), y: 116,
      "text-anchor": ["start", "middle", "end"][i] }, value.toFixed(2).replace("-", "\u2212")));
    draw(all, "text", { x: left, y: 150, class: "pr-title" }, "Changed by rounding, each channel, %");
    const high = Math.max(...shares), wide = 290 / weights.length;
    shares.forEach((share, i) => draw(all, "rect", { x: 44 + i * wide + 1,
      y: 262 - 92 * share / high, width: wide - 2, height: 92 * share / high,
      class: i === channel ? "pr-on-graph" : "pr-on-pointwise", "data-share": share.toFixed(5) }));
    draw(all, "line", { x1: 44, x2: right, y1: 262, y2: 262, class: "pr-line" });
    draw(all, "text", { x: 38, y: 176, "text-anchor": "end" }, (100 * high).toFixed(1));
    draw(all, "text", { x: 38, y: 266, "text-anchor": "end" }, "0");
    for (const i of [0, weights.length - 1])
      draw(all, "text", { x: 44 + (i + 0.5) * wide, y: 280, "text-anchor": "middle" }, String(i + 1));
    draw(all, "text", { x: 189, y: 280, "text-anchor": "middle", class: "pr-muted" }, "channel");
    const every = length(weights.flatMap((_, i) => errors(i))) / length(weights.flat());
    const kind = state.scales === "layer" ? `one scale for all ${weights.length} channels`
      : `a scale for each of ${weights.length} channels`;
    figure.say(`${state.bits} bits, ${kind} of MobileOne's first depthwise layer: the rounding `
      + `changes the layer by ${(100 * every).toFixed(1)} % and channel ${worst + 1} by `
      + `${(100 * high).toFixed(1)} %, the most of all. Channel ${channel + 1}: `
      + `${(100 * shares[channel]).toFixed(1)} %.`);
  }

  choice(figure, "Bits", Object.fromEntries(bits.map(b => [b, b])), state.bits,
    value => { state.bits = +value; render(); });
  choice(figure, "Scales", { layer: "one for the layer", channel: "one for each channel" },
    state.scales, value => { state.scales = value; render(); });
  slider(figure, "Channel", { min: 0, max: weights.length, value: 0,
    show: value => value ? String(value) : "worst" },
    value => { state.channel = value ? value - 1 : null; render(); });
  render();
});
