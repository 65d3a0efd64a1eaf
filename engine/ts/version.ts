/** The version this engine reports: that of the package it is part of. */
import packageJson from "../../package.json" with { type: "json" };

export const VERSION = `v${packageJson.version}`;
