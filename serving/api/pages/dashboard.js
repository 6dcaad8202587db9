// The dashboard: the state of the server now and over the last hour. Fetches new points every five seconds.
import { chart } from "./chart.js";
import { isAsking, send } from "./key.js";
import { make, scrolled } from "./make.js";
import * as quotas from "./quotas.js";
import * as w from "./window.js";

const $ = (id) => document.getElementById(id);
const RANGES = [["5 minutes", 300], ["15 minutes", 900], ["1 hour", 3600]];
const LATENCY_MS = 200, ERROR_SHARE = 0.05, AVAILABILITY = 0.995; // the objectives of the alerts, docs/alerts.md
let model = "", range = 0, points = [], known = null, asked = 0, ahead = 0;

const number = (value) => Intl.NumberFormat("en", { maximumSignificantDigits: 3, notation: value >= 1e5 ? "compact" : "standard" }).format(value);
const percent = (value) => `${number(100 * value)} %`;
const share = (value) => `${(Math.floor(value * 1e4) / 100).toFixed(2)} %`; // never rounded up to 100 %
const ms = (value) => (value >= 1000 ? `${number(value / 1000)} s` : `${number(value)} ms`);
const bytes = (value) => (value >= 2 ** 30 ? `${number(value / 2 ** 30)} GiB` : `${number(value / 2 ** 20)} MiB`);
const line = (name, style, read, more = {}) => ({ name, style, read, ...more });
const area = (name, style, read) => line(name, style, read, { filled: true });
const p = (of) => (span) => w.quantile(span, of, known.bounds_ms);
const latest = (name) => (span) => span[name] ?? null;
const budget = () => known.models.find((one) => one.name === model)?.budget_ms ?? LATENCY_MS;
const has = (name) => (whole) => whole[name] !== undefined;

