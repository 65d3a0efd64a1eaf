/**
 * `cdk8s synth`: writes the manifests of one installation to `dist/`.
 *
 * The only file of infra/ that reads options, environment and files.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { App } from "cdk8s";
import { helpText, type OptionTable, parseOptions, text } from "#common/config.ts";
import { errorMessage, SvcError } from "#common/errors.ts";
import { makeInstall, parseProfile, parseValuesFile } from "./config.ts";
import { addInstallation } from "./install.ts";
import { notices } from "./notices.ts";
import { PROFILE_NAMES } from "./profiles.ts";
import { parseSet } from "./set_option.ts";
import { ownVersion } from "./version.ts";

const EXTENSION = ".k8s.yaml";

const OPTIONS = {
  profile: {
    short: "p",
    env: "MAYASTOR_PROFILE",
    default: "default",
    parse: parseProfile,
    help: `One of ${PROFILE_NAMES.join(", ")}`,
  },
  values: {
    short: "f",
    env: "MAYASTOR_VALUES",
    default: "",
    parse: (value: string) => value.split(",").filter((name) => name !== ""),
    help: "Files of values, separated by commas; later ones win",
  },
  set: {
    env: "MAYASTOR_SET",
    default: "",
    parse: parseSet,
    help: "Values as name=value, separated by commas; they win over files",
  },
  release: {
    env: "MAYASTOR_RELEASE",
    default: "mayastor",
    parse: text,
    help: "Prefix of object names",
  },
  namespace: {
    short: "n",
    env: "MAYASTOR_NAMESPACE",
    default: "mayastor",
    parse: text,
    help: "Namespace to install into",
  },
  outdir: {
    short: "o",
    env: "CDK8S_OUTDIR",
    default: "dist",
    parse: text,
    help: "Output folder; cdk8s sets the variable to its own --output",
  },
  help: { short: "h", flag: true, help: "Print this text" },
} as const satisfies OptionTable;

function readValues(name: string) {
  let content: string;
  try {
    content = readFileSync(name, "utf8");
  } catch (error) {
    throw new SvcError("invalid-argument", `Cannot read values: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  return parseValuesFile(content, name);
}

/** Manifests of charts that are no longer wanted must not be applied again. */
function removeOld(outdir: string): void {
  if (!existsSync(outdir)) mkdirSync(outdir, { recursive: true });
  for (const name of readdirSync(outdir)) {
    if (name.endsWith(EXTENSION)) rmSync(path.join(outdir, name));
  }
}

try {
  const options = parseOptions(OPTIONS, { args: process.argv.slice(2), env: process.env });
  if (options.help) {
    process.stdout.write(helpText("infra/main.ts", OPTIONS));
  } else {
    const install = makeInstall({
      profile: options.profile,
      values: [...options.values.map(readValues), options.set],
      release: options.release,
      namespace: options.namespace,
      version: ownVersion(),
    });
    removeOld(options.outdir);
    const app = new App({ outdir: options.outdir, outputFileExtension: EXTENSION });
    addInstallation(app, install);
    app.synth();
    for (const notice of notices(install)) process.stderr.write(`notice: ${notice}\n`);
  }
} catch (error) {
  if (!(error instanceof SvcError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
