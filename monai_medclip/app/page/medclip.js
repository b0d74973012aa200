// The /medclip/ page: what happens when somebody picks a study, asks a question or moves a slider.

import { ask, Told } from "./server.js";
import { by, drawOverlay, drawPicture, number, pressSentence, score, showFindings, showNinths, showReport, showSimilar }
  from "./show.js";

let limits = null;
let study = null; // {id, name} of the open one
let question = { kind: "picture" }; // or a heatmap's prompt and method, or a report and one of its sentences
let running = null; // what can be broken off when another question comes
let slices = new Map(); // answers to the present question by slice
let waiting = null; // a slider that still moves

/** Run what a person has asked for; say that it runs, and what went wrong if it does. */
async function attempt(words, work) {
  running?.abort();
  const mine = (running = new AbortController());
  by("error").textContent = "";
  by("status").textContent = words;
  by("picture-section").setAttribute("aria-busy", "true");
  try {
    const said = await work(mine.signal);
    if (mine === running) by("status").textContent = said ?? "";
  } catch (error) {
    if (mine !== running || error.name === "AbortError") return;
    by("status").textContent = "";
    by("error").textContent = error instanceof Told ? error.message : `The page failed: ${error.message}`;
  } finally {
    if (mine === running) by("picture-section").setAttribute("aria-busy", "false");
  }
}

async function start() {
  await attempt("Asking the server for its model…", async (signal) => {
    const info = await ask("info", undefined, signal);
    limits = info.limits;
    const kind = info.modality === "CT" ? "CT volumes" : "single pictures";
    by("model").textContent = `Model ${info.name}, version ${info.version}; reads ${kind}`;
    by("known").replaceChildren(...info.findings.map((name) => new Option(name, name)));
    by("method").replaceChildren(...info.methods.map((name) => new Option(name, name)));
    by("prompt").maxLength = limits.prompt_characters;
    by("most").textContent = limits.prompt_characters;
    by("report").maxLength = limits.report_characters;
    by("similar-section").hidden = !info.has_index;
    const studies = await ask("studies", undefined, signal);
    if (studies.length) by("study").replaceChildren(...studies.map(({ id, name }) => new Option(name, id)));
    by("study").disabled = by("open").disabled = !studies.length;
    return studies.length ? "Ready: open a study." : "Ready: drop a study, as this server has none of its own.";
  });
}

/** Show a study's picture and scores, and forget what was shown of another one. */
async function open(id, name) {
  await attempt(`Reading ${name}…`, async (signal) => {
    close();
    const [picture, found] = await Promise.all(
      [ask("picture", { study: id }, signal), ask("findings", { study: id }, signal)]);
    study = { id, name };
    question = { kind: "picture" };
    slices = new Map([[picture.slice, picture]]);
    await put(picture);
    showFindings(found.scores, (prompt) => {
      by("prompt").value = prompt;
      showWhere();
      by("picture-heading").focus();
    });
    for (const button of ["show", "weigh", "find"]) by(button).disabled = false;
    const best = found.scores[0];
    return `${name} is open. Highest of ${found.scores.length} findings: ${best.finding}, ${score(best)}.`;
  });
}

function close() {
  study = null;
  for (const id of ["findings", "report-result", "similar", "figure", "slice-control", "legend", "ninths-details"])
    by(id).hidden = true;
  for (const button of ["show", "weigh", "find"]) by(button).disabled = true;
}

/** Send files and open the study that they are. */
async function send(files) {
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  let dropped = null;
  await attempt(`Sending ${files.length === 1 ? files[0].name : `${files.length} files`}…`, async (signal) => {
    if (limits && bytes > limits.upload_bytes)
      throw new Told(`These files have ${number(bytes / 2 ** 20)} MB: the server takes ${number(limits.upload_bytes / 2 ** 20)}.`);
    if (limits && files.length > limits.upload_files)
      throw new Told(`These are ${files.length} files: the server takes ${limits.upload_files}, or one zip file.`);
    const form = new FormData();
    for (const file of files) form.append("files", file, file.name);
    dropped = await ask("studies", form, signal);
  });
  if (dropped) await open(dropped.id, files.length === 1 ? files[0].name : `your ${files.length} files`);
}

function showWhere() {
  const prompt = by("prompt").value.trim();
  if (!prompt || !study) return;
  slices = new Map();
  pressSentence(-1);
  show({ kind: "heatmap", prompt, method: by("method").value }, null);
}

