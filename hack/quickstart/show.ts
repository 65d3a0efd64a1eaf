/** What the quickstart prints: scenes with the time since start, a progress bar on a terminal, plain lines elsewhere. */
import { performance } from "node:perf_hooks";

const start = performance.now();
const isTerminal = process.stdout.isTTY === true;
const paint = (code: string) => (text: string) =>
  isTerminal ? `\x1b[${code}m${text}\x1b[0m` : text;
export const bold = paint("1");
export const green = paint("32");
export const red = paint("31");
export const yellow = paint("33");
export const dim = paint("2");

export const elapsedSeconds = (): number => (performance.now() - start) / 1000;

let barShown = false;
function clearBar(): void {
  if (barShown) process.stdout.write("\r\x1b[2K");
  barShown = false;
}

export function scene(title: string): void {
  clearBar();
  console.log(`\n${bold(title)}`);
}

export function line(text: string): void {
  clearBar();
  console.log(`  ${dim(`${elapsedSeconds().toFixed(1).padStart(6)} s`)}  ${text}`);
}

export const ok = (text: string): void => line(`${green("✔")} ${text}`);

let lastPlainPercent = -1;
/** A bar that stays on its line; off a terminal one line every 25 %. */
export function progress(label: string, percent: number): void {
  if (!isTerminal) {
    const step = Math.floor(percent / 25) * 25;
    if (step !== lastPlainPercent) line(`${label} ${step} %`);
    lastPlainPercent = step;
    return;
  }
  const width = 40;
  const full = Math.round((percent / 100) * width);
  const bar = `${"█".repeat(full)}${"░".repeat(width - full)}`;
  process.stdout.write(`\r\x1b[2K            ${label} ${bar} ${percent.toFixed(0).padStart(3)} %`);
  barShown = true;
}

export function mib(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(0)} MiB`;
}
