// The audit: who changed what, and who was refused. Filters are applied here; the server sends the latest entries.
import { isAsking, send } from "./key.js";
import { make } from "./make.js";

const $ = (id) => document.getElementById(id);
const NOTHING = "Nothing has been changed yet. Here will appear who made, rotated or revoked a key, loaded or unloaded a model, changed "
  + "trace or log settings or shared memory, and who was refused what, the same at most once a minute.";
// Why there is no audit, by the word of the server.
const ABSENT = {
  open: "This server keeps no audit, because it asks nobody for a key: it would not know who did what. With server.auth in its settings it does.",
  bucket: "This server keeps no audit: its state is in a bucket, whose objects cannot be appended to. The records of keys in the bucket "
    + "say who wrote them. With a folder as server.state, the audit is kept there.",
};
let known = null, seen = "";

function when(at) {
  const then = new Date(1000 * at);
  return then.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

function row(entry) {
  const isRefused = entry.result.startsWith("refused") || entry.result.startsWith("failed");
  const cells = [
    ["When", make("time", { datetime: new Date(1000 * entry.at_s).toISOString() }, when(entry.at_s))],
    ["Tenant", entry.tenant || "–"], ["Who", entry.key_id || "–"], ["Action", entry.action], ["What", entry.object || "–"],
    ["Result", make("span", { class: isRefused ? "bad" : "" }, entry.result)], ["From", entry.address || "the server's machine"],
  ];
  return make("tr", {}, ...cells.map(([name, value]) => make("td", { "data-name": name }, value)));
}

function draw() {
  const tenant = $("tenant").value, action = $("action").value;
  const entries = known.entries.filter((one) => (!tenant || one.tenant === tenant.slice(1)) && (!action || one.action === action));
  $("filters").hidden = !known.entries.length;
  $("count").textContent = entries.length === known.entries.length ? `${entries.length} entries` : `${entries.length} of ${known.entries.length} entries`;
  if (known.entries.length === known.most) $("count").textContent += "; older ones are in the audit's folder only";
  if (!known.entries.length) $("entries").replaceChildren(make("p", { class: "empty" }, known.absent ? ABSENT[known.absent] : NOTHING));
  else if (!entries.length) $("entries").replaceChildren(make("p", { class: "empty" }, "No entry has both of these."));
  else {
    const head = make("tr", {}, ...["When", "Tenant", "Who", "Action", "What", "Result", "From"].map((name) => make("th", { scope: "col" }, name)));
    $("entries").replaceChildren(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Entries of the audit" },
      make("table", { class: "entries" }, make("thead", {}, head), make("tbody", {}, ...entries.map(row)))));
  }
  $("shown").hidden = false;
}

// Offers what occurs in the entries, and keeps what is chosen. choices: [value, text].
function offer(select, everything, choices) {
  const chosen = select.value;
  select.replaceChildren(make("option", { value: "" }, everything), ...choices.map(([value, text]) => make("option", { value }, text)));
  select.value = choices.some(([value]) => value === chosen) ? chosen : "";
}

const distinct = (name) => [...new Set(known.entries.map((one) => one[name]))].sort();

async function look() {
  try {
    const answer = await send("/audit/data");
    const text = await answer.text();
    const told = JSON.parse(text);
    if (!answer.ok) throw new Error(told.error);
    $("trouble").hidden = true;
    if (text === seen) return; // unchanged: drawing again would take a selection away
    [known, seen] = [told, text];
    $("server").textContent = known.server;
    offer($("tenant"), "all", distinct("tenant").map((name) => [`=${name}`, name || "none"]));
    offer($("action"), "all", distinct("action").map((name) => [name, name]));
    draw();
  } catch (error) {
    $("trouble").textContent = known ? `The server does not answer (${error.message}); what is shown is old.` : error.message;
    $("trouble").hidden = false;
  }
}

for (const name of ["tenant", "action"]) $(name).addEventListener("change", draw);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !isAsking()) look(); });
setInterval(() => { if (!document.hidden && !isAsking()) look(); }, 10_000);
look();
