// What a graph costs in WebAssembly beside ONNX Runtime's own code in Node, in turns: least and median of a call, and the
// processor's time, which other programs on the machine do not lengthen as they do the median.
// node speed.js ARTEFACT TOKENS EDGEMIN...   (the command that is `edgemin`)

import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { openBrowser, served } from "./page.js";

const [artefact, tokens, ...edgemin] = process.argv.slice(2);
const ROUNDS = 5, CALLS = 20, WARM = 100;
// The ONNX Runtime that transformers.js 4 brings.
const ort = createRequire(createRequire(import.meta.url).resolve("transformers-4"))("onnxruntime-node");

/** Return milliseconds of processor that this process and those of pages took so far, all threads together. */
function processor() {
  const pages = readdirSync("/proc").filter((name) => /^\d+$/u.test(name) && isPage(name));
  const threads = [String(process.pid), ...pages].flatMap((pid) => readdirSync(`/proc/${pid}/task`).map((task) => `/proc/${pid}/task/${task}`));
  return threads.reduce((sum, thread) => sum + Number(readFileSync(`${thread}/schedstat`, "utf8").split(" ")[0]) / 1e6, 0);
}

function isPage(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--type=renderer") && ownedBy(pid);
  } catch {
    return false;  // it has ended
  }
}

function ownedBy(pid) {
  const parent = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ")[1];
  return Number(parent) === process.pid || (Number(parent) > 1 && ownedBy(parent));
}

/** Make the calls of a graph in Node. */
async function inNode(file) {
  const session = await ort.InferenceSession.create(join(artefact, file), { intraOpNumThreads: 1, interOpNumThreads: 1 });
  const feed = inputs(ort, session, Number(tokens));
  return (calls) => timed(session, feed, calls);
}

/** Make the calls of a graph in a page of its own. */
async function inPage(browser, address, file, threads) {
  const page = await browser.newPage();
  await page.goto(`${address}/icon.svg`);
  await page.evaluate(`globalThis.inputs = ${inputs}; globalThis.timed = ${timed};`);
  await page.evaluate(async ([graph, count, length]) => {
    const web = await import("/modules/ort.wasm.min.mjs");
    web.env.wasm.numThreads = count;
    globalThis.session = await web.InferenceSession.create(`/artefact/${graph}`, { executionProviders: ["wasm"] });
    globalThis.feed = inputs(web, session, length);
  }, [file, threads, Number(tokens)]);
  return (calls) => page.evaluate((count) => timed(session, feed, count), calls);
}

function inputs({ Tensor }, session, length) {
  const of = (value) => new Tensor("int64", BigInt64Array.from({ length }, value), [1, length]);
  const values = { input_ids: (_, index) => BigInt(1000 + 7 * index), attention_mask: () => 1n, token_type_ids: () => 0n };
  return Object.fromEntries(session.inputNames.map((name) => [name, of(values[name])]));
}

async function timed(session, feed, calls) {
  const took = [];
  for (let call = 0; call < calls; call += 1) {
    const begun = performance.now();
    await session.run(feed);
    took.push(performance.now() - begun);
  }
  return took;
}

const [address, end] = await served(edgemin, artefact);
const browser = await openBrowser();
const graphs = JSON.parse(readFileSync(join(artefact, "edgemin.json"), "utf8")).entries
  .filter(({ runtime, shape }) => runtime === "onnxruntime" && !shape);
const runners = [];
for (const { file } of graphs) {
  runners.push([`Node, ${file}`, await inNode(file)]);
  for (const threads of [1, 2]) runners.push([`Chromium, ${threads} thread${threads > 1 ? "s" : ""}, ${file}`, await inPage(browser, address, file, threads)]);
}
const took = runners.map(() => []), cost = runners.map(() => []);
for (const [, run] of runners) await run(WARM);
for (let round = 0; round < ROUNDS; round += 1) {
  for (const [index, [, run]] of runners.entries()) {
    const before = processor();
    took[index].push(...await run(CALLS));
    cost[index].push((processor() - before) / CALLS);
  }
}
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
runners.forEach(([name], index) => console.log(`${name}: least ${Math.min(...took[index]).toFixed(2)} ms, ` +
  `median ${median(took[index]).toFixed(2)} ms, processor ${median(cost[index]).toFixed(2)} ms`));
await browser.close();
end();
process.exit();
