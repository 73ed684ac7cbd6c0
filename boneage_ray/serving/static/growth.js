// The growth axis: the bone age with its interval above, the chronological age below, both on one line of years.

import { element, shape } from "./dom.js";

const MARGIN = 14;
const HEIGHT = 118;
const MIDDLE = 42; // of the bone age
const AXIS = 62;

/** A drawing as wide as its place, drawn anew when that changes. */
export function growthAxis(row, words, maxMonths) {
  const said = [`bone age ${words.bone_age}`];
  if (words.interval) said.push(`interval ${words.interval}`);
  if (words.chronological_age) said.push(`chronological age ${words.chronological_age}`);
  const place = element("div");
  const label = `Growth axis in years: ${said.join("; ")}`;
  const draw = () => place.replaceChildren(drawn(row, words, maxMonths, place.clientWidth || 480, label));
  new ResizeObserver(draw).observe(place);
  return place;
}

function drawn(row, words, maxMonths, width, label) {
  const most = Math.max(maxMonths, row.age_months, row.age_high_months ?? 0, row.chronological_age_months ?? 0);
  const at = (months) => MARGIN + (Math.max(months, 0) / most) * (width - 2 * MARGIN);
  const svg = shape("svg", { class: "growth", role: "img", "aria-label": label, viewBox: `0 0 ${width} ${HEIGHT}` });
  svg.append(...axis(at, most, width));
  if (row.age_low_months !== null && row.age_high_months !== null) {
    const [low, high] = [at(row.age_low_months), at(row.age_high_months)];
    svg.append(shape("rect", { class: "band", x: low, y: MIDDLE - 9, width: Math.max(high - low, 2), height: 18, rx: 9 }));
  }
  svg.append(shape("circle", { class: "age", cx: at(row.age_months), cy: MIDDLE, r: 7 }));
  svg.append(written(`Bone age ${words.bone_age}`, at(row.age_months), 20, width));
  if (row.chronological_age_months !== null) {
    const x = at(row.chronological_age_months);
    svg.append(shape("path", { class: "chronological", d: `M${x} ${AXIS + 22}l-6 10h12z` }));
    svg.append(written(`Chronological age ${words.chronological_age}`, x, HEIGHT - 6, width));
  }
  return svg;
}

function axis(at, most, width) {
  const step = width > 420 ? 2 : 4;
  const parts = [shape("line", { class: "axis", x1: at(0), x2: at(most), y1: AXIS, y2: AXIS })];
  for (let year = 0; 12 * year <= most; year += most > 480 ? 20 : step) {
    const x = at(12 * year);
    parts.push(shape("line", { class: "axis", x1: x, x2: x, y1: AXIS, y2: AXIS + 4 }));
    parts.push(shape("text", { x, y: AXIS + 17, "text-anchor": "middle" }, String(year)));
  }
  return parts;
}

/** A label over or under its mark, but never beyond the edges. */
function written(text, x, y, width) {
  const half = 3.7 * text.length;
  const middle = Math.min(Math.max(x, half), width - half);
  return shape("text", { class: "strong", x: middle, y, "text-anchor": "middle" }, text);
}
