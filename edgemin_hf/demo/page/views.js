// What is shown: plain elements, whose text is never read as HTML.

const SHOWN = 5;

export function el(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const sentence = (text) => el("p", { className: "quiet" }, text);
export const big = (text, what) => el("p", { className: "big" }, el("strong", {}, text), " ", el("span", { className: "quiet" }, what));

/** Names with scores: the first few, and the others on demand. A threshold is a line across; plain scores have no bar. */
export function bars(scored, { threshold = null, plain = false, all = false } = {}) {
  const row = ({ name, score }, index) => {
    const item = el("li", { className: threshold === null ? (index ? "" : "best") : (score >= threshold ? "best" : "") },
      el("span", { className: "name" }, ...breakable(name)), el("span", { className: "figure" }, plain ? score.toFixed(2) : `${(100 * score).toFixed(1)} %`));
    if (!plain) {
      const track = el("span", { className: "track", ariaHidden: "true" }, el("span", { className: "fill" }));
      track.firstChild.style.width = `${(100 * score).toFixed(2)}%`;
      if (threshold !== null) track.append(el("span", { className: "threshold" }));
      track.lastChild.style.left = threshold === null ? "" : `${100 * threshold}%`;
      item.append(track);
    }
    return item;
  };
  const shown = scored.slice(0, all ? scored.length : SHOWN), others = scored.slice(shown.length);
  const list = el("ol", { className: "bars" }, ...shown.map(row));
  if (!others.length) return list;
  const more = el("ol", { className: "bars", start: SHOWN + 1 }, ...others.map((one, index) => row(one, index + SHOWN)));
  const details = el("details", { open: bars.open ?? false }, el("summary", {}, `${others.length} more`), more);
  details.addEventListener("toggle", () => { bars.open = details.open; });  // it stays open while a person types
  return el("div", {}, list, details);
}

/** A name that may be broken after each of its underscores. */
function breakable(name) {
  return name.split(/(?<=_)/u).flatMap((part) => [part, el("wbr")]);
}

/** A text with parts of it marked: each with what it is and how likely. */
export function marked(text, parts) {
  const shown = el("p", { className: "marked" });
  let place = 0;
  for (const { start, end, type, score } of parts) {
    const mark = el("mark", { title: `${(100 * score).toFixed(1)} %` }, text.slice(start, end));
    if (type) {
      mark.style.setProperty("--hue", hue(type));
      mark.className = "entity";
      mark.append(el("small", {}, type));
    }
    shown.append(text.slice(place, start), mark);
    place = end;
  }
  shown.append(text.slice(place));
  return shown;
}

/** A colour for each type of entity: far apart, and the same every time. */
function hue(type) {
  hue.known ??= new Map();
  if (!hue.known.has(type)) hue.known.set(type, (160 + 137.5 * hue.known.size) % 360);
  return hue.known.get(type);
}

/** Two vectors as rows of stripes: where both are alike they look alike. */
export function vectors(both) {
  const width = Math.min(96, both[0].length);
  const most = Math.max(...both.flatMap((vector) => Array.from(vector.subarray(0, width), Math.abs))) || 1;
  const rows = both.map((vector) => {
    const row = el("div", { className: "vector" });
    for (const value of vector.subarray(0, width)) {
      const stripe = el("i", { className: value < 0 ? "negative" : "" });
      stripe.style.opacity = (Math.abs(value) / most).toFixed(3);
      row.append(stripe);
    }
    return row;
  });
  const told = both[0].length > width ? `The first ${width} of ${both[0].length} dimensions.` : `${width} dimensions.`;
  return el("figure", { ariaLabel: "The two vectors" }, ...rows, el("figcaption", { className: "quiet" }, told));
}
