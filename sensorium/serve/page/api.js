// The server's routes, as functions. What it refuses becomes an Error with its words.

async function asked(path, given = {}) {
  let answer;
  try { answer = await fetch(path, given); }
  catch (error) { if (error.name === "AbortError") throw error; throw new Error("The server can't be reached."); }
  if (answer.ok) return answer;
  let words = `The server answers with ${answer.status}.`;
  try { words = (await answer.json()).error.message; } catch { /* no JSON: its status has to do */ }
  throw new Error(words);
}

export async function get(path, signal) {
  return (await asked(path, { signal })).json();
}

export async function post(path, body, signal) {
  return (await asked(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal })).json();
}

export async function file(path, body) {
  return (await asked(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) })).blob();
}

export const fileOf = (row, column) => `/table/file/${row}/${encodeURIComponent(column)}`;

export const known = { about: null };

export const columns = () => known.about.columns;

export const shown = () => known.about.table ? known.about.table.columns : [];

// A file that a person chose, as a data URL.
export function dataOf(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(new Error("The file can't be read."));
    reader.readAsDataURL(blob);
  });
}
