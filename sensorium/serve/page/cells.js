// A cell, drawn as its kind is: a picture, a sound to play, a curve, words.

import { el, svg } from "./dom.js";
import { columns, fileOf } from "./api.js";

const COLOURS = ["#0b7285", "#c2255c", "#5f3dc4", "#e67700", "#2b8a3e", "#364fc7"];

// What a row's cell holds; of files its address.
export function drawCell(column, value, row, large = false) {
  const about = columns()[column];
  if (value === null || value === undefined || value === false && about?.media) return el("span", { class: "none" }, "—");
  if (about?.media) return drawFile(about.kind, value === true ? fileOf(row, column) : value, `${column} of row ${row}`, large);
  if (about?.kind === "series" && typeof value === "object") return drawCurve(value, large);
  if (about?.kind === "points" && typeof value === "object") return drawPoints(value, large);
  return el("span", { class: about?.kind ?? "text" }, typeof value === "object" ? JSON.stringify(value) : String(value));
}

export function drawFile(kind, address, words, large = false) {
  if (kind === "image") return el("img", { src: address, alt: words, loading: large ? "eager" : "lazy", class: large ? "large" : "thumb", draggable: false });
  if (kind === "audio") return large ? el("audio", { src: address, controls: true, preload: "metadata", "aria-label": words }) : playButton(address, words);
  if (kind === "video") return drawClip(address, words, large);
  return el("a", { href: address, download: true }, words);
}

// A clip may be a moving picture (WebP, GIF) or a film (MP4): what can't be shown as one is shown as the other.
function drawClip(address, words, large) {
  const picture = el("img", { src: address, alt: words, loading: large ? "eager" : "lazy", class: large ? "large" : "thumb" });
  picture.addEventListener("error", () => {
    picture.replaceWith(el("video", { src: address, controls: large, muted: true, loop: true, autoplay: large, preload: "metadata", class: large ? "large" : "thumb", "aria-label": words }));
  }, { once: true });
  return picture;
}

let playing = null;

function playButton(address, words) {
  const button = el("button", { type: "button", class: "play", tabIndex: -1, "aria-label": `Play ${words}`, onclick: event => {
    event.stopPropagation();
    if (playing) playing.pause();
    playing = new Audio(address);
    playing.play().catch(() => { button.textContent = "✕"; });
  } }, "▶");
  return button;
}

// A series as channels over time; gaps stay gaps.
export function drawCurve(value, large = false) {
  const channels = channelsOf(value);
  const [wide, high] = large ? [480, 200] : [140, 48];
  const numbers = channels.flat().filter(Number.isFinite);
  const [low, top] = [Math.min(...numbers), Math.max(...numbers)];
  const picture = svg("svg", { viewBox: `0 0 ${wide} ${high}`, class: large ? "curve large" : "curve", role: "img", "aria-label": `${channels.length} channels of ${channels[0]?.length ?? 0} steps, ${low} to ${top}` });
  channels.slice(0, 6).forEach((channel, number) => {
    let path = "", pen = "M";
    channel.forEach((one, step) => {
      if (!Number.isFinite(one)) { pen = "M"; return; }
      path += `${pen}${(step / Math.max(1, channel.length - 1) * (wide - 4) + 2).toFixed(1)} ${(high - 2 - (one - low) / (top - low || 1) * (high - 4)).toFixed(1)}`;
      pen = "L";
    });
    picture.append(svg("path", { d: path, fill: "none", stroke: COLOURS[number], "stroke-width": large ? 2 : 1.4 }));
  });
  return picture;
}

function channelsOf(value) {
  if (!Array.isArray(value)) return Object.values(value);
  if (!Array.isArray(value[0])) return [value];
  return value.length >= value[0].length ? value[0].map((_, channel) => value.map(step => step[channel])) : value;
}

function drawPoints(value, large) {
  const points = (Array.isArray(value) ? value : Object.values(value)).filter(point => Array.isArray(point)), side = large ? 300 : 56;
  const [xs, ys] = [points.map(point => point[0]), points.map(point => point[1])];
  const [left, low] = [Math.min(...xs), Math.min(...ys)], reach = Math.max(Math.max(...xs) - left, Math.max(...ys) - low) || 1;
  const picture = svg("svg", { viewBox: `0 0 ${side} ${side}`, class: large ? "points large" : "points", role: "img", "aria-label": `${points.length} points` });
  for (const point of points.slice(0, 2000)) picture.append(svg("circle", { cx: 2 + (point[0] - left) / reach * (side - 4), cy: side - 2 - (point[1] - low) / reach * (side - 4), r: large ? 1.6 : 0.8, fill: COLOURS[0] }));
  return picture;
}
