// The links of a pixel in a static graph, and the islands into which the map falls.
figure("graph", (figure, { draw, slider, choice, pick }) => {
  const state = { graph: "mgc", side: 14, distance: 4, colour: "islands" }, size = 322, left = 12;
  const at = { column: 5, row: 5 };
  const tints = ["depthwise", "pointwise", "dense", "graph", "act", "other"];

  // How far the neighbours lie; a shift of a whole side or more is no link.
  function shifts(side) {
    if (state.graph === "mgc")
      return [-state.distance, state.distance].filter(shift => Math.abs(shift) < side);
    return Array.from({ length: side }, (_, i) => i).filter(i => i && i % state.distance === 0);
  }

  const around = (value, side) => (value % side + side) % side;

  function links(column, row) {
    const { side } = state, found = new Set();
    for (const shift of shifts(side)) {
      found.add(row * side + around(column - shift, side));
      found.add(around(row - shift, side) * side + column);
    }
    found.delete(row * side + column);
    return found;
  }

  function islands() {
    const { side } = state, island = new Array(side * side).fill(-1);
    let count = 0;
    for (let start = 0; start < side * side; start++) {
      if (island[start] >= 0) continue;
      const waiting = [start];
      island[start] = count;
      while (waiting.length) {
        const pixel = waiting.pop();
        for (const next of links(pixel % side, Math.floor(pixel / side)))
          if (island[next] < 0) {
            island[next] = count;
            waiting.push(next);
          }
      }
      count++;
    }
    return { island, count };
  }

  function render() {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g"), { side } = state, cell = size / side;
    Object.assign(area, { cell, columns: side, rows: side });
    at.column = Math.min(at.column, side - 1);
    at.row = Math.min(at.row, side - 1);
    const linked = links(at.column, at.row), { island, count } = islands();
    for (let i = 0; i < side * side; i++) {
      const x = i % side, y = Math.floor(i / side);
      const tint = state.colour === "islands" ? tints[island[i] % tints.length] : "norm";
      draw(all, "rect", { x: left + x * cell + 0.5, y: left + y * cell + 0.5, width: cell - 1,
        height: cell - 1, rx: 2, class: `pr-${tint}`, "data-island": island[i] });
    }
    for (const i of linked)
      draw(all, "circle", { cx: left + (i % side + 0.5) * cell,
        cy: left + (Math.floor(i / side) + 0.5) * cell, r: cell * 0.26, class: "pr-on-graph",
        "data-link": i });
    draw(all, "circle", { cx: left + (at.column + 0.5) * cell, cy: left + (at.row + 0.5) * cell,
      r: cell * 0.36, class: "pr-badge" });
    const mine = island.filter(i => i === island[at.row * side + at.column]).length;
    figure.say(`${state.graph.toUpperCase()}, K = ${state.distance}, ${side} × ${side}: the pixel `
      + `in row ${at.row + 1}, column ${at.column + 1} has ${linked.size} links. The map is `
      + (count === 1 ? "connected: one island." : `${count} islands of ${mine} pixels: nothing `
      + "passes between them, however many layers of this graph follow."));
  }

  const area = pick(figure, { left, top: left, cell: 1, columns: 14, rows: 14 }, at, render);
  choice(figure, "Graph", { mgc: "MGC: four links", svga: "SVGA: every K-th pixel" }, state.graph,
    value => { state.graph = value; render(); });
  slider(figure, "Distance K", { min: 1, max: 8, value: state.distance },
    value => { state.distance = value; render(); });
  slider(figure, "Side of the map", { min: 4, max: 28, value: state.side },
    value => { state.side = value; render(); });
  choice(figure, "Colours", { islands: "islands", plain: "none" }, state.colour,
    value => { state.colour = value; render(); });
  render();
});
