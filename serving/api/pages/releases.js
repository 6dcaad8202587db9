// The releases of a model: the running one as a picture, versions with their approvals, and the history. Polls the server.
import { hasKey, isAsking, send } from "./key.js";
import { make } from "./make.js";
import { asPercent, evidenceBars, trafficBar, whiskers } from "./picture.js";

const $ = (id) => document.getElementById(id);
const OFF = "This server has no registry, so it releases nothing. With the package obstore (pip install 'headway[auth]') it keeps one in its state.";
const NO_MODEL = "There is no model here that you may see.";
const NAME = "headway-name"; // the visitor's, for a server that asks nobody for a key
const PHASES = { testing: "is deployed and tested", stepping: "is being released", held: "is held", promoted: "was promoted",
  "rolled back": "was rolled back", aborted: "was aborted", overtaken: "ended: the traffic was set by hand" };
const RUNNING = ["testing", "stepping", "held"];
let chosen = new URLSearchParams(location.search).get("model"), known = null, drawnVersions = "", drawnHistory = "";

const time = (at) => new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
const who = (by) => by.replace(/^user:/, "");
const span = (seconds) => (seconds < 100 ? `${Math.round(seconds)} s` : seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`);

function drawState() {
  const { release, route, may, now } = known;
  const runs = release && RUNNING.includes(release.phase);
  if (!release) $("state").textContent = `Version ${route.stable} answers all requests. There has been no release yet.`;
  else if (!runs) $("state").textContent = `Version ${release.version} ${PHASES[release.phase]} ${span(now - release.ended_s)} ago. Version ${route.stable} answers ${route.share ? "the other" : "all"} requests.`;
  else if (release.phase === "testing") $("state").textContent = `Version ${release.version} ${PHASES.testing}. No client's request reaches it yet.`;
  else $("state").textContent = `Version ${release.version} ${PHASES[release.phase]}: it has ${asPercent(route.share / 10000)} of the requests, for ${span(now - release.stepped_s)}.`;
  $("state").classList.toggle("bad", Boolean(release) && ["rolled back", "held"].includes(release.phase));
  $("traffic").replaceChildren(trafficBar(route));
  $("steps").hidden = !release;
  if (release) $("steps").replaceChildren(...stepsOf(release));
  $("waits").textContent = !release ? "" : runs && release.phase !== "held" ? release.waits_for || (release.phase === "testing" ? release.why : "") : release.why;
  $("actions").hidden = !runs || !may.release;
  $("hold").hidden = release?.phase === "held";
  $("resume").hidden = release?.phase !== "held";
}

// The tests and the steps of a release in their order, with a word for each: done, now, to come.
function stepsOf(release) {
  const isOver = !RUNNING.includes(release.phase);
  const words = (index) => {
    if (release.phase === "promoted" || index < release.step) return ["done", "done"];
    if (index === release.step) return isOver ? ["bad", "ended here"] : ["now", release.phase === "held" ? "held" : "now"];
    return ["", isOver ? "not reached" : "to come"];
  };
  const tests = [["smoke", "Example"], ["shadow", "Replay"]].filter(([name]) => (name === "smoke" ? release.plan.smoke : release.plan.shadow));
  return [
    ...tests.map(([name, text]) => {
      const outcome = release.tests[name];
      const state = outcome ? (outcome.passed ? "done" : "bad") : isOver ? "" : "now";
      return entry(text, state, outcome ? (outcome.passed ? "passed" : "failed") : isOver ? "not made" : "to come");
    }),
    ...release.plan.shares.map((share, index) => entry(asPercent(share / 10000), ...words(index))),
  ];
}

const entry = (text, state, word) => make("li", { class: state, ...(state === "now" ? { "aria-current": "step" } : {}) }, make("b", {}, text), make("span", {}, word));

