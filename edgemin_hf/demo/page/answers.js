// What a graph's numbers say, as edgemin_hf.runtime has it.

export function softmax(row) {
  const largest = highest(row), powers = Array.from(row, (value) => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** The largest value; Math.max(...row) takes no vocabulary of 250,000 tokens. */
function highest(row) {
  return row.reduce((most, value) => (value > most ? value : most), -Infinity);
}

export function sigmoid(value) {
  return 1 / (1 + Math.exp(-value));
}

export function cosine(first, second) {
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  return dot(first, second) / (Math.sqrt(dot(first, first) * dot(second, second)) || 1);
}

/** Return names with scores, the best first. */
export function ranked(names, scores) {
  return names.map((name, index) => ({ name, score: scores[index] })).sort((a, b) => b.score - a.score);
}

/** Return the names of the labels, in the order of their numbers. */
export function labelsOf(config) {
  const names = config.id2label ?? Object.fromEntries(Array.from({ length: config.num_labels ?? 2 }, (_, n) => [n, `LABEL_${n}`]));
  return Object.keys(names).map(Number).sort((a, b) => a - b).map((number) => names[number]);
}

/** Group words that follow each other into entities: a word has the tag of its first piece. */
export function entities(tokens, rows, labels) {
  const words = [];
  tokens.forEach((token, place) => {
    if (token.side === null) return;
    const last = words.at(-1);
    if (last && last.word === token.word) {
      last.end = token.end;
      return;
    }
    const likely = softmax(rows[place]), best = likely.indexOf(highest(likely));
    words.push({ word: token.word, start: token.start, end: token.end, tag: labels[best], score: likely[best] });
  });
  const type = (tag) => tag.replace(/^[BI]-/u, "");
  const groups = [];
  let before = null;
  for (const word of words) {
    if (before && type(before.tag) === type(word.tag) && !word.tag.startsWith("B-")) groups.at(-1).push(word);
    else groups.push([word]);
    before = word;
  }
  return groups.filter(([first]) => first.tag !== "O").map((group) => ({
    type: type(group[0].tag), start: group[0].start, end: group.at(-1).end,
    score: group.reduce((sum, word) => sum + word.score, 0) / group.length,
  }));
}

/** Return the best span of the context (side 1), or an empty one where "no answer" is better by more than the threshold. */
export function answer(tokens, starts, ends, { max_answer_length: most, no_answer_threshold: threshold }) {
  const inside = tokens.flatMap((token, place) => (token.side === 1 ? [place] : []));
  const counted = [0, ...inside];
  const logSum = (row) => {
    const largest = Math.max(...counted.map((place) => row[place]));
    return largest + Math.log(counted.reduce((sum, place) => sum + Math.exp(row[place] - largest), 0));
  };
  const size = logSum(starts) + logSum(ends), none = starts[0] + ends[0];
  let best = null;
  inside.forEach((first, index) => {
    for (const last of inside.slice(index, index + (most ?? 30))) {
      const score = starts[first] + ends[last];
      if ((!best || score > best.score) && tokens[last].end > tokens[first].start) best = { first, last, score };
    }
  });
  if (!best || (threshold != null && none - best.score > threshold)) return { score: Math.exp(none - size), start: 0, end: 0 };
  return { score: Math.exp(best.score - size), start: tokens[best.first].start, end: tokens[best.last].end };
}
