// The page: what is chosen and said on the left, sent file by file, answered on the right.

import { byId, download, element } from "./dom.js";
import { preview } from "./picture.js";
import { asJson, refusedCard, scoredCard } from "./result.js";
import * as server from "./server.js";

const state = { about: null, models: [], chosen: [], fresh: true, answers: [] };

const TASKS = {
  age: { name: "Hand", words: "Bone age from a radiograph of the hand" },
  cephalogram: { name: "Head", words: "Landmarks and cervical stage from a lateral cephalogram" },
};

const announce = (text) => (byId("status").textContent = text);
const model = () => state.models[byId("model").selectedIndex] ?? state.models[0];
const taskOf = (each) => TASKS[each.task] ?? { name: each.task, words: each.summary };
const isHead = () => model()?.task === "cephalogram";

async function start() {
  try {
    state.about ??= await server.about();
    byId("version").textContent = `boneage-ray ${state.about.version}`;
    state.models = await server.models();
  } catch (error) {
    return refuse(error);
  }
  byId("token-part").hidden = true;
  byId("model").replaceChildren(...state.models.map((each) => element("option", { value: each.name }, `${taskOf(each).name}: ${each.name}`)));
  byId("model-part").hidden = state.models.length < 2;
  onModel();
}

/** Ask for a token, or say what went wrong. */
function refuse(error) {
  if (!(error instanceof server.Refusal)) throw error;
  if (error.problem.status !== 401) return announce(error.problem.detail);
  if (!byId("token-part").hidden) fail("token", "This token is not accepted.");
  byId("token-part").hidden = false;
  byId("token").focus();
}

function onToken() {
  fail("token", "");
  server.useToken(byId("token").value.trim());
  start();
}

/** Show what the chosen model asks for. */
function onModel() {
  const head = isHead();
  const { site } = model();
  byId("model-hint").textContent = `${taskOf(model()).words}${site ? `, calibrated for ${site}` : ""}.`;
  byId("sex-part").hidden = byId("age-part").hidden = head;
  byId("spacing-part").hidden = !head;
  const kind = head ? "head" : "hand";
  const there = state.about.samples.some((sample) => sample.kind === kind);
  const button = element("button", { type: "button", class: "link", click: () => useSample(kind) }, `Use a synthetic ${kind}`);
  byId("sample-buttons").replaceChildren(button);
  byId("samples").hidden = !there;
}

/** Files that were answered, or that the page drew, make room for new ones, and so does what was said of them. */
function clearForNew() {
  if (state.fresh) return;
  state.chosen.forEach((item) => URL.revokeObjectURL(item.url)); // pictures of cards are loaded already
  state.chosen = [];
  for (const choice of document.querySelectorAll("[name=sex]")) choice.checked = false;
  for (const name of ["years", "months", "spacing"]) byId(name).value = "";
  state.fresh = true;
}

async function add(files) {
  clearForNew();
  fail("files", "");
  for (const file of files) {
    const item = { file, url: URL.createObjectURL(file), image: null };
    item.image = await preview(item.url);
    state.chosen.push(item);
  }
  showChosen();
}

function showChosen() {
  const rows = state.chosen.map((item) =>
    element(
      "li",
      {},
      item.image ? element("img", { src: item.url, alt: "" }) : element("span", { class: "blank", "aria-hidden": "true" }, "no view"),
      element("span", {}, item.file.name, element("small", {}, item.note ?? size(item.file.size))),
      element("button", { type: "button", class: "quiet", "aria-label": `Remove ${item.file.name}`, click: () => remove(item) }, "Remove"),
    ),
  );
  byId("chosen").replaceChildren(...rows);
  byId("send").textContent = state.chosen.length > 1 ? `Read ${state.chosen.length} radiographs` : "Read the radiograph";
}

function remove(item) {
  state.chosen = state.chosen.filter((other) => other !== item);
  showChosen();
  byId("files").focus();
}

const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

const drawn = { hand: 0, head: 0 };

/** Put a synthetic radiograph in, with what it was drawn for. */
async function useSample(kind) {
  const numbers = state.about.samples.flatMap((sample, number) => (sample.kind === kind ? [number] : []));
  const number = numbers[drawn[kind]++ % numbers.length];
  const facts = state.about.samples[number];
  state.fresh = false;
  clearForNew();
  showChosen();
  try {
    const blob = await server.sample(number);
    await add([new File([blob], `synthetic-${kind}-${number + 1}.png`, { type: "image/png" })]);
  } catch (error) {
    return refuse(error);
  }
  const [item] = state.chosen;
  if (kind === "hand") {
    const years = Math.floor(facts.age_months / 12);
    byId("form").querySelector(`[name=sex][value=${facts.sex}]`).checked = true;
    byId("years").value = years;
    byId("months").value = facts.age_months - 12 * years;
    item.note = `drawn for a ${facts.sex === "F" ? "girl" : "boy"} of this age`;
  } else {
    item.note = `drawn in stage CS${facts.stage}`;
  }
  state.fresh = false; // what was said of it does not hold for the next file
  showChosen();
  byId("send").focus();
}

