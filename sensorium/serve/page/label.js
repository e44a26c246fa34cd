// Labels by hand, of the rows the model is least sure of: one key a class, and a table of corrections at the end.

import { el, field, notice, share, tried } from "./dom.js";
import { columns, file, get, known, post, shown } from "./api.js";
import { drawCell } from "./cells.js";

const TOGETHER = 64, MOST = 512, KEYS = "123456789abcdefghijklmnopqrstuvwxyz";

export function labelView() {
  const able = Object.keys(columns()).filter(name => columns()[name].kind === "category" && columns()[name].asked && shown().includes(name));
  const column = el("select", {}, able.map(name => el("option", {}, name))), where = el("input", { type: "search", placeholder: "all rows", spellcheck: false });
  const stage = el("div", { class: "labelling", tabIndex: 0, "aria-label": "The row to label" }), count = el("output", { class: "count" });
  const save = el("button", { type: "button", disabled: true, onclick: tried(keep) }, "Save corrections");
  const view = el("section", { class: "label", "aria-label": "Label" }, el("form", { class: "bar", onsubmit: tried(begin) }, field("Column", column), field("Only rows where", where), el("button", { class: "main" }, "Find what it is unsure of"), save, count), stage);
  let queue = [], at = 0, asked = "", labels = new Map(), turn = 0, onStage = null, unsaved = false;
  stage.addEventListener("keydown", key);

  async function begin(event) {
    event.preventDefault();
    if (unsaved && !confirm(`${labels.size} corrections were not saved. Leave them?`)) return;
    const mine = ++turn, wanted = column.value, found = [];
    onStage = null;
    const { rows } = await get(`/table/numbers${where.value.trim() ? `?where=${encodeURIComponent(where.value.trim())}` : ""}`);
    const step = Math.max(1, rows.length / MOST), some = rows.filter((_, number) => Math.floor(number / step) !== Math.floor((number - 1) / step)).slice(0, MOST);
    for (let start = 0; start < some.length; start += TOGETHER) {
      const part = some.slice(start, start + TOGETHER), said = await post("/predict", { table_rows: part, column: wanted, coverage: 0.98 });
      if (mine !== turn) return;
      said.answers.forEach((answer, number) => found.push({ row: part[number], answer }));
      notice(`Asked of ${found.length} of ${some.length} rows`);
    }
    queue = found.sort((a, b) => a.answer.probability - b.answer.probability);
    [asked, at, labels, unsaved] = [wanted, 0, new Map(), false];
    await show();
  }

  const choices = () => [...new Set([...(queue[at].answer.set ?? [queue[at].answer.value]).map(String), ...columns()[asked].classes])];

  async function show() {
    const mine = ++turn;
    onStage = null;
    save.disabled = !labels.size;
    count.textContent = queue.length ? `${Math.min(at + 1, queue.length)} of ${queue.length}, ${labels.size} corrected` : "";
    if (at >= queue.length) { stage.replaceChildren(el("p", {}, queue.length ? "That was the last one." : "No row is left.")); return; }
    const { row, answer } = queue[at], cells = (await get(`/table/rows?rows=${row}`)).rows[0].cells;
    if (mine !== turn) return;
    onStage = { row, truth: cells[asked] };
    stage.replaceChildren(el("p", {}, `Row ${row}: the model says `, el("strong", {}, String(answer.value)), ` (${share(answer.probability)} sure); the table says `, el("strong", {}, String(cells[asked] ?? "nothing")), "."),
      el("div", { class: "row-large" }, shown().filter(name => name !== asked && cells[name] !== null && cells[name] !== false).map(name => el("figure", {}, el("figcaption", {}, name), drawCell(name, cells[name], row, columns()[name]?.kind === "image" || columns()[name]?.kind === "audio")))),
      el("div", { class: "chips" }, choices().slice(0, KEYS.length).map((value, number) => el("button", { type: "button", onclick: tried(() => choose(value)) }, el("kbd", {}, KEYS[number]), ` ${value}`)), others(), el("button", { type: "button", onclick: tried(() => next()) }, el("kbd", {}, "0"), " leave as it is")));
    stage.focus({ preventScroll: true });
  }

  function others() {
    const rest = choices().slice(KEYS.length), list = el("select", { "aria-label": "More classes", onchange: tried(() => choose(list.value)) }, el("option", { value: "" }, `${rest.length} more`), rest.map(value => el("option", {}, value)));
    return rest.length ? list : null;
  }

  async function choose(value) {
    if (!onStage) return;
    if (String(onStage.truth) !== value) {
      labels.set(onStage.row, value);
      unsaved = true;
    }
    await next();
  }

  async function next() {
    if (!onStage) return;
    at += 1;
    await show();
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !onStage) return;
    if (event.key === "0") { event.preventDefault(); tried(next)(); }
    const value = event.key.length === 1 && KEYS.includes(event.key) ? choices()[KEYS.indexOf(event.key)] : undefined;
    if (value !== undefined) { event.preventDefault(); tried(choose)(value); }
  }

  async function keep() {
    const made = await file("/table/corrections", { column: asked, rows: Object.fromEntries(labels) }), link = el("a", { href: URL.createObjectURL(made), download: "corrections.parquet" });
    link.click();
    unsaved = false;
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    notice(`${labels.size} corrected rows of ${known.about.table.name}, as a table that fit takes`);
  }

  return view;
}
