// Elements made from words: text stays text, so nothing that a table holds can run here.

export function el(name, given = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (key in made && !key.startsWith("aria") && key !== "list" && key !== "form") made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...inside.flat().filter(one => one !== null && one !== undefined && one !== false));
  return made;
}

export function svg(name, given = {}, ...inside) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

export function notice(words, bad = false) {
  const place = document.getElementById("notice");
  place.textContent = words;
  place.classList.toggle("bad", bad);
  clearTimeout(notice.timer);
  if (words) notice.timer = setTimeout(() => { place.textContent = ""; }, bad ? 12000 : 4000);
}

// Runs something that may fail, and says so where it does.
export function tried(work) {
  return async (...given) => {
    try { return await work(...given); }
    catch (error) { if (error.name !== "AbortError") notice(error.message, true); }
  };
}

export function field(words, input) {
  return el("label", { class: "field" }, el("span", {}, words), input);
}

export function share(value) {
  return value > 0.999 ? "over 99.9 %" : `${(100 * value).toFixed(value > 0.99 || value < 0.01 ? 1 : 0)} %`;
}
