import assert from "node:assert/strict";
import { test } from "node:test";
import { parseOptions } from "#common/config.ts";
import { checkOptions, parseListenAddress, REST_OPTIONS } from "./options.ts";

const parse = (...args: string[]) => parseOptions(REST_OPTIONS, { args, env: {} });

test("parseListenAddress() reads IPv4, IPv6 and names", () => {
  assert.deepEqual(parseListenAddress("0.0.0.0:8081"), { host: "0.0.0.0", port: 8081 });
  assert.deepEqual(parseListenAddress("[::]:8080"), { host: "::", port: 8080 });
  assert.deepEqual(parseListenAddress("localhost:0"), { host: "localhost", port: 0 });
  for (const bad of ["8080", ":8080", "::1:8080", "a:70000", "[::1]", "http://a:1"]) {
    assert.throws(() => parseListenAddress(bad), { kind: "invalid-argument" }, bad);
  }
});

test("the options of the published deployment are accepted", () => {
  const options = parse(
    "--dummy-certificates",
    "--no-auth",
    "--http=0.0.0.0:8081",
    "--request-timeout=5s",
    "--core-grpc=https://mayastor-agent-core:50051",
  );
  checkOptions(options);
  assert.equal(options["request-timeout"], 5_000);
  assert.deepEqual(options.https, { host: "0.0.0.0", port: 8080 });
});

test("checkOptions() wants one kind of certificate and one kind of access", () => {
  const bad = [
    [],
    ["--no-auth"],
    ["--dummy-certificates"],
    ["--dummy-certificates", "--no-auth", "--jwk=/k"],
    ["--dummy-certificates", "--no-auth", "-c", "/c", "-k", "/k"],
    ["--no-auth", "-c", "/c"],
    ["--no-auth", "--dummy-certificates", "-k", "/k"],
  ];
  for (const args of bad) {
    assert.throws(() => checkOptions(parse(...args)), { kind: "invalid-argument" }, args.join(" "));
  }
  checkOptions(parse("--jwk=/k", "-c", "/c", "-k", "/k"));
});
