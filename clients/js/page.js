// A demo that is served, and the browser that opens it.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export const openBrowser = () => chromium.launch({ executablePath: CHROMIUM, args: FLAGS });

/** Start `edgemin demo` and return its address and what ends it. */
export async function served(edgemin, artefact) {
  const demo = spawn(edgemin[0], [...edgemin.slice(1), "demo", artefact, "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  const end = () => demo.kill("SIGINT");
  process.on("exit", end);  // also after an error
  for await (const line of createInterface({ input: demo.stdout })) {
    if (line.startsWith("http")) return [line.split(" ")[0], end];
  }
  throw new Error(`${artefact}: the demo did not start`);
}
