// The page: loads the artefact, asks it whenever a person types, and shows what it says.

import { fastest, file, load } from "./model.js";
import { TASKS } from "./tasks.js";
import { el } from "./views.js";

const CALLS = 50;  // of which the median is told
const WARM = 10;  // calls after which a browser has compiled a graph's code for good
const at = (id) => document.getElementById(id);

const manifest = await file("edgemin.json");
const config = await file("config.json");
const prompts = manifest.task === "sentence_embedding" ? await file("config_sentence_transformers.json") : {};
const prompt = prompts.prompts?.[prompts.default_prompt_name] ?? "";
const task = TASKS[manifest.task];
const graphs = manifest.entries.filter((entry) => entry.runtime === "onnxruntime" && !entry.shape);
let model = null, running = false, again = false, calls = [], timer = 0;

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const values = () => [...at("inputs").querySelectorAll("textarea")].map((field) => field.value);

function fail(told) {
  at("output").ariaBusy = "false";
  at("answer").replaceChildren(el("p", { className: "wrong", role: "alert" }, told));
}

function fill() {
  const fields = task.fields({ reading: manifest.reading ?? {}, texts: manifest.texts, mask: model.reader.tokenizer.mask_token });
  at("inputs").replaceChildren(...fields.map(({ id, label, value, rows }) => el("p", {},
    el("label", { htmlFor: id }, label), el("textarea", { id, rows, value, spellcheck: false, oninput: later }))));
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(ask, 120);
}

/** Ask the model about what stands in the fields; what is typed meanwhile is asked next. */
async function ask() {
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    do {
      again = false;
      await answerOnce(values());
    } while (again);
  } catch (error) {
    fail(`The model did not answer: ${error.message ?? error}`);
  } finally {
    running = false;
  }
}

async function answerOnce(texts) {
  const result = await task.ask(model, texts, prompt);
  const known = { config, reading: manifest.reading ?? {}, values: texts, tokenizer: model.reader.tokenizer };
  const { nodes, spoken } = task.show(task.read(result, known), known);
  at("answer").replaceChildren(...nodes);
  at("output").ariaBusy = "false";
  tokens(result.readings);
  latency(result.took);
  clearTimeout(ask.spoken);
  ask.spoken = setTimeout(() => { at("spoken").textContent = spoken; }, 700);  // not at every letter
}

function tokens(readings) {
  const all = readings.flatMap((reading) => reading.tokens), cut = readings.reduce((sum, reading) => sum + reading.cut, 0);
  at("tokens").replaceChildren(...all.map(({ id, token, side }) =>
    el("li", { className: side === null ? "special" : `side${side}`, title: `id ${id}` }, token)));
  at("count").textContent = `${all.length}`;
  at("cut").hidden = cut === 0;
  at("cut").textContent = `${cut} more were cut: this model reads ${model.reader.longest} at a time.`;
}

function latency({ reading, graph }) {
  calls = [...calls, reading + graph].slice(-CALLS);
  const parts = `tokenising ${reading.toFixed(1)} ms, graph ${graph.toFixed(1)} ms`;
  at("latency").textContent = `${(reading + graph).toFixed(1)} ms`;
  const several = calls.length > 1 ? `, median of ${calls.length} calls ${median(calls).toFixed(1)} ms` : "";
  at("facts").querySelector(".median").textContent = parts + several;
}

/** Load a graph, the first by itself and any other when it is chosen. */
async function open(entry) {
  at("output").ariaBusy = "true";
  at("graph").disabled = true;
  try {
    const begun = performance.now();
    await model?.dispose();
    model = await load(entry, manifest, 1);
    const took = performance.now() - begun;
    calls = [];
    at("facts").replaceChildren(`${megabytes(entry.bytes)} · loaded in ${(took / 1000).toFixed(1)} s · `, el("span", { className: "median" }));
    if (!at("inputs").childElementCount) fill();
    for (let call = 0; call < WARM; call += 1) await task.ask(model, values(), prompt);
    await ask();
  } catch (error) {
    fail(`${entry.file} was not loaded: ${error.message ?? error}`);
  } finally {
    at("graph").disabled = false;
  }
}

at("title").textContent = task?.title ?? manifest.task;
document.title = `${at("title").textContent} - edgemin`;
at("inputs").addEventListener("submit", (event) => event.preventDefault());
at("graph").append(...graphs.map((entry, index) =>
  el("option", { value: index }, `${entry.file.split("/").at(-1)} (${entry.precision.toUpperCase()})`)));
at("graph").addEventListener("change", () => open(graphs[at("graph").value]));
if (task) {
  const first = fastest(graphs);
  at("graph").value = graphs.indexOf(first);
  await open(first);
} else fail(`The demo has no view of ${manifest.task}.`);
