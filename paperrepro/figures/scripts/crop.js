// A trained large kernel: what its middle holds, and which of its taps ever met a map.
figure("crop", (figure, { draw, slider, choice, path }) => {
  const { stages, levels } = figure.data, size = 200, left = 73, top = 24;
  const state = { stage: 2, form: "merged", crop: 11 };
  const square = (all, k, c, look) => {
    const cell = size / k, from = (k - c) / 2 * cell;
    draw(all, "rect", { x: left + from, y: top + from, width: c * cell, height: c * cell, fill: "none",
      ...look });
  };

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g"), stage = stages[state.stage], k = stage.kernel;
    const { map, shares } = stage[state.form], c = state.crop, met = Math.min(2 * stage.side - 1, k);
    draw(all, "text", { x: 173, y: 16, "text-anchor": "middle", class: "pr-title" },
      `K = ${k}, sums over ${stage.channels} channels`);
    draw(all, "rect", { x: left, y: top, width: size, height: size, class: "pr-frame" });
    // One path for each shade, in units of a tap.
    const taps = draw(all, "g", { transform: `translate(${left} ${top}) scale(${size / k})` });
    for (let level = 1; level < levels; level++) {
      const cells = [...map].flatMap((digit, i) => parseInt(digit, 36) === level
        ? [`M${i % k} ${Math.floor(i / k)}h1v1h-1z`] : []);
      if (cells.length) draw(taps, "path", { d: cells.join(""), style: "stroke:none",
        class: "pr-on-depthwise", "fill-opacity": level / (levels - 1) });
    }
    if (met < k) square(all, k, met, { class: "pr-span" });
    square(all, k, c, { style: "stroke:var(--pr-graph-edge);stroke-width:2.5" });
    const x = value => 44 + (value - 1) / (k - 1) * 290, y = share => 346 - 88 * share;
    draw(all, "text", { x: 44, y: 246, class: "pr-muted" }, "energy kept, %; thin: were it even");
    draw(all, "path", { d: path([[44, y(1)], [44, y(0)], [334, y(0)]]), class: "pr-line" });
    draw(all, "path", { d: path(shares.map((share, i) => [x(2 * i + 1), y(share)])),
      class: "pr-line", style: "stroke:var(--pr-depthwise-edge);stroke-width:2.5" });
    draw(all, "path", { d: path(shares.map((_, i) => [x(2 * i + 1), y(((2 * i + 1) / k) ** 2)])),
      class: "pr-fine", style: "stroke-width:1.2" });
    const kept = shares[(c - 1) / 2];
    draw(all, "circle", { cx: x(c), cy: y(kept), r: 5, class: "pr-on-graph" });
    [[y(1), "100"], [y(0), "0"]].forEach(([place, text]) => draw(all, "text", { x: 38, y: place + 4,
      "text-anchor": "end" }, text));
    draw(all, "text", { x: 44, y: 364, "text-anchor": "middle" }, "1");
    draw(all, "text", { x: 334, y: 364, "text-anchor": "end" }, `${k} × ${k}`);
    const whole = met < k ? `Only the central ${met} × ${met} ever met its map of ${stage.side} × `
      + `${stage.side} (dashed).` : `All taps met its map of ${stage.side} × ${stage.side}.`;
    figure.say(`Stage ${state.stage + 1}, K = ${k}: the central ${c} × ${c} keeps `
      + `${(100 * kept).toFixed(1)} % of the energy, where an even kernel would keep `
      + `${(100 * (c / k) ** 2).toFixed(1)} %. ${whole}`);
  }

  const crop = slider(figure, "Cropped to", { min: 1, max: stages[state.stage].kernel, step: 2,
    value: state.crop, show: value => `${value} × ${value}` },
  value => { state.crop = value; render(); });
  choice(figure, "Stage", Object.fromEntries(stages.map((stage, i) =>
    [i, `${i + 1}: K = ${stage.kernel}`])), state.stage, value => {
    state.stage = +value;
    state.crop = Math.min(state.crop, stages[state.stage].kernel);
    crop.limit(stages[state.stage].kernel);
    crop.set(state.crop);
    render();
  });
  choice(figure, "Kernel", { merged: "with its small kernel", large: "the large one alone" },
    state.form, value => { state.form = value; render(); });
  render();
});
