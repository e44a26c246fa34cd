// All rows in two dimensions: zoomed and moved, coloured by any column, listed by a lasso.

import { el, field, notice, tried } from "./dom.js";
import { columns, fileOf, get, known } from "./api.js";
import { openRow } from "./panel.js";

const PALETTE = ["#0b7285", "#c2255c", "#e67700", "#5f3dc4", "#2b8a3e", "#364fc7", "#a61e4d", "#846358", "#087f5b", "#9c36b5", "#d9480f", "#1971c2"];
const OTHER = "#868e96", LISTED = 60;

export function mapView() {
  const state = { points: [], xs: new Float32Array(0), ys: new Float32Array(0), tints: null, zoom: 1, x: 0.5, y: 0.5, lasso: null, chosen: new Set() };
  const canvas = el("canvas", { class: "map", tabIndex: 0, role: "img", "aria-label": "All rows, near where they are alike. Arrow keys move, plus and minus zoom." });
  const by = el("select", { onchange: tried(colour) }, el("option", { value: "" }, "nothing")), legend = el("ul", { class: "legend" }), found = el("div", { class: "results small", "aria-live": "polite", "aria-label": "Rows in the lasso" });
  const tip = el("div", { class: "tip", hidden: true }), picture = known.about.table && Object.keys(columns()).find(name => columns()[name].kind === "image");
  const lasso = el("button", { type: "button", "aria-pressed": "false", onclick: () => lasso.setAttribute("aria-pressed", lasso.getAttribute("aria-pressed") !== "true") }, "Lasso");
  const view = el("section", { class: "mapped", "aria-label": "Map" }, el("div", { class: "bar" }, field("Colour by", by), lasso, el("button", { type: "button", onclick: whole }, "Whole"), el("span", { class: "quiet" }, "Rows that are alike lie near one another")), el("div", { class: "stage" }, canvas, tip), legend, found);
  let drag = null;
  tried(load)();
  new ResizeObserver(draw).observe(canvas);

  async function load() {
    const said = await get("/table/map");
    state.points = said.points;
    [state.xs, state.ys] = [1, 2].map(side => Float32Array.from(said.points, point => point[side]));
    by.append(...said.columns.map(name => el("option", {}, name)));
    const classes = name => columns()[name]?.kind === "category" ? columns()[name].classes.length : 0, first = said.columns.filter(name => classes(name) > 1 && classes(name) <= PALETTE.length).sort((a, b) => classes(b) - classes(a))[0];
    if (first) { by.value = first; await colour(); }
    draw();
  }

  async function colour() {
    const wanted = by.value, { values } = wanted ? await get(`/table/column?name=${encodeURIComponent(wanted)}`) : {};
    if (wanted !== by.value) return;
    state.tints = null;
    let colours = null;
    legend.replaceChildren();
    if (wanted) {
      const numeric = values.every(value => value === null || typeof value === "number");
      if (numeric && new Set(values).size > PALETTE.length) {
        const numbers = values.filter(value => value !== null).sort((a, b) => a - b), [low, high] = [numbers[Math.floor(0.02 * numbers.length)], numbers[Math.floor(0.98 * (numbers.length - 1))]];
        colours = values.map(value => value === null ? OTHER : `hsl(${Math.round(260 - 220 * Math.min(1, Math.max(0, (value - low) / (high - low || 1))))} 70% 45%)`);
        legend.append(key("hsl(260 70% 45%)", `${low} and less`), key("hsl(40 70% 45%)", `${high} and more`));
      } else {
        const count = new Map();
        for (const value of values) if (value !== null) count.set(value, (count.get(value) ?? 0) + 1);
        const common = [...count].sort((a, b) => b[1] - a[1]).slice(0, PALETTE.length).map(([value]) => value), colourOf = new Map(common.map((value, number) => [value, PALETTE[number]]));
        colours = values.map(value => colourOf.get(value) ?? OTHER);
        legend.append(...common.map(value => key(colourOf.get(value), String(value))), ...(count.size > common.length ? [key(OTHER, "others")] : []));
      }
    }
    state.tints = colours && Uint32Array.from(state.points, point => tint(colours[point[0]] ?? PALETTE[0]));
    draw();
  }

  const tints = new Map();

  // A colour as the four bytes of a pixel.
  function tint(colour) {
    if (!tints.has(colour)) {
      const pen = canvas.getContext("2d");
      pen.fillStyle = colour;
      const number = parseInt(pen.fillStyle.slice(1), 16);
      tints.set(colour, (0xff000000 | (number & 0xff) << 16 | (number & 0xff00) | number >> 16) >>> 0);
    }
    return tints.get(colour);
  }

  function key(colour, words) {
    const dot = el("i", { "aria-hidden": "true" });
    dot.style.background = colour;
    return el("li", {}, dot, words);
  }

  const place = point => [(point[1] - state.x) * state.zoom * scale() + canvas.clientWidth / 2, (state.y - point[2]) * state.zoom * scale() + canvas.clientHeight / 2];
  const scale = () => 0.92 * Math.min(canvas.clientWidth, canvas.clientHeight);

  let waiting = false;

  // Once for each picture that is shown, however many events there are.
  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  }

  function paint() {
    const ratio = devicePixelRatio || 1, pen = canvas.getContext("2d");
    if (!canvas.clientWidth) return;
    for (const [side, long] of [["width", canvas.clientWidth], ["height", canvas.clientHeight]]) if (canvas[side] !== Math.round(long * ratio)) canvas[side] = Math.round(long * ratio);
    const { width, height } = canvas, image = pen.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
    const size = Math.max(2, Math.min(8, 200 / Math.sqrt(state.points.length) * Math.sqrt(state.zoom)));
    const times = state.zoom * scale() * ratio, plain = tint(PALETTE[0]);
    for (let number = 0; number < state.xs.length; number++) {
      const x = (state.xs[number] - state.x) * times + width / 2, y = (state.y - state.ys[number]) * times + height / 2;
      if (x < -20 || y < -20 || x > width + 20 || y > height + 20) continue;
      const half = ratio * (state.chosen.size && state.chosen.has(state.points[number][0]) ? size + 2 : size) / 2, colour = state.tints ? state.tints[number] : plain;
      const [left, right] = [Math.max(0, Math.round(x - half)), Math.min(width, Math.round(x + half))];
      for (let line = Math.max(0, Math.round(y - half)); line < Math.min(height, Math.round(y + half)); line++) pixels.fill(colour, line * width + left, line * width + right);
    }
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.putImageData(image, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (state.lasso) {
      pen.beginPath();
      state.lasso.forEach(([x, y]) => pen.lineTo(x, y));
      pen.strokeStyle = getComputedStyle(canvas).color;
      pen.stroke();
    }
  }

  function whole() { Object.assign(state, { zoom: 1, x: 0.5, y: 0.5, chosen: new Set() }); found.replaceChildren(); draw(); }

  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const [dx, dy] = [(x - canvas.clientWidth / 2) / scale(), (canvas.clientHeight / 2 - y) / scale()], old = state.zoom;
    state.zoom = Math.min(400, Math.max(0.5, state.zoom * factor));
    state.x += dx / old - dx / state.zoom;
    state.y += dy / old - dy / state.zoom;
    draw();
  }

  const at = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

  canvas.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), ...at(event)); }, { passive: false });
  canvas.addEventListener("keydown", event => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (move) { state.x += 0.1 * move[0] / state.zoom; state.y += 0.1 * move[1] / state.zoom; draw(); event.preventDefault(); }
    if (event.key === "+" || event.key === "=") zoom(1.4);
    if (event.key === "-") zoom(1 / 1.4);
  });
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    drag = { at: at(event), moved: false };
    if (event.shiftKey || lasso.getAttribute("aria-pressed") === "true") state.lasso = [at(event)];
  });
  canvas.addEventListener("pointermove", event => {
    const here = at(event);
    if (!drag) { hover(here); return; }
    drag.moved ||= Math.hypot(here[0] - drag.at[0], here[1] - drag.at[1]) > 3;
    if (state.lasso) state.lasso.push(here);
    else if (drag.moved) { state.x -= (here[0] - drag.at[0]) / scale() / state.zoom; state.y += (here[1] - drag.at[1]) / scale() / state.zoom; drag.at = here; }
    draw();
  });
  canvas.addEventListener("pointerup", event => {
    if (state.lasso) caught();
    else if (drag && !drag.moved) { const point = nearest(at(event)); if (point && known.about.table) tried(openRow)(point[0]); }
    drag = null;
    state.lasso = null;
    draw();
  });
  canvas.addEventListener("pointercancel", () => { drag = null; state.lasso = null; draw(); });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; });

  function nearest([x, y]) {
    const times = state.zoom * scale(), [u, v] = [(x - canvas.clientWidth / 2) / times + state.x, state.y - (y - canvas.clientHeight / 2) / times];
    let best = -1, least = (12 / times) ** 2;
    for (let number = 0; number < state.xs.length; number++) {
      const away = (state.xs[number] - u) ** 2 + (state.ys[number] - v) ** 2;
      if (away < least) { best = number; least = away; }
    }
    return best < 0 ? null : state.points[best];
  }

  function hover(here) {
    const point = nearest(here);
    tip.hidden = !point;
    if (!point || Number(tip.dataset.row) === point[0]) return;
    tip.dataset.row = point[0];
    tip.replaceChildren(...(picture ? [el("img", { src: fileOf(point[0], picture), alt: "", class: "thumb" })] : []), `row ${point[0]}`);
    const [x, y] = place(point);
    tip.style.left = `${Math.min(x + 12, canvas.clientWidth - 110)}px`;
    tip.style.top = `${Math.min(y + 12, canvas.clientHeight - 90)}px`;
  }

  function caught() {
    const line = state.lasso, inside = ([x, y]) => {
      let odd = false;
      for (let a = 0, b = line.length - 1; a < line.length; b = a++) if ((line[a][1] > y) !== (line[b][1] > y) && x < (line[b][0] - line[a][0]) * (y - line[a][1]) / (line[b][1] - line[a][1]) + line[a][0]) odd = !odd;
      return odd;
    };
    const rows = state.points.filter(point => inside(place(point))).map(point => point[0]);
    state.chosen = new Set(rows);
    found.replaceChildren(...rows.slice(0, LISTED).map(row => el("button", { type: "button", class: "card", disabled: !known.about.table, onclick: tried(() => openRow(row)) }, picture ? el("img", { src: fileOf(row, picture), alt: "", class: "thumb", loading: "lazy" }) : null, el("span", { class: "quiet" }, `row ${row}`))));
    notice(`${rows.length.toLocaleString()} rows${rows.length > LISTED ? `, of which ${LISTED} are shown` : ""}`);
  }

  return view;
}
