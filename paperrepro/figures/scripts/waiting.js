// How long a request takes, from its coming to its answer, as more of them come.
figure("waiting", (figure, { draw, slider, path }) => {
  const { rates, forms } = figure.data, left = 40, right = 334, top = 16, low = 196;
  const kinds = ["unknown", "pointwise", "depthwise", "dense", "graph"];
  const log = (value, from, to) => (Math.log(value) - Math.log(from)) / Math.log(to / from);
  const x = rate => left + log(rate, rates[0], rates[rates.length - 1]) * (right - left);
  const y = ms => low - Math.min(Math.max(log(ms, 1, 500), 0), 1) * (low - top);
  let at = rates.indexOf(60);

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g"), rate = rates[at];
    for (const ms of [1, 10, 100]) {
      draw(all, "line", { x1: left, x2: right, y1: y(ms), y2: y(ms), class: "pr-fine" });
      draw(all, "text", { x: left - 6, y: y(ms) + 4, "text-anchor": "end" }, String(ms));
    }
    draw(all, "text", { x: left, y: 12, class: "pr-muted" }, "ms to the answer; thick: slowest 1 %");
    for (const value of [10, 40, 100, 300, 700])
      draw(all, "text", { x: x(value), y: low + 17, "text-anchor": value < 700 ? "middle" : "end" },
        String(value));
    draw(all, "text", { x: (left + right) / 2, y: low + 34, "text-anchor": "middle",
      class: "pr-muted" }, "requests in a second");
    draw(all, "line", { x1: x(rate), x2: x(rate), y1: top, y2: low, class: "pr-span" });
    draw(all, "text", { x: 226, y: 254, "text-anchor": "end", class: "pr-muted" }, "busy");
    draw(all, "text", { x: 280, y: 254, "text-anchor": "end", class: "pr-muted" }, "median");
    draw(all, "text", { x: right, y: 254, "text-anchor": "end", class: "pr-muted" }, "99th");
    const told = forms.map((form, i) => {
      const color = `var(--pr-${kinds[i]}-edge)`, row = 274 + 19 * i, answer = form.answers[at];
      [0, 1].forEach(which => draw(all, "path", { class: "pr-line",
        d: path(form.answers.map((ms, j) => [x(rates[j]), y(ms[which])])),
        style: `stroke:${color};stroke-width:${which ? 2.8 : 1}` }));
      draw(all, "line", { x1: 12, x2: 32, y1: row - 4, y2: row - 4,
        style: `stroke:${color};stroke-width:3` });
      const load = rate * form.ms / 1000, busy = `${Math.round(100 * Math.min(load, 1))} %`;
      const words = answer ? answer.map(ms => ms.toFixed(1))
        : load < 1 ? ["nearly", "full"] : ["queue", "grows"];
      draw(all, "text", { x: left, y: row }, form.name);
      [[226, busy], [280, words[0]], [right, words[1]]].forEach(([place, text]) =>
        draw(all, "text", { x: place, y: row, "text-anchor": "end" }, text));
      return answer ? `${form.name} ${words[0]} and ${words[1]} ms` : `${form.name}: `
        + (load < 1 ? "nearly full" : "too slow, the queue grows without end");
    });
    figure.say(`MobileOne-S0 at ${rate} requests in a second, the median and the 99th percentile `
      + `of waiting and computing: ${told.join("; ")}.`);
  }

  slider(figure, "Requests in a second", { min: 0, max: rates.length - 1, value: at,
    show: value => String(rates[value]) }, value => { at = value; render(); });
  render();
});