// The rows of the page with their cards. big: computes the number for the last minute; with over, for the whole range.
// bad: whether the number needs attention. shown: whether there is data for the row or card. own: it has something to show
// to a caller that is told the numbers of its own tenant only.
const ROWS = [
  { title: "Traffic and health", says: "Are requests answered in time and without errors?", cards: [
    { title: "Requests per second", says: "answered, failed and refused", text: number, big: w.answered,
      series: () => [area("answered", "c1", w.answered), line("failed or refused", "bad", (span) => w.errors(span) / span.seconds)] },
    { title: "Errors", says: "share of requests that failed, were refused or expired", text: percent, big: w.errorShare,
      bad: (value) => value > ERROR_SHARE, series: () => [area("errors", "bad", w.errorShare)],
      mark: () => ({ value: ERROR_SHARE, text: "alert above 5 %" }), most: 1, ends: 0.1 },
    { title: "Latency, p95", says: "95 % of answers are faster; measured from arrival at the server", text: ms, big: p(0.95),
      bad: (value) => value > budget(), series: () => [area("p95", "c1", p(0.95)), line("median", "c2", p(0.5))],
      mark: () => ({ value: budget(), text: budget() === LATENCY_MS ? "alert above 200 ms" : "latency budget" }) },
    { title: "Availability", says: "share of requests answered, over the time shown", text: share, big: w.availability, over: true,
      bad: (value) => value < AVAILABILITY, series: () => [area("availability", "good", w.availability)], most: 1, least: 0.98,
      mark: () => ({ value: AVAILABILITY, text: "goal 99.5 %" }) },
    { title: "Tenants", says: "requests per second by tenant, and what became of them over the time shown", wide: true, own: true,
      shown: (whole) => known.quotas !== null || tenants(whole).some((name) => name !== "none"), text: number, series: (whole) => tenants(whole).slice(0, 5).map((name, index) =>
        line(name === "none" ? "no name" : name, `c${index + 1}`, w.of("tenants", name))), below: (whole, minute) => quotas.table(whole, minute, known, { number, percent }) },
    { title: "Refused by quotas", says: "requests per second beyond a tenant's quota, refused before they reach a queue", wide: true, own: true,
      shown: (whole) => quotas.refused(whole) > 0, text: number, series: () => quotas.REASONS
        .map(([name, text], index) => line(text, `c${index + 1}`, w.total(name))) },
  ] },
  { title: "Model", says: "How well are requests batched? The server chooses the batch sizes by itself.", cards: [
    { title: "Batch size", says: "rows per batch, on average", text: number, big: w.batchRows,
      series: () => [area("rows", "c1", w.batchRows)] },
    { title: "Padding waste", says: "share of the device's work that is padding", text: percent, big: w.waste,
      series: () => [area("waste", "c3", w.waste)], most: 1 },
    { title: "Waiting", says: "requests in the queue, maximum", text: number, big: latest("queued"),
      series: () => [area("waiting", "c4", latest("queued"))] },
    { title: "Reasons for cutting batches", says: "batches per second by reason", text: number,
      big: (span) => span.batches / span.seconds, series: () => [["idle", "device idle"], ["lane_ready", "device nearly idle"],
        ["full", "full"], ["deadline", "deadline"]].map(([name, text], index) => line(text, `c${index + 1}`, w.of("cuts", name))) },
    { title: "Cache hits", says: "share of requests whose answer was known already, and the device time that this saves", shown: has("cache"),
      text: percent, big: w.hitShare, also: (span) => `saves ${ms(1000 * (w.savedTime(span) ?? 0))} per second`,
      series: () => [area("hits", "good", w.hitShare)], most: 1 },
    { title: "Predictions", says: "the best class of each row, in a sample of the answers; a change over time indicates drift",
      wide: true, shown: (whole) => (model || known.models.length === 1) && classes(whole).length > 0, text: percent, most: 1, series: (whole) => classes(whole).slice(0, 5)
        .map((name, index) => line(name, `c${index + 1}`, w.part("classes", name))), below: saidMost },
  ] },
  { title: "Machines", says: "Are replicas and hardware enough for the load?", cards: [
    { title: "Replicas", own: true, says: "processes that run the model: running and target", text: number, big: latest("running"),
      also: (span) => (span.wanted === span.running ? "" : `target ${span.wanted}`), bad: (value, span) => value < span.wanted,
      series: () => [{ ...area("running", "c1", latest("running")), stepped: true }, line("target", "c3", latest("wanted"), { stepped: true })] },
    { title: "Device busy", says: "share of time with a batch on the device, CPU or GPU", text: percent, big: latest("busy"),
      series: () => [area("busy", "c2", latest("busy"))], most: 1 },
    { title: "GPU", says: "share of time in which a kernel runs", shown: has("gpu_busy"), text: percent, big: latest("gpu_busy"),
      series: () => [area("busy", "c2", latest("gpu_busy"))], most: 1 },
    { title: "GPU memory", says: "in use by all processes", shown: has("gpu_memory"), text: bytes, big: latest("gpu_memory"),
      base: 1024,
      also: (span) => `of ${bytes(span.gpu_memory_total)}`, series: () => [area("used", "c5", latest("gpu_memory"))] },
    { title: "CPU", says: "cores in use by the replicas", text: number, big: w.cores, series: () => [area("cores", "c4", w.cores)] },
    { title: "Memory", says: "used by the replicas", base: 1024, text: bytes, big: latest("memory"), series: () => [area("memory", "c5", latest("memory"))] },
    { title: "Scaling decisions", says: "the latest, newest first", wide: true, shown: () => known.decisions.length > 0,
      below: decisions },
  ] },
  { title: "Cost", says: "Computed from the prices in the settings, in their currency.", shown: has("cost"), cards: [
    { title: "Per thousand predictions", says: "rows computed, over the time shown", text: number, big: w.perThousand, over: true,
      series: () => [area("cost", "c3", w.perThousand)] },
    { title: "Per day", says: "at the rate of the last minute", text: number, big: w.perDay, series: () => [area("cost", "c5", w.perDay)] },
    { title: "Saved by the cache", says: "per day, at the rate of the last minute", shown: has("cache"), text: number, big: w.savedPerDay,
      series: () => [area("saved", "good", w.savedPerDay)] },
  ] },
];

