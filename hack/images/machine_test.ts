import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSources, registrySettings } from "./machine.ts";

test("registrySettings keeps how a registry is reached, and no more", () => {
  const npmrc = [
    "registry=https://registry.example/npm/",
    "//registry.example/npm/:_authToken = secret",
    "@scope:registry=https://other.example/",
    "cafile=/etc/ca.pem",
    "fund=false",
    "; registry=https://comment.example",
    "init-author-name=somebody",
    "",
  ].join("\n");
  assert.deepEqual(registrySettings(npmrc), [
    "registry=https://registry.example/npm/",
    "//registry.example/npm/:_authToken = secret",
    "@scope:registry=https://other.example/",
    "cafile=/etc/ca.pem",
  ]);
});

test("parseSources reads lines and paragraphs", () => {
  const text = [
    "# a comment",
    "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib",
    "deb http://mirror.example/security bookworm-security main",
    "deb-src http://mirror.example/debian bookworm main",
    "",
    "Types: deb",
    "URIs: http://other.example/debian",
    "Suites: bookworm bookworm-updates",
    "Components: main",
  ].join("\n");
  assert.deepEqual(parseSources(text), [
    { uri: "http://mirror.example/debian", suites: ["bookworm"] },
    { uri: "http://mirror.example/security", suites: ["bookworm-security"] },
    { uri: "http://other.example/debian", suites: ["bookworm", "bookworm-updates"] },
  ]);
});
