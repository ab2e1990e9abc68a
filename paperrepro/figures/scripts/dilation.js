// Dilated kernels stacking up: by how many paths a pixel sees each pixel of the input.
figure("dilation", (figure, { draw, slider, choice }) => {
  const { mixers } = figure.data, state = { mixer: "mldc", layers: 1 }, size = 322, left = 12;

  // Paths after so many layers, on a square of that side around the pixel.
  function paths() {
    const dilations = mixers[state.mixer].dilations, reach = state.layers * Math.max(...dilations);
    const side = 2 * reach + 1;
    let now = new Map([[0, 1]]);
    const key = (y, x) => y * 1000 + x;
    for (let layer = 0; layer < state.layers; layer++) {
      const next = new Map();
      for (const [place, count] of now) {
        const y = Math.round(place / 1000), x = place - y * 1000;
        for (const d of dilations)
          for (const dy of [-d, 0, d])
            for (const dx of [-d, 0, d]) {
              const to = key(y + dy, x + dx);
              next.set(to, (next.get(to) ?? 0) + count);
            }
      }
      now = next;
    }
    return { side, reach, at: (row, column) => now.get(key(row - reach, column - reach)) ?? 0 };
  }

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g"), { side, reach, at } = paths();
    const shown = Math.max(side, 13), cell = size / shown, shift = (shown - side) / 2;
    const most = Math.log(1 + Math.max(...Array.from({ length: side * side }, (_, i) =>
      at(Math.floor(i / side), i % side))));
    let seen = 0;
    for (let row = 0; row < shown; row++)
      for (let column = 0; column < shown; column++) {
        const y = row - shift, x = column - shift;
        const inside = y >= 0 && x >= 0 && y < side && x < side, count = inside ? at(y, x) : 0;
        seen += count > 0;
        const place = { x: left + column * cell + 0.5, y: left + row * cell + 0.5,
          width: cell - 1, height: cell - 1, rx: 2 };
        draw(all, "rect", { ...place, class: inside ? "pr-norm" : "pr-frame" });
        if (count)
          draw(all, "rect", { ...place, class: "pr-on-dense", "data-paths": count,
            "fill-opacity": 0.25 + 0.75 * Math.log(1 + count) / most });
      }
    const middle = left + (shift + reach + 0.5) * cell;
    draw(all, "circle", { cx: middle, cy: middle, r: cell * 0.28, class: "pr-node" });
    const layers = state.layers === 1 ? "one layer" : `${state.layers} layers`;
    figure.say(`${mixers[state.mixer].name}, ${layers}: the pixel in the middle sees ${seen} of the `
      + `${side * side} pixels of its ${side} × ${side} window. `
      + (seen === side * side ? "No holes." : `${side * side - seen} are holes.`));
  }

  choice(figure, "Kernels", Object.fromEntries(Object.entries(mixers).map(([key, mixer]) =>
    [key, mixer.name])), state.mixer, value => { state.mixer = value; render(); });
  slider(figure, "Layers", { min: 1, max: 5, value: state.layers },
    value => { state.layers = value; render(); });
  render();
});
