/** The version of this release: that of the package. */
import { check } from "#common/check.ts";
import packageJson from "../package.json" with { type: "json" };

export function ownVersion(): string {
  const { version } = packageJson;
  check(version !== "", "package.json has a version");
  return version;
}