const tenants = quotas.tenants;

function classes(span) {
  return Object.keys(span.classes).sort((one, other) => span.classes[other] - span.classes[one]);
}

function saidMost(whole, minute) {
  const say = (span, name) => (w.part("classes", name)(span) === null ? "–" : percent(w.part("classes", name)(span)));
  const rows = classes(whole).slice(0, 8).map((name) => make("tr", {}, ...[name, say(minute, name), say(whole, name)].map((text) => make("td", {}, text))));
  return table(["class", "last minute", "whole time shown"], rows);
}

function when(at) {
  const then = new Date(1000 * at);
  return then.toDateString() === new Date().toDateString() ? then.toLocaleTimeString() : then.toLocaleString();
}

function decisions() {
  const rows = known.decisions.toReversed().map((one) => make("tr", {}, make("td", {}, when(one.at)),
    make("td", {}, one.model), make("td", {}, `${one.current} → ${one.wanted}`), make("td", { class: "why" }, one.reason)));
  return table(["when", "model", "replicas", "why"], rows);
}

function table(names, rows) {
  return scrolled(make("tr", {}, ...names.map((name) => make("th", name === "why" ? { class: "why" } : {}, name))), ...rows);
}

function draw() {
  const now = Date.now() / 1000 + ahead;
  const shown = points.filter((point) => point.at > now - range);
  const whole = w.join(shown), minute = w.join(shown.filter((point) => point.at > now - 60));
  const spans = w.columns(points, now, range, known.every_s);
  const ats = spans.map((column) => column.at);
  $("rows").replaceChildren();
  const has = (one) => !one.shown || one.shown(whole);
  const isTold = (card) => has(card) && (known.tenant === null || card.own);
  for (const row of ROWS.filter((one) => has(one) && one.cards.some(isTold))) {
    const cards = make("div", { class: "cards" });
    $("rows").append(make("section", {}, make("h2", {}, row.title), make("p", { class: "soft" }, row.says), cards));
    for (const card of row.cards.filter(isTold)) cards.append(drawn(card, whole, minute));
  }
  for (const place of document.querySelectorAll(".plot")) {
    const card = ROWS.flatMap((row) => row.cards).find((one) => one.title === place.dataset.card);
    const series = card.series(whole).map((one) => ({ ...one, values: spans.map(({ span }) => (span ? one.read(span) : null)) }));
    chart(place, { ats, series, says: card.text, mark: card.mark?.(), most: card.most, least: card.least, ends: card.ends, base: card.base,
      label: `${card.title} over time` });
  }
  verdict(minute);
}

function drawn(card, whole, minute) {
  const element = make("section", { class: card.wide ? "card wide" : "card" }, make("h3", {}, card.title), make("p", { class: "soft" }, card.says));
  const span = card.over ? whole : minute;
  if (card.series && !card.wide) {
    const value = span.seconds ? card.big(span) : null;
    const figure = value === null ? "–" : card.text(value);
    const alarming = value !== null && card.bad?.(value, span);
    element.append(make("p", { class: alarming ? "figure bad" : "figure" }, figure, " ", make("small", {}, (value !== null && card.also?.(span)) || "")));
  }
  if (card.series) element.append(make("div", { class: "plot", "data-card": card.title }));
  if (card.below) element.append(card.below(whole, minute));
  return element;
}

