// Showing answers: picture and overlay, tables, words. Text from the server goes into the page as text, never as HTML.

export const by = (id) => document.getElementById(id);

/** Three significant digits. */
export const number = (value) => Number(value.toPrecision(3)).toString();

/** An element with attributes, and with children that are elements or text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const chance = (probability) =>
  probability >= 0.995 ? "> 0.99" : probability < 0.005 ? "< 0.01" : probability.toFixed(2);

/** A score in words. */
export const score = ({ logit, probability }) =>
  `score ${number(logit)} (logit)` + (probability === null ? "" : `, probability ${chance(probability)}`);

let heat = null; // the overlay's pixels as they came: alpha is the share of the maximum
let drawing = 0;

/** Draw one slice; resolves when it is on the screen. */
export async function drawPicture(answer) {
  const mine = ++drawing;
  const [picture, overlay] = await Promise.all([decoded(answer.image), answer.overlay && decoded(answer.overlay)]);
  if (mine !== drawing) return; // a later one was faster
  const [row, column] = answer.spacing_mm;
  const ratio = (picture.naturalWidth * column) / (picture.naturalHeight * row);
  by("viewport").style.aspectRatio = String(ratio);
  by("viewport").style.width = `min(100%, calc(70vh * ${ratio}))`;
  by("picture").src = answer.image;
  const canvas = by("overlay");
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  heat = overlay ? pixels(overlay) : null;
  drawOverlay();
  by("figure").hidden = false;
}

/** The overlay by the sliders: nothing below the threshold, the rest as opaque as asked. */
export function drawOverlay() {
  const canvas = by("overlay"), context = canvas.getContext("2d");
  const threshold = Number(by("threshold").value), opacity = Number(by("opacity").value);
  by("threshold-value").textContent = `${threshold} %`;
  by("opacity-value").textContent = `${opacity} %`;
  by("threshold").setAttribute("aria-valuetext", `${threshold} percent of the maximum`);
  by("opacity").setAttribute("aria-valuetext", `${opacity} percent`);
  canvas.style.opacity = by("legend-bar").style.opacity = String(opacity / 100);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!heat) return;
  const kept = new ImageData(new Uint8ClampedArray(heat.data), heat.width, heat.height);
  for (let i = 3; i < kept.data.length; i += 4) if (kept.data[i] < 2.55 * threshold) kept.data[i] = 0;
  context.putImageData(kept, 0, 0);
}

async function decoded(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return image;
}

function pixels(image) {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** The table of findings; `onMap` is called with the one whose map is wanted. */
export function showFindings(scores, onMap) {
  const rows = scores.map((one) => {
    const button = make("button", { type: "button", "aria-label": `Show where: ${one.finding}` }, "Show");
    button.addEventListener("click", () => onMap(one.finding));
    const known = one.probability !== null;
    const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("span"));
    bar.firstChild.style.width = `${100 * (one.probability ?? 0)}%`;
    return make("tr", {}, make("th", { scope: "row" }, one.finding),
      known ? make("td", { class: "chance" }, bar, chance(one.probability)) : make("td", {}, "none by this rule"),
      make("td", { class: "number" }, number(one.logit)), make("td", {}, button));
  });
  by("findings").tBodies[0].replaceChildren(...rows);
  by("findings").hidden = false;
  by("findings-help").hidden = true;
}

/** Where the heat is, for those who do not see it. */
export function showNinths(here) {
  const rows = ["Upper", "Middle", "Lower"].map((name, row) => make("tr", {}, make("th", { scope: "row" }, name),
    ...here.ninths[row].map((share) => make("td", {}, `${Math.round(100 * share)} %`))));
  by("ninths").tBodies[0].replaceChildren(...rows);
}

/** The report as sentences to choose from, its words tinted. */
export function showReport(text, answer, onSentence) {
  const items = answer.sentences.map((sentence, index) => {
    const button = make("button", { type: "button", class: "sentence", "aria-pressed": "false" },
      ...tinted(text, sentence, answer.words));
    button.addEventListener("click", () => onSentence(index));
    return make("li", {}, button);
  });
  by("sentences").replaceChildren(...items);
  const heaviest = [...answer.words].sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, 12);
  const cells = (word) => [make("th", { scope: "row" }, letters(text).slice(word.start, word.end).join("")),
    make("td", { class: "number" }, number(word.weight))];
  by("words").tBodies[0].replaceChildren(...heaviest.map((word) => make("tr", {}, ...cells(word))));
  const flat = answer.flat ? " No word stands out." : "";
  by("report-score").textContent = `Score of image and report: ${number(answer.score)} (logit).${flat}`;
  by("report-result").hidden = false;
}

const letters = (text) => Array.from(text); // the server counts code points, as Python does

function tinted(text, sentence, words) {
  const all = letters(text), parts = [];
  let at = sentence.start;
  for (const word of words.filter((one) => one.start < sentence.end && one.end > sentence.start)) {
    const start = Math.max(word.start, at), end = Math.min(word.end, sentence.end);
    const span = make("span", { title: `${number(word.weight)} logit` }, all.slice(start, end).join(""));
    if (word.color) span.style.backgroundColor = word.color;
    parts.push(all.slice(at, start).join(""), span);
    at = end;
  }
  return [...parts, all.slice(at, sentence.end).join("")];
}

/** Which sentence's map is shown. */
export function pressSentence(index) {
  by("sentences").querySelectorAll("button").forEach((button, each) =>
    button.setAttribute("aria-pressed", String(each === index)));
}

/** The nearest cases of the index. */
export function showSimilar(cases) {
  const rows = cases.map((one) => make("tr", {}, make("th", { scope: "row" }, one.id),
    make("td", { class: "number" }, one.score.toFixed(3)), make("td", {}, [one.labels ?? []].flat().join(", ")),
    make("td", {}, one.text ?? "")));
  by("similar").tBodies[0].replaceChildren(...rows);
  by("similar").hidden = false;
}
