// Draws values over time as an SVG chart. The legend shows the values at the pointer.
import { make } from "./make.js";

const HEIGHT = 118, LEFT = 2, TOP = 14, BOTTOM = 18;
const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

// ats: the instants of the values, in s since 1970. series: [{name, style, values, filled, stepped}], with one value for
// each instant, null if there is none. says: formats a value as text. mark: {value, text}, a horizontal line to compare
// with, drawn if it is within the axis. most, ends: bounds of the axis' upper end. least: its lower end instead of 0, if
// no value is smaller. base: of its round numbers; 1024 for bytes.
export function chart(place, { ats, series, says, mark, most, least, ends = 0, base, label }) {
  const width = Math.max(120, place.clientWidth);
  const values = series.flatMap((one) => one.values).filter((value) => value !== null);
  const top = Math.min(most ?? Infinity, roundUp(Math.max(...values, ends), base));
  const bottom = least === undefined ? 0 : Math.min(least, ...values);
  const x = (index) => LEFT + (index * (width - 2 * LEFT)) / Math.max(1, ats.length - 1);
  const y = (value) => TOP + (1 - (Math.min(value, top) - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": label });
  for (const share of [0, 0.5, 1]) {
    const at = TOP + share * (HEIGHT - TOP - BOTTOM);
    picture.append(svg("line", { class: "grid-line", x1: 0, x2: width, y1: at, y2: at }));
  }
  if (mark && bottom <= mark.value && mark.value <= top) {
    picture.append(svg("line", { class: "mark", x1: 0, x2: width, y1: y(mark.value), y2: y(mark.value) }));
    picture.append(svg("text", { x: width - 2, y: y(mark.value) + (y(mark.value) < TOP + 12 ? 11 : -3), "text-anchor": "end" }, mark.text));
  }
  for (const one of series) picture.append(...curve(one, x, y, y(bottom)));
  if (values.length) picture.append(svg("text", { x: 0, y: TOP - 4 }, says(top)));
  if (values.length && bottom) picture.append(svg("text", { x: 0, y: y(bottom) - 4 }, says(bottom)));
  const minutes = Math.round((ats.at(-1) - ats[0]) / 60);
  picture.append(
    svg("text", { x: 0, y: HEIGHT - 4 }, `${minutes} min ago`),
    svg("text", { x: width, y: HEIGHT - 4, "text-anchor": "end" }, "now"),
  );
  if (!values.length) picture.append(svg("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "no data yet"));
  const hand = svg("line", { class: "hand", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  picture.append(hand);
  const legend = make("p", { class: "legend" });
  const rest = () => {
    hand.setAttribute("visibility", "hidden");
    legend.replaceChildren(...(series.length > 1 ? series.map((one) => entry(one, one.name)) : ["\u00a0"]));
  };
  const point = (event) => {
    const share = (event.clientX - picture.getBoundingClientRect().left) / width;
    const index = Math.max(0, Math.min(ats.length - 1, Math.round(share * (ats.length - 1))));
    for (const end of ["x1", "x2"]) hand.setAttribute(end, x(index));
    hand.setAttribute("visibility", "visible");
    const entries = series.map((one) => entry(one, `${series.length > 1 ? `${one.name} ` : ""}${one.values[index] === null ? "–" : says(one.values[index])}`));
    legend.replaceChildren(make("span", {}, new Date(ats[index] * 1000).toLocaleTimeString()), ...entries);
  };
  picture.addEventListener("pointermove", point);
  picture.addEventListener("pointerdown", point);
  picture.addEventListener("pointerleave", rest);
  rest();
  place.replaceChildren(picture, legend);
}

const entry = (one, text) => make("span", { class: `key ${one.style}` }, make("i"), text);

// Draws a line for each part of a series without gaps, and the area below it if it is filled.
function curve({ style, values, filled, stepped }, x, y, floor) {
  const paths = [];
  let start = 0;
  while (start < values.length) {
    let end = start;
    while (end < values.length && values[end] !== null) end += 1;
    if (end > start) {
      let line = `M${x(start)} ${y(values[start])}`;
      for (let index = start + 1; index < end; index += 1) line += `${stepped ? `H${x(index)}V` : `L${x(index)} `}${y(values[index])}`;
      if (end === start + 1) line += "h2";
      if (filled) paths.push(svg("path", { class: `area ${style}`, d: `${line}L${x(end - 1)} ${floor}L${x(start)} ${floor}Z` }));
      paths.push(svg("path", { class: `curve ${style}`, d: line }));
    }
    start = end + 1;
  }
  return paths;
}

// Rounds up to the next round number; returns 1 for zero.
function roundUp(value, base) {
  if (value <= 0) return 1;
  if (base) {
    const large = base ** Math.floor(Math.log(value) / Math.log(base));
    return large * roundUp(value / large);
  }
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 1.5, 2, 3, 4, 6, 8, 10].find((step) => step * unit >= value * 0.999);
}
