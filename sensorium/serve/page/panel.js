// One cell, large: hide it and ask for it, beside the truth; and why the model says so.

import { el, field, share, tried } from "./dom.js";
import { columns, get, known, post } from "./api.js";
import { drawCell, drawFile } from "./cells.js";
import { drawWhy } from "./why.js";

let before = null;

export function closePanel() {
  const panel = document.getElementById("panel");
  if (panel.hidden) return;
  panel.hidden = true;
  panel.replaceChildren();
  if (before?.isConnected) before.focus();
}

let turn = 0;

export async function openRow(row) {
  const mine = ++turn, said = await get(`/table/rows?rows=${row}`), names = known.about.table.columns;
  if (mine !== turn) return;
  const first = names.find(name => columns()[name]?.kind === "image" && said.rows[0].cells[name]) ?? names[0];
  openPanel(row, first, said.rows[0].cells);
}

export function openPanel(row, column, cells) {
  const panel = document.getElementById("panel"), about = columns()[column];
  if (panel.hidden) before = document.activeElement;
  const picks = Object.keys(columns()).filter(name => name !== column && cells[name] !== null && cells[name] !== undefined && cells[name] !== false && cells[name] !== "");
  const title = el("h2", { tabIndex: -1 }, `${column} of row ${row}`);
  const others = el("nav", { class: "chips", "aria-label": "Other cells of this row" }, known.about.table.columns.filter(name => name !== column).map(name => el("button", { type: "button", onclick: () => openPanel(row, name, cells) }, name)));
  const truth = el("figure", { class: "truth" }, el("figcaption", {}, about?.asked ? "In the table" : "Cell"), drawCell(column, cells[column], row, true));
  panel.replaceChildren(el("button", { type: "button", class: "close", "aria-label": "Close", onclick: closePanel }, "×"), title, truth,
    about?.asked ? asking(row, column, picks, cells) : el("p", { class: "quiet" }, about ? "This run reads the column and did not learn to say it." : "The model doesn't know this column."), others);
  panel.onkeydown = event => { if (event.key === "Escape") closePanel(); };
  panel.hidden = false;
  title.focus();
}

function asking(row, column, picks, cells) {
  const about = columns()[column], said = el("div", { class: "said", "aria-live": "polite" }), why = el("div", { class: "why" });
  const boxes = picks.map(name => el("input", { type: "checkbox", checked: true, value: name, "aria-label": `See ${name}` }));
  const samples = el("input", { type: "number", min: 1, max: 16, value: about.kind === "image" ? 4 : 1 });
  const way = el("select", {}, about.generators.map(name => el("option", {}, name)));
  const seen = () => boxes.filter(box => box.checked).map(box => box.value);
  const ask = el("button", { type: "button", class: "main" }, "Hide it and ask"), reasons = el("button", { type: "button" }, "Why?");
  const inside = el("select", {}, Object.entries(INSIDE).map(([name, words]) => el("option", { value: name }, words)));
  ask.addEventListener("click", tried(async () => {
    said.replaceChildren(el("p", { class: "quiet" }, "Asking …"));
    ask.disabled = true;
    try {
      if (about.drawn) {
        const drawn = await post("/generate", { table_rows: [row], column, seen: seen(), samples: Number(samples.value), generator: way.value || null });
        said.replaceChildren(el("div", { class: "samples" }, drawn.cells[0].map(cell => cell === null ? el("p", {}, "This one failed.") : figure(column, cell))));
      } else {
        const answer = (await post("/predict", { table_rows: [row], column, seen: seen(), coverage: about.kind === "text" ? null : 0.9 })).answers[0];
        said.replaceChildren(answered(answer, cells[column]));
      }
    } catch (error) { said.replaceChildren(); throw error; }
    finally { ask.disabled = false; }
  }));
  reasons.addEventListener("click", tried(async () => {
    why.replaceChildren(el("p", { class: "quiet" }, "Every set of columns is asked, which takes a moment …"));
    reasons.disabled = true;
    try {
      const told = await post("/explain", { table_rows: [row], column, seen: seen(), inside: inside.value });
      why.replaceChildren(told.whys[0] ? drawWhy(told.whys[0], column, row, cells) : el("p", {}, "There is nothing to explain."));
    } catch (error) { why.replaceChildren(); throw error; }
    finally { reasons.disabled = false; }
  }));
  return el("section", { class: "asking", "aria-label": "Ask" }, el("fieldset", {}, el("legend", {}, "The model sees"), picks.map((name, number) => el("label", { class: "pick" }, boxes[number], name)), picks.length ? null : "nothing: the row has no other cell"),
    el("div", { class: "bar" }, about.drawn ? field("Samples", samples) : null, about.drawn && about.generators.length > 1 ? field("Generator", way) : null, ask, reasons, field("Inside cells by", inside)), said, why);
}

// How the inside of a seen cell is looked at.
const INSIDE = { occlusion: "leaving parts out", gradients: "gradients", attention: "attention" };

function figure(column, cell) {
  const about = columns()[column];
  return about.media ? drawFile(about.kind, cell, `${column}, drawn`, true) : drawCell(column, cell, null, true);
}

// A prediction: its value, how sure, its interval or set, and whether it is the table's.
export function answered(answer, truth) {
  const same = truth !== undefined && truth !== null && String(truth) === String(answer.value);
  const lines = [el("strong", { class: same ? "same" : "" }, String(answer.value ?? "nothing")), el("span", { class: "quiet" }, ` ${share(answer.probability)} sure`)];
  if (answer.low !== undefined) lines.push(el("p", { class: "quiet" }, `90 % of such rows lie between ${round(answer.low)} and ${round(answer.high)}.`));
  if (answer.set) lines.push(el("p", { class: "quiet" }, answer.set.length > 1 ? `With 90 % it is one of: ${answer.set.join(", ")}.` : "With 90 % it is this one."));
  return el("div", { class: "answer" }, lines);
}

const round = value => typeof value === "number" ? Number(value.toPrecision(4)) : value;

