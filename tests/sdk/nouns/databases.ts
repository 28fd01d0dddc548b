// Databases through the nested and the flat routes, on branches, and the rules of default ones.

import assert from "node:assert/strict";

import { ok, refused, type Api } from "../program.js";
import { isRefused, query as run } from "../sql.js";

/** A project's default database: its id, and a connection string of it. */
export type Default = { projectId: string; databaseId: string; url: string };

/** A project with its default database. */
export async function createProject(api: Api): Promise<Default> {
  const created = await ok("create a project", 201, api.POST("/v1/projects", { body: { name: "with-database" } }));
  const { id, database } = created.data;
  assert(database, "a project has a database unless none is wanted");
  assert.equal(database.status, "ready");
  assert.equal(database.isDefault, true);
  assert.equal(database.name, "with-database", "the default database has the project's name");
  const [connection] = database.connections;
  assert.equal(connection?.id, database.defaultConnectionId);
  const url = connection?.endpoints.direct?.connectionString;
  assert(url);
  assert.equal(database.connectionString, url, "old and new places hold the same string");
  assert.equal(database.apiKeys[0]?.connectionString, url);
  assert(database.directConnection && url.includes(database.directConnection.pass));
  return { projectId: id, databaseId: database.id, url };
}

export async function useDatabases(api: Api, { projectId, databaseId }: Default): Promise<void> {
  const nested = await ok(
    "create a database, nested",
    201,
    api.POST("/v1/projects/{projectId}/databases", {
      params: { path: { projectId } },
      body: { name: "nested", region: "inherit", source: { type: "empty" } },
    }),
  );
  assert.equal(nested.data.apiKeys.length, 1);
  assert.equal(nested.data.project.id, projectId);
  await refused(
    "create a second default database",
    400,
    "client-error",
    api.POST("/v1/projects/{projectId}/databases", { params: { path: { projectId } }, body: { isDefault: true } }),
  );

  const flat = await ok(
    "create a database, flat",
    201,
    api.POST("/v1/databases", { body: { projectId, name: "flat", branchGitName: "feature" } }),
  );
  const url = flat.data.connections[0]?.endpoints.direct?.connectionString;
  assert(url, "there is a connection with its secret");
  assert.equal((await run(url, "SELECT 1 AS one")).rows[0].one, 1);
  await useFilters(api, projectId, [databaseId, nested.data.id, flat.data.id]);

  const path = { databaseId: flat.data.id };
  const get = () => api.GET("/v1/databases/{databaseId}", { params: { path } });
  const got = await ok("get the database", 200, get());
  assert.deepEqual([got.data.name, got.data.source], ["flat", { type: "empty" }]);
  const change = { name: "renamed", logicalId: "main-store" };
  const changed = await ok("change it", 200, api.PATCH("/v1/databases/{databaseId}", { params: { path }, body: change }));
  assert.deepEqual([changed.data.name, changed.data.logicalId], ["renamed", "main-store"]);
  assert.deepEqual((await ok("get it again", 200, get())).data, changed.data);
  await refused(
    "take its logical id",
    409,
    "client-error",
    api.POST("/v1/databases", { body: { projectId, logicalId: "main-store", branchId: changed.data.branchId ?? "" } }),
  );

  for (const id of [flat.data.id, nested.data.id]) {
    // 200 with the deleted database, where the SDK's types say 204 without a body: see the API document.
    const deleted: unknown = await ok(
      "delete a database",
      200,
      api.DELETE("/v1/databases/{databaseId}", { params: { path: { databaseId: id } } }),
    );
    assert.equal((deleted as typeof got).data.id, id);
  }
  await refused("get a deleted database", 404, "resource-not-found", get());
  assert(await isRefused(url), "its connection string is refused");
  await refused(
    "delete the default database",
    403,
    "permission-denied",
    api.DELETE("/v1/databases/{databaseId}", { params: { path: { databaseId } } }),
  );
}

export async function useUsage(api: Api, databaseId: string): Promise<void> {
  const usage = "/v1/databases/{databaseId}/usage";
  const query = { startDate: new Date(Date.now() - 86_400_000).toISOString() };
  const used = await ok("get the usage", 200, api.GET(usage, { params: { path: { databaseId }, query } }));
  assert.deepEqual([used.metrics.operations.unit, used.metrics.storage.unit], ["ops", "GiB"]);
  assert.equal(used.period.start, query.startDate);
  const backwards = { startDate: "2026-02-01T00:00:00Z", endDate: "2026-01-01T00:00:00Z" };
  await refused(
    "get the usage of a period that ends before it begins",
    400,
    "client-error",
    api.GET(usage, { params: { path: { databaseId }, query: backwards } }),
  );
}

/** The project's databases are in each list, and filters take away what does not fit. */
async function useFilters(api: Api, projectId: string, all: string[]): Promise<void> {
  const nested = await ok(
    "list the project's databases",
    200,
    api.GET("/v1/projects/{projectId}/databases", { params: { path: { projectId } } }),
  );
  assert.deepEqual(nested.data.map((database) => database.id), all, "oldest first");
  const list = async (query: { projectId?: string; branchGitName?: string; branchId?: string; limit?: number }) => {
    const listed = await ok("list databases", 200, api.GET("/v1/databases", { params: { query } }));
    return listed.data.map((database) => database.id);
  };
  assert.deepEqual(await list({ projectId }), all);
  assert.deepEqual(await list({ projectId, branchGitName: "feature" }), all.slice(2));
  assert.deepEqual(await list({ branchId: "unassigned" }), []);
  assert.deepEqual(await list({ projectId, limit: 1 }), all.slice(0, 1));
}
