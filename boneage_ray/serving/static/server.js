// Requests to this server, and its errors. All addresses are relative, so that the page also works below a prefix.

const TAKEN = ["image/png", "image/jpeg", "image/tiff", "image/bmp", "application/dicom"];
const TRIES = 4;
let token = "";

/** Send this token from now on; it is kept in this variable only. */
export function useToken(given) {
  token = given;
}

/** What the server, or its absence, says instead of an answer: a problem of RFC 9457. */
export class Refusal extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  for (let tries = 1; ; tries++) {
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store" });
    } catch {
      throw new Refusal({ status: 0, code: "unreachable", detail: "The server does not answer. Is it running, and is the file still there?" });
    }
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 503 || tries === TRIES) throw new Refusal(problem);
    await pause(Number(response.headers.get("Retry-After")) || 2);
  }
}

async function problemOf(response) {
  try {
    const problem = await response.json();
    if (problem.detail) return problem;
  } catch {
    // A gateway before the server answers in a form of its own.
  }
  return { status: response.status, code: `http_${response.status}`, detail: `The server answered ${response.status} ${response.statusText}` };
}

export const about = async () => (await ask("v1/about")).json();
export const models = async () => (await (await ask("v1/models")).json()).models;
export const sample = async (number) => (await ask(`v1/sample?number=${number}`)).blob();

/** The result row of one file. */
export const predict = async (file, query) => (await ask(`v1/predict?${query}`, body(file))).json();

/** The picture of what the result rests on, as the bytes of a PNG. */
export const explain = async (file, query) => (await ask(`v1/explain?${query}`, body(file))).arrayBuffer();

/** A result row in words. */
export async function report(row) {
  const options = { method: "POST", body: JSON.stringify(row), headers: { "Content-Type": "application/json" } };
  return (await ask("v1/report", options)).json();
}

/** The bytes alone: the name of a file, often that of a patient, stays here. */
function body(file) {
  const type = TAKEN.includes(file.type) ? file.type : "application/octet-stream";
  return { method: "POST", body: file, headers: { "Content-Type": type } };
}
