// The card of one file: the answer, its picture, what is to be known of it, and what one can take away.

import { copy, download, element, shape } from "./dom.js";
import { growthAxis } from "./growth.js";
import { figureOf, nameOf, pngTexts } from "./picture.js";
import { explain, report } from "./server.js";

// Flags that have no bearing on the answer, by the kind of answer: said, but not as a warning.
const ASIDE = { age: /^spacing_/, head: /^sex_unknown$/ };
// What a message advises at its end for the command line.
const FOR_A_TERMINAL = /; if [^;]*: --.*$/;
const SOURCES = { option: "as you said", metadata: "as given", dicom: "by the DICOM file" };

/** The card of a file that has no score: its problem in words. */
export function refusedCard(name, problem, about) {
  const meaning = about.reasons[problem.code];
  const lines = [
    element("p", {}, element("strong", {}, "No result. "), meaning ? sentence(meaning) : ""),
    element("p", {}, sentence(problem.detail.replace(FOR_A_TERMINAL, ""))),
    problem.step ? element("p", { class: "label" }, `It stopped at the step ${problem.step} (${problem.code}).`) : null,
  ];
  return element("article", { class: "card" }, title(name), element("div", { class: "answer alone" }, element("div", { class: "refusal" }, lines)));
}

/** The card of a scored row. Its picture follows later: `finished` resolves once it is there, or it is said why not. */
export async function scoredCard(item, row, query, about, announce) {
  const words = await report(row);
  const { figure, say, lay } = figureOf(item.image, row.landmarks, item.file.name);
  const kind = row.age_months === null ? "head" : "age";
  const answer = element("div", { class: "answer" }, kind === "age" ? ageAnswer(row, words, about) : headAnswer(row));
  if (row.message) answer.append(element("p", {}, sentence(row.message)));
  answer.append(...flagLists(row.flags, ASIDE[kind], about), factList(row, about));
  const more = element("div", { class: "more" }, tables(row));
  const actions = element("div", { class: "actions" }, ...buttons(item, row, words, announce));
  const card = element("article", { class: `card ${kind}` }, title(item.file.name, row.model), answer, figure, more, actions);
  const finished = picture(item, query, { say, lay, more, actions });
  return { card, finished };
}

async function picture(item, query, { say, lay, more, actions }) {
  try {
    const buffer = await explain(item.file, query);
    const blob = new Blob([buffer], { type: "image/png" });
    const image = element("img", { src: URL.createObjectURL(blob), alt: "" });
    await image.decode();
    URL.revokeObjectURL(image.src);
    const texts = pngTexts(buffer);
    lay(image, texts);
    if (texts.trace) more.prepend(traceTable(texts.trace));
    else if (item.task === "age") say("Warm colours: places that move the age up or down. This is no proof that it is right.");
    actions.append(element("button", { type: "button", class: "quiet", click: () => download(blob, `${stem(item)}.png`) }, "Download PNG"));
  } catch (error) {
    say(`There is no picture of what the result rests on: ${error.problem?.detail ?? error.message}`);
  }
}

function title(name, model = "") {
  return element("h3", {}, element("span", {}, name), model ? element("small", {}, model) : null);
}

function ageAnswer(row, words, about) {
  return [
    element(
      "div",
      {},
      element("p", { class: "label" }, "Bone age"),
      element("p", { class: "value" }, words.bone_age),
      element("p", { class: "interval" }, words.interval ? `${words.interval} interval` : "without an interval: the model has none for this sex"),
    ),
    growthAxis(row, words, about.max_age_months),
  ];
}

function headAnswer(row) {
  const chances = Object.entries(row.cvm_probabilities ?? {});
  const typical = { true: "a typical combination of shapes", false: "an unusual combination of shapes" }[row.cvm_typical] ?? "";
  return [
    element(
      "div",
      {},
      element("p", { class: "label" }, "Cervical stage"),
      element("p", { class: "value" }, row.cvm_stage ?? "none"),
      element("p", { class: "interval" }, row.cvm_stage ? typical : `${row.landmarks?.length ?? 0} landmarks were found`),
    ),
    chances.length ? element("div", { class: "bars", role: "group", "aria-label": "Probability of each stage" }, chances.map(bar)) : null,
  ];
}

