// How far a pixel sees through two kernels, and whether the cue of its class lies within.
figure("cue", (figure, { draw, slider, choice, path }) => {
  const { fields, stride, width, middle, radius, cue } = figure.data, left = 12;
  const scale = 322 / width, x = pixel => left + Math.min(Math.max(pixel, 0), width) * scale;
  const levels = [232, 128, 38], state = { k: "13", distance: 32 };
  const names = ["the picture's row", "behind the first block", "behind the second"];

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g"), seen = fields[state.k], [from, to] = seen[2];
    const at = middle + state.distance, low = levels[0];
    const sees = at - cue < to && at + cue > from;
    draw(all, "rect", { x: left, y: low, width: 322, height: 40, rx: 3, class: "pr-frame" });
    // The field grows downwards: what a level is made of lies in the level below it.
    for (const level of [0, 1]) {
      const [a, b] = seen[level], [c, d] = seen[level + 1], top = levels[2 - level] + 18;
      draw(all, "path", { d: path([[x(a), top], [x(b), top], [x(d), levels[1 - level]],
        [x(c), levels[1 - level]]]) + "Z", class: "pr-depthwise", "fill-opacity": 0.4,
        "stroke-width": 0.5 });
    }
    [1, 2].forEach(level => {
      for (let pixel = 0; pixel < width; pixel += stride) {
        const inside = pixel >= seen[2 - level][0] && pixel + stride <= seen[2 - level][1];
        draw(all, "rect", { x: x(pixel) + 0.4, y: levels[level], width: stride * scale - 0.8,
          height: 18, class: inside ? "pr-on-depthwise" : "pr-norm" });
      }
    });
    const [a, b] = [x(from), x(to)];
    draw(all, "rect", { x: a, y: low, width: b - a, height: 40, class: "pr-depthwise pr-see",
      "data-from": from, "data-to": to });
    draw(all, "circle", { cx: x(middle), cy: low + 20, r: radius * scale, class: "pr-unknown",
      "stroke-dasharray": "none" });
    draw(all, "rect", { x: x(at - cue), y: low + 20 - cue * scale, width: 2 * cue * scale,
      height: 2 * cue * scale, class: sees ? "pr-on-graph" : "pr-graph" });
    names.forEach((name, level) => draw(all, "text", { x: left, y: levels[level] - 6,
      class: "pr-muted" }, name));
    draw(all, "text", { x: 173, y: 294, "text-anchor": "middle", class: "pr-title" },
      sees ? "sees the cue: can know the class" : "does not see it: one guess in four is right");
    figure.say(`K = ${state.k}: behind two blocks the pixel in the shape's middle sees from `
      + `${middle - from} pixels to its left to ${to - middle} pixels to its right. The cue, `
      + `${state.distance} pixels away, lies ${sees ? "inside" : "outside"}.`);
  }

  slider(figure, "Distance of the cue", { min: 12, max: 128, step: 2, value: state.distance,
    show: value => `${value} px` }, value => { state.distance = value; render(); });
  choice(figure, "Kernels", Object.fromEntries(Object.keys(fields).map(k => [k, `K = ${k}`])),
    state.k, value => { state.k = value; render(); });
  render();
});
