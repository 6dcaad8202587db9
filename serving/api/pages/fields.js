// One form field per input of a model. A field has an element, and a `value()`, one of
//   {shape, data}    numbers or strings as JSON source text, flat
//   {shape, file}    a file whose bytes are the only element of a BYTES tensor
//   {shape, raw}     a file with a whole tensor of little-endian numbers, or null for zeros
//   {missing}        a text that says what the user still has to do
import { make, shapeText } from "./make.js";

const BYTES_PER_ELEMENT = { BOOL: 1, INT8: 1, UINT8: 1, INT16: 2, UINT16: 2, FP16: 2, BF16: 2, INT32: 4, UINT32: 4, FP32: 4,
  INT64: 8, UINT64: 8, FP64: 8 };
const MOST_INPUTS = 12; // most numbers with a box each; more are typed into one text field
const MOST_TYPED = 2048; // most numbers that can be typed; more come from a file or are zeros
const NOT_IN_JSON = ["FP16", "BF16"];
const LOOKS_LIKE_A_FILE = /image|photo|picture|jpe?g|png|audio|sound|speech|wav|video|file|document/i;

export const product = (sizes) => sizes.reduce((all, size) => all * size, 1);
// The number of leading dimensions that are the batch dimension. Fields are for one row, or for a tensor without rows.
const rowsOf = (input) => (input.batched === false ? 0 : 1);
const rowOf = (input) => input.shape.slice(rowsOf(input));
export const byteSize = (datatype, shape) => BYTES_PER_ELEMENT[datatype] * product(shape);

export function fieldFor(input, example, changed) {
  const row = rowOf(input);
  const variable = row.filter((size) => size < 0).length;
  const elements = product(row.filter((size) => size > 0));
  const said = example && example.name === input.name ? example.data : undefined;
  if (input.datatype === "BYTES") {
    return elements === 1 && variable === 0 ? textOrFile(input, said, changed) : lines(input, said, changed);
  }
  if (NOT_IN_JSON.includes(input.datatype) || elements > MOST_TYPED) return rawNumbers(input, changed);
  if (variable || elements > MOST_INPUTS) return typedNumbers(input, said, changed);
  return input.datatype === "BOOL" ? switches(input, said, changed) : boxes(input, said, changed);
}

// -- texts -----------------------------------------------------------------------------------------------------------

function textOrFile(input, said, changed) {
  const shape = input.shape.map((size) => (size < 0 ? 1 : size));
  const id = `field-${input.name}`;
  const text = make("textarea", { id, placeholder: "for example, a sentence", oninput: changed });
  text.value = said ? String(said[0]) : "";
  const drop = dropZone("Drop a file here, or click to choose one", changed);
  const other = make("button", { type: "button", class: "quiet", onclick: () => show(!wantsFile) });
  const label = make("label", { for: id }, input.name, make("small", {}, "a text, or the bytes of a file"));
  let wantsFile;

  function show(file) {
    wantsFile = file;
    text.hidden = file;
    drop.element.hidden = !file;
    other.textContent = file ? "type a text instead" : "send a file instead";
    changed();
  }
  const value = () => {
    if (!wantsFile) return { shape, data: JSON.stringify(text.value) };
    return drop.file() ? { shape, file: drop.file() } : { missing: `choose a file for ${input.name}` };
  };
  show(!said && LOOKS_LIKE_A_FILE.test(input.name));
  return { element: make("div", { class: "field" }, label, text, drop.element, make("div", { class: "row" }, other)), value };
}

function lines(input, said, changed) {
  const id = `field-${input.name}`;
  const text = make("textarea", { id, placeholder: "one text per line", oninput: changed });
  text.value = (said || []).flat(Infinity).join("\n");
  return {
    element: labelled(input, id, "one text per line", text),
    value: () => shaped(input, text.value === "" ? [] : text.value.split("\n").map((line) => JSON.stringify(line))),
  };
}

