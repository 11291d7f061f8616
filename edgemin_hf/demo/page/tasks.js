// Each task: what it asks a person for, and what it makes of what the graph says.

import { answer, cosine, entities, labelsOf, ranked, sigmoid, softmax } from "./answers.js";
import { bars, marked, sentence, vectors, big } from "./views.js";

const CARD = "My new card has not arrived yet, and I have been waiting for two weeks.";
const PAIR = ["A man is playing a guitar on the street.", "Somebody makes music outdoors."];
const NAMES = "Angela Merkel met Barack Obama in Hannover, at the fair where Siemens shows its machines.";
const QUESTION = "When was the Aurelia built?";
const CONTEXT = "The Aurelia, a sailing boat of oak and larch, was built in Gdansk in 1911 and crossed the Atlantic four times.";
const QUERY = "How long does a new card take?";
const PASSAGES = [
  "You can freeze a lost card in the app.",
  "Cards are sent within five working days.",
  "The weather was calm at sea.",
].join("\n");

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const area = (id, label, value, rows = 3) => ({ id, label, value, rows });
const named = (column) => column.charAt(0).toUpperCase() + column.slice(1).replaceAll("_", " ");

/** Return a text, or both of a pair, as the artefact's task reads them. */
function textOrPair({ columns = [] }, texts) {
  if (columns.length < 2) return [area("text", "Text", texts[0] ?? CARD)];
  return columns.map((name, index) => area(name, named(name), PAIR[index], 2));
}

/** Read all texts, run the graph on each, and add the times up. */
async function asked(model, readings) {
  const rows = [], took = { reading: 0, graph: 0 };
  for (const reading of readings) {
    const { outputs, took: graph } = await model.run(reading);
    rows.push(outputs);
    took.reading += reading.took;
    took.graph += graph;
  }
  return { readings, outputs: rows, took };
}

const row = (output) => Object.values(output)[0].data;
const rows = ({ logits: { data, dims } }) =>
  Array.from({ length: dims[1] }, (_, place) => data.subarray(place * dims[2], (place + 1) * dims[2]));

// `ask` runs the graph, `read` makes an answer of what it gives, as `edgemin predict` does, and `show` shows that.
const oneText = { ask: (model, values) => asked(model, [model.reader.read(...values)]) };

export const TASKS = {
  text_classification: {
    ...oneText,
    title: "Text classification",
    fields: ({ reading, texts }) => textOrPair(reading, texts),
    read: ({ outputs: [output] }, { config }) => ranked(labelsOf(config), softmax(row(output))),
    show: (best) => ({ nodes: [bars(best)], spoken: `${best[0].name}, ${percent(best[0].score)}` }),
  },
  multi_label: {
    ...oneText,
    title: "Multi-label classification",
    fields: ({ reading, texts }) => textOrPair(reading, texts),
    read: ({ outputs: [output] }, { config }) => ranked(labelsOf(config), Array.from(row(output), sigmoid)),
    show(best, { reading }) {
      const threshold = reading.threshold ?? 0.5;
      const told = best.filter(({ score }) => score >= threshold).map(({ name }) => name).join(", ") || "no label";
      return { nodes: [sentence(`A label is given from ${percent(threshold)} on: ${told}.`), bars(best, { threshold })], spoken: told };
    },
  },
  regression: {
    ...oneText,
    title: "Regression",
    fields: ({ reading, texts }) => textOrPair(reading, texts),
    read: ({ outputs: [output] }) => row(output)[0],
    show: (score) => ({ nodes: [big(score.toFixed(3), "score")], spoken: `score ${score.toFixed(2)}` }),
  },
  reranking: {
    title: "Reranking",
    fields: () => [area("query", "Query", QUERY, 2), area("passages", "Passages, one a line", PASSAGES, 6)],
    ask: (model, [query, passages]) => asked(model, lines(passages).map((passage) => model.reader.read(query, passage))),
    read({ outputs }, { config, values }) {
      const made = isShare(config) ? sigmoid : (score) => score;
      return ranked(lines(values[1]), outputs.map((output) => made(row(output)[0])));
    },
    show: (best, { config }) => ({
      nodes: [bars(best, { plain: !isShare(config), all: true })], spoken: best.length ? `first: ${best[0].name}` : "no passage",
    }),
  },
  token_classification: {
    ...oneText,
    title: "Token classification",
    fields: () => [area("text", "Text", NAMES, 4)],
    read: ({ readings: [{ tokens }], outputs: [output] }, { config }) => entities(tokens, rows(output), labelsOf(config)),
    show(found, { values: [text] }) {
      const told = found.map(({ type, start, end }) => `${text.slice(start, end)}: ${type}`);
      const none = found.length ? [] : [sentence("There is no entity in this text.")];
      return { nodes: [marked(text, found), ...none], spoken: told.join(", ") || "no entity" };
    },
  },
  question_answering: {
    ...oneText,
    title: "Question answering",
    fields: () => [area("question", "Question", QUESTION, 2), area("context", "Context", CONTEXT, 7)],
    read: ({ readings: [{ tokens }], outputs: [output] }, { reading }) =>
      answer(tokens, output.start_logits.data, output.end_logits.data, reading),
    show(found, { values: [, context] }) {
      const text = context.slice(found.start, found.end) || "The context does not say.";
      const marks = found.end ? [{ ...found, type: "" }] : [];
      return { nodes: [big(text, percent(found.score)), marked(context, marks)], spoken: `${text}, ${percent(found.score)}` };
    },
  },
  sentence_embedding: {
    title: "Sentence similarity",
    fields: () => [area("first", "First text", CARD), area("second", "Second text", "Where is the card that I ordered?")],
    ask: (model, values, prompt) => asked(model, values.map((text) => model.reader.read(prompt + text))),
    read: ({ outputs }) => outputs.map(({ sentence_embedding: { data } }) => data),
    show(both) {
      const similarity = cosine(...both).toFixed(3);
      return { nodes: [big(similarity, "cosine similarity"), vectors(both)], spoken: `similarity ${similarity}` };
    },
  },
  masked_lm: {
    ...oneText,
    title: "Masked language model",
    fields: ({ mask }) => [area("text", `Text with ${mask}`, `The new ${mask} has not arrived yet.`)],
    read({ readings: [{ ids }], outputs: [output] }, { tokenizer }) {
      const likely = rows(output), places = ids.flatMap((id, place) => (id === tokenizer.mask_token_id ? [place] : []));
      return places.map((place) => {
        const shares = softmax(likely[place]);
        const best = Array.from(shares.keys()).sort((a, b) => shares[b] - shares[a]).slice(0, 5);
        return best.map((id) => ({ name: tokenizer.decode([id]).trim(), score: shares[id] }));
      });
    },
    show(found, { tokenizer }) {
      if (!found.length) return { nodes: [sentence(`Put ${tokenizer.mask_token} where a word is to be found.`)], spoken: "nothing is masked" };
      return { nodes: found.map((best) => bars(best)), spoken: found.map(([best]) => best.name).join(", ") };
    },
  },
};

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** Whether a reranker's score is a probability, as sentence-transformers makes it unless the configuration says otherwise. */
function isShare(config) {
  const told = config.sentence_transformers?.activation_fn;
  return told === undefined || told.endsWith(".Sigmoid");
}
