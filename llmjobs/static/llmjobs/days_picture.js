/** The days of a month as bars: an SVG made node by node, so that no text of it can be anything but text. */

import { count, money } from "./display.js";
import { makeSvg } from "./dom.js";
import { dayNamed, named } from "./months.js";

const WIDTH = 640;
const HEIGHT = 190;
const TOP = 22; // room for the word at the highest line
const BOTTOM = 24; // room for the days
const GAP = 3;

const MEASURES = {
  cost: { of: (day) => day.cost_usd, say: money },
  tokens: { of: (day) => day.input_tokens + day.output_tokens, say: (value) => `${count(value)} tokens` },
  jobs: { of: (day) => day.jobs, say: (value) => `${count(value)} ${value === 1 ? "job" : "jobs"}` },
};

/** @param {Object[]} days one for each day of the month @param {"cost"|"tokens"|"jobs"} measure @param {string} month */
export function daysPicture(days, measure, month) {
  const { of, say } = MEASURES[measure];
  const most = Math.max(...days.map(of));
  const all = days.reduce((sum, day) => sum + of(day), 0);
  const label = `${named(month)}, by day: ${say(all)} in all${most > 0 ? `, ${say(most)} on the busiest day` : ""}.`;
  const base = HEIGHT - BOTTOM;
  return makeSvg(
    "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    makeSvg("line", { class: "grid", x1: 0, x2: WIDTH, y1: TOP, y2: TOP }),
    makeSvg("text", { x: 0, y: TOP - 6 }, most > 0 ? say(most) : ""),
    ...days.flatMap((day, index) => bar(day, index, days.length, most > 0 ? of(day) / most : 0, say(of(day)))),
    makeSvg("line", { class: "axis", x1: 0, x2: WIDTH, y1: base, y2: base }),
  );
}

function bar(day, index, dayCount, share, words) {
  const step = WIDTH / dayCount;
  const base = HEIGHT - BOTTOM;
  const height = share > 0 ? Math.max(2, share * (base - TOP)) : 0;
  const middle = index * step + step / 2;
  const parts = [
    makeSvg("rect", { class: "bar", x: index * step + GAP / 2, y: base - height, width: step - GAP, height, rx: 2 }, makeSvg("title", {}, `${dayNamed(day.day)}: ${words}`)),
  ];
  const number = index + 1;
  if (number === 1 || number % 5 === 0) {
    const place = number === dayCount ? { x: WIDTH, "text-anchor": "end" } : { x: middle, "text-anchor": "middle" };
    parts.push(makeSvg("text", { ...place, y: HEIGHT - 5 }, String(number)));
  }
  return parts;
}
