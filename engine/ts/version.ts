/** The version this engine reports: that of the package it is part of. */
import { readFileSync } from "node:fs";
import { Type } from "typebox";
import Value from "typebox/value";

const manifest = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
export const VERSION = `v${Value.Parse(Type.Object({ version: Type.String() }), JSON.parse(manifest)).version}`;