/** Answer a question about one slice; null: the slice of the map's maximum. */
async function show(next, index) {
  question = next;
  await attempt("Working…", async (signal) => {
    const answer = slices.get(index) ?? (await answered(next, index, signal));
    slices.set(answer.slice, answer);
    await put(answer);
    return said(answer);
  });
}

async function answered({ kind, ...rest }, slice, signal) {
  const body = { study: study.id, slice };
  if (kind === "picture") return ask("picture", body, signal);
  if (kind === "heatmap") return ask("heatmap", { ...body, ...rest, threshold: 0 }, signal);
  const { sentence, ...report } = rest;
  const answer = await ask("report", { ...body, ...report }, signal);
  return ofSentence(answer, sentence);
}

const ofSentence = (answer, index) => {
  const sentence = answer.sentences[index];
  return { ...sentence, prompt: sentence.text, score: { logit: sentence.score, probability: null }, legend: answer.legend };
};

/** Put an answer on the screen: picture, caption, sliders, and the words for those who do not see them. */
async function put(answer) {
  await drawPicture(answer);
  const words = said(answer);
  by("picture").alt = `${study?.name ?? "The study"}. ${words}`;
  by("caption").textContent = words;
  const slider = by("slice"), many = answer.slices > 1;
  by("slice-control").hidden = !many;
  slider.max = answer.slices - 1;
  slider.value = answer.slice;
  sayslice();
  by("legend").hidden = by("ninths-details").hidden = !answer.overlay;
  if (!answer.overlay) return;
  by("legend-bar").src = answer.legend;
  by("legend-maximum").textContent = `${number(Math.max(answer.maximum, 0))} logit`;
  showNinths(answer.here);
}

/** An answer in words. */
function said(answer) {
  const slice = answer.slices > 1 ? `Slice ${answer.slice + 1} of ${answer.slices}. ` : "";
  if (!answer.overlay) return `${slice}No question asked yet.`;
  const place = answer.here.place ? `maximum at ${answer.here.place}` : "nothing here speaks for it";
  const elsewhere = answer.slices > 1 && answer.slice !== answer.maximum_slice
    ? `; the map's maximum is in slice ${answer.maximum_slice + 1}` : "";
  return `${slice}“${answer.prompt}”: ${score(answer.score)}; ${place}${elsewhere}.`;
}

function sayslice() {
  const slider = by("slice"), words = `${Number(slider.value) + 1} of ${Number(slider.max) + 1}`;
  by("slice-value").textContent = words;
  slider.setAttribute("aria-valuetext", `slice ${words}`);
}

/** Another slice, once the slider or the wheel rests. */
function moveTo(index) {
  const slider = by("slice");
  slider.value = index; // the browser keeps it within its ends
  sayslice();
  clearTimeout(waiting);
  waiting = setTimeout(() => study && show(question, Number(slider.value)), 60);
}

by("pick").addEventListener("submit", (event) => {
  event.preventDefault();
  const chosen = by("study").selectedOptions[0];
  open(chosen.value, chosen.text);
});
by("question").addEventListener("submit", (event) => {
  event.preventDefault();
  showWhere();
});
by("report-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const report = by("report").value;
  attempt("Weighing the words…", async (signal) => {
    const method = by("method").value;
    const answer = await ask("report", { study: study.id, report, method }, signal);
    showReport(report, answer, (sentence) => {
      slices = new Map();
      pressSentence(sentence);
      const shown = ofSentence(answer, sentence);
      slices.set(null, shown);
      show({ kind: "report", report, method, sentence }, null);
    });
    return `${answer.words.length} words are weighed, ${answer.sentences.length} sentences can be chosen.`;
  });
});
by("find").addEventListener("click", () => attempt("Searching the index…", async (signal) => {
  const { cases } = await ask("similar", { study: study.id }, signal);
  showSimilar(cases);
  return `${cases.length} similar cases found.`;
}));
by("files").addEventListener("change", (event) => event.target.files.length && send([...event.target.files]));
by("slice").addEventListener("input", (event) => moveTo(Number(event.target.value)));
for (const id of ["opacity", "threshold"]) by(id).addEventListener("input", drawOverlay);
by("viewport").addEventListener("click", () => by("slice").focus());
by("viewport").addEventListener("wheel", (event) => {
  if (by("slice-control").hidden) return;
  event.preventDefault();
  moveTo(Number(by("slice").value) - Math.sign(event.deltaY)); // up is toward the head
}, { passive: false });

for (const name of ["dragenter", "dragover"]) document.addEventListener(name, (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
for (const name of ["dragleave", "drop"]) document.addEventListener(name, (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  const files = [...(event.dataTransfer?.files ?? [])];
  if (files.length) send(files);
});

drawOverlay();
start();