function bar([stage, share]) {
  const percent = Math.round(100 * share);
  const drawn = shape(
    "svg",
    { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    shape("rect", { class: "rest", width: 100, height: 8, rx: 1 }),
    shape("rect", { width: percent, height: 8, rx: 1 }),
  );
  return [element("span", {}, stage), drawn, element("span", {}, `${percent} %`)];
}

function flagLists(flags, aside, about) {
  const meaning = (flag) => sentence(about.flags[flag] ?? flag);
  const warnings = flags.filter((flag) => !aside.test(flag));
  const others = flags.filter((flag) => aside.test(flag));
  const item = (flag) => element("li", {}, `${meaning(flag)} `, element("code", {}, flag));
  const found = [];
  if (warnings.length) found.push(element("ul", { class: "flags", "aria-label": "Warnings" }, warnings.map(item)));
  if (others.length) found.push(element("p", { class: "noted" }, `Also noted: ${others.map(meaning).join(" ")}`));
  return found;
}

function factList(row, about) {
  const facts = [];
  if (row.age_months !== null) {
    const sex = { F: "female", M: "male" }[row.sex] ?? "unknown";
    facts.push(["Sex", SOURCES[row.sex_source] ? `${sex}, ${SOURCES[row.sex_source]}` : sex]);
  }
  if (row.age_difference_months !== null) facts.push(["Difference", difference(row.age_difference_months)]);
  for (const [scheme, stage] of Object.entries(row.stages ?? {})) {
    facts.push([`${scheme[0].toUpperCase()}${scheme.slice(1)} stages`, stage, `of ${(about.stages[scheme] ?? []).join(", ")}`]);
  }
  if (row.pixel_spacing_mm !== null) facts.push(["Pixel spacing", `${row.pixel_spacing_mm} mm`]);
  facts.push(["Model", row.model, `${row.model_sha256.slice(0, 12)}, boneage-ray ${row.package_version}`]);
  const pair = ([name, value, note]) => [element("dt", {}, name), element("dd", {}, value, note ? element("small", {}, note) : null)];
  return element("dl", { class: "facts" }, facts.map(pair));
}

function difference(months) {
  const whole = Math.round(Math.abs(months));
  if (!whole) return "equal to the chronological age";
  return `${whole} month${whole > 1 ? "s" : ""} ${months > 0 ? "above" : "below"} the chronological age`;
}

function tables(row) {
  const found = [];
  if (row.cvm_measurements) {
    const lines = Object.entries(row.cvm_measurements).map(([name, value]) => measured(name, value));
    found.push(folded("Measurements", ["Of", "Value"], lines));
  }
  if (row.landmarks?.length) {
    const number = (value) => (value === null ? "" : value.toFixed(1));
    const lines = row.landmarks.map((point) => [nameOf(point), number(point.x), number(point.y), number(point.sigma)]);
    found.push(folded("Landmarks, in pixels", ["Name", "x", "y", "Uncertainty"], lines));
  }
  return found;
}

function measured(name, value) {
  const [, plain, unit] = name.match(/^(.*?)(?:_(mm|px))?$/);
  return [plain.replaceAll("_", " "), `${value.toFixed(2)} ${unit ?? ""}`.trim()];
}

function traceTable(trace) {
  const lines = trace.split("\n").map((line) => line.split("\t"));
  return folded("How the stage came about", ["Step", "Value", "Threshold", "Decision"], lines);
}

function folded(name, header, lines) {
  const head = element("tr", {}, header.map((cell) => element("th", { scope: "col" }, cell)));
  const body = lines.map((cells) => element("tr", {}, cells.map((cell) => element("td", {}, cell))));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, body));
  const part = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, table);
  return element("details", {}, element("summary", {}, name), part);
}

function buttons(item, row, words, announce) {
  const text = `${item.file.name}\n${words.text}`;
  const taken = async () => {
    await copy(text);
    announce(`The result of ${item.file.name} is in the clipboard.`);
  };
  const json = () => download(asJson({ ...row, input_uri: item.file.name }), `${stem(item)}.json`);
  return [
    element("button", { type: "button", class: "quiet", click: taken }, "Copy as text"),
    element("button", { type: "button", class: "quiet", click: json }, "Download JSON"),
  ];
}

export const asJson = (value) => new Blob([JSON.stringify(value, null, 1)], { type: "application/json" });

const stem = (item) => item.file.name.replace(/\.[a-z]{1,5}$/i, "");

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.?!]$/.test(text) ? "" : "."}`;
