import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  watch,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, dirname, join } from "node:path";
import { after, test } from "node:test";
import { ManualClock, systemClock } from "#common/clock.ts";
import { findEndpoint } from "./discovery.ts";
import { kubeconfigPaths, loadEndpoint } from "./kubeconfig.ts";
import { makeRestClient } from "./rest_client.ts";
import { startFakeRest } from "./testing/fake_rest.ts";

const folder = mkdtempSync(join(tmpdir(), "kubectl-mayastor-"));
const api = await startFakeRest();
after(async () => {
  await api.close();
  rmSync(folder, { recursive: true });
});

function write(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}
/** Resolves when the file is there. */
function watched(path: string): Promise<void> {
  return new Promise((resolve) => {
    const watcher = watch(dirname(path), (_event, name) => {
      if (name !== basename(path) || !existsSync(path)) return;
      watcher.close();
      resolve();
    });
  });
}
const kubeconfig = (user: string, cluster = "") => `
apiVersion: v1
kind: Config
current-context: here
contexts:
- name: elsewhere
  context: {cluster: other, user: other}
- name: here
  context: {cluster: main, user: admin}
clusters:
- name: main
  cluster:
    server: ${api.url}/
${cluster}
users:
- name: admin
  user:
${user}
`;
const never = new AbortController().signal;
const timing = { timeoutMs: 10_000, clock: systemClock, signal: never };
const load = (...paths: string[]) =>
  loadEndpoint(paths, { ...timing, env: { PATH: process.env["PATH"] } });
const discover = (path: string) =>
  findEndpoint({
    ...timing,
    rest: undefined,
    kubeConfigPath: path,
    namespace: "mayastor",
    env: {},
  });

test("the REST server is found through the API server's service proxy", async () => {
  const services = "/api/v1/namespaces/mayastor/services";
  const ports = [{ name: "https" }, { name: "http" }];
  api.answers[`GET ${services}?labelSelector=app%3Dapi-rest`] = {
    body: { items: [{ metadata: { name: "mayastor-api-rest" }, spec: { ports } }] },
  };
  api.answers[`GET ${services}/mayastor-api-rest:http/proxy/v0/pools`] = { body: [] };
  const endpoint = await discover(write("token", kubeconfig("    token: s3cret")));
  assert.deepEqual(await makeRestClient(endpoint, timing).pools(), []);
  assert.ok(api.requests.every(({ headers }) => headers.authorization === "Bearer s3cret"));
});

test("a cluster without the service, and a refusal, say so", async () => {
  const path = write("plain", kubeconfig("    token: t"));
  const line = "GET /api/v1/namespaces/mayastor/services?labelSelector=app%3Dapi-rest";
  api.answers[line] = { body: { items: [] } };
  await assert.rejects(discover(path), /no service with label app=api-rest/);
  api.answers[line] = { status: 403, body: { kind: "Status" } };
  await assert.rejects(discover(path), /cannot list services in namespace mayastor: status 403/);
});

test("loadEndpoint() takes certificates inline or from files beside the kubeconfig", async () => {
  write("ca.pem", "CA");
  const data = (text: string) => Buffer.from(text).toString("base64");
  const path = write(
    "certs",
    kubeconfig(
      `    client-certificate-data: ${data("CERT")}\n    client-key-data: ${data("KEY")}`,
      "    certificate-authority: ca.pem\n    tls-server-name: kubernetes",
    ),
  );
  const { tls, headers, baseUrl } = await load(path);
  assert.equal(baseUrl, api.url);
  assert.deepEqual([tls?.ca, tls?.cert, tls?.key, tls?.servername].map(String), [
    "CA",
    "CERT",
    "KEY",
    "kubernetes",
  ]);
  assert.deepEqual(headers, {});
});

test("loadEndpoint() reads tokens from files and from credential plugins", async () => {
  write("token.txt", "from-file\n");
  const file = await load(write("file", kubeconfig("    tokenFile: token.txt")));
  assert.deepEqual(file.headers, { authorization: "Bearer from-file" });
  const exec = kubeconfig(`    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: /bin/sh
      args: ["-c", 'printf "%s" "{\\"status\\":{\\"token\\":\\"$NAME\\"}}"']
      env: [{name: NAME, value: from-exec}]`);
  const ran = await load(write("exec", exec));
  assert.deepEqual(ran.headers, { authorization: "Bearer from-exec" });
  const broken = kubeconfig("    exec: {command: /nonexistent/plugin}");
  await assert.rejects(load(write("broken", broken)), /credential plugin .* failed/);
});

test("loadEndpoint() says what it cannot use", async () => {
  const cases: [string, RegExp][] = [
    [kubeconfig("    auth-provider: {name: oidc}"), /auth-provider is not supported/],
    [kubeconfig("    token: t", "    proxy-url: http://proxy"), /proxy-url is not supported/],
    [kubeconfig("    token: t").replace("here", "nowhere"), /no current context "nowhere"/],
    [kubeconfig("    token: t").replace("name: main", "name: mine"), /no cluster "main"/],
    ["just: text", /no current context ""/],
    ["", /no current context ""/],
    ["contexts: {}", /contexts/],
    [
      kubeconfig("    exec: {command: login, interactiveMode: Always}"),
      /credential plugin login: interactiveMode Always is not supported/,
    ],
    [kubeconfig("    tokenFile: missing.txt"), /cannot read tokenFile missing.txt/],
  ];
  for (const [text, message] of cases) {
    await assert.rejects(load(write("bad", text)), { message });
  }
  await assert.rejects(load(join(folder, "missing")), /kubeconfig file not found at/);
});

