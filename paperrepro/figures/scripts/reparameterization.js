// Three branches of one channel slide together into one kernel.
figure("reparameterization", (figure, { draw, slider, pick, still }) => {
  const { branches, fused, bias } = figure.data, cell = 32, top = 44, low = 214;
  const lefts = [8, 125, 242], middle = 125, at = { column: 1, row: 1 };
  const show = value => value.toFixed(1).replace("-", "−");
  let step = 3;

  function grid(parent, left, upper, values, kind, tag) {
    values.forEach((row, y) => row.forEach((value, x) => {
      if (value === null) return;
      const lit = y === at.row && x === at.column;
      draw(parent, "rect", {
        x: left + x * cell, y: upper + y * cell, width: cell - 1, height: cell - 1, rx: 3,
        class: `pr-${kind}${lit ? " pr-lit" : ""}`,
      });
      draw(parent, "text", {
        x: left + (x + 0.5) * cell, y: upper + (y + 0.5) * cell + 4, "text-anchor": "middle",
        class: lit ? "pr-number pr-title" : "pr-number", "data-cell": `${tag} ${y} ${x}`,
      }, show(value));
    }));
  }

  const centred = values => values.length > 1 ? values
    : [[null, null, null], [null, values[0][0], null], [null, null, null]];
  const shown = branch => step === 0 ? centred(branch.kernel)
    : step === 1 ? centred(branch.folded) : branch.padded;

  function render(moving) {
    [...figure.svg.querySelectorAll("g")].forEach(group => group.remove());
    const all = draw(figure.svg, "g");
    branches.forEach((branch, i) => {
      draw(all, "text", { x: lefts[i] + 48, y: 16, "text-anchor": "middle", class: "pr-title" },
        branch.name);
      const below = step === 0 ? `BN: × ${show(branch.scale)}` : `bias ${show(branch.bias)}`;
      grid(all, lefts[i], top - 16, shown(branch), branch.kind, branch.key);
      draw(all, "text", { x: lefts[i] + 48, y: top + 98, "text-anchor": "middle" }, below);
      if (i) draw(all, "text", { x: lefts[i] - 11, y: top + 34, "text-anchor": "middle",
        class: "pr-title" }, "+");
    });
    const words = ["fold each BatchNorm", "pad each kernel to 3 × 3", "add the kernels",
      "one kernel does the same"][step];
    draw(all, "text", { x: 173, y: 176, "text-anchor": "middle", class: "pr-muted" }, words);
    draw(all, "path", { d: "M173 184V200M168 196L173 203L178 196", class: "pr-line" });
    if (step === 3) {
      grid(all, middle, low, fused, "depthwise", "fused");
      draw(all, "text", { x: middle + 48, y: low + 112, "text-anchor": "middle" },
        `bias ${show(bias)}`);
    } else
      draw(all, "rect", { x: middle, y: low, width: 3 * cell - 1, height: 3 * cell - 1, rx: 5,
        class: "pr-unknown" });
    if (moving && step === 3 && !still) slide(all);
    tell();
  }

  function slide(all) {
    branches.forEach((branch, i) => {
      const ghost = draw(all, "g", { opacity: "0.85" });
      grid(ghost, lefts[i], top - 16, branch.padded, branch.kind, "ghost");
      const end = `translate(${middle - lefts[i]}px, ${low - top + 16}px)`;
      ghost.animate([{ transform: "none", opacity: 0.9 }, { transform: end, opacity: 0.9 },
        { transform: end, opacity: 0 }], { duration: 1300, easing: "ease-in-out" })
        .finished.then(() => ghost.remove(), () => {});
    });
  }

  function tell() {
    const { row, column } = at;
    if (step < 3) return figure.say([
      "Step 1 of 4: three branches, each with its BatchNorm, whose scale multiplies the kernel.",
      "Step 2 of 4: each BatchNorm is folded: its scale into the kernel, its shift into a bias.",
      "Step 3 of 4: a 1 × 1 kernel and the identity are 3 × 3 kernels with zeros around."][step]);
    const parts = branches.map(branch => show(branch.padded[row][column]));
    const place = `row ${row + 1}, column ${column + 1}`;
    figure.say(`Step 4 of 4: at ${place}: ${parts.join(" + ")} = ${show(fused[row][column])}.`);
  }

  slider(figure, "Step", { min: 1, max: 4, value: step + 1 }, value => {
    step = value - 1;
    render(true);
  });
  pick(figure, { left: middle, top: low, cell, columns: 3, rows: 3 }, at, () => render(false));
  render(false);
});
