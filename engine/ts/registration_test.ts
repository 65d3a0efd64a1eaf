import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock, systemClock } from "#common/clock.ts";
import { SvcError } from "#common/errors.ts";
import { type Log, silentLog } from "#common/log.ts";
import {
  APIVersion,
  type RegisterRequest,
  Registration as RegistrationService,
} from "#common/proto/generated/mayastor/v1/registration_pb.ts";
import { makeService, startServer } from "#common/rpc/grpc.ts";
import { NODE_CHANGED_HEADER } from "#common/rpc/registration.ts";
import { type Identity, Registration } from "./registration.ts";

const identity: Identity = {
  nodeName: "n1",
  grpcEndpoint: "127.0.0.9:10124",
  instanceUuid: "5f0c1d2e-0000-4000-8000-000000000001",
  hostNqn: "nqn.2019-05.io.openebs:node-name:n1",
  anaEnabled: true,
};

test("Registration registers each period, logs changes once, and deregisters at the end", async () => {
  const requests: RegisterRequest[] = [];
  const gone: string[] = [];
  const logged: string[] = [];
  let failing = false;
  let seen: () => void = () => {};
  const service = makeService(RegistrationService, {
    register: async (request) => {
      requests.push(request);
      seen();
      if (failing) throw new SvcError("unavailable", "Cannot register: not the leader");
      return {};
    },
    deregister: async ({ id }) => {
      gone.push(id);
      return {};
    },
  });
  const server = await startServer("127.0.0.1:0", [service]);
  const note = (message: string) => void logged.push(message);
  const log: Log = { debug: note, info: note, warn: note, error: note };
  const clock = new ManualClock(systemClock.now());
  const registration = new Registration({
    ...{ endpoint: `https://127.0.0.1:${server.port}`, identity, periodMs: 5_000, clock, log },
    timeoutMs: 30_000,
  });
  const next = async (work: () => Promise<void> | void) => {
    const before = requests.length;
    const answered = new Promise<void>((resolve) => {
      seen = resolve;
    });
    await work();
    await answered;
    assert.equal(requests.length, before + 1);
    // The answer still has to travel back before the pause begins.
    const was = logged.length;
    while (logged.length === was && expectLog)
      await new Promise((resolve) => setImmediate(resolve));
  };
  let expectLog = true;
  await next(() => registration.start());
  assert.deepEqual(requests[0]?.apiVersion, [APIVersion.V1]);
  assert.equal(requests[0]?.hostnqn, identity.hostNqn);
  assert.equal(requests[0]?.instanceUuid, identity.instanceUuid);
  assert.equal(requests[0]?.features?.asymmetricNamespaceAccess, true);
  failing = true;
  await next(() => clock.advance(5_000));
  failing = false;
  await next(() => clock.advance(5_000));
  expectLog = false;
  assert.deepEqual(logged, ["registered", "not registered", "registered"]);
  await registration.close();
  assert.deepEqual(gone, ["n1"]);
  await registration.close();
  assert.deepEqual(gone, ["n1"], "closing twice deregisters once");
  await server.close();
});

test("Registration tells of a changed nexus ahead of the period, merged, until it was heard", async () => {
  const heard: boolean[] = [];
  let failing = false;
  const service = makeService(RegistrationService, {
    register: async (_request, { metadata }) => {
      heard.push(metadata.get(NODE_CHANGED_HEADER).length > 0);
      if (failing) throw new SvcError("unavailable", "Cannot register: not the leader");
      return {};
    },
    deregister: async () => ({}),
  });
  const server = await startServer("127.0.0.1:0", [service]);
  const clock = new ManualClock(systemClock.now());
  const registration = new Registration({
    ...{ endpoint: `https://127.0.0.1:${server.port}`, identity, periodMs: 5_000, clock },
    ...{ timeoutMs: 30_000, log: silentLog },
  });
  /** Lets time pass in steps, and answers travel, until so many were heard. */
  const until = async (count: number, limitMs: number) => {
    for (let passed = 0; heard.length < count; passed += 50) {
      assert.ok(passed <= limitMs, `heard ${heard.join()} after ${passed} ms`);
      await clock.advance(50);
      for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  registration.start();
  await until(1, 0);
  for (let nexus = 0; nexus < 10; nexus++) registration.changed();
  await until(2, 1000);
  assert.deepEqual(heard, [false, true], "ten changes, one word");
  failing = true;
  registration.changed();
  await until(4, 2000);
  failing = false;
  await until(5, 5000);
  assert.deepEqual(heard.slice(2), [true, true, true], "said again until it was heard");
  await until(6, 6000);
  assert.equal(heard[5], false);
  await registration.close();
  await server.close();
});