function dropZone(hint, changed) {
  let file = null;
  const what = make("span", {}, hint);
  const choose = make("input", { type: "file", onchange: () => take(choose.files[0]) });
  const zone = make("label", { class: "drop" }, choose, what);
  let picture = null;

  function take(chosen) {
    if (!chosen) return;
    file = chosen;
    picture?.remove();
    picture = null;
    if (/^image\//.test(file.type)) {
      picture = make("img", { src: URL.createObjectURL(file), alt: "" });
      zone.insertBefore(picture, what);
    }
    what.textContent = `${file.name}, ${file.size.toLocaleString("en")} bytes`;
    changed();
  }
  const over = (is) => (event) => { event.preventDefault(); zone.classList.toggle("over", is); };
  zone.addEventListener("dragover", over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", (event) => { over(false)(event); take(event.dataTransfer.files[0]); });
  return { element: zone, file: () => file };
}

// -- numbers ---------------------------------------------------------------------------------------------------------

function boxes(input, said, changed) {
  const given = (said || []).flat(Infinity);
  const every = Array.from({ length: product(rowOf(input)) }, (_, index) =>
    make("input", { type: "text", inputmode: "decimal", value: given[index] ?? 0, "aria-label": `${input.name} ${index + 1}`, oninput: changed }));
  return {
    element: make("fieldset", { class: "field" }, legend(input), make("div", { class: "grid" }, ...every)),
    value: () => shaped(input, every.map((box) => box.value)),
  };
}

function switches(input, said, changed) {
  const given = (said || []).flat(Infinity);
  const every = Array.from({ length: product(rowOf(input)) }, (_, index) => {
    const one = make("input", { type: "checkbox", onchange: changed });
    one.checked = Boolean(given[index]);
    return one;
  });
  const named = every.map((one, index) => make("label", {}, one, ` ${every.length > 1 ? index + 1 : "true"}`));
  return {
    element: make("fieldset", { class: "field" }, legend(input), make("div", { class: "row" }, ...named)),
    value: () => shaped(input, every.map((one) => String(one.checked))),
  };
}

function typedNumbers(input, said, changed) {
  const id = `field-${input.name}`;
  const text = make("textarea", { id, class: "numbers", spellcheck: "false", placeholder: "1, 2, 3", oninput: changed });
  const count = product(rowOf(input).map((size) => (size < 0 ? 8 : size)));
  const fill = (one) => () => { text.value = Array.from({ length: count }, one).join(", "); changed(); };
  const random = () => (/^FP/.test(input.datatype) ? (Math.random() * 2 - 1).toFixed(3) : Math.floor(Math.random() * 10));
  const zero = () => (input.datatype === "BOOL" ? "false" : 0);
  text.value = (said || Array.from({ length: count }, zero)).flat(Infinity).join(", ");
  const fills = make("div", { class: "row" }, make("button", { type: "button", class: "quiet", onclick: fill(zero) }, "zeros"));
  if (input.datatype !== "BOOL") fills.append(make("button", { type: "button", class: "quiet", onclick: fill(random) }, "random numbers"));
  const element = labelled(input, id, "", text);
  element.append(fills);
  return { element, value: () => shaped(input, text.value.split(/[\s,;[\]]+/).filter((part) => part !== "")) };
}

function rawNumbers(input, changed) {
  const shape = input.shape.map((size, index) => (index < rowsOf(input) ? 1 : size));
  const free = shape.filter((size) => size < 0).length;
  const drop = dropZone("Drop a file of raw little-endian numbers; without one, zeros are sent", changed);
  const sizes = make("input", { type: "text", value: shape.map((size) => (size < 0 ? 1 : size)).join(" × "), oninput: changed, hidden: !free,
    "aria-label": `shape of ${input.name}` });
  const value = () => {
    const chosen = (sizes.value.match(/\d+/g) || []).map(Number);
    const file = drop.file();
    if (!fits(input.shape, chosen)) return { missing: `the shape of ${input.name} is ${shapeText(input.shape)}` };
    const wanted = byteSize(input.datatype, chosen);
    if (file && file.size !== wanted) return { missing: `${file.name} has ${file.size} bytes, ${input.name} needs ${wanted}` };
    return { shape: chosen, raw: file };
  };
  return { element: make("div", { class: "field" }, legendLabel(input), sizes, drop.element), value };
}

// -- shared by all fields --------------------------------------------------------------------------------------------

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

// Returns the value for these elements. If dimensions have an open size, the last one takes all and the others are 1.
function shaped(input, parts) {
  const known = product(rowOf(input).filter((size) => size > 0));
  const open = input.shape.map((size, index) => (index >= rowsOf(input) && size < 0 ? index : -1)).filter((index) => index >= 0);
  const shape = input.shape.map((size) => (size < 0 ? 1 : size));
  if (open.length) shape[open[open.length - 1]] = Math.floor(parts.length / known);
  if (parts.length === 0 || product(shape) !== parts.length) {
    const wanted = open.length ? (known > 1 ? `a multiple of ${known}` : "at least 1") : known;
    return { missing: `${input.name} takes ${wanted} value${wanted === 1 ? "" : "s"}, there ${parts.length === 1 ? "is" : "are"} ${parts.length}` };
  }
  if (input.datatype === "BYTES") return { shape, data: parts.join(",") };
  const wrong = parts.find((part) => (input.datatype === "BOOL" ? !/^(true|false)$/.test(part) : !NUMBER.test(part.trim())));
  if (wrong !== undefined) return { missing: `${input.name}: “${wrong}” is not ${input.datatype === "BOOL" ? "true or false" : "a number"}` };
  return { shape, data: parts.map(source).join(",") };
}

// Returns a number as JSON source: without a plus, a bare point or leading zeros, with all digits as typed.
function source(part) {
  const plain = part.trim().replace(/^\+/, "").replace(/^(-?)0+(?=\d)/, "$1");
  return plain.replace(/^(-?)\./, "$10.").replace(/\.(?=$|[eE])/, "");
}

const fits = (wanted, shape) => wanted.length === shape.length && wanted.every((size, index) => size < 0 ? shape[index] > 0 : size === shape[index]);
const note = (input) => make("small", {}, `${input.datatype}, ${shapeText(rowOf(input)) || "one value"}`);
const legend = (input) => make("legend", {}, input.name, note(input));
const legendLabel = (input) => make("label", {}, input.name, note(input));

function labelled(input, id, hint, ...controls) {
  const small = note(input);
  if (hint) small.append(`, ${hint}`);
  return make("div", { class: "field" }, make("label", { for: id }, input.name, small), ...controls);
}
