// Connections through the nested and the flat routes: made, rotated, deleted.

import assert from "node:assert/strict";

import { ok, refused, type Api } from "../program.js";
import { isRefused, query as run } from "../sql.js";

export async function useConnections(api: Api, databaseId: string): Promise<void> {
  const nested = await ok(
    "create a connection, nested",
    200,
    api.POST("/v1/databases/{databaseId}/connections", { params: { path: { databaseId } }, body: { name: "web" } }),
  );
  const flat = await ok(
    "create a connection, flat",
    201,
    api.POST("/v1/connections", { body: { databaseId, name: "job" } }),
  );
  for (const { data } of [nested, flat]) {
    const { connectionString: url, endpoints, host, user, pass } = data;
    assert.equal(endpoints.direct?.connectionString, url);
    const parts = new URL(url);
    assert.deepEqual([parts.hostname, parts.username, parts.password], [host, user, pass]);
    assert.equal(Number(parts.port), endpoints.direct?.port);
    assert.equal((await run(url, "SELECT 1 AS one")).rows[0].one, 1);
  }

  const path = { id: flat.data.id };
  const got = await ok("get the connection", 200, api.GET("/v1/connections/{id}", { params: { path } }));
  assert.deepEqual([got.data.name, got.data.kind, got.data.database.id], ["job", "postgres", databaseId]);
  const listed = [
    await ok(
      "list connections, nested",
      200,
      api.GET("/v1/databases/{databaseId}/connections", { params: { path: { databaseId } } }),
    ),
    await ok("list connections, flat", 200, api.GET("/v1/connections", { params: { query: { databaseId } } })),
  ];
  for (const { data } of listed) {
    assert.deepEqual(data.map((connection) => connection.name), ["Default", "web", "job"], "oldest first");
    assert(!JSON.stringify(data).includes("sk_"), "a password is shown once, never by a list");
  }

  const rotated = await ok(
    "rotate the connection",
    200,
    api.POST("/v1/connections/{id}/rotate", { params: { path } }),
  );
  assert.deepEqual([rotated.data.id, rotated.data.name], [flat.data.id, "job"]);
  assert(await isRefused(flat.data.connectionString), "the old string is refused");
  assert.equal((await run(rotated.data.connectionString, "SELECT 1 AS one")).rows[0].one, 1);

  await ok("delete the connection", 204, api.DELETE("/v1/connections/{id}", { params: { path } }));
  assert(await isRefused(rotated.data.connectionString), "a deleted connection is refused");
  await refused(
    "rotate a deleted connection",
    404,
    "resource-not-found",
    api.POST("/v1/connections/{id}/rotate", { params: { path } }),
  );
  await refused(
    "create a connection with an empty name",
    422,
    "validation-error",
    api.POST("/v1/connections", { body: { databaseId, name: "" } }),
  );
}
