/** Months such as "2026-11" and their days, in UTC as the server counts them. Pure. */

const monthName = new Intl.DateTimeFormat("en", { month: "long", year: "numeric", timeZone: "UTC" });
const dayName = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", timeZone: "UTC" });

/** "2026-11" → "November 2026" */
export function named(month) {
  return monthName.format(firstOf(month));
}

/** "2026-11-05" → "Nov 5" */
export function dayNamed(day) {
  return dayName.format(new Date(`${day}T00:00:00Z`));
}

/** "2026-01", -1 → "2025-12" */
export function moved(month, by) {
  const first = firstOf(month);
  first.setUTCMonth(first.getUTCMonth() + by);
  return first.toISOString().slice(0, 7);
}

/** One entry for each day of the month, in order; a day of which nothing is told used nothing. */
export function filled(month, days) {
  const known = new Map(days.map((day) => [day.day, day]));
  const count = new Date(Date.UTC(firstOf(month).getUTCFullYear(), firstOf(month).getUTCMonth() + 1, 0)).getUTCDate();
  return Array.from({ length: count }, (_, index) => {
    const day = `${month}-${String(index + 1).padStart(2, "0")}`;
    return known.get(day) ?? { day, jobs: 0, attempts: 0, input_tokens: 0, output_tokens: 0, cost_usd: 0 };
  });
}

function firstOf(month) {
  return new Date(`${month}-01T00:00:00Z`);
}
