/**
 * The page at /v0/swagger-ui: every operation of the document, readable without any script or foreign server.
 *
 * Invariant: all text that goes in is escaped.
 */
import type { DocumentSchema, OpenApiDocument } from "./document.ts";

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
};

function escaped(text: unknown): string {
  return String(text).replaceAll(/[&<>"]/g, (found) => ESCAPES[found] ?? "");
}

const STYLE = `
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24}
h2{border-bottom:1px solid #d0d7de;margin-top:2rem}
details{border:1px solid #d0d7de;border-radius:6px;margin:.4rem 0;padding:.3rem .8rem}
summary{cursor:pointer;font-family:ui-monospace,monospace}
pre{background:#f6f8fa;overflow:auto;padding:.6rem;border-radius:6px}
.method{display:inline-block;min-width:4.5rem;font-weight:600}
.get{color:#0969da}.put{color:#9a6700}.delete{color:#cf222e}`;

function operationHtml(path: string, method: string, operation: DocumentSchema): string {
  const { parameters, requestBody, responses } = operation;
  const detail = JSON.stringify({ parameters, requestBody, responses }, null, 2);
  return [
    `<details><summary><span class="method ${escaped(method)}">${escaped(method.toUpperCase())}</span>`,
    `${escaped(path)} &mdash; ${escaped(operation["operationId"])}</summary>`,
    `<pre>${escaped(detail)}</pre></details>`,
  ].join("");
}

/** The page for a document that is itself at `specUrl`. */
export function pageHtml(document: OpenApiDocument, specUrl: string): string {
  const byTag = new Map<string, string[]>();
  for (const [path, operations] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const tags = operation["tags"];
      const tag = Array.isArray(tags) ? String(tags[0]) : "";
      byTag.set(tag, [...(byTag.get(tag) ?? []), operationHtml(path, method, operation)]);
    }
  }
  const sections = [...byTag].map(([tag, items]) => `<h2>${escaped(tag)}</h2>${items.join("\n")}`);
  const schemas = Object.entries(document.components.schemas).map(
    ([name, schema]) =>
      `<details><summary>${escaped(name)}</summary><pre>${escaped(JSON.stringify(schema, null, 2))}</pre></details>`,
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Mayastor RESTful API</title><style>${STYLE}</style></head>
<body><h1>Mayastor RESTful API</h1>
<p>The OpenAPI document is at <a href="${escaped(specUrl)}">${escaped(specUrl)}</a>.</p>
${sections.join("\n")}
<h2>Schemas</h2>
${schemas.join("\n")}
</body></html>
`;
}
