// Decisions on pictures with the shape of one thing and the texture of another, by shape.
figure("bias", (figure, { draw, choice }) => {
  const { categories, names, people, networks } = figure.data, left = 76, right = 334, tall = 18;
  const state = { network: Object.keys(networks)[0], count: "all" };
  const kinds = ["depthwise", "graph", "norm"], words = ["shape", "texture", "neither"];

  const shares = counts => {
    const counted = state.count === "all" ? counts : [counts[0], counts[1]];
    const total = counted.reduce((a, b) => a + b, 0);
    return counted.map(count => count / total);
  };
  const bias = ([shape, texture]) => Math.round(100 * shape / (shape + texture));

  function bar(all, counts, y, height, look) {
    let from = 0;
    shares(counts).forEach((share, i) => {
      draw(all, "rect", { x: left + from * (right - left), y, width: share * (right - left), height,
        class: i < 2 ? `${look}${kinds[i]}` : "pr-norm", "data-share": share.toFixed(4) });
      from += share;
    });
  }

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g"), counts = networks[state.network];
    words.slice(0, state.count === "all" ? 3 : 2).forEach((word, i) => {
      draw(all, "rect", { x: left + i * 86, y: 6, width: 12, height: 12,
        class: i < 2 ? `pr-on-${kinds[i]}` : "pr-norm" });
      draw(all, "text", { x: left + 18 + i * 86, y: 16 }, word);
    });
    categories.forEach((category, i) => {
      const y = 28 + i * tall + (i ? 8 : 0);
      draw(all, "text", { x: left - 6, y: y + 12, "text-anchor": "end",
        class: i ? "" : "pr-title" }, category);
      bar(all, people[i], y, 5, "pr-");
      bar(all, counts[i], y + 6, 9, "pr-on-");
    });
    draw(all, "text", { x: left, y: 356, class: "pr-muted" }, "thin: ten people; thick: the network");
    const most = categories.map((_, i) => i).slice(1).sort((a, b) =>
      bias(counts[b]) - bias(counts[a]));
    const ends = [most[0], most[most.length - 1]].map(i =>
      `${categories[i]} ${bias(counts[i])} %`);
    const [shape, texture, neither] = counts[0];
    figure.say(`${names[state.network]}: ${shape} decisions for the shape, ${texture} for the `
      + `texture, ${neither} for neither: a shape bias of ${bias(counts[0])} %; people have `
      + `${bias(people[0])} %. Most by ${ends[0]}, least by ${ends[1]}.`);
  }

  choice(figure, "Network", names, state.network, value => { state.network = value; render(); });
  choice(figure, "Counted", { all: "all decisions", two: "shape or texture only" }, state.count,
    value => { state.count = value; render(); });
  render();
});
