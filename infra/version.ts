/** The version of this release: that of the package. */
import { readFileSync } from "node:fs";
import { check } from "#common/check.ts";

export function ownVersion(): string {
  const file = new URL("../package.json", import.meta.url);
  const parsed: unknown = JSON.parse(readFileSync(file, "utf8"));
  const version =
    typeof parsed === "object" && parsed !== null && "version" in parsed ? parsed.version : null;
  check(typeof version === "string" && version !== "", "package.json has a version");
  return version;
}
