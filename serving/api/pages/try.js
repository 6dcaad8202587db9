// The page to try a model: the list of models, a form, the answer, and the same request for curl and Python.
import { parseAnswer, present } from "./answers.js";
import { fieldFor } from "./fields.js";
import { hasKey, send } from "./key.js";
import { make } from "./make.js";
import { forFetch, forPython, forShell, generateBody, generateForPython, generateForShell, wantedOutputs } from "./request.js";

const $ = (id) => document.getElementById(id);
let model, fields, place, asked = 0; // place: the request's place in a sequence, for a model with state

async function start() {
  try {
    const response = await send("/openapi.json");
    const known = await response.json();
    if (!response.ok) throw new Error(known.error);
    $("server").textContent = known.info.title;
    const models = Object.values(known.paths).map((path) => path.post?.["x-model"]).filter(Boolean);
    $("models").append(...models.map((one) => tab(one)));
    const named = decodeURIComponent(location.hash.slice(1));
    const first = models.find((one) => one.name === named) || models[0];
    if (first) $("models").querySelector(`input[value="${CSS.escape(first.name)}"]`).click();
    else trouble("This server has no models yet.");
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
  asked += 1; // discards an answer that is still to come from the previous model
  history.replaceState(null, "", `#${encodeURIComponent(one.name)}`);
  $("name").textContent = one.name;
  $("description").textContent = one.description;
  place = one.stateful ? newSequence() : null;
  const example = exampleOf(one);
  fields = [];
  fields = one.inputs.map((input) => fieldFor(input, example.find((tensor) => tensor.name === input.name), changed));
  $("fields").replaceChildren(...fields.map((field) => field.element));
  $("answer").hidden = true;
  $("model").hidden = false;
  $("trouble").hidden = true;
  changed();
}

function newSequence() {
  return { sequence_id: 1 + Math.floor(Math.random() * 1e9), sequence_start: true };
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
  const inputs = model.inputs.map((input, index) => ({ ...input, value: values[index] }));
  const missing = values.find((value) => value.missing)?.missing || (model.decoupled && generateBody(inputs).missing);
  $("missing").textContent = missing || "";
  $("run").disabled = Boolean(missing);
  $("sequence").hidden = !place;
  if (place) $("where").textContent = `Sequence ${place.sequence_id}, ${place.sequence_start ? "first request" : "continued"}.`;
  const outputs = wantedOutputs(model);
  const later = `Complete the form first: ${missing}.`;
  const keyed = hasKey();
  $("note").textContent = (model.decoupled ? "Uses only the standard library." : "pip install 'tritonclient[http]'")
    + (keyed ? " Both read your key from the environment variable HEADWAY_KEY." : "");
  if (model.decoupled && !missing) {
    const body = generateBody(inputs).text;
    $("curl").textContent = generateForShell(url(), body, keyed);
    $("python").textContent = generateForPython(url(), body, keyed);
    return;
  }
  $("curl").textContent = missing ? later : forShell(url(), inputs, outputs, place, keyed);
  $("python").textContent = missing ? later : forPython(location.host, location.protocol === "https:", model.name, inputs, outputs, place, keyed);
}

const url = () => `${location.origin}/v2/models/${encodeURIComponent(model.name)}/${model.decoupled ? "generate_stream" : "infer"}`;

async function run(event) {
  event.preventDefault();
  const inputs = model.inputs.map((input, index) => ({ ...input, value: fields[index].value() }));
  const outputs = wantedOutputs(model);
  const mine = ++asked;
  $("run").disabled = true;
  const began = performance.now();
  try {
    if (model.decoupled) return await listen(generateBody(inputs).text, mine);
    const response = await send(url(), { method: "POST", ...forFetch(inputs, outputs, place) });
    const body = await response.arrayBuffer();
    const took = performance.now() - began;
    if (mine !== asked) return;
    const length = Number(response.headers.get("inference-header-content-length")) || body.byteLength;
    const answer = parseAnswer(new TextDecoder().decode(body.slice(0, length)));
    if (!response.ok) throw new Error(`${response.status}: ${answer.error}`);
    const labelled = outputs.filter((output) => output.classes).map((output) => output.name);
    const raw = make("details", {}, make("summary", {}, "raw answer"), make("pre", {}, new TextDecoder().decode(body.slice(0, length))));
    $("outputs").replaceChildren(...present(answer.outputs, labelled), raw);
    if (place) place.sequence_start = false;
    changed();
    $("timing").textContent = timing(response.headers.get("server-timing"), took);
  } catch (error) {
    if (mine !== asked) return;
    const alarm = make("p", { class: "alarm", role: "alert" }, error.message);
    if (model.decoupled && !$("answer").hidden) $("outputs").append(alarm);
    else $("outputs").replaceChildren(alarm);
    $("timing").textContent = "";
  } finally {
    $("run").disabled = false;
  }
  $("answer").hidden = false;
}

// Shows the answers of a generating model as they arrive, joined into one text.
async function listen(body, mine) {
  const chosen = model;
  $("outputs").replaceChildren();
  const response = await send(url(), { method: "POST", body });
  if (!response.ok) throw new Error(`${response.status}: ${(await response.json()).error}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const said = make("p", { class: "said" }), count = make("p", { class: "soft" });
  $("outputs").replaceChildren(said, count);
  $("timing").textContent = "";
  $("answer").hidden = false;
  let rest = "", answers = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (mine !== asked) return reader.cancel();
    const events = (rest + part.value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const answer = parseAnswer(event.replace(/^data: /, ""));
      if (answer.error) throw new Error(answer.error);
      answers += 1;
      said.append(chosen.outputs.map(({ name }) => [answer[name]].flat().join(" ")).join("  "), " ");
      count.textContent = `${answers} answer${answers === 1 ? "" : "s"}`;
    }
  }
  if (!answers) count.textContent = "no answer";
}

function timing(header, took) {
  const said = [...(header || "").matchAll(/(\w+);dur=([\d.]+)/g)].map(([, what, ms]) => `${what} ${Number(ms).toFixed(1)} ms`);
  return [...said, `total in the browser ${took.toFixed(0)} ms`].join(" · ");
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
$("anew").addEventListener("click", () => { place = newSequence(); changed(); });
$("form").addEventListener("submit", run);
start();
