// A graph of the artefact with its tokenizer, by transformers.js: token ids in, numbers out.

import { AutoConfig, AutoModel, AutoTokenizer, Tensor, env } from "@huggingface/transformers";
import { Reader } from "./reader.js";

const NAME = "artefact";

env.allowLocalModels = true;
env.allowRemoteModels = false;
env.localModelPath = "/";
env.useBrowserCache = env.useWasmCache = false;  // an artefact may be made anew under the same name
env.backends.onnx.wasm.wasmPaths = {
  mjs: new URL("/modules/ort-wasm-simd-threaded.mjs", location.href).href,
  wasm: new URL("/modules/ort-wasm-simd-threaded.wasm", location.href).href,
};

/** Return the JSON file of the artefact, or {} where it has none. */
export async function file(name) {
  const answer = await fetch(`/${NAME}/${name}`);
  return answer.ok ? answer.json() : {};
}

/** Return the graph that is fastest here: WebAssembly has no fast kernel of INT4 products (docs/browser.md). */
export function fastest(graphs) {
  const rank = ({ precision, fused }) => ["int8", "fp32", "int4"].indexOf(precision) - (fused ? 0.5 : 0);
  return [...graphs].sort((a, b) => rank(a) - rank(b))[0];
}

/** Load a graph that the manifest lists. */
export async function load(entry, manifest, threads) {
  env.backends.onnx.wasm.numThreads = threads;  // counts for the first graph that a page loads
  const [, subfolder, stem] = entry.file.match(/^(?:(.*)\/)?(.+)\.onnx$/);
  const options = { dtype: "fp32", device: "wasm", subfolder: subfolder ?? "", model_file_name: stem };
  if (entry.external_data?.length) options.use_external_data_format = true;
  const [config, rules, settings, tokenizer, model] = await Promise.all([
    file("config.json"), file("tokenizer.json"), file("tokenizer_config.json"),
    AutoTokenizer.from_pretrained(NAME), AutoModel.from_pretrained(NAME, options),
  ]);
  return new Model(model, config, new Reader(tokenizer, rules, settings, config, manifest.reading ?? {}));
}

class Model {
  constructor(model, config, reader) {
    Object.assign(this, { model, config, reader });
  }

  /** Run the graph on what was read; return its outputs by name, each as rows of a Float32Array, and the milliseconds. */
  async run({ ids, types }) {
    const tensor = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const begun = performance.now();
    const outputs = await this.model({
      input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)), token_type_ids: tensor(types),
    });
    return { outputs, took: performance.now() - begun };
  }

  dispose() {
    return this.model.dispose();
  }
}