function drawEvidence() {
  const { release } = known;
  const arms = release?.arms;
  $("evidence").hidden = !arms;
  if (!arms) return;
  const stable = arms.stable.p95_ms.value, limit = stable === null ? null : release.plan.slower * stable;
  const rows = (name) => [[`v${release.version}`, "c1", arms.candidate[name]], [`v${release.stable}`, "c5", arms.stable[name]]];
  const counts = (name, arm) => `${name} computed ${arm.computed}` + [["failed", "failed"], ["refused", "refused"], ["cached", "answered from the cache"]]
    .filter(([field]) => arm[field]).map(([field, word]) => `, ${arm[field]} ${word}`).join("");
  $("arms-note").textContent = `${counts(`v${release.version}`, arms.candidate)}; ${counts(`v${release.stable}`, arms.stable)}. Lines show where the true value is, in 95 of 100 looks.`;
  $("arms").replaceChildren(
    whiskers("Failed requests", rows("errors"), release.plan.errors, asPercent),
    whiskers("95 of 100 answers take at most", rows("p95_ms"), limit, (ms) => `${ms < 10 ? ms.toPrecision(2) : Math.round(ms)} ms`),
    ...(arms.candidate.values + arms.stable.values ? [make("p", { class: "soft" }, `Values that clients sent back: v${release.version} ${mean(arms.candidate)}, v${release.stable} ${mean(arms.stable)}.`)] : []),
  );
  $("findings").replaceChildren(...evidenceBars(release.judgement?.findings ?? []));
}

const mean = (arm) => (arm.values ? `${arm.value.toFixed(3)} on average of ${arm.values}` : "none");

function drawVersions() {
  const text = JSON.stringify([known.versions, known.may, known.route]);
  if (text === drawnVersions) return;
  drawnVersions = text;
  if (!known.versions.length) {
    $("versions").replaceChildren(make("p", { class: "empty" }, `The registry has no version of ${known.model} yet; headway registry push makes one. Versions of the settings are not listed here.`));
    return;
  }
  const head = make("tr", {}, ...["Version", "State", "Made", "Approved", ""].map((name) => make("th", { scope: "col" }, name)));
  $("versions").replaceChildren(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Versions" },
    make("table", { class: "entries" }, make("thead", {}, head), make("tbody", {}, ...known.versions.map(versionRow)))));
}

function versionRow(version) {
  const state = version.serves ? "answers requests" : version.archived ? "archived" : version.objection ? "waits for approval" : version.released ? "was released" : "may be released";
  const names = version.approvals.map((one) => who(one.by) + (one.why ? ` (${one.why})` : "")).join(", ");
  const isOpen = known.may.approve && !version.archived && !version.released;
  const button = make("button", { type: "button", class: "quiet", onclick: () => ask("approve", { version: version.number }) }, `Approve v${version.number}`);
  const cells = [
    ["Version", make("span", {}, make("b", {}, `v${version.number}`), " ", make("span", { class: "mono soft" }, version.digest.slice(0, 12)))],
    ["State", make("span", { class: version.serves ? "good" : "" }, state)],
    ["Made", `${time(version.at)} by ${who(version.author)}${version.why ? `: ${version.why}` : ""}`],
    ["Approved", names ? `by ${names}` : "by nobody"],
    ["", isOpen ? button : ""],
  ];
  return make("tr", {}, ...cells.map(([name, value]) => make("td", { "data-name": name }, value)));
}

function drawHistory() {
  const text = JSON.stringify(known.history);
  if (text === drawnHistory) return;
  drawnHistory = text;
  if (!known.history.length) {
    $("history").replaceChildren(make("p", { class: "empty" }, "Nothing has happened yet. Here will appear who registered, approved and released what, and why a release ended."));
    return;
  }
  $("history").replaceChildren(make("ol", { class: "history" }, ...known.history.map((one) => make("li", {},
    make("p", { class: "soft" }, make("time", { datetime: one.at }, time(one.at)), ` · ${who(one.by)}`),
    make("p", { class: ["rolled_back", "held"].includes(one.kind) ? "bad" : "" }, sentence(one))))));
}

