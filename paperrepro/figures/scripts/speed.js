// Accuracy against four measures of cost: switch the axis and watch the order change.
figure("speed", (figure, { draw, choice, still }) => {
  const { networks, axes, families } = figure.data, left = 36, right = 336, top = 14, low = 262;
  let axis = "macs", chosen = null;
  figure.svg.setAttribute("role", "group");
  const y = top1 => low - (top1 - 71) / 13.5 * (low - top);

  function place(value) {
    const { from, to } = axes[axis];
    return left + (Math.log(value) - Math.log(from)) / (Math.log(to) - Math.log(from))
      * (right - left);
  }

  const frame = draw(figure.svg, "g"), marks = draw(figure.svg, "g"), names = draw(figure.svg, "g");
  for (const top1 of [72, 75, 78, 81, 84]) {
    draw(frame, "line", { x1: left, x2: right, y1: y(top1), y2: y(top1), class: "pr-fine" });
    draw(frame, "text", { x: left - 6, y: y(top1) + 4, "text-anchor": "end" }, String(top1));
  }
  const ticks = draw(figure.svg, "g");
  const lines = families.map(() => draw(marks, "polyline", { class: "pr-trace" }));
  const dots = networks.map(network => {
    const dot = draw(marks, "circle", { cy: y(network.top1), r: 5.5, tabindex: 0, role: "button",
      "aria-label": network.name, class: "pr-dot" });
    dot.style.fill = dot.style.stroke = families[network.family].color;
    for (const event of ["pointerenter", "focus", "click"])
      dot.addEventListener(event, () => { chosen = network; tell(); });
    return dot;
  });
  families.forEach((family, i) => {
    const x = 40 + (i % 3) * 104, row = 314 + 18 * Math.floor(i / 3);
    const dot = draw(names, "circle", { cx: x, cy: row - 4, r: 5 });
    dot.style.fill = family.color;
    draw(names, "text", { x: x + 10, y: row }, family.name);
  });

  function tell() {
    const { label, unit, correlation } = axes[axis];
    const said = chosen && chosen[axis] ? `${chosen.name}: ${chosen.top1} %, ${chosen[axis]} ${unit}. `
      : chosen ? `${chosen.name}: its paper gives no ${label}. ` : "";
    const without = networks.filter(network => !network[axis]).length;
    figure.say(said + (axis === "macs" ? "" : `${label} against multiply-adds: rank correlation `
      + `${correlation.toFixed(2)}. `)
      + (without ? `${without} networks without a value are left out.` : ""
      ) + (said || axis !== "macs" ? "" : `${networks.length} networks by their multiply-adds.`));
  }

  function render() {
    ticks.replaceChildren();
    for (const tick of axes[axis].ticks) {
      draw(ticks, "line", { x1: place(tick), x2: place(tick), y1: low, y2: low + 5,
        class: "pr-line" });
      draw(ticks, "text", { x: place(tick), y: low + 18, "text-anchor": "middle" }, String(tick));
    }
    draw(ticks, "text", { x: (left + right) / 2, y: low + 35, "text-anchor": "middle",
      class: "pr-muted" }, `${axes[axis].label}, ${axes[axis].unit}`);
    dots.forEach((dot, i) => {
      const value = networks[i][axis];
      dot.setAttribute("visibility", value ? "visible" : "hidden");
      if (value) dot.setAttribute("cx", place(value).toFixed(2));
      if (!still) dot.style.transition = "cx 0.9s ease-in-out";
    });
    lines.forEach((line, i) => {
      const own = networks.filter(network => network.family === i && network[axis]);
      line.setAttribute("points", own.map(network =>
        `${place(network[axis]).toFixed(1)},${y(network.top1).toFixed(1)}`).join(" "));
      line.style.stroke = families[i].color;
    });
    tell();
  }

  choice(figure, "Across", Object.fromEntries(Object.entries(axes).map(([key, entry]) =>
    [key, entry.label])), axis, value => { axis = value; render(); });
  render();
});
