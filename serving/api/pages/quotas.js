// What the dashboard shows of tenants and their quotas.
import { make, scrolled } from "./make.js";

// The server's words for why a quota refuses, and ours.
export const REASONS = [["over_rate", "refused, minute"], ["over_day", "refused, day"], ["over_concurrent", "refused, at once"]];
const SHOWN = 12;
const sum = (table) => Object.values(table ?? {}).reduce((total, count) => total + count, 0);

// The tenants with requests, the busiest first.
export function tenants(span) {
  return Object.keys(span.tenants).sort((one, other) => span.tenants[other] - span.tenants[one]);
}

export const refused = (span) => REASONS.reduce((total, [name]) => total + sum(span[name]), 0);

// Returns a sentence if the shared store of quotas does not answer.
export function trouble(quotas) {
  if (!quotas?.degraded) return [];
  return [`Quotas are degraded: the store that replicas share does not answer, so ${quotas.degraded} of ${quotas.replicas} `
    + "replicas keep to their own part of each limit."];
}

export function table(whole, minute, known, { number, percent }) {
  const left = known.quotas?.tenants ?? {};
  const beyond = (name) => REASONS.reduce((total, [reason]) => total + (whole[reason]?.[name] ?? 0), 0);
  const asked = (name) => (whole.tenants[name] ?? 0) + beyond(name);
  const names = [...new Set([...tenants(whole), ...Object.keys(left)])].sort((one, other) => asked(other) - asked(one));
  const requests = sum(whole.tenants), device = sum(whole.device_s);
  const dash = (value, say) => (value === undefined || value === null ? "–" : say(value));
  const columns = [
    ["tenant", (name) => (name === "none" ? "no name" : name)],
    ["now, per second", (name) => (minute.seconds ? number((minute.tenants[name] ?? 0) / minute.seconds) : "–")],
    ["requests", (name) => number(whole.tenants[name] ?? 0)],
    // A tenant is told its own numbers only, and would have all of them.
    ...(known.tenant === null ? [
      ["share", (name) => (requests ? percent((whole.tenants[name] ?? 0) / requests) : "–")],
      ["device time", (name) => (device ? percent((whole.device_s[name] ?? 0) / device) : "–")],
    ] : [["device time", (name) => `${number(whole.device_s[name] ?? 0)} s`]]),
    ...(known.quotas ? [
      ...REASONS.map(([reason, text]) => [text, (name) => number(whole[reason]?.[name] ?? 0), (name) => whole[reason]?.[name] > 0]),
      ["left now", (name) => dash(left[name]?.left, number), (name) => left[name]?.left === 0],
      ["limit, minute", (name) => dash(left[name]?.limit, number)],
      ...(Object.values(left).some((one) => one.day_limit !== undefined) ? [
        ["left today", (name) => dash(left[name]?.day_left, number), (name) => left[name]?.day_left === 0],
        ["limit, day", (name) => dash(left[name]?.day_limit, number)],
      ] : []),
    ] : []),
  ];
  const rows = names.slice(0, SHOWN).map((name) => make("tr", {}, ...columns.map(([, say, isBad]) => make("td", isBad?.(name) ? { class: "bad" } : {}, say(name)))));
  const more = names.length > SHOWN ? [make("p", { class: "soft" }, `and ${names.length - SHOWN} more with fewer requests`)] : [];
  return make("div", {}, scrolled(make("tr", {}, ...columns.map(([name]) => make("th", { scope: "col" }, name))), ...rows), ...more);
}
