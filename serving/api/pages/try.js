// The page to try a model: what there is to try, a form for it, its answer, and how to ask the same elsewhere.
import { parseAnswer, present } from "./answers.js";
import { fieldFor } from "./fields.js";
import { make } from "./make.js";
import { forFetch, forPython, forShell, wantedOutputs } from "./request.js";

const $ = (id) => document.getElementById(id);
let model, fields, asked = 0;

async function start() {
  try {
    const known = await (await fetch("/openapi.json")).json();
    $("server").textContent = known.info.title;
    const models = Object.values(known.paths).map((path) => path.post?.["x-model"]).filter(Boolean);
    $("models").append(...models.map((one) => tab(one)));
    const named = decodeURIComponent(location.hash.slice(1));
    const first = models.find((one) => one.name === named) || models[0];
    if (first) $("models").querySelector(`input[value="${CSS.escape(first.name)}"]`).click();
    else trouble("No model is served here yet.");
  } catch (error) {
    trouble(`The server does not answer: ${error.message}`);
  }
}

function tab(one) {
  const choose = make("input", { type: "radio", name: "model", value: one.name, onchange: () => show(one) });
  const ready = one.state === "READY";
  const dot = make("i", { class: ready ? "dot ready" : "dot", title: one.state.toLowerCase() });
  return make("label", {}, choose, make("span", {}, dot, one.name, ready ? "" : make("small", { class: "soft" }, one.state.toLowerCase())));
}

function show(one) {
  model = one;
  asked += 1; // what is still on its way belongs to another model
  history.replaceState(null, "", `#${encodeURIComponent(one.name)}`);
  $("name").textContent = one.name;
  $("description").textContent = one.description;
  const example = exampleOf(one);
  fields = [];
  fields = one.inputs.map((input) => fieldFor(input, example.find((tensor) => tensor.name === input.name), changed));
  $("fields").replaceChildren(...fields.map((field) => field.element));
  $("answer").hidden = true;
  $("model").hidden = false;
  $("trouble").hidden = true;
  changed();
}

function exampleOf(one) {
  try {
    return JSON.parse(one.example).inputs;
  } catch {
    return [];
  }
}

function changed() {
  if (!fields?.length) return;
  const values = fields.map((field) => field.value());
  const missing = values.find((value) => value.missing)?.missing;
  $("missing").textContent = missing || "";
  $("run").disabled = Boolean(missing);
  const inputs = model.inputs.map((input, index) => ({ ...input, value: values[index] }));
  const outputs = wantedOutputs(model);
  const later = `Here it will stand: ${missing}.`;
  $("curl").textContent = missing ? later : forShell(url(), inputs, outputs);
  $("python").textContent = missing ? later : forPython(location.host, location.protocol === "https:", model.name, inputs, outputs);
}

const url = () => `${location.origin}/v2/models/${encodeURIComponent(model.name)}/infer`;

async function run(event) {
  event.preventDefault();
  const inputs = model.inputs.map((input, index) => ({ ...input, value: fields[index].value() }));
  const outputs = wantedOutputs(model);
  const mine = ++asked;
  $("run").disabled = true;
  const began = performance.now();
  try {
    const response = await fetch(url(), { method: "POST", ...forFetch(inputs, outputs) });
    const body = await response.arrayBuffer();
    const took = performance.now() - began;
    if (mine !== asked) return;
    const length = Number(response.headers.get("inference-header-content-length")) || body.byteLength;
    const answer = parseAnswer(new TextDecoder().decode(body.slice(0, length)));
    if (!response.ok) throw new Error(`${response.status}: ${answer.error}`);
    const labelled = outputs.filter((output) => output.classes).map((output) => output.name);
    const raw = make("details", {}, make("summary", {}, "as it came"), make("pre", {}, new TextDecoder().decode(body.slice(0, length))));
    $("outputs").replaceChildren(...present(answer.outputs, labelled), raw);
    $("timing").textContent = timing(response.headers.get("server-timing"), took);
  } catch (error) {
    if (mine !== asked) return;
    $("outputs").replaceChildren(make("p", { class: "alarm", role: "alert" }, error.message));
    $("timing").textContent = "";
  } finally {
    $("run").disabled = false;
  }
  $("answer").hidden = false;
}

function timing(header, took) {
  const said = [...(header || "").matchAll(/(\w+);dur=([\d.]+)/g)].map(([, what, ms]) => `${what} ${Number(ms).toFixed(1)} ms`);
  return [...said, `here ${took.toFixed(0)} ms`].join(" · ");
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = false;
}

for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($(button.dataset.copies).textContent);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
}
$("form").addEventListener("submit", run);
start();
