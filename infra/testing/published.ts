/** The published chart's values, from their fixture. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { parseValuesFile } from "../config.ts";
import type { Tree } from "../merge.ts";

const FILE = path.join(import.meta.dirname, "published_values.yaml");

export const publishedValues = (): Tree => parseValuesFile(readFileSync(FILE, "utf8"), FILE);
