// A large kernel over the map of each stage: how much of it lies on the map, how far it reaches.
figure("kernel", (figure, { draw, slider, choice, pick, number }) => {
  const { stages } = figure.data, size = 250, left = 48, top = 30;
  const state = { stage: 2, kernel: stages[2].kernel };
  const at = { column: 7, row: 7 };

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g");
    const { side, stride } = stages[state.stage], k = state.kernel, half = (k - 1) / 2;
    const span = Math.max(side, 14) * 1.7, cell = size / span, x0 = left + (size - side * cell) / 2;
    const y0 = top + (size - side * cell) / 2;
    Object.assign(area, { left: x0, top: y0, cell, columns: side, rows: side });
    draw(all, "text", { x: 173, y: 16, "text-anchor": "middle", class: "pr-muted" },
      `map of ${side} × ${side}, zeros around it`);
    draw(all, "rect", { x: x0, y: y0, width: side * cell, height: side * cell, class: "pr-norm" });
    const edges = [];
    for (let i = 1; i < side; i++)
      edges.push(`M${(x0 + i * cell).toFixed(2)} ${y0.toFixed(2)}v${(side * cell).toFixed(2)}`,
        `M${x0.toFixed(2)} ${(y0 + i * cell).toFixed(2)}h${(side * cell).toFixed(2)}`);
    const box = (from, to) => [Math.max(from, 0), Math.min(to, side)];
    const [c0, c1] = box(at.column - half, at.column + half + 1);
    const [r0, r1] = box(at.row - half, at.row + half + 1);
    const clip = v => Math.min(Math.max(v, 2), 344);
    const kx = clip(x0 + (at.column - half) * cell), ky = Math.max(y0 + (at.row - half) * cell, 20);
    draw(all, "rect", { x: kx, y: ky, width: clip(x0 + (at.column + half + 1) * cell) - kx,
      height: Math.min(y0 + (at.row + half + 1) * cell, 300) - ky, class: "pr-unknown pr-see" });
    draw(all, "rect", { x: x0 + c0 * cell, y: y0 + r0 * cell, width: (c1 - c0) * cell,
      height: (r1 - r0) * cell, class: "pr-depthwise pr-see" });
    draw(all, "path", { d: edges.join(""), class: "pr-fine" });
    draw(all, "rect", { x: x0 + at.column * cell, y: y0 + at.row * cell, width: cell, height: cell,
      class: "pr-on-depthwise" });
    const used = (c1 - c0) * (r1 - r0), taps = k * k, reach = (k - 1) * stride + 1;
    draw(all, "text", { x: 173, y: 318, "text-anchor": "middle", class: "pr-title" },
      `${used} of ${taps} taps on the map`);
    draw(all, "text", { x: 173, y: 336, "text-anchor": "middle" },
      `${reach} pixels of the image across`);
    figure.say(`K = ${k} in stage ${state.stage + 1}, at row ${at.row + 1}, column `
      + `${at.column + 1}: ${number(used)} of ${number(taps)} taps lie on the map, the others on `
      + `padding (${Math.round(100 * (taps - used) / taps)} %); neighbours on this map are `
      + `${stride} pixels apart, so one layer reaches ${reach} pixels across the image.`);
  }

  const area = pick(figure, { left, top, cell: 1, columns: 14, rows: 14 }, at, render);
  const kernel = slider(figure, "Kernel K", { min: 3, max: 31, step: 2, value: state.kernel },
    value => { state.kernel = value; render(); });
  choice(figure, "Stage", Object.fromEntries(stages.map((stage, i) =>
    [i, `${i + 1}: ${stage.side} × ${stage.side}`])), state.stage, value => {
    state.stage = +value;
    at.column = at.row = Math.floor(stages[state.stage].side / 2);
    state.kernel = stages[state.stage].kernel;
    kernel.set(state.kernel);
    render();
  });
  render();
});
