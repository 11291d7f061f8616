// The demo's page in headless Chromium: what it says of each task's texts against Python's.
// node browser.js CASES EDGEMIN...   (the command that is `edgemin`)

import { LOGITS, close, difference, finish, readCases, share, told } from "./cases.js";
import { openBrowser, served } from "./page.js";

const [folder, ...edgemin] = process.argv.slice(2);

/** What Python says of a text, as the page has it. */
const same = {
  text_classification: ([best], { label }) => best.name === label,  // the scores are those of the logits
  multi_label: (ranked, { labels, scores }) =>
    labels.every((label, index) => close(ranked.find(({ name }) => name === label).score, scores[index])),
  regression: (found, { score }) => close(found, score),
  reranking: ([{ score: found }], { score }) => close(found, score),
  token_classification: (found, { entities }) => found.length === entities.length && found.every(({ type, start, end, score }, index) => {
    const wanted = entities[index];
    return type === wanted.entity_group && start === wanted.start && end === wanted.end && close(score, wanted.score);
  }),
  question_answering: (found, wanted) => found.start === wanted.start && found.end === wanted.end && close(found.score, wanted.score),
  sentence_embedding: ([found], { vector }) => difference(found, vector) <= 1e-3,
  masked_lm: (found, words) => found.length === words.length && found.every(([best], index) => best.name === words[index]),
};

/** Ask the page's own modules about texts: what is read, the numbers of the graph and the answer made of them. */
async function inThePage([graph, inputs]) {
  const [{ file, load }, { TASKS }] = await Promise.all([import("/model.js"), import("/tasks.js")]);
  const [manifest, config] = await Promise.all([file("edgemin.json"), file("config.json")]);
  const model = await load(manifest.entries.find((entry) => entry.file === graph), manifest, 1);
  const task = TASKS[manifest.task], reading = manifest.reading ?? {}, found = [];
  for (const texts of inputs) {
    const values = manifest.task === "sentence_embedding" ? [texts[0], texts[0]] : texts;
    const result = await task.ask(model, values, "");
    const said = task.read(result, { config, reading, values, tokenizer: model.reader.tokenizer });
    const numbers = Array.from(Object.values(result.outputs[0])[0].data);
    found.push({ ids: result.readings[0].ids, numbers, took: result.took, said: JSON.parse(JSON.stringify(said, (_, value) =>
      (value instanceof Float32Array ? Array.from(value) : value))) });
  }
  return found;
}

const browser = await openBrowser();
const wrong = [];
for (const { folder: artefact, file, task, inputs, answers, ids, logits } of readCases(folder)) {
  const [address, end] = await served(edgemin, artefact);
  const page = await browser.newPage();
  page.on("pageerror", (error) => wrong.push(`${task}: ${error.message}`));
  page.on("request", (request) => request.url().startsWith(address) || request.url().startsWith("blob:") || wrong.push(`${task}: asked ${request.url()}`));
  await page.goto(address);
  await page.waitForFunction(() => document.getElementById("output").ariaBusy === "false", null, { timeout: 60000 });
  const failed = await page.locator(".wrong").allTextContents();
  wrong.push(...failed.map((line) => `${task}: ${line}`));
  const found = await page.evaluate(inThePage, [file, inputs]);
  const shares = [], largest = [];
  found.forEach((one, index) => {
    if (!same[task](one.said, answers[index])) wrong.push(`${task}: ${inputs[index]}: ${JSON.stringify(one.said).slice(0, 200)}, of Python ${JSON.stringify(answers[index]).slice(0, 200)}`);
    if (ids && String(one.ids) !== String(ids[index])) wrong.push(`${task}: ${inputs[index]}: tokens ${one.ids}, of Python ${ids[index]}`);
    if (!logits) return;
    shares.push(share(one.numbers, logits[index]));
    largest.push(difference(one.numbers, logits[index]));
    if (shares.at(-1) > LOGITS) wrong.push(`${task}: ${inputs[index]}: logits differ by ${shares.at(-1)} of their size`);
  });
  const took = found.map(({ took: { reading, graph } }) => reading + graph).sort((a, b) => a - b);
  console.log(`Chromium ${browser.version()}, ${task}, ${file}: ${inputs.length} texts, ${told(shares, largest)}, ` +
    `p50 of a call ${took[took.length >> 1].toFixed(2)} ms`);
  await page.close();
  end();
}
await browser.close();
finish(wrong);
