// An artefact in Node by transformers.js, as people call it: labels and logits against Python's.
// node node.js transformers-4 CASES

import { basename, dirname } from "node:path";
import { LOGITS, difference, finish, mean, readCases } from "./cases.js";

const [name, folder] = process.argv.slice(2);
const { env, pipeline } = await import(name);
const [{ folder: artefact, inputs, answers, logits }] = readCases(folder);
env.allowRemoteModels = false;
env.localModelPath = `${dirname(artefact)}/`;

const options = { dtype: "q8", session_options: { intraOpNumThreads: 1, interOpNumThreads: 1 } };
const classify = await pipeline("text-classification", basename(artefact), options);
const wrong = [], took = [];
let worst = 0, most = 0;
for (const [index, [text]] of inputs.entries()) {
  const begun = performance.now();
  const [{ label }] = await classify(text);
  took.push(performance.now() - begun);
  if (label !== answers[index].label) wrong.push(`${text}: ${label}, of Python ${answers[index].label}`);
  const output = await classify.model(classify.tokenizer(text));
  const found = Array.from(output.logits.data), far = mean(found, logits[index]);
  if (far > LOGITS) wrong.push(`${text}: logits differ by ${far}`);
  worst = Math.max(worst, difference(found, logits[index]));
  most = Math.max(most, far);
}
took.sort((a, b) => a - b);
console.log(`${name} ${env.version}, Node ${process.version}: ${inputs.length} texts, logits of a text differ by ${most.toExponential(1)}, one by ${worst.toExponential(1)} at most, ` +
  `p50 of a call ${took[took.length >> 1].toFixed(2)} ms`);
finish(wrong);
