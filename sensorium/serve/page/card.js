// What the model is: its columns, how it learned, what it knows.

import { el } from "./dom.js";
import { columns, known } from "./api.js";

export function cardView() {
  const { about } = known, facts = about.facts;
  const line = (name, value) => value === undefined || value === null ? null : el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, String(value)));
  const table = el("table", {}, el("thead", {}, el("tr", {}, ["Column", "Kind", "Seen", "Said", "Searched alone", "Classes"].map(word => el("th", { scope: "col" }, word)))), el("tbody", {}, Object.entries(columns()).map(([name, column]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, column.kind), el("td", {}, "yes"), el("td", {}, column.asked ? column.generators.join(", ") : "—"), el("td", {}, column.searched ? "yes" : "—"), el("td", {}, column.classes.length ? `${column.classes.length}: ${column.classes.slice(0, 6).join(", ")}${column.classes.length > 6 ? " …" : ""}` : "")))));
  return el("section", { class: "model", "aria-label": "Model" }, el("h2", {}, about.model),
    el("table", {}, el("tbody", {}, line("Table", facts.table), line("Rows learned from", facts.rows?.train ?? facts.rows), line("Steps", facts.steps), line("Seconds", facts.seconds && Math.round(facts.seconds)), line("Seed", facts.seed), line("Numbers in it", facts.parameters?.toLocaleString()),
      line("Dimensions of a gist", about.gist), line("Rows in the index", about.index?.rows), ...Object.entries(about.index?.recall ?? {}).map(([few, found]) => line(`${few} dimensions find`, `${(100 * found).toFixed(1)} % of the ten nearest`)))),
    el("h3", {}, "Columns"), el("div", { class: "wide" }, table),
    about.report ? [el("h3", {}, "Report"), el("p", {}, el("a", { href: "/report", target: "_blank", rel: "noopener" }, "Open it alone")), el("iframe", { src: "/report", title: "The report of the run", sandbox: "allow-scripts" })] : null);
}
