// Why a cell was said: bars for columns, heat over what they hold, and the nearest rows.

import { el, svg, tried } from "./dom.js";
import { columns, fileOf, known } from "./api.js";
import { drawCell } from "./cells.js";
import { openRow } from "./panel.js";

export function drawWhy(why, column, row, cells) {
  const shares = Object.entries(why.shares).sort((a, b) => b[1] - a[1]), most = Math.max(...shares.map(([, one]) => Math.abs(one)), 1e-9);
  const bars = el("table", { class: "bars" }, el("caption", {}, `From ${why.nothing.toFixed(2)} (nothing seen) to ${why.everything.toFixed(2)} (all of it): what each column had in that`),
    el("tbody", {}, shares.map(([name, one]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, bar(one / most)), el("td", { class: "number" }, `${one >= 0 ? "+" : ""}${one.toFixed(2)}`)))));
  const inside = shares.filter(([name]) => why.parts[name]?.names.length).map(([name]) => heat(name, why.parts[name], row, cells, why.pictures?.[name]));
  return el("div", {}, el("h3", {}, "Why"), bars, inside, why.index ? near(why.index, column, why.answer, row) : null);
}

function bar(length) {
  const width = Math.abs(length) * 60;
  return svg("svg", { viewBox: "0 0 124 12", class: "bar-of", "aria-hidden": "true" }, svg("rect", { x: length < 0 ? 62 - width : 62, y: 1, width: Math.max(1, width), height: 10, class: length < 0 ? "against" : "for" }), svg("path", { d: "M62 0v12", class: "middle" }));
}

// What each part of a cell did to the answer, as strength -1 to 1.
function strengths(part) {
  const mean = part.worse.map(tokens => Array.isArray(tokens) ? tokens.reduce((a, b) => a + b, 0) / Math.max(1, tokens.length) : tokens);
  const most = Math.max(...mean.map(Math.abs), 1e-9);
  return mean.map(one => one / most);
}

function heat(name, part, row, cells, picture) {
  const about = columns()[name], strong = strengths(part), title = el("h4", {}, `In ${name}`);
  const timed = part.names.map((word, number) => [word, strong[number]]).filter(([word]) => word.startsWith("step ") || word.endsWith(" s")), others = part.names.map((word, number) => [word, strong[number]]).filter(([word]) => !timed.some(([one]) => one === word));
  if (picture && about.kind !== "image" && timed.length) return el("figure", { class: "heat" }, title, about.kind === "audio" ? drawCell(name, cells[name], row, true) : null, along(name, timed, row, picture),
    el("div", { class: "steps" }, others.map(([word, strength]) => mark(word, strength))));
  if (about.kind === "image") return el("figure", { class: "heat" }, title, over(name, part.names, strong, row, picture));
  if (about.kind === "text") return el("p", { class: "heat words" }, title, part.names.map((word, number) => mark(word, strong[number])));
  return el("div", { class: "heat" }, title, about.media && about.kind === "audio" ? drawCell(name, cells[name], row, true) : null,
    el("div", { class: "steps" }, part.names.map((word, number) => mark(word, strong[number]))));
}

function mark(word, strength) {
  const made = el("mark", { title: `${(100 * strength).toFixed(0)} % of the strongest` }, word);
  made.style.background = tint(strength, 0.75);
  return made;
}

const tint = (strength, most) => strength >= 0 ? `rgb(11 114 133 / ${(strength * most).toFixed(3)})` : `rgb(194 37 92 / ${(-strength * most).toFixed(3)})`;

function over(name, names, strong, row, read) {
  const side = Math.round(Math.sqrt(names.length)), picture = svg("svg", { viewBox: `0 0 ${side} ${side}`, class: "over", role: "img", "aria-label": `What in ${name} counted: ${names[strong.indexOf(Math.max(...strong))]} most (line, column)` });
  names.forEach((place, number) => {
    const [line, across] = place.split(",").map(Number), one = svg("rect", { x: across - 1, y: line - 1, width: 1, height: 1 });
    one.style.fill = tint(strong[number], 0.85);
    picture.append(one);
  });
  return el("div", { class: "stack" }, el("img", { src: read ?? fileOf(row, name), alt: `${name} of row ${row}, as the model reads it`, class: "large" }), picture);
}

// Time from left to right over a spectrogram, or over a series' channels.
function along(name, timed, row, read) {
  const strongest = timed.reduce((best, one) => one[1] > best[1] ? one : best), picture = svg("svg", { viewBox: `0 0 ${timed.length} 1`, preserveAspectRatio: "none", class: "over", role: "img", "aria-label": `What in ${name} counted: from ${strongest[0]} on most` });
  timed.forEach(([, strength], number) => {
    const one = svg("rect", { x: number, y: 0, width: 1, height: 1 });
    one.style.fill = tint(strength, 0.6);
    picture.append(one);
  });
  return el("div", { class: "stack wide" }, el("img", { src: read, alt: `${name} of row ${row}, as the model reads it` }), picture);
}

function near(found, column, answer, row) {
  const others = lines => lines.filter(line => (line.table_row ?? null) !== row).slice(0, 4), list = (words, lines) => lines.length ? [el("h4", {}, words), el("div", { class: "chips" }, lines.map(line => example(line, column)))] : [];
  return el("div", { class: "near" }, list(found.contrast.length ? `Nearest rows, also ${answer}` : "Nearest rows", others(found.nearest)), list("Nearest rows of others", others(found.contrast)));
}

function example(line, column) {
  const row = line.table_row ?? null, picture = row !== null && Object.keys(columns()).find(name => columns()[name].kind === "image");
  return el("button", { type: "button", class: "example", disabled: row === null, onclick: tried(() => openRow(row)) }, picture ? el("img", { src: fileOf(row, picture), alt: "", class: "thumb" }) : null,
    `row ${line.row}${line[column] !== undefined ? `: ${line[column]}` : ""}`);
}
