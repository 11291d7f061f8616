// Texts as token ids, with the characters that each token stands for, which transformers.js does not tell.

// What BERT's tokenizer takes for words: single marks and ideographs, or what stands between them and blanks.
const MARK = "\\p{P}$+<=>^`|~", IDEOGRAPH = "\\p{Script=Han}";
const WORDS = new RegExp(`[${MARK}]|${IDEOGRAPH}|(?:(?!${IDEOGRAPH})[^\\s${MARK}])+`, "gu");
const BETWEEN_BLANKS = /\s*\S+/gu;  // of tokenizers whose tokens begin with their blank

export class Reader {
  constructor(tokenizer, rules, settings, config, reading) {
    this.tokenizer = tokenizer;
    this.prefix = rules.model?.continuing_subword_prefix;
    this.special = new RegExp(`(${(tokenizer.all_special_tokens ?? []).map(escaped).join("|") || "$^"})`, "u");
    const known = [settings.model_max_length, config.max_position_embeddings].filter((most) => most && most < 1e9);
    this.longest = reading.max_length ?? (known.length ? Math.min(...known) : 512);
    this.typed = (settings.model_input_names ?? ["token_type_ids"]).includes("token_type_ids");
    this.cutsLeft = settings.truncation_side === "left";
  }

  /** Read a text or a pair: ids, types, and the tokens with text, side (null of special ones), characters and word. */
  read(first, second = null) {
    const begun = performance.now();
    const sides = [first, second].filter((text) => text !== null).map((text) => this.tokens(text));
    const whole = sides.reduce((sum, tokens) => sum + tokens.length, 0);
    const frame = this.frame(sides.length);
    const room = this.longest - frame.filter((part) => part.side === null).length;
    for (let spare = whole - room; spare > 0; spare -= 1) {
      const longer = sides.length > 1 && sides[1].length >= sides[0].length ? sides[1] : sides[0];
      this.cutsLeft ? longer.shift() : longer.pop();
    }
    const tokens = frame.flatMap((part) =>
      part.side === null ? [part] : sides[part.side].map((token) => ({ ...token, side: part.side, type: part.type })));
    return {
      tokens, ids: tokens.map((token) => token.id), types: tokens.map((token) => (this.typed ? token.type : 0)),
      cut: Math.max(0, whole - room), took: performance.now() - begun,
    };
  }

  /** Return the tokens of one text alone, word by word. */
  tokens(text) {
    const found = [];
    let start = 0, word = 0;
    for (const part of text.split(this.special)) {
      const pieces = this.special.test(part) ? [{ 0: part, index: 0 }]
        : part.matchAll(this.prefix ? WORDS : BETWEEN_BLANKS);
      for (const piece of pieces) {
        const written = piece[0].trimStart();
        const from = start + piece.index + piece[0].length - written.length;
        found.push(...placed(this.encoded(piece[0]), written.length, from, this.prefix).map((token) => ({ ...token, word })));
        word += 1;
      }
      start += part.length;
    }
    return found;
  }

  encoded(text) {
    const options = { add_special_tokens: false };
    const ids = this.tokenizer.encode(text, options);
    return this.tokenizer.tokenize(text, options).map((token, index) => ({ id: ids[index], token }));
  }

  /** Return where special tokens stand around one text or two: special ones with their ids, and a place for each side. */
  frame(count) {
    const pair = count > 1 ? "b" : null;
    const options = { text_pair: pair, add_special_tokens: true };
    const { input_ids: ids, token_type_ids: types } =
      this.tokenizer("a", { ...options, return_tensor: false, return_token_type_ids: true });
    const names = this.tokenizer.tokenize("a", { pair, add_special_tokens: true });
    const [a, b] = ["a", "b"].map((text) => this.encoded(text).map((token) => token.id));
    const at = ids.indexOf(a[0]), then = pair ? ids.lastIndexOf(b.at(-1)) - b.length + 1 : -1;
    const parts = [];
    for (let place = 0; place < ids.length; place += 1) {
      const type = types?.[place] ?? 0;
      if (place === at || place === then) {
        parts.push({ side: place === at ? 0 : 1, type });
        place += (place === at ? a : b).length - 1;
      } else parts.push({ id: ids[place], token: names[place], side: null, type, start: 0, end: 0 });
    }
    return parts;
  }
}

/** Place the tokens of a word in its text: each where its letters are, if they are all of the word's. */
function placed(tokens, length, from, prefix) {
  const sizes = tokens.map(({ token }, index) => {
    const letters = index && prefix && token.startsWith(prefix) ? token.slice(prefix.length) : token.replace(/^[Ġ▁]/u, "");
    return letters.length;
  });
  const exact = sizes.reduce((sum, size) => sum + size, 0) === length;
  let start = from;
  return tokens.map((token, index) => {
    const end = exact ? start + sizes[index] : from + length;
    const place = { ...token, start: exact ? start : from, end };
    start = end;
    return place;
  });
}

function escaped(text) {
  return text.replace(/[\\^$.*+?()[\]{}|/]/gu, "\\$&");
}
