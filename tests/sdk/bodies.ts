// Every field that the SDK's types have in the body of an operation that Howdah serves is known to
// Howdah: it may be refused for its value, but not as a field that the request does not have.

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

import ts from "typescript";

import { done, required } from "./program.js";

const URL_OF_HOWDAH = required("HOWDAH_URL");
const TOKEN = required("HOWDAH_TOKEN");

const declarations = fileURLToPath(
  new URL("../node_modules/@prisma/management-api-sdk/dist/index.d.ts", import.meta.url),
);
const program = ts.createProgram([declarations], { strict: true, skipLibCheck: true });
const checker = program.getTypeChecker();

/** The type of a property, without undefined and null. */
function property(type: ts.Type, name: string): ts.Type | undefined {
  const symbol = type.getProperty(name);
  return symbol && checker.getNonNullableType(checker.getTypeOfSymbol(symbol));
}

/** What is sent: a method, a path with something in the place of ids, and the body's type. */
type Operation = { method: string; path: string; body: ts.Type };

/** Every operation of the SDK that has a JSON body. */
function operations(): Operation[] {
  const source = program.getSourceFile(declarations);
  const module = source && checker.getSymbolAtLocation(source);
  assert.ok(module, `${declarations} is no module`);
  const symbol = checker.getExportsOfModule(module).find((symbol) => symbol.name === "paths");
  assert.ok(symbol, "the SDK exports no paths");
  const paths = checker.getDeclaredTypeOfSymbol(symbol);
  return checker.getPropertiesOfType(paths).flatMap(({ name: path }) =>
    ["post", "patch", "put"].flatMap((method) => {
      const steps = [path, method, "requestBody", "content", "application/json"];
      const body = steps.reduce<ts.Type | undefined>((type, name) => type && property(type, name), paths);
      return body ? [{ method: method.toUpperCase(), path: path.replaceAll(/\{.*?\}/g, "x"), body }] : [];
    }),
  );
}

/** Bodies of a type which together have each of its fields: null, or what is in it. */
function bodies(type: ts.Type): object[] {
  if (type.isUnion()) {
    return type.types.flatMap(bodies);
  }
  const fields = (type.flags & ts.TypeFlags.Object) !== 0 && !checker.isArrayType(type) ? type.getProperties() : [];
  const tags: Record<string, string> = {};
  for (const { name } of fields) {
    const value = property(type, name);
    if (value?.isStringLiteral()) {
      tags[name] = value.value;
    }
  }
  return [
    tags,
    ...fields
      .filter(({ name }) => !(name in tags))
      .flatMap(({ name }) => {
        const value = property(type, name);
        return [null, ...(value ? bodies(value) : [])].map((inner) => ({ ...tags, [name]: inner }));
      }),
  ];
}

/** The message of Howdah's refusal; nothing when it took the body. */
async function refusal({ method, path }: Operation, body: object): Promise<string> {
  const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
  const answer = await fetch(URL_OF_HOWDAH + path, { method, headers, body: JSON.stringify(body) });
  const { error } = (await answer.json()) as { error?: { message: string } };
  return error?.message ?? "";
}

await done("the bodies of the SDK", async () => {
  const unknown = "unknown field";
  const served: string[] = [];
  for (const operation of operations()) {
    const what = `${operation.method} ${operation.path}`;
    if (!(await refusal(operation, { noSuchField: 1 })).includes(unknown)) {
      continue;
    }
    served.push(what);
    const sent = bodies(operation.body);
    assert.ok(sent.length > 1, `${what}: the type of its body has no fields`);
    for (const body of sent) {
      const message = await refusal(operation, body);
      assert.ok(!message.includes(unknown), `${what} ${JSON.stringify(body)}: ${message}`);
    }
  }
  assert.ok(served.length >= 13 && served.includes("POST /v1/databases"), `only ${served.join(", ")}`);
});
