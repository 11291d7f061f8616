// An artefact in Node by transformers.js, as people call it: labels and logits against Python's.
// node node.js transformers-4 CASES onnx/model_quantized.onnx

import { basename, dirname } from "node:path";
import { LOGITS, difference, finish, readCases, share, told } from "./cases.js";

const [name, folder, graph] = process.argv.slice(2);
const { env, pipeline } = await import(name);
const { folder: artefact, inputs, answers, logits } = readCases(folder).find(({ file }) => file === graph);
const dtype = { "onnx/model.onnx": "fp32", "onnx/model_quantized.onnx": "q8", "onnx/model_q4.onnx": "q4" }[graph];
env.allowRemoteModels = false;
env.localModelPath = `${dirname(artefact)}/`;

const options = { dtype, session_options: { intraOpNumThreads: 1, interOpNumThreads: 1 } };
const classify = await pipeline("text-classification", basename(artefact), options);
const wrong = [], took = [], shares = [], largest = [];
for (const [index, [text]] of inputs.entries()) {
  const begun = performance.now();
  const [{ label }] = await classify(text);
  took.push(performance.now() - begun);
  if (label !== answers[index].label) wrong.push(`${text}: ${label}, of Python ${answers[index].label}`);
  const output = await classify.model(classify.tokenizer(text));
  const found = Array.from(output.logits.data);
  shares.push(share(found, logits[index]));
  largest.push(difference(found, logits[index]));
  if (shares.at(-1) > LOGITS) wrong.push(`${text}: logits differ by ${shares.at(-1)} of their size`);
}
took.sort((a, b) => a - b);
console.log(`transformers.js ${env.version}, Node ${process.version}, ${graph}: ${inputs.length} texts, ${told(shares, largest)}, ` +
  `p50 of a call ${took[took.length >> 1].toFixed(2)} ms`);
finish(wrong);
