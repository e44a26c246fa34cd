// The table, of which only the rows in sight are in the page: filtered, sorted by how surprising rows are, walked through with the keys.

import { el, notice, tried } from "./dom.js";
import { columns, get, known, post, shown } from "./api.js";
import { drawCell } from "./cells.js";
import { openPanel } from "./panel.js";

const PAGE = 50, HIGH = 72, BEYOND = 6, TOGETHER = 128;

export function sheetView() {
  const names = shown(), state = { order: null, total: known.about.table.rows, where: "", pages: new Map(), asked: new Set(), at: [0, 0], turn: 0 };
  const where = el("input", { type: "search", placeholder: 'year > 2015 and group = "food"', "aria-label": "Which rows: a condition", spellcheck: false });
  const count = el("output", { class: "count" });
  const sort = el("button", { type: "button", onclick: tried(bySurprise), hidden: !known.about.surprise.length }, "Most surprising first");
  const body = el("div", { class: "rows", role: "presentation" }), head = el("div", { class: "row head", role: "row", "aria-rowindex": 1 }, el("span", { role: "columnheader" }, "#"),
    names.map(name => el("span", { role: "columnheader", title: columns()[name]?.kind ?? "not the model's" }, name)));
  const grid = el("div", { class: "grid", role: "grid", "aria-label": "Rows of the table", "aria-colcount": names.length + 1, tabIndex: 0 }, head, body);
  const view = el("section", { class: "sheet", "aria-label": "Sheet" }, el("form", { class: "bar", onsubmit: tried(filter) }, where, el("button", {}, "Filter"), sort, count), grid);
  grid.style.setProperty("--columns", names.length);
  grid.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  grid.addEventListener("keydown", walk);
  new ResizeObserver(draw).observe(grid);
  reset();

  function reset() {
    state.pages.clear();
    state.asked.clear();
    state.turn += 1;
    body.style.height = `${state.total * HIGH}px`;
    grid.setAttribute("aria-rowcount", state.total + 1);
    count.textContent = `${state.total.toLocaleString()} rows`;
    body.replaceChildren();
    grid.scrollTop = 0;
    draw();
  }

  async function load(page) {
    if (state.asked.has(page)) return;
    state.asked.add(page);
    const turn = state.turn, start = page * PAGE;
    const asked = state.order ? `rows=${state.order.slice(start, start + PAGE).join(",")}` : `start=${start}&count=${PAGE}${state.where ? `&where=${encodeURIComponent(state.where)}` : ""}`;
    let said;
    try { said = await get(`/table/rows?${asked}`); }
    catch (error) { state.asked.delete(page); throw error; }
    if (turn !== state.turn) return;
    state.pages.set(page, said.rows);
    draw();
  }

  function draw() {
    const first = Math.max(0, Math.floor(grid.scrollTop / HIGH) - BEYOND), last = Math.min(state.total, Math.ceil((grid.scrollTop + grid.clientHeight) / HIGH) + BEYOND);
    const held = body.contains(document.activeElement) ? document.activeElement.closest(".row") : null, there = new Map([...body.children].map(row => [Number(row.dataset.place), row]));
    for (const [place, row] of there) if (place < first || place >= last || row.dataset.empty && state.pages.has(Math.floor(place / PAGE))) row.remove();
    const gone = held && !held.isConnected;
    for (let place = first; place < last; place++) {
      const page = Math.floor(place / PAGE), line = state.pages.get(page)?.[place % PAGE];
      if (!line) tried(load)(page);
      const row = there.get(place);
      if (row?.parentNode === body) continue;
      body.append(rowOf(place, line));
    }
    if (gone) body.querySelector(`[data-place='${state.at[0]}'] [data-column='${state.at[1]}']`)?.focus({ preventScroll: true });
  }

  function rowOf(place, line) {
    const row = el("div", { class: "row", role: "row", "data-place": place, "aria-rowindex": place + 2, "data-empty": line ? undefined : "yes" });
    row.style.top = `${place * HIGH}px`;
    row.append(el("span", { role: "rowheader" }, line ? String(line.row) : "…"));
    names.forEach((name, number) => row.append(el("span", { role: "gridcell", class: `cell ${columns()[name]?.kind ?? "other"}`, tabIndex: state.at[0] === place && state.at[1] === number ? 0 : -1, "data-column": number,
      onclick: () => { state.at = [place, number]; if (line) openPanel(line.row, name, line.cells); } }, line ? drawCell(name, line.cells[name], line.row) : "")));
    return row;
  }

  function walk(event) {
    const step = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], PageDown: [8, 0], PageUp: [-8, 0], Home: [-state.total, 0], End: [state.total, 0] }[event.key];
    const [place, number] = state.at;
    if (event.key === "Enter" && event.target.closest("[role=gridcell], .grid")) {
      const line = state.pages.get(Math.floor(place / PAGE))?.[place % PAGE];
      if (line) openPanel(line.row, names[number], line.cells);
      event.preventDefault();
    }
    if (!step) return;
    event.preventDefault();
    state.at = [Math.min(state.total - 1, Math.max(0, place + step[0])), Math.min(names.length - 1, Math.max(0, number + step[1]))];
    const top = state.at[0] * HIGH;
    if (top < grid.scrollTop) grid.scrollTop = top;
    if (top + HIGH > grid.scrollTop + grid.clientHeight - HIGH) grid.scrollTop = top + 2 * HIGH - grid.clientHeight;
    draw();
    for (const cell of body.querySelectorAll("[role=gridcell][tabindex='0']")) cell.tabIndex = -1;
    const cell = body.querySelector(`[data-place='${state.at[0]}'] [data-column='${state.at[1]}']`);
    if (cell) { cell.tabIndex = 0; cell.focus({ preventScroll: true }); cell.scrollIntoView({ block: "nearest", inline: "nearest" }); }
  }

  async function filter(event) {
    event.preventDefault();
    const said = await get(`/table/rows?start=0&count=1${where.value.trim() ? `&where=${encodeURIComponent(where.value.trim())}` : ""}`);
    Object.assign(state, { where: where.value.trim(), total: said.total, order: null, at: [0, 0] });
    reset();
  }

  async function bySurprise() {
    const turn = state.turn, rows = (await get(`/table/numbers${state.where ? `?where=${encodeURIComponent(state.where)}` : ""}`)).rows, found = [];
    sort.disabled = true;
    try {
      for (let at = 0; at < rows.length; at += TOGETHER) {
        const some = rows.slice(at, at + TOGETHER), said = await post("/surprise", { table_rows: some });
        if (turn !== state.turn) return;
        said.rows.forEach((one, number) => found.push([one.surprise ?? -Infinity, some[number]]));
        notice(`Looked at ${found.length.toLocaleString()} of ${rows.length.toLocaleString()} rows`);
      }
    } finally { sort.disabled = false; }
    found.sort((a, b) => b[0] - a[0]);
    Object.assign(state, { order: found.map(([, row]) => row), total: found.length, at: [0, 0] });
    reset();
  }

  return view;
}
