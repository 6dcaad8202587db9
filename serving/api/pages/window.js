// Joins the server's points into spans of time and computes rates and shares. Points hold counts, so they can be summed.
const COUNTED = ["rows", "batches", "asked", "computed", "cpu_s", "cost", "seconds"];
const BY_NAME = ["ended", "cuts", "latency", "tenants", "device_s", "classes"];
const OPTIONAL = ["over_rate", "over_day", "over_concurrent", "cache"]; // absent without quotas and without a cache
const PEAKS = ["queued", "wait_ms"];
const STATES = ["busy", "memory", "running", "wanted", "gpu_busy", "gpu_memory", "gpu_memory_total"];

// Joins points into one: sums counts, keeps the maximum of peaks and the latest of states.
export function join(points) {
  const joined = Object.fromEntries(BY_NAME.map((name) => [name, {}]));
  for (const point of points) {
    for (const name of COUNTED) if (point[name] !== null) joined[name] = (joined[name] ?? 0) + point[name];
    for (const name of [...BY_NAME, ...OPTIONAL]) {
      if (!(name in point)) continue;
      joined[name] ??= {};
      for (const [key, count] of Object.entries(point[name])) joined[name][key] = (joined[name][key] ?? 0) + count;
    }
    for (const name of PEAKS) joined[name] = Math.max(joined[name] ?? 0, point[name]);
    for (const name of STATES) joined[name] = point[name] ?? joined[name];
  }
  return joined;
}

// Returns the columns of a chart, oldest first: {at, span}; span is null if the server has no point in that column.
// The edges of the columns are fixed in time, so that a curve moves without flickering.
export function columns(points, now, range, every) {
  const width = every * Math.max(1, Math.round(range / every / 120));
  const last = Math.floor(now / width);
  const spans = [];
  let next = 0;
  for (let column = last - Math.ceil(range / width) + 1; column <= last; column += 1) {
    while (next < points.length && Math.floor(points[next].at / width) < column) next += 1;
    const from = next;
    while (next < points.length && Math.floor(points[next].at / width) === column) next += 1;
    spans.push({ at: (column + 0.5) * width, span: next > from ? join(points.slice(from, next)) : null });
  }
  return spans;
}

const ratio = (part, whole) => (whole ? part / whole : null);
export const answered = (span) => ratio(span.ended.completed ?? 0, span.seconds);
export const errors = (span) => ["failed", "rejected", "expired"].reduce((sum, name) => sum + (span.ended[name] ?? 0), 0);
export const owed = (span) => (span.ended.completed ?? 0) + errors(span);
export const errorShare = (span) => ratio(errors(span), owed(span));
export const availability = (span) => (owed(span) ? 1 - errorShare(span) : null);
export const batchRows = (span) => ratio(span.rows, span.batches);
export const waste = (span) => (span.computed ? 1 - span.asked / span.computed : null);
export const cores = (span) => ratio(span.cpu_s, span.seconds);
export const perThousand = (span) => (span.cost === undefined ? null : ratio(1000 * span.cost, span.rows));
export const perDay = (span) => (span.cost === undefined ? null : ratio(86400 * span.cost, span.seconds));
const asked = (cache) => (cache?.hit ?? 0) + (cache?.miss ?? 0);
export const hitShare = (span) => (asked(span.cache) ? (span.cache.hit ?? 0) / asked(span.cache) : null);
export const savedTime = (span) => (span.cache ? ratio(span.cache.saved_s ?? 0, span.seconds) : null);
export const savedPerDay = (span) => (span.cache ? ratio(86400 * (span.cache.saved_cost ?? 0), span.seconds) : null);
export const of = (table, name) => (span) => ratio(span[table][name] ?? 0, span.seconds);

export const total = (table) => (span) => ratio(Object.values(span[table] ?? {}).reduce((sum, count) => sum + count, 0), span.seconds);

export function part(table, name) {
  return (span) => ratio(span[table][name] ?? 0, Object.values(span[table]).reduce((sum, count) => sum + count, 0));
}

// Returns a quantile in ms, interpolated linearly within its bucket as in Prometheus; at most the last bucket's bound.
export function quantile(span, share, bounds) {
  const counts = [...bounds, Infinity].map((_, index) => span.latency[index] ?? 0);
  const wanted = share * counts.reduce((sum, count) => sum + count, 0);
  if (!wanted) return null;
  let below = 0;
  for (const [index, bound] of bounds.entries()) {
    const lower = index ? bounds[index - 1] : 0;
    if (below + counts[index] >= wanted) return lower + ((bound - lower) * (wanted - below)) / counts[index];
    below += counts[index];
  }
  return bounds.at(-1);
}
