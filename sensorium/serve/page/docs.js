// The routes of the server, from its own description of them.

import { el, notice } from "./dom.js";
import { get } from "./api.js";

const nameOf = schema => !schema ? "" : schema.$ref ? schema.$ref.split("/").at(-1) : schema.anyOf ? schema.anyOf.map(nameOf).join(" or ") : schema.type === "array" ? `list of ${nameOf(schema.items) || "anything"}` : schema.enum ? schema.enum.map(one => `"${one}"`).join(", ") : schema.type ?? (schema.const ? `"${schema.const}"` : "anything");

function fields(schema) {
  const needed = new Set(schema.required ?? []);
  return el("table", {}, el("tbody", {}, Object.entries(schema.properties ?? {}).map(([name, one]) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, name)), el("td", {}, `${nameOf(one)}${needed.has(name) ? ", needed" : one.default !== undefined && one.default !== null ? `, ${JSON.stringify(one.default)} by default` : ""}`), el("td", { class: "quiet" }, one.description ?? "")))));
}

async function begin() {
  const described = await get("/openapi.json"), place = document.querySelector(".routes"), schemas = described.components.schemas;
  place.append(el("p", {}, described.info.description, " Bodies and answers are JSON; what is wrong is answered as OpenAI's API answers it."));
  for (const [path, ways] of Object.entries(described.paths)) for (const [method, way] of Object.entries(ways)) {
    const body = way.requestBody?.content["application/json"].schema, answer = way.responses["200"]?.content?.["application/json"]?.schema;
    place.append(el("section", {}, el("h3", {}, el("code", {}, `${method.toUpperCase()} ${path}`)), el("p", {}, way.description ?? ""), body ? fields(schemas[nameOf(body)] ?? {}) : null, answer?.$ref ? el("details", {}, el("summary", {}, "Answer"), fields(schemas[nameOf(answer)])) : null));
  }
}

begin().catch(error => notice(error.message, true));
