import assert from "node:assert/strict";
import { test } from "node:test";
import { parseOptions } from "./options.ts";

const networkOf = (given: string) =>
  parseOptions(["--host=a", `--open-firewall=${given}`]).openFirewall;

test("parseOptions() writes a network the way firewalls list it", () => {
  assert.equal(networkOf("10.0.0.0/24"), "10.0.0.0/24");
  assert.equal(networkOf("0.0.0.0/0"), "0.0.0.0/0");
  assert.equal(networkOf("10.0.0.5/32"), "10.0.0.5/32");
  assert.equal(networkOf("fd00:0::/8"), "fd00::/8");
  assert.equal(networkOf("FD00:0000:0:1:0:0:0:0/064"), "fd00:0:0:1::/64");
  assert.equal(networkOf("::/0"), "::/0");
  assert.equal(networkOf("2001:db8::1/128"), "2001:db8::1/128");
});

test("parseOptions() refuses one address of a network, and names the network", () => {
  assert.throws(() => networkOf("10.0.0.5/24"), /the network 10\.0\.0\.0\/24; give the network/);
  assert.throws(() => networkOf("fd00::1/8"), /the network fd00::\/8/);
});

test("parseOptions() refuses what is no network", () => {
  for (const given of [
    "everyone",
    "10.0.0.0",
    "10.0.0.0/33",
    "10.0.0.0/24/8",
    "fe80::%eth0/64",
    "/8",
  ]) {
    assert.throws(() => networkOf(given), /Cannot open the firewall/, given);
  }
});
