// Objects of operators against the published models of their definitions: helm-crds.mjs MODULES FILE.
//
// The models' validators know types, formats and what is required; the compiler, by the models' types, what does not exist.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, file] = process.argv.slice(2);
const require = createRequire(join(modules, "node_modules", "nothing.js"));
const { parseAllDocuments } = require("yaml");
const packages = {
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
  "keda.sh": "@kubernetes-models/keda",
};

const objects = parseAllDocuments(readFileSync(file, "utf8"))
  .map((document) => document.toJS())
  .filter((object) => object && packages[object.apiVersion.split("/")[0]]);
const lines = [];
for (const [index, object] of objects.entries()) {
  const path = `${packages[object.apiVersion.split("/")[0]]}/${object.apiVersion}/${object.kind}`;
  const model = (await import(pathToFileURL(join(modules, "node_modules", `${path}.js`)))) [object.kind];
  try {
    new model(object).validate();
  } catch (error) {
    console.error(`${object.kind} ${object.metadata.name}: ${error.message}`);
    process.exitCode = 1;
  }
  lines.push(`import type { I${object.kind} as T${index} } from "${path}";`);
  lines.push(`export const o${index}: T${index} = ${JSON.stringify(object, null, 1)};`);
}
if (objects.length > 0) {
  const folder = mkdtempSync(join(tmpdir(), "helm-crds-"));
  symlinkSync(join(modules, "node_modules"), join(folder, "node_modules"));
  const source = join(folder, "objects.ts");
  writeFileSync(source, lines.join("\n"));
  const flags = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"];
  try {
    execFileSync(process.execPath, [require.resolve("typescript/bin/tsc"), ...flags, source], { encoding: "utf8" });
  } catch (error) {
    console.error(error.stdout);
    process.exitCode = 1;
  }
}
