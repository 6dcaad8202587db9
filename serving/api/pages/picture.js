// The pictures of a release: who answers how much, error rates and latencies with their confidence, and the evidence.
import { make } from "./make.js";

const ROW = 30, LABEL = 46;
const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

export function asPercent(part) {
  const percent = 100 * part;
  return `${percent === 0 ? 0 : percent < 1 ? percent.toPrecision(1) : percent < 10 ? Number(percent.toFixed(1)) : Math.round(percent)} %`;
}

// A bar of all requests: the candidate's part at the left, the stable version's at the right.
export function trafficBar({ stable, candidate, share }) {
  const part = share / 100;
  const text = part ? `version ${candidate} answers ${asPercent(share / 10000)} of the requests, version ${stable} the others` : `version ${stable} answers all requests`;
  const bar = svg("svg", { class: "traffic", height: 26, role: "img", "aria-label": text },
    svg("rect", { class: "rest", x: 0, y: 0, width: "100%", height: 26, rx: 6 }));
  if (part) bar.append(svg("rect", { class: "part", x: 0, y: 0, width: `${part}%`, height: 26, rx: 6 }));
  const key = (style, name) => make("span", { class: `key ${style}` }, make("i"), name);
  return make("div", {}, bar, make("p", { class: "legend" },
    ...(part ? [key("c1", `v${candidate}: ${asPercent(share / 10000)}`)] : []), ...(part < 100 ? [key("c5", `v${stable}: ${asPercent(1 - share / 10000)}`)] : [])));
}

// Values with their confidence on one axis from 0, and the limit. rows: [name, style, {value, low, high}]; says: formats.
export function whiskers(title, rows, limit, says) {
  const height = ROW * rows.length + 18;
  const ends = rows.flatMap(([, , one]) => [one.value, one.high ?? one.value]).filter((value) => value !== null);
  const top = 1.15 * Math.max(...ends, limit ?? 0, 1e-6);
  const x = (value) => `${LABEL / 4 + ((100 - LABEL / 4 - 14) * Math.min(value, top)) / top}%`;
  const seen = rows.map(([name, , one]) => `${name} ${one.value === null ? "unknown" : says(one.value)}`).join(", ");
  const picture = svg("svg", { class: "whiskers", height, role: "img", "aria-label": `${title}: ${seen}${limit === null ? "" : `; limit ${says(limit)}`}` });
  if (limit !== null) {
    picture.append(svg("line", { class: "mark", x1: x(limit), x2: x(limit), y1: 0, y2: height - 16 }),
      svg("text", { x: x(limit), y: height - 3, "text-anchor": "middle" }, `limit ${says(limit)}`));
  }
  rows.forEach(([name, style, { value, low, high }], index) => {
    const y = ROW * index + ROW / 2;
    picture.append(svg("text", { x: 0, y: y + 4 }, name));
    if (value === null) {
      picture.append(svg("text", { x: x(0), y: y + 4 }, "no requests yet"));
      return;
    }
    const group = svg("g", { class: style });
    group.append(svg("line", { class: "span", x1: x(low ?? 0), x2: x(high ?? top), y1: y, y2: y }), svg("circle", { cx: x(value), cy: y, r: 5 }));
    picture.append(group, svg("text", { class: "number", x: "100%", y: y + 4, "text-anchor": "end" }, says(value)));
  });
  return make("figure", { class: "whole" }, make("figcaption", {}, title), picture);
}

const CLAIMS = { exceeds: ["Against it", "bad"], keeps: ["In its favour", "good"] };
const METRICS = { errors: "too many fail", "errors beside stable": "more fail than of the stable version", latency: "it is too slow", value: "clients rate it lower" };
const KEPT = { errors: "few fail", latency: "it is fast enough", value: "clients rate it as well", "errors beside stable": "as few fail as of the stable version" };

// One bar for each finding, full where the evidence is enough. Evidence multiplies, so its logarithm is drawn.
export function evidenceBars(findings) {
  if (!findings.length) return [make("p", { class: "empty" }, "No evidence yet.")];
  return Object.entries(CLAIMS).flatMap(([claim, [title, style]]) => {
    const found = findings.filter((one) => one.claim === claim);
    return found.length ? [make("h3", {}, title), ...found.map((one) => bar(one, style))] : [];
  });
}

function bar(finding, style) {
  const full = finding.shown ? 1 : finding.needed > 1 && finding.evidence > 1 ? Math.min(0.99, Math.log(finding.evidence) / Math.log(finding.needed)) : 0;
  const words = finding.claim === "keeps" ? KEPT : METRICS;
  const picture = svg("svg", { class: `evidence ${style}`, height: 10, "aria-hidden": "true" },
    svg("rect", { class: "rest", width: "100%", height: 10, rx: 4 }), svg("rect", { class: "part", width: `${100 * full}%`, height: 10, rx: 4 }));
  return make("details", { class: "finding" }, make("summary", {}, make("span", {}, `${words[finding.metric] ?? finding.metric}`), make("b", {}, finding.shown ? "shown" : `${Math.floor(100 * full)} %`), picture),
    make("p", { class: "soft" }, finding.text));
}