const sentence = (one) => `${one.text[0].toUpperCase()}${one.text.slice(1)}${one.why ? `. ${one.why[0].toUpperCase()}${one.why.slice(1)}` : ""}${/[.!?]$/.test(one.why || one.text) ? "" : "."}`;

function drawModels() {
  const place = $("models");
  place.hidden = known.models.length < 2;
  if (place.children.length === known.models.length) return;
  place.replaceChildren(...known.models.map((name) => make("label", {},
    make("input", { type: "radio", name: "model", value: name, checked: name === known.model, onchange: () => choose(name) }), make("span", {}, name))));
}

function choose(name) {
  chosen = name;
  history.replaceState(null, "", `?model=${encodeURIComponent(name)}`);
  look();
}

// -- what a visitor may do: asks for a reason in a dialog, then sends the request -------------------------------------
const WORDS = {
  hold: ["Hold the release?", "The shares stay as they are until somebody lets it go on or aborts it.", "Hold"],
  resume: ["Let the release go on?", "The counts of the present step begin anew.", "Go on"],
  abort: ["Abort the release?", "The stable version has all requests again within two seconds.", "Abort"],
  approve: ["Approve this version?", "You say that it may be released.", "Approve"],
};
let asked = null;

function ask(what, more = {}) {
  const [title, text, yes] = WORDS[what];
  asked = { what, more };
  $("ask-title").textContent = what === "approve" ? `Approve v${more.version}?` : title;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = yes;
  $("ask-yes").disabled = false;
  $("ask-who").hidden = hasKey();
  $("ask-by").value = sessionStorage.getItem(NAME) ?? "";
  $("ask-why").value = "";
  $("ask-error").hidden = true;
  $("ask").showModal();
}

$("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const by = $("ask-by").value.trim();
  if (by) sessionStorage.setItem(NAME, by);
  $("ask-yes").disabled = true;
  const body = { ...asked.more, why: $("ask-why").value.trim(), ...(by && !hasKey() ? { by } : {}) };
  try {
    const answer = await send(`/v2/models/${encodeURIComponent(known.model)}/release/${asked.what}`, { method: "POST", body: JSON.stringify(body) });
    if (!answer.ok) throw new Error((await answer.json()).error);
    $("ask").close();
    await look();
  } catch (error) {
    $("ask-error").textContent = error.message;
    $("ask-error").hidden = false;
  }
  $("ask-yes").disabled = false;
});
$("ask-no").addEventListener("click", () => $("ask").close());
for (const what of ["hold", "resume", "abort"]) $(what).addEventListener("click", () => ask(what));

async function look() {
  try {
    const answer = await send(`/releases/data${chosen ? `?model=${encodeURIComponent(chosen)}` : ""}`);
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error);
    known = told;
    $("server").textContent = told.server;
    $("trouble").hidden = !told.trouble;
    $("trouble").textContent = told.trouble ?? "";
    $("nothing").hidden = told.model !== undefined;
    $("nothing").textContent = told.is_on ? NO_MODEL : OFF;
    $("shown").hidden = told.model === undefined;
    drawModels();
    if (told.model !== undefined) for (const draw of [drawState, drawEvidence, drawVersions, drawHistory]) draw();
  } catch (error) {
    $("trouble").textContent = known ? `The server does not answer (${error.message}); what is shown is old.` : error.message;
    $("trouble").hidden = false;
  }
}

let turn = 0;
document.addEventListener("visibilitychange", () => { if (!document.hidden && !isAsking()) look(); });
setInterval(() => {
  turn += 1;
  const runs = known?.release && RUNNING.includes(known.release.phase);
  if (!document.hidden && !isAsking() && (runs || turn % 4 === 0)) look();
}, 2000);
look();