function verdict(minute) {
  const absent = known.models.filter((one) => one.state !== "READY");
  const count = known.models.length;
  const said = absent.length
    ? absent.map((one) => `${one.name} is ${one.state.toLowerCase()}${one.reason ? `: ${one.reason}` : ""}.`)
    : [count === 1 ? `${known.models[0].name} is ready.` : `All ${count} models are ready.`];
  const whose = model ? ` for ${model}` : "";
  const own = known.tenant === null ? 0 : (minute.tenants[known.tenant] ?? 0);
  if (!points.length) said.push("The first numbers will appear in a few seconds.");
  else if (own) said.push(`In the last minute${whose}: ${number(own / minute.seconds)} requests per second of yours.`);
  else if (!w.owed(minute)) said.push(`No requests${whose} in the last minute.`);
  else {
    const quick = p(0.95)(minute);
    said.push(`In the last minute${whose}: ${number(w.owed(minute) / minute.seconds)} requests per second, `
      + (quick === null ? "" : `95 % of the answers within ${ms(quick)}, `)
      + (w.errors(minute) ? `${percent(w.errorShare(minute))} failed or refused.` : "none failed."));
  }
  for (const one of known.models.filter(({ silent }) => silent)) said.push(`${one.name}: ${one.silent} of its replicas send no metrics.`);
  said.push(...quotas.trouble(known.quotas));
  $("verdict").textContent = said.join(" ");
  $("verdict").classList.toggle("bad", absent.length > 0 || w.errorShare(minute) > ERROR_SHARE);
}

function tabs(place, name, choices, chosen, choose) {
  place.replaceChildren(...choices.map(([text, value, dot]) => make("label", {},
    make("input", { type: "radio", name, value, checked: value === chosen, onchange: () => choose(value) }),
    make("span", {}, ...(dot ? [make("i", { class: dot })] : []), text))));
}

function showModels() {
  const choices = known.models.map((one) => [one.name, one.name, one.state === "READY" ? "dot ready" : "dot"]);
  const text = JSON.stringify(choices);
  if ($("models").dataset.shown === text) return; // unchanged: rebuilding would take the keyboard focus away
  $("models").dataset.shown = text;
  $("models").hidden = choices.length < 2;
  tabs($("models"), "model", [...(known.all ? [["All models", ""]] : []), ...choices], model, (value) => { choose(value); });
}

// Selects the shortest range that contains all points.
function showRanges() {
  const seen = points.length ? points.at(-1).at - points[0].at : 0;
  range = RANGES.map(([, seconds]) => seconds).find((seconds) => seconds >= seen) ?? RANGES.at(-1)[1];
  tabs($("ranges"), "range", RANGES, range, (value) => { range = value; draw(); });
}

function choose(name) {
  model = name;
  points = [];
  history.replaceState(null, "", name ? `#${encodeURIComponent(name)}` : location.pathname);
  ask();
}

async function ask() {
  const mine = ++asked;
  try {
    const answer = await send(`/dashboard/data?${new URLSearchParams({ model, since: points.at(-1)?.at ?? 0 })}`);
    const news = await answer.json();
    if (!answer.ok) throw new Error(news.error);
    if (mine !== asked) return;
    known = news;
    if (!model && !known.all && known.models.length) return choose(known.models[0].name); // the sum is for those who see all
    ahead = news.now - Date.now() / 1000; // times are by the server's clock
    points = [...points.filter((point) => point.at > news.now - RANGES.at(-1)[1] - 60), ...news.points];
    $("server").textContent = news.server;
    $("trouble").hidden = true;
    showModels();
    if (!range) showRanges();
    if (!document.querySelector(".chart:hover") || !matchMedia("(hover: hover)").matches) draw(); // not while the mouse points at a chart
  } catch (error) {
    if (mine !== asked) return;
    $("trouble").textContent = `The server does not answer (${error.message}); the numbers shown are old.`;
    $("trouble").hidden = false;
  }
}

model = decodeURIComponent(location.hash.slice(1));
addEventListener("resize", () => { if (known) draw(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && !isAsking()) ask(); });
setInterval(() => { if (!document.hidden && !isAsking()) ask(); }, 5000);
ask();
