// The cases that expected.py wrote, and what is allowed to differ.

import { readFileSync } from "node:fs";
import { join } from "node:path";

// The mean absolute difference of a text's logits over their mean size, as `edgemin verify` has it: with INT8 some values
// fall to the other side of their grid where sums are rounded otherwise, and shift their text a little.
export const LOGITS = 5e-2;
const SCORES = 1e-3;

export const readCases = (folder) => JSON.parse(readFileSync(join(folder, "cases.json"), "utf8"));

const mean = (values) => values.reduce((sum, value) => sum + Math.abs(value), 0) / values.length;
export const difference = (found, wanted) => Math.max(...found.map((value, index) => Math.abs(value - wanted[index])));
export const share = (found, wanted) => mean(found.map((value, index) => value - wanted[index])) / mean(wanted);
export const told = (shares, largest) =>
  `logits of a text differ by ${Math.max(0, ...shares).toExponential(1)} of their size at most, ` +
  `one logit by ${Math.max(0, ...largest).toExponential(1)}, ${largest.filter((value) => value > LOGITS).length} texts have one above ${LOGITS}`;
export const close = (found, wanted, most = SCORES) => Math.abs(found - wanted) <= most;

/** End the process: with 1 if anything was told that is wrong. */
export function finish(wrong) {
  for (const line of wrong.slice(0, 20)) console.error(line);
  console.log(`${wrong.length ? `${wrong.length} differ` : "all as in Python"}`);
  process.exit(wrong.length ? 1 : 0);
}
