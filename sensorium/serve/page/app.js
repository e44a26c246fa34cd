// The page begins: what the server is, and a view for each thing it can do.

import { el, notice } from "./dom.js";
import { get, known } from "./api.js";
import { sheetView } from "./sheet.js";
import { searchView } from "./search.js";
import { mapView } from "./map.js";
import { labelView } from "./label.js";
import { cardView } from "./card.js";
import { closePanel } from "./panel.js";

const VIEWS = {
  sheet: ["Sheet", sheetView, about => about.table],
  search: ["Search", searchView, about => about.index],
  map: ["Map", mapView, about => about.index],
  label: ["Label", labelView, about => about.table && Object.values(about.columns).some(column => column.kind === "category" && column.asked)],
  model: ["Model", cardView, () => true],
};
const made = {};

function open(name) {
  const main = document.getElementById("main");
  closePanel();
  made[name] ??= VIEWS[name][1]();
  main.replaceChildren(made[name]);
  main.dataset.view = name;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.view === name;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
  }
  made[name].dispatchEvent(new CustomEvent("shown"));
  history.replaceState(null, "", `#${name}`);
}

function moveAlong(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const tabs = [...document.querySelectorAll("[role=tab]")], next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
  next.focus();
  open(next.dataset.view);
}

async function begin() {
  try { known.about = await get("/columns"); }
  catch (error) { notice(error.message, true); return; }
  const { about } = known, able = Object.keys(VIEWS).filter(name => VIEWS[name][2](about));
  document.title = `${about.model} · Sensorium`;
  document.getElementById("about").textContent = [about.model, about.table && `${about.table.rows.toLocaleString()} rows of ${about.table.name}`].filter(Boolean).join(" · ");
  document.getElementById("tabs").append(...able.map(name => el("button", { type: "button", role: "tab", "data-view": name, onclick: () => open(name), onkeydown: moveAlong }, VIEWS[name][0])));
  const wanted = location.hash.slice(1);
  open(able.includes(wanted) ? wanted : able[0]);
}

begin();
