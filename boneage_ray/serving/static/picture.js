// The radiograph with what the result rests on: the server's picture over the reader's own, and landmarks as points.

import { element, shape } from "./dom.js";

/** The tEXt chunks of a PNG: keyword -> text. */
export function pngTexts(buffer) {
  const view = new DataView(buffer);
  const latin = new TextDecoder("latin1");
  const texts = {};
  for (let at = 8; at + 12 <= buffer.byteLength; ) {
    const length = view.getUint32(at);
    const kind = latin.decode(new Uint8Array(buffer, at + 4, 4));
    if (kind === "IDAT") break;
    if (kind === "tEXt") {
      const [keyword, ...rest] = latin.decode(new Uint8Array(buffer, at + 8, length)).split("\0");
      texts[keyword] = rest.join("\0");
    }
    at += 12 + length;
  }
  return texts;
}

/** Whether the browser can show a file itself, as an image that is loaded; null for DICOM and TIFF. */
export async function preview(url) {
  const image = element("img", { src: url, alt: "" });
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  }
}

/** The figure of one result. `base`: the reader's own picture, or null; `landmarks` of the row, or null. */
export function figureOf(base, landmarks, name) {
  const frame = element("div", { class: "frame" });
  const caption = element("figcaption", { class: "caption" });
  const slider = element("div", { class: "slider", hidden: true });
  const figure = element("figure", { class: "picture" }, frame, slider, caption);
  const points = (box) => landmarks?.length && frame.append(pointsOf(landmarks, box, caption));
  if (base) {
    frame.append(element("img", { class: "base", src: base.src, alt: `Radiograph ${name}` }));
    points([-0.5, -0.5, base.naturalWidth, base.naturalHeight]);
  } else {
    frame.append(element("p", { class: "wait" }, "The browser cannot show this file. The picture of the server follows."));
  }
  const say = (text) => (caption.textContent = text);
  return { figure, say, lay: (image, texts) => lay({ frame, slider, base, points, name, heads: Boolean(landmarks?.length) }, image, texts) };
}

/** Show the server's picture: over the reader's where it lies there, else in its place. */
function lay({ frame, slider, base, points, name, heads }, image, texts) {
  const [s, tx, ty] = (texts.to_original ?? "").split(" ").map(Number);
  const [width, height] = (texts.original_size ?? "").split(" ").map(Number);
  const box = [tx - 0.5 * s, ty - 0.5 * s, s * image.naturalWidth, s * image.naturalHeight];
  if (!base || base.naturalWidth !== width || base.naturalHeight !== height) {
    image.className = "base";
    image.alt = `Picture of the server: what the result of ${name} rests on`;
    frame.replaceChildren(image);
    if (Number.isFinite(s)) points(box);
    return;
  }
  image.className = "over";
  image.alt = "What the result rests on";
  const share = (part, whole) => `${(100 * part) / whole}%`;
  image.style.left = share(box[0] + 0.5, width);
  image.style.top = share(box[1] + 0.5, height);
  image.style.width = share(box[2], width);
  image.style.height = share(box[3], height);
  frame.querySelector("img.base").after(image);
  const start = heads ? 0 : 85;
  const range = element("input", { type: "range", min: 0, max: 100, step: 5, value: start, "aria-label": "Opacity of the overlay in percent" });
  const show = () => (image.style.opacity = range.value / 100);
  range.addEventListener("input", show);
  show();
  slider.replaceChildren(element("span", { "aria-hidden": "true" }, "Overlay"), range);
  slider.hidden = false;
}

/** All landmarks as one group that the Tab key enters and the arrow keys move in. */
function pointsOf(landmarks, [left, top, width, height], caption) {
  const radius = Math.max(width, height);
  caption.textContent = `${landmarks.length} landmarks: point at one, or move with the arrow keys.`;
  const groups = landmarks.map((point, k) => {
    const words = inWords(point);
    const at = { cx: point.x, cy: point.y };
    const tell = () => caption.replaceChildren(element("strong", {}, nameOf(point)), ` ${words}`);
    return shape(
      "g",
      { role: "img", tabindex: k ? -1 : 0, "aria-label": `${nameOf(point)}, ${words}`, focus: tell, pointerenter: tell },
      shape("circle", { ...at, class: "sigma", r: point.sigma || 0 }),
      shape("circle", { ...at, class: "ring", r: 0.015 * radius }),
      shape("circle", { ...at, class: "dot", r: 0.007 * radius }),
      shape("circle", { ...at, class: "hit", r: 0.016 * radius }),
    );
  });
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const now = groups.indexOf(document.activeElement);
    if (!step || now < 0) return;
    event.preventDefault();
    const next = (now + step + groups.length) % groups.length;
    groups.forEach((group, k) => group.setAttribute("tabindex", k === next ? 0 : -1));
    groups[next].focus();
  };
  const box = `${left} ${top} ${width} ${height}`;
  return shape("svg", { viewBox: box, role: "group", "aria-label": "Landmarks", keydown: move }, groups);
}

export const nameOf = (point) => point.name.replaceAll("_", " ");

function inWords(point) {
  const sure = point.sigma === null ? "" : `, uncertain by ${point.sigma.toFixed(1)}`;
  return `x ${point.x.toFixed(1)}, y ${point.y.toFixed(1)}${sure} pixels`;
}
