import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { systemClock } from "#common/clock.ts";
import { findEndpoint } from "./discovery.ts";
import { kubeconfigPath, loadEndpoint } from "./kubeconfig.ts";
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
const timing = { timeoutMs: 10_000, clock: systemClock };
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
  const { tls, headers, baseUrl } = await loadEndpoint(path, {});
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
  const file = await loadEndpoint(write("file", kubeconfig("    tokenFile: token.txt")), {});
  assert.deepEqual(file.headers, { authorization: "Bearer from-file" });
  const exec = kubeconfig(`    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: /bin/sh
      args: ["-c", 'printf "%s" "{\\"status\\":{\\"token\\":\\"$NAME\\"}}"']
      env: [{name: NAME, value: from-exec}]`);
  const ran = await loadEndpoint(write("exec", exec), { PATH: process.env["PATH"] });
  assert.deepEqual(ran.headers, { authorization: "Bearer from-exec" });
  const broken = kubeconfig("    exec: {command: /nonexistent/plugin}");
  await assert.rejects(loadEndpoint(write("broken", broken), {}), /credential plugin .* failed/);
});

test("loadEndpoint() says what it cannot use", async () => {
  const cases: [string, RegExp][] = [
    [kubeconfig("    auth-provider: {name: oidc}"), /auth-provider is not supported/],
    [kubeconfig("    token: t", "    proxy-url: http://proxy"), /proxy-url is not supported/],
    [kubeconfig("    token: t").replace("here", "nowhere"), /no current context "nowhere"/],
    [kubeconfig("    token: t").replace("name: main", "name: mine"), /no cluster "main"/],
    ["just: text", /contexts/],
  ];
  for (const [text, message] of cases) {
    await assert.rejects(loadEndpoint(write("bad", text), {}), { message });
  }
  await assert.rejects(loadEndpoint(join(folder, "missing"), {}), /kubeconfig file not found at/);
});

test("kubeconfigPath(): the option, then KUBECONFIG, then the home folder", () => {
  assert.equal(kubeconfigPath("/given", { KUBECONFIG: "/env" }), "/given");
  assert.equal(kubeconfigPath(undefined, { KUBECONFIG: "/env:/more", HOME: "/h" }), "/env");
  assert.equal(kubeconfigPath(undefined, { HOME: "/h" }), "/h/.kube/config");
  assert.throws(() => kubeconfigPath(undefined, {}), /not found in default location/);
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
