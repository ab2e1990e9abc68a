// The learning rate over a training, and from which epochs an average of the weights comes.
figure("schedule", (figure, { draw, slider, choice, number, path }) => {
  const { power, drop, decays, steps } = figure.data, left = 36, right = 334;
  const kinds = { cosine: "Half a cosine", step: "A tenth at 30, 60, 90 %", poly: "A power of 0.9" };
  const state = { kind: "cosine", epochs: 24, warmup: 2, decay: 0.99, steps: 22 };

  // As a share of the highest; from 0 in the warm-up to 0 at the end.
  function rate(epoch) {
    const { kind, epochs, warmup } = state, done = (epoch - warmup) / (epochs - warmup);
    if (epoch < warmup) return epoch / warmup;
    if (kind === "step")
      return drop ** [0.3, 0.6, 0.9].filter(part => epoch >= Math.round(part * epochs)).length;
    return kind === "poly" ? (1 - done) ** power : (1 + Math.cos(Math.PI * done)) / 2;
  }

  // The parts of the average that come from each of 60 spans of the training; the first step counts
  // as the first weights do, which the average begins with.
  function shares() {
    const all = state.epochs * state.steps, parts = 60;
    const left = part => part ? state.decay ** (all * (1 - part / parts)) : 0;
    return Array.from({ length: parts }, (_, part) => left(part + 1) - left(part));
  }

  function frame(all, top, low, title) {
    draw(all, "text", { x: left, y: top - 10, class: "pr-title" }, title);
    draw(all, "path", { d: path([[left, top], [left, low], [right, low]]), class: "pr-line" });
    draw(all, "text", { x: left - 6, y: low + 4, "text-anchor": "end" }, "0");
  }

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g"), x = share => left + share * (right - left);
    frame(all, 32, 140, "Learning rate");
    draw(all, "text", { x: left - 6, y: 36, "text-anchor": "end" }, "1");
    const points = Array.from({ length: 201 }, (_, i) => [x(i / 200),
      140 - 108 * rate(i / 200 * state.epochs)]);
    draw(all, "path", { d: path(points), class: "pr-line pr-rate", style: "stroke-width:2.5" });
    frame(all, 184, 270, "Where the averaged weights come from");
    const parts = shares(), most = Math.max(...parts), wide = (right - left) / parts.length;
    parts.forEach((part, i) => draw(all, "rect", { x: left + i * wide + 0.5,
      y: 270 - 86 * part / most, width: wide - 1, height: 86 * part / most,
      class: "pr-on-pointwise", "data-share": part.toFixed(5) }));
    draw(all, "text", { x: left - 6, y: 190, "text-anchor": "end" }, `${Math.round(100 * most)}%`);
    [0, 0.5, 1].forEach(share => draw(all, "text", { x: x(share), y: 288,
      "text-anchor": ["start", "middle", "end"][2 * share] }, String(share * state.epochs)));
    draw(all, "text", { x: 173, y: 306, "text-anchor": "middle", class: "pr-muted" }, "epochs");
    const half = Math.log(0.5) / Math.log(state.decay), first = state.decay
      ** (state.epochs * state.steps - 1);
    let low = state.warmup;
    while (rate(low) > 0.5) low += 0.5;
    figure.say(`${kinds[state.kind]} over ${state.epochs} epochs: the rate is at half its height after ${low} `
      + `epochs. An average with a decay of ${state.decay} has half of itself from the last `
      + `${number(Math.round(half))} steps: ${(half / state.steps).toFixed(2)} epochs of `
      + `${number(state.steps)} steps. The weights after the first step have still `
      + `${(100 * first).toFixed(1)} % of it.`);
  }

  choice(figure, "Schedule", kinds, state.kind, value => { state.kind = value; render(); });
  function lasting(change) {
    Object.assign(state, change);
    state.warmup = Math.min(state.warmup, state.epochs - 1);
    warmup.set(state.warmup);
    render();
  }

  slider(figure, "Epochs", { min: 4, max: 300, step: 4, value: state.epochs },
    value => lasting({ epochs: value }));
  const warmup = slider(figure, "Warm-up", { min: 0, max: 20, value: state.warmup },
    value => lasting({ warmup: value }));
  choice(figure, "Decay of the average", Object.fromEntries(decays.map(d => [d, d])), state.decay,
    value => { state.decay = +value; render(); });
  choice(figure, "Steps in an epoch", steps, state.steps,
    value => { state.steps = +value; render(); });
  render();
});