test("kubeconfigPaths(): the option, then KUBECONFIG, then the home folder", () => {
  assert.deepEqual(kubeconfigPaths("/given", { KUBECONFIG: "/env" }), ["/given"]);
  const listed = { KUBECONFIG: ["/env", "", "/more"].join(delimiter), HOME: "/h" };
  assert.deepEqual(kubeconfigPaths(undefined, listed), ["/env", "/more"]);
  assert.deepEqual(kubeconfigPaths(undefined, { HOME: "/h" }), ["/h/.kube/config"]);
  assert.throws(() => kubeconfigPaths(undefined, {}), /not found in default location/);
});

test("loadEndpoint() reads what kubectl writes for empty lists", async () => {
  const text = kubeconfig("    token: t").replace(/users:.*/s, "users: null\n");
  const { headers, baseUrl } = await load(write("no-users", text));
  assert.deepEqual([baseUrl, headers], [api.url, {}]);
  const empty = write("empty", "contexts: null\nclusters: null\nusers: null\n");
  await assert.rejects(load(empty), /no current context ""/);
});

test("loadEndpoint() merges several files: the first that has a name wins, missing ones are passed over", async () => {
  mkdirSync(join(folder, "beside"));
  write("beside/token.txt", "of-beside\n");
  const first = write(
    "first",
    'current-context: ""\nclusters:\n- {name: main, cluster: {server: "https://first"}}\n',
  );
  const second = write("beside/second", kubeconfig("    tokenFile: token.txt"));
  const third = write(
    "third",
    "current-context: other\nusers: [{name: admin, user: {token: t}}]\n",
  );
  const { headers, baseUrl } = await load(first, join(folder, "missing"), second, third);
  assert.equal(baseUrl, "https://first");
  assert.deepEqual(headers, { authorization: "Bearer of-beside" });
});

test("loadEndpoint() takes a token from its file rather than the inline one", async () => {
  write("newer.txt", "newer\n");
  const both = await load(write("both", kubeconfig("    tokenFile: newer.txt\n    token: older")));
  assert.deepEqual(both.headers, { authorization: "Bearer newer" });
  const lost = await load(write("lost", kubeconfig("    tokenFile: gone.txt\n    token: older")));
  assert.deepEqual(lost.headers, { authorization: "Bearer older" });
});

test("a credential plugin beside the kubeconfig is told of the cluster, in the version it speaks", async () => {
  const told = join(folder, "told.json");
  const script = write(
    "login.sh",
    `#!/bin/sh\nprintf %s "$KUBERNETES_EXEC_INFO" > ${told}\necho '{"status":{"token":"t"}}'\n`,
  );
  chmodSync(script, 0o755);
  write("ca.pem", "CA");
  const exec = `    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: ./login.sh
      provideClusterInfo: true`;
  const cluster = `    certificate-authority: ca.pem
    extensions: [{name: client.authentication.k8s.io/exec, extension: {audience: us}}]`;
  assert.deepEqual((await load(write("told", kubeconfig(exec, cluster)))).headers, {
    authorization: "Bearer t",
  });
  assert.deepEqual(JSON.parse(readFileSync(told, "utf8")), {
    apiVersion: "client.authentication.k8s.io/v1beta1",
    kind: "ExecCredential",
    spec: {
      interactive: false,
      cluster: {
        server: `${api.url}/`,
        "certificate-authority-data": Buffer.from("CA").toString("base64"),
        config: { audience: "us" },
      },
    },
  });
});

test("a credential plugin that asks on its input gets none", { timeout: 30_000 }, async () => {
  const path = write("cat", kubeconfig("    exec: {command: cat}"));
  await assert.rejects(load(path), /answer of cat: not JSON/);
});

test("a credential plugin ends with an interrupt, and at its limit", {
  timeout: 30_000,
}, async () => {
  const started = join(folder, "started");
  const path = write(
    "slow",
    kubeconfig(`    exec: {command: sh, args: ["-c", "echo $$ > ${started}; exec sleep 600"]}`),
  );
  const clock = new ManualClock();
  const context = { timeoutMs: 10_000, clock, env: { PATH: process.env["PATH"] } };
  for (const how of ["interrupt", "limit"]) {
    rmSync(started, { force: true });
    const seen = watched(started);
    const interrupted = new AbortController();
    const loading = loadEndpoint([path], { ...context, signal: interrupted.signal });
    const failed = assert.rejects(loading, {
      message:
        how === "interrupt"
          ? "credential plugin sh failed: interrupted"
          : "credential plugin sh failed: not done within 300 s",
    });
    await seen;
    if (how === "interrupt") interrupted.abort(new Error("interrupted"));
    else await clock.advance(300_000);
    await failed;
  }
});

test("--rest must be a URL", async () => {
  const wanted = { ...timing, kubeConfigPath: undefined, namespace: "mayastor", env: {} };
  for (const rest of ["localhost:8081", "", "ftp://x"]) {
    await assert.rejects(findEndpoint({ ...wanted, rest }), /is not a URL/);
  }
  assert.deepEqual(await findEndpoint({ ...wanted, rest: "http://localhost:8081" }), {
    baseUrl: "http://localhost:8081",
  });
});
