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

test("every published option is accepted, in its long and its short form", () => {
  const options = parse(
    ...["--https=[::]:8080", "--http=[::]:8081", "--core-grpc=https://core:50051"],
    ...["--json-grpc=https://json:50052", "--jaeger=jaeger:6831", "--tracing-tags=a=b,c=d"],
    ...["--request-timeout=5s", "--no-min-timeouts", "--workers=2", "--max-workers=8"],
    ...["--cert-file=/c", "--key-file=/k", "--jwk=/j"],
  );
  checkOptions(options);
  assert.equal(options.jaeger, "jaeger:6831");
  const short = ["-z", "http://core:1", "-J", "http://json:2", "-j", "jaeger:3", "-t", "a=b"];
  checkOptions(parse(...short, "-r=5s", "-w1", "-m1", "--dummy-certificates", "--no-auth"));
  const env = { TRACING_TAGS: "x=y" };
  assert.equal(parseOptions(REST_OPTIONS, { args: [], env })["tracing-tags"], "x=y");
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
