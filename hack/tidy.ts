/**
 * Rules of this repository that no other tool knows: import direction (TypeScript and C++), time and
 * randomness only through #common, a header comment in every file, no path or host of one machine.
 * Prints `file:line: rule` for each breach and exits 1 if there is any.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { commandLine } from "#common/command_line.ts";
import { checkoutFiles } from "./files.ts";

commandLine({
  usage: "Usage: hack/tidy.ts     takes no options; prints file:line: rule for each breach",
});

const root = path.resolve(import.meta.dirname, "..");
const files = checkoutFiles(root);
const breaches: string[] = [];
const breach = (file: string, line: number, rule: string) =>
  breaches.push(`${file}:${line}: ${rule}`);

/** The unit a TypeScript file belongs to for import direction. */
function unitOf(file: string): string {
  const parts = file.split("/");
  if (parts[0] === "agents" || parts[0] === "engine") return `${parts[0]}/${parts[1]}`;
  return parts[0] ?? "";
}

/** Which units a unit may import from besides itself; `#common` is open to all. */
const mayImport: Readonly<Record<string, readonly string[] | "all">> = {
  "agents/common": [],
  hack: "all",
  test: "all",
};

function checkTypeScript(file: string, text: string): void {
  const unit = unitOf(file);
  const lines = text.split("\n");
  const isTest =
    file.endsWith("_test.ts") || file.includes("/testing/") || unit === "test" || unit === "hack";
  const ownsTime = /^agents\/common\/(clock|random|process)\.ts$/.test(file);
  lines.forEach((line, index) => {
    const from = /(?:from|import)\s*\(?\s*"([^"]+)"/.exec(line)?.[1];
    if (from?.startsWith(".")) {
      const target = path.posix.normalize(path.posix.join(path.posix.dirname(file), from));
      if (target === "package.json") return; // the version
      const targetUnit = unitOf(target);
      const allowed = mayImport[unit] ?? [];
      // A test may lean on the shared test support.
      const supports = isTest && target.startsWith("test/support/");
      if (targetUnit !== unit && allowed !== "all" && !allowed.includes(targetUnit) && !supports) {
        breach(file, index + 1, `${unit} may not import ${targetUnit}: only #common`);
      }
      if (!/\.(ts|json|node)$/.test(from)) breach(file, index + 1, "import with the .ts ending");
    }
    if (!isTest && !ownsTime && unit !== "plugin" && unit !== "scripts") {
      const banned = /\b(Date\.now|Math\.random|randomUUID|setTimeout|setInterval)\(/.exec(
        line,
      )?.[1];
      if (banned && !line.trim().startsWith("*") && !line.trim().startsWith("//")) {
        breach(file, index + 1, `${banned} outside #common/clock.ts and random.ts`);
      }
    }
    if (/\/[\w-]+\.node"/.test(line) && file !== "engine/ts/native.ts" && !isTest) {
      breach(file, index + 1, "only engine/ts/native.ts loads the addon");
    }
  });
  const first = lines[0]?.startsWith("#!") ? lines[1] : lines[0];
  if (!first?.startsWith("/*") && !first?.startsWith("//") && !file.endsWith("_test.ts")) {
    breach(file, 1, "a file opens with what it is and why");
  }
}

/** util <- core <- bdev <- lvs, nvmf, nexus <- host <- addon, tools, test, fuzz. */
const layers: Readonly<Record<string, readonly string[]>> = {
  util: ["util"],
  core: ["util", "core"],
  bdev: ["util", "core", "bdev"],
  lvs: ["util", "core", "bdev", "lvs"],
  nvmf: ["util", "core", "bdev", "nvmf"],
  nexus: ["util", "core", "bdev", "nexus"],
  host: ["util", "core", "bdev", "lvs", "nvmf", "nexus", "host"],
  addon: ["util", "core", "bdev", "lvs", "nvmf", "nexus", "host", "addon"],
};

function checkCpp(file: string, text: string): void {
  const layer = file.split("/")[2] ?? "";
  const allowed = layers[layer];
  text.split("\n").forEach((line, index) => {
    const include = /^#include "([^"/]+)\//.exec(line)?.[1];
    if (!include || !allowed || !(include in layers)) return;
    if (!allowed.includes(include)) breach(file, index + 1, `${layer} may not include ${include}`);
  });
  // The .cc of a header says it there.
  const ownHeader = file.replace("engine/native/", "").replace(/\.cc$/, ".h");
  if (!text.startsWith("//") && !text.startsWith(`#include "${ownHeader}"`)) {
    breach(file, 1, "a file opens with what it is and why");
  }
}

const foreign = /(\/w[o]rk\/(main|shared)|\/tmp\/br[i]ef|deb[i]an\.org|npm[j]s\.(org|com))/;
for (const file of files) {
  if (/\.(png|ico|bin|gz|tar)$/.test(file) || file === "package-lock.json") continue;
  const text = readFileSync(path.join(root, file), "utf8");
  if (foreign.test(text) && !file.includes("/corpus/"))
    breach(file, 1, "names a path or host of one machine");
  if (file.includes("/generated/")) {
    if (!/generated/i.test(text.split("\n").slice(0, 3).join(" ")))
      breach(file, 1, "generated files say so on top");
    continue;
  }
  if (file.endsWith(".ts")) checkTypeScript(file, text);
  if (file.startsWith("engine/native/") && /\.(cc|h)$/.test(file)) checkCpp(file, text);
}

if (breaches.length > 0) {
  console.error(breaches.join("\n"));
  console.error(`tidy: ${breaches.length} breaches in ${files.length} files`);
  process.exitCode = 1;
} else {
  console.log(`tidy: ${files.length} files hold to the rules`);
}
