// What every figure that moves is made of: SVG elements, controls, keys, one line that reads out.
"use strict";

const tools = {
  still: matchMedia("(prefers-reduced-motion: reduce)").matches,

  // An SVG element with attributes; text is its content.
  draw(parent, tag, attributes = {}, text = null) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes))
      element.setAttribute(name, typeof value === "number" ? +value.toFixed(2) : value);
    if (text !== null) element.textContent = text;
    parent.append(element);
    return element;
  },

  control(figure, label, field) {
    const box = document.createElement("label"), words = document.createElement("span");
    words.textContent = label;
    field.setAttribute("aria-label", label);
    box.append(words, field);
    figure.controls.append(box);
    return field;
  },

  slider(figure, label, { min, max, step = 1, value, show = String }, change) {
    const field = document.createElement("input"), shown = document.createElement("output");
    Object.assign(field, { type: "range", min, max, step });
    field.value = value;
    tools.control(figure, label, field).after(shown);
    const tell = () => {
      shown.textContent = show(+field.value);
      field.setAttribute("aria-valuetext", shown.textContent);
    };
    field.addEventListener("input", () => { tell(); change(+field.value); });
    tell();
    return { field, set(value) { field.value = value; tell(); }, limit(max) {
      field.max = max;
      tell();
    } };
  },

  choice(figure, label, options, value, change) {
    const field = document.createElement("select");
    for (const [key, words] of Object.entries(options)) field.append(new Option(words, key));
    field.value = value;
    tools.control(figure, label, field).addEventListener("change", () => change(field.value));
    return field;
  },

  button(figure, words, press) {
    const field = document.createElement("button");
    Object.assign(field, { type: "button", textContent: words });
    field.addEventListener("click", press);
    figure.controls.append(field);
    return field;
  },

  // A cell picked by mouse, finger or arrow keys: pick(column, row), in the drawing's units.
  pick(figure, { left, top, cell, columns, rows }, at, moved) {
    const svg = figure.svg;
    const inside = (value, count) => Math.min(Math.max(value, 0), count - 1);
    const area = { left, top, cell, columns, rows };
    const point = event => {
      const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
      const x = (event.clientX - box.left) / box.width * view.width;
      const y = (event.clientY - box.top) / box.height * view.height;
      const column = Math.floor((x - area.left) / area.cell);
      const row = Math.floor((y - area.top) / area.cell);
      if (column < 0 || row < 0 || column >= area.columns || row >= area.rows) return;
      if (column !== at.column || row !== at.row) {
        Object.assign(at, { column, row });
        moved();
      }
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("keydown", event => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (!(event.key in step)) return;
      event.preventDefault();
      at.column = inside(at.column + step[event.key][0], area.columns);
      at.row = inside(at.row + step[event.key][1], area.rows);
      moved();
    });
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    return area;
  },

  number: value => value.toLocaleString("en-US"),
  signed: value => (value > 0 ? "+" : "") + String(value).replace("-", "\u2212"),

  // The points of a line, or of an area, in the drawing's units.
  path: points => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`)
    .join(""),
};

// Makes every figure of that name on the page live, once.
function figure(name, setup) {
  const begin = () => {
    for (const root of document.querySelectorAll(`.pr-moving[data-figure="${name}"]`)) {
      if (root.dataset.live) continue;
      root.dataset.live = "yes";
      const svg = root.querySelector("svg"), kept = [...svg.querySelectorAll("title, desc")];
      svg.replaceChildren(...kept);
      setup({
        svg,
        controls: root.querySelector(".pr-controls"),
        data: JSON.parse(root.querySelector("script[type='application/json']").textContent),
        say(words) { root.querySelector(".pr-readout").textContent = words; },
      }, tools);
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
}
