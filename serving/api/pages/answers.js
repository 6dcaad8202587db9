// Shows the outputs of an answer: labels with scores, a text, a number, a vector as bars, or a table.
import { make, shapeText } from "./make.js";
import { product } from "./fields.js";

const BARS = 96; // most bars in the picture of a vector
const MOST_ROWS = 24;
const MOST_COLUMNS = 16;

// Parses JSON as the server writes it. NaN, Infinity and whole numbers too long for JavaScript become strings.
export function parseAnswer(text) {
  const tokens = /"(?:[^"\\]|\\.)*"|-?Infinity|NaN|-?\d{16,}(?![\d.eE])/g;
  return JSON.parse(text.replace(tokens, (token) => (token.startsWith('"') ? token : `"${token}"`)));
}

// Returns the elements that show the outputs. outputs: [{name, datatype, shape, data}], without data if the output was
// sent as binary data. labelled: names of the outputs that were requested as classes.
export function present(outputs, labelled) {
  const label = outputs.find((output) => output.datatype === "BYTES" && isSingle(output) && !labelled.includes(output.name));
  const score = outputs.find((output) => /score|confidence|probability/i.test(output.name) && isShare(output));
  const together = label && score ? [label, score] : [];
  const sections = outputs.filter((output) => !together.includes(output)).map((output) => section(output, labelled));
  if (together.length) {
    sections.unshift(make("div", { class: "output" }, title(label.name, score.name), make("p", { class: "big" }, String(label.data[0])),
      bars([{ name: score.name, share: score.data[0] }])));
  }
  return sections;
}

const isSingle = (output) => output.data !== undefined && product(output.shape) === 1;
const isShare = (output) => /^FP/.test(output.datatype) && isSingle(output) && output.data[0] >= 0 && output.data[0] <= 1;

function section(output, labelled) {
  const note = `${output.datatype}, ${shapeText(output.shape)}`;
  const block = make("div", { class: "output" }, title(output.name, labelled.includes(output.name) ? "" : note));
  if (output.data === undefined) block.append(make("p", { class: "soft" }, "This output is binary data and is not shown."));
  else if (labelled.includes(output.name)) block.append(bars(output.data.map(parseClass)));
  else if (isSingle(output)) block.append(make("p", { class: output.datatype === "BYTES" ? "said" : "big" }, written(output.data[0])));
  else if (output.shape.filter((size) => size > 1).length > 1) block.append(table(output));
  else if (output.datatype === "BYTES" || output.datatype === "BOOL") block.append(...list(output.data));
  else block.append(...vector(output.data));
  return block;
}

function title(name, note) {
  return make("p", { class: "soft" }, make("b", {}, name), note ? ` ${note}` : "");
}

const written = (value) => (typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value));

// Parses a class such as "0.93:985:daisy". The label may contain colons, or be missing.
function parseClass(text) {
  const [score, index, ...label] = String(text).split(":");
  return { name: label.join(":") || `class ${index}`, share: Number(score) };
}

function bars(entries) {
  const most = Math.max(...entries.map(({ share }) => Math.abs(share)), entries.every(({ share }) => share >= 0 && share <= 1) ? 1 : 1e-9);
  const block = make("div", { class: "bars" });
  for (const { name, share } of entries) {
    const bar = make("i");
    bar.style.width = `${(100 * Math.abs(share)) / most}%`;
    block.append(make("span", {}, name), make("div", {}, bar), make("b", {}, most === 1 ? `${(100 * share).toFixed(1)} %` : written(share)));
  }
  return block;
}

function list(values) {
  const shown = values.slice(0, MOST_ROWS).map((value) => make("p", { class: "said" }, String(value)));
  if (values.length > MOST_ROWS) shown.push(make("p", { class: "soft" }, `… and ${values.length - MOST_ROWS} more`));
  return shown;
}

function vector(values) {
  const numbers = values.map(Number);
  const finite = numbers.filter(Number.isFinite);
  const facts = { values: values.length, minimum: Math.min(...finite), maximum: Math.max(...finite),
    mean: finite.reduce((sum, one) => sum + one, 0) / finite.length, norm: Math.hypot(...finite) };
  const summary = finite.length ? Object.entries(facts).map(([name, value]) => `${name} ${written(value)}`).join(" · ") : "";
  const start = values.slice(0, 8).map(written).join(", ");
  return [
    picture(numbers),
    make("p", { class: "soft" }, summary),
    make("p", { class: "mono" }, values.length > 8 ? `${start}, …` : start),
    ...(values.length > 8 ? [make("details", {}, make("summary", {}, "all values"), make("pre", {}, values.join(", ")))] : []),
  ];
}

// Draws a vector as bars above and below zero. If it is long, each bar shows the value farthest from zero of its group.
function picture(numbers) {
  const per = Math.ceil(numbers.length / BARS);
  const columns = [];
  for (let start = 0; start < numbers.length; start += per) {
    columns.push(numbers.slice(start, start + per).filter(Number.isFinite).reduce((far, one) => (Math.abs(one) > Math.abs(far) ? one : far), 0));
  }
  const high = Math.max(...columns, 0), low = Math.min(...columns, 0), span = high - low || 1;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const draw = (tag, attributes) => {
    const element = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    svg.append(element);
  };
  svg.setAttribute("class", "shape");
  svg.setAttribute("viewBox", `0 0 ${columns.length * 10} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  columns.forEach((value, index) => draw("rect", { x: index * 10 + 1, width: 8, y: (100 * (high - Math.max(value, 0))) / span,
    height: Math.max(1, (100 * Math.abs(value)) / span) }));
  draw("line", { x1: 0, x2: columns.length * 10, y1: (100 * high) / span, y2: (100 * high) / span, "vector-effect": "non-scaling-stroke" });
  return svg;
}

// Shows the last two dimensions as a table; with more dimensions only the first such table.
function table(output) {
  const columns = output.shape[output.shape.length - 1];
  const rows = output.shape[output.shape.length - 2];
  const shownRows = Math.min(rows, MOST_ROWS), shownColumns = Math.min(columns, MOST_COLUMNS);
  const cells = (row) => Array.from({ length: shownColumns }, (_, column) => make("td", {}, written(output.data[row * columns + column])));
  const head = make("tr", {}, make("th"), ...Array.from({ length: shownColumns }, (_, column) => make("th", {}, String(column))));
  const body = Array.from({ length: shownRows }, (_, row) => make("tr", {}, make("th", {}, String(row)), ...cells(row)));
  const left = product(output.shape) - shownRows * shownColumns;
  return make("div", {}, make("div", { class: "scroll" }, make("table", {}, head, ...body)),
    make("p", { class: "soft" }, left ? `${left.toLocaleString("en")} more values are not shown` : ""));
}
