// The interval of a difference and the smallest visible one, as the seeds grow.
figure("interval", (figure, { draw, slider, signed }) => {
  const { rows, base, level } = figure.data, left = 12, right = 334, top = 26, tall = 66;
  const x = points => left + (Math.min(Math.max(points, -6.3), 5.3) + 6.3) / 11.6 * (right - left);
  let seeds = 3;

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g"), low = top + tall * rows.length;
    for (const points of [-6, -4, -2, 0, 2, 4]) {
      draw(all, "line", { x1: x(points), x2: x(points), y1: top - 8, y2: low,
        class: points ? "pr-fine" : "pr-line" });
      draw(all, "text", { x: x(points), y: low + 16, "text-anchor": "middle" }, signed(points));
    }
    draw(all, "text", { x: (left + right) / 2, y: low + 34, "text-anchor": "middle",
      class: "pr-muted" }, `points of accuracy from ${base}`);
    rows.forEach((row, i) => {
      const y = top + i * tall, [mean, from, to, visible, verdict] = row.states[seeds - 2];
      draw(all, "rect", { x: x(-visible), y: y + 16, width: x(visible) - x(-visible), height: 36,
        rx: 3, class: "pr-norm" });
      row.seeds.slice(0, seeds).forEach(points => draw(all, "circle",
        { cx: x(points), cy: y + 44, r: 2.5, class: "pr-on-depthwise", "fill-opacity": 0.55 }));
      draw(all, "line", { x1: x(from), x2: x(to), y1: y + 30, y2: y + 30, class: "pr-line",
        style: "stroke-width:3", "data-from": from, "data-to": to });
      draw(all, "circle", { cx: x(mean), cy: y + 30, r: 5, class: "pr-on-depthwise" });
      draw(all, "path", { d: `M${x(row.paper)} ${y + 23}l7 7l-7 7l-7 -7z`,
        class: "pr-node" });
      draw(all, "text", { x: left, y: y + 10, class: "pr-title" }, row.name);
      draw(all, "text", { x: right, y: y + 10, "text-anchor": "end" }, verdict);
    });
    figure.say(`${seeds} seeds, level ${level} %: ` + rows.map(row => {
      const [mean, from, to, visible, verdict] = row.states[seeds - 2];
      return `${row.name} ${signed(mean)} (${signed(from)} to ${signed(to)}), visible ${visible}, `
        + `paper ${signed(row.paper)}: ${verdict}`;
    }).join(". ") + ".");
  }

  slider(figure, "Seeds", { min: 2, max: rows[0].states.length + 1, value: seeds },
    value => { seeds = value; render(); });
  render();
});
