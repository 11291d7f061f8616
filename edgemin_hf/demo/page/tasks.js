// Each task: what it asks a person for, and what it makes of what the graph says.

import { answer, cosine, entities, labelsOf, ranked, sigmoid, softmax } from "./answers.js";
import { bars, marked, sentence, vectors, big } from "./views.js";

const CARD = "My new card has not arrived yet, and I have been waiting for two weeks.";
const CONTEXT = "The Aurelia, a sailing boat of oak and larch, was built in Gdansk in 1911 and crossed the Atlantic four times.";

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const area = (id, label, value, rows = 3) => ({ id, label, value, rows });

/** Return a text, or both of a pair, as the artefact's task reads them. */
function textOrPair(reading, texts, pair) {
  const columns = reading.columns ?? [];
  if (columns.length < 2) return [area("text", "Text", texts[0] ?? CARD)];
  return columns.map((name, index) => area(name, named(name), pair[index], 2));
}

const named = (column) => column.charAt(0).toUpperCase() + column.slice(1).replaceAll("_", " ");
const PAIR = ["A man is playing a guitar on the street.", "Somebody makes music outdoors."];

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

const logits = ({ outputs: [first] }) => first.logits.data;
const perToken = ({ logits: { data, dims } }) =>
  Array.from({ length: dims[1] }, (_, place) => data.subarray(place * dims[2], (place + 1) * dims[2]));

const oneReading = (model, values) => asked(model, [model.reader.read(...values)]);

export const TASKS = {
  text_classification: {
    title: "Text classification",
    fields: (reading, texts) => textOrPair(reading, texts, PAIR),
    ask: oneReading,
    show(result, { config }) {
      const best = ranked(labelsOf(config), softmax(logits(result)));
      return { nodes: [bars(best)], spoken: `${best[0].name}, ${percent(best[0].score)}` };
    },
  },
  multi_label: {
    title: "Any number of labels",
    fields: (reading, texts) => textOrPair(reading, texts, PAIR),
    ask: oneReading,
    show(result, { config, reading }) {
      const threshold = reading.threshold ?? 0.5;
      const best = ranked(labelsOf(config), Array.from(logits(result), sigmoid));
      const given = best.filter(({ score }) => score >= threshold).map(({ name }) => name);
      const told = given.length ? given.join(", ") : "no label";
      return { nodes: [sentence(`From ${percent(threshold)} on a label is given: ${told}.`), bars(best, { threshold })], spoken: told };
    },
  },
  regression: {
    title: "A score",
    fields: (reading, texts) => textOrPair(reading, texts, PAIR),
    ask: oneReading,
    show(result) {
      const score = logits(result)[0].toFixed(3);
      return { nodes: [big(score, "score")], spoken: `score ${score}` };
    },
  },
  reranking: {
    title: "Reranking",
    fields: () => [
      area("query", "Query", "How long does a new card take?", 2),
      area("passages", "Passages, one a line", "Cards are sent within five working days.\nThe weather was calm at sea.\nYou can freeze a lost card in the app.", 5),
    ],
    ask: (model, [query, passages]) => asked(model, lines(passages).map((passage) => model.reader.read(query, passage))),
    show({ outputs }, { config, values }) {
      const told = config.sentence_transformers?.activation_fn;
      const made = told === undefined || told.endsWith(".Sigmoid") ? sigmoid : (score) => score;
      const best = ranked(lines(values[1]), outputs.map((output) => made(output.logits.data[0])));
      return { nodes: [bars(best, { plain: made !== sigmoid, all: true })], spoken: best.length ? `first: ${best[0].name}` : "no passage" };
    },
  },
  token_classification: {
    title: "Entities",
    fields: () => [area("text", "Text", "Angela Merkel met Barack Obama in Hannover before the fair of Siemens.", 4)],
    ask: oneReading,
    show({ readings: [{ tokens }], outputs: [output] }, { config, values }) {
      const found = entities(tokens, perToken(output), labelsOf(config));
      const told = found.map(({ type, start, end }) => `${values[0].slice(start, end)}: ${type}`);
      return { nodes: [marked(values[0], found)], spoken: told.join(", ") || "no entity" };
    },
  },
  question_answering: {
    title: "Question answering",
    fields: () => [area("question", "Question", "When was the Aurelia built?", 2), area("context", "Context", CONTEXT, 7)],
    ask: oneReading,
    show({ readings: [{ tokens }], outputs: [output] }, { values, reading }) {
      const found = answer(tokens, output.start_logits.data, output.end_logits.data, reading);
      const text = found.none ? "The context does not say." : values[1].slice(found.start, found.end);
      const marks = found.none ? [] : [{ ...found, type: "" }];
      return { nodes: [big(text, percent(found.score)), marked(values[1], marks)], spoken: `${text}, ${percent(found.score)}` };
    },
  },
  sentence_embedding: {
    title: "Similarity of two texts",
    fields: () => [area("first", "First text", CARD, 3), area("second", "Second text", "Where is the card that I ordered?", 3)],
    ask: (model, values, prompt) => asked(model, values.map((text) => model.reader.read(prompt + text))),
    show({ outputs }) {
      const both = outputs.map((output) => output.sentence_embedding.data), similarity = cosine(...both);
      return { nodes: [big(similarity.toFixed(3), "cosine similarity"), vectors(both)], spoken: `similarity ${similarity.toFixed(2)}` };
    },
  },
  masked_lm: {
    title: "Masked words",
    fields: (_, __, mask) => [area("text", `Text with ${mask}`, `The new ${mask} has not arrived yet.`)],
    ask: oneReading,
    show({ readings: [{ ids }], outputs: [output] }, { tokenizer }) {
      const rows = perToken(output);
      const places = ids.flatMap((id, place) => (id === tokenizer.mask_token_id ? [place] : []));
      const found = places.map((place) => {
        const likely = softmax(rows[place]);
        const best = Array.from(likely.keys()).sort((a, b) => likely[b] - likely[a]).slice(0, 5);
        return best.map((id) => ({ name: tokenizer.decode([id]).trim(), score: likely[id] }));
      });
      if (!found.length) return { nodes: [sentence(`Put ${tokenizer.mask_token} where a word is to be found.`)], spoken: "nothing is masked" };
      return { nodes: found.map((best) => bars(best)), spoken: found.map(([best]) => best.name).join(", ") };
    },
  },
};

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
