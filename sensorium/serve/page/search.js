// Search by any mix of columns: words, files that are chosen, dropped or recorded, and how much each counts.

import { el, field, notice, tried } from "./dom.js";
import { columns, dataOf, fileOf, known, post } from "./api.js";
import { drawCell, drawFile } from "./cells.js";
import { openRow } from "./panel.js";
import { recorded } from "./record.js";

export function searchView() {
  const { index } = known.about, given = {}, weights = {}, parts = {};
  let turn = 0;
  const names = index.columns.filter(name => columns()[name]), results = el("div", { class: "results", "aria-live": "polite", "aria-label": "Found" });
  const among = el("select", {}, el("option", { value: "" }, "all that a row has"), index.among.map(name => el("option", { value: name }, name)));
  const where = el("input", { type: "search", placeholder: 'year > 2015 and group = "food"', spellcheck: false }), without = el("input", { type: "search", placeholder: "words of what shall not be found" });
  const list = el("div", { class: "query" }, names.filter(name => ["text", "image", "audio", "video", "category", "number", "date"].includes(columns()[name].kind)).map(one));
  const view = el("section", { class: "search", "aria-label": "Search" }, el("form", { onsubmit: tried(search) }, list,
    el("div", { class: "bar" }, field("Compare", among), field("Only rows where", where), field("Not like", without), el("button", { class: "main" }, "Search"))), results);
  view.addEventListener("dragover", event => event.preventDefault());
  view.addEventListener("drop", tried(dropped));

  function one(name) {
    const { kind } = columns()[name], slider = el("input", { type: "range", min: 0, max: 3, step: 0.1, value: 1, "aria-label": `How much ${name} counts`, hidden: true, oninput: () => { weights[name] = Number(slider.value); } });
    const shown = el("span", { class: "preview" });
    let input;
    if (kind === "text") input = el("input", { type: "search", "aria-label": name, placeholder: "words", oninput: () => set(input.value) });
    else if (kind === "category") input = el("select", { "aria-label": name, onchange: () => set(input.value) }, el("option", { value: "" }, "any"), columns()[name].classes.map(value => el("option", {}, value)));
    else if (kind === "number") input = el("input", { type: "number", step: "any", "aria-label": name, oninput: () => set(input.value) });
    else if (kind === "date") input = el("input", { type: "search", "aria-label": name, placeholder: "2024-05-01", oninput: () => set(input.value) });
    else input = el("input", { type: "file", accept: `${kind}/*`, "aria-label": name, onchange: tried(async () => set(input.files[0] ? await dataOf(input.files[0]) : "")) });
    function set(value) {
      given[name] = value;
      slider.hidden = !value;
      shown.replaceChildren(...(value && columns()[name].media ? [drawFile(kind, value, `what is looked for in ${name}`, kind !== "image"), el("button", { type: "button", "aria-label": `Leave ${name} out`, onclick: () => { if (input.type === "file") input.value = ""; set(""); } }, "×")] : []));
    }
    parts[name] = set;
    return el("div", { class: "field" }, el("span", {}, name), input, kind === "audio" ? recorder(set) : null, shown, slider);
  }

  function recorder(set) {
    const button = el("button", { type: "button", class: "record" }, "● Record");
    let stop = null;
    button.addEventListener("click", tried(async () => {
      if (stop) { const done = stop; stop = null; button.textContent = "● Record"; set(await dataOf(await done())); return; }
      stop = await recorded();
      button.textContent = "■ Stop";
    }));
    return button;
  }

  async function dropped(event) {
    event.preventDefault();
    const [file] = event.dataTransfer.files, kind = file?.type.split("/")[0];
    const name = names.find(one => columns()[one].kind === kind);
    if (!file) return;
    if (!name) throw new Error(`No column of this index takes ${kind || "such"} files.`);
    parts[name](await dataOf(file));
    await search();
  }

  async function search(event) {
    event?.preventDefault();
    const query = Object.fromEntries(Object.entries(given).filter(([, value]) => value)), counted = Object.fromEntries(Object.entries(weights).filter(([name]) => query[name]));
    if (!Object.keys(query).length) throw new Error("Type some words, or choose, drop or record a file.");
    const text = names.find(name => columns()[name].kind === "text"), begun = performance.now(), mine = ++turn;
    const said = await post("/search", { query, where: where.value.trim() || null, among: among.value || null, k: 48, without: without.value.trim() && text ? { [text]: without.value.trim() } : {}, weights: Object.keys(counted).length ? counted : null });
    if (mine !== turn) return;
    results.replaceChildren(...said.rows.map(card));
    notice(`${said.rows.length} rows in ${Math.round(performance.now() - begun)} ms`);
  }

  function card(line) {
    const row = line.table_row ?? null, there = row !== null, picture = there && names.find(name => columns()[name].kind === "image"), title = names.find(name => columns()[name].kind === "text" && line[name]);
    const sound = !picture && there && names.find(name => columns()[name].kind === "audio");
    return el("button", { type: "button", class: "card", disabled: !there, onclick: tried(() => openRow(row)) },
      picture ? el("img", { src: fileOf(row, picture), alt: "", class: "thumb", loading: "lazy" }) : sound ? drawCell(sound, true, row) : null,
      el("span", { class: "title" }, title ? String(line[title]) : `row ${line.row}`), el("span", { class: "quiet" }, line.score.toFixed(3)));
  }

  return view;
}