/** Show or clear the error of a field. */
function fail(name, text) {
  const line = byId(`${name}-error`);
  line.textContent = text;
  line.hidden = !text;
  return !text;
}

/** What is said of the files, as a query, or null, with the errors shown and the first wrong field in focus. */
function said() {
  const query = new URLSearchParams({ model: model().name });
  const wrong = [];
  const check = (name, field, holds, text) => fail(name, holds ? "" : text) || wrong.push(field);
  check("files", byId("files"), state.chosen.length, "Choose a radiograph first.");
  if (isHead()) {
    const spacing = byId("spacing");
    check("spacing", spacing, spacing.checkValidity(), "0.001 to 10 mm, or nothing where it is unknown.");
    if (spacing.value) query.set("pixel_spacing_mm", spacing.value);
  } else {
    const sex = byId("form").querySelector("[name=sex]:checked");
    check("sex", byId("form").querySelector("[name=sex]"), sex, "Choose the sex, or say that it is unknown.");
    if (sex?.value) query.set("sex", sex.value);
    const [years, months] = [byId("years"), byId("months")];
    const holds = years.checkValidity() && months.checkValidity();
    check("age", years.checkValidity() ? months : years, holds, "Whole years up to 119, and months up to 11.");
    if (years.value || months.value) query.set("chronological_age_months", 12 * Number(years.value) + Number(months.value));
  }
  wrong[0]?.focus();
  return wrong.length ? null : query;
}

async function send(event) {
  event.preventDefault();
  if (!model()) return start();
  const query = said();
  if (!query) return;
  byId("send").disabled = true;
  byId("empty").hidden = true;
  byId("all-json").hidden = true;
  byId("cards").replaceChildren();
  state.answers = [];
  state.fresh = false;
  const [items, task] = [state.chosen, model().task];
  try {
    for (const [k, item] of items.entries()) {
      announce(items.length > 1 ? `Reading ${k + 1} of ${items.length}: ${item.file.name}` : `Reading ${item.file.name}`);
      await answer({ ...item, task }, query);
      if (!k) byId("results-title").focus();
    }
    const scored = state.answers.filter((each) => each.status === "scored").length;
    announce(items.length > 1 ? `${scored} of ${items.length} radiographs have a result.` : scored ? "The result is there." : "There is no result.");
    byId("all-json").hidden = items.length < 2;
  } catch (error) {
    byId("empty").hidden = byId("cards").childElementCount > 0;
    refuse(error);
  } finally {
    byId("send").disabled = false;
  }
}

/** One file to its card; a wrong token ends the whole, another problem is that of this file. */
async function answer(item, query) {
  const cards = byId("cards");
  try {
    const row = await server.predict(item.file, query);
    state.answers.push({ ...row, input_uri: item.file.name });
    const { card, finished } = await scoredCard(item, row, query, state.about, announce);
    cards.append(card);
    await finished;
  } catch (error) {
    if (!(error instanceof server.Refusal) || error.problem.status === 401) throw error;
    state.answers.push({ input_uri: item.file.name, ...error.problem });
    cards.append(refusedCard(item.file.name, error.problem, state.about));
  }
}

function onDrop(event) {
  event.preventDefault();
  byId("drop").classList.remove("over");
  if (event.dataTransfer.files.length) add([...event.dataTransfer.files]);
}

byId("form").addEventListener("submit", send);
byId("files").addEventListener("change", async (event) => {
  await add([...event.target.files]);
  event.target.value = ""; // the same file may be chosen again
});
byId("model").addEventListener("change", onModel);
byId("token-use").addEventListener("click", onToken);
byId("token").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  onToken();
});
byId("all-json").addEventListener("click", () => download(asJson(state.answers), "results.json"));
// A file that misses the place would replace the page.
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
byId("drop").addEventListener("dragover", () => byId("drop").classList.add("over"));
byId("drop").addEventListener("dragleave", () => byId("drop").classList.remove("over"));
byId("drop").addEventListener("drop", onDrop);

start();
