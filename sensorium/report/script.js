"use strict";
// Pictures and sounds are stored once, in <template>s, and put in place when they come into view.
const fill = (root) => {
  for (const place of root.querySelectorAll("[data-cell]")) {
    const closed = place.parentElement.closest("details:not([open])");
    const stored = document.getElementById(place.dataset.cell);
    if (!closed && stored) place.replaceWith(stored.content.cloneNode(true));
  }
};
for (const part of document.querySelectorAll("details")) {
  part.addEventListener("toggle", () => part.open && fill(part));
}
fill(document);

// A link to a closed part opens it.
const follow = () => {
  const goal = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!goal) return;
  for (let part = goal; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  goal.scrollIntoView();
};
addEventListener("hashchange", follow);
follow();
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
  fill(document);
});

// Light, dark, or as the system has it.
const button = document.getElementById("theme");
button.hidden = false;
button.addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});

// The section in view is marked in the list of sections.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
if ("IntersectionObserver" in window) {
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main > section")) watch.observe(section);
}

// The steps of a generated cell, from noise to it.
for (const scrub of document.querySelectorAll(".scrub")) {
  const steps = scrub.querySelectorAll("span");
  scrub.querySelector("input").addEventListener("input", (event) => {
    steps.forEach((step, number) => { step.hidden = number !== Number(event.target.value); });
  });
}
