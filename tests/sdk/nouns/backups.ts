// Backups: listed and restored with the SDK, in place and to a new database. The SDK has no operation
// that makes one.

import assert from "node:assert/strict";

import { ok, refused, type Api } from "../program.js";
import { query as run } from "../sql.js";
import type { Default } from "./databases.js";

export async function useBackups(api: Api, project: Default, baseUrl: string, token: string): Promise<void> {
  const { projectId, databaseId, url } = project;
  const list = () => api.GET("/v1/databases/{databaseId}/backups", { params: { path: { databaseId } } });
  const before = await ok("list backups", 200, list());
  assert.deepEqual(before.data, []);
  assert.deepEqual(before.pagination, { hasMore: false, limit: 25 });
  assert.equal(before.meta.backupRetentionDays, 7);

  await run(url, "CREATE TABLE kept AS SELECT 1 AS n");
  const headers = { authorization: `Bearer ${token}` };
  const made = await fetch(`${baseUrl}/v1/databases/${databaseId}/backups`, { method: "POST", headers });
  assert.equal(made.status, 202);
  const backup = await until("the backup to be there", async () =>
    (await ok("list backups", 200, list())).data.find((one) => one.status === "completed"),
  );
  assert.equal(backup.backupType, "full");
  assert(backup.size && backup.size > 1_000_000, "in bytes");

  const source = { type: "backup", databaseId, backupId: backup.id } as const;
  const copied = await ok(
    "create a database from a backup",
    201,
    api.POST("/v1/databases", { body: { projectId, name: "copy", source } }),
  );
  const copy = copied.data.connections[0]?.endpoints.direct?.connectionString;
  assert(copy, "it has a connection of its own");
  assert.equal((await run(copy, "SELECT n FROM kept")).rows[0].n, 1);

  await run(url, "DROP TABLE kept");
  const restore = (backupId: string) =>
    api.POST("/v1/databases/{targetDatabaseId}/restore", {
      params: { path: { targetDatabaseId: databaseId } },
      body: { source: { ...source, backupId } },
    });
  await refused("restore what is not there", 404, "resource-not-found", restore("bak_none"));
  const begun = await ok("restore in place", 200, restore(backup.id));
  assert.equal(begun.data.status, "recovering");
  assert.deepEqual(begun.data.source, source);
  const get = () => api.GET("/v1/databases/{databaseId}", { params: { path: { databaseId } } });
  await until("the database to be ready", async () =>
    (await ok("get the database", 200, get())).data.status === "ready" ? true : undefined,
  );
  assert.equal((await run(url, "SELECT n FROM kept")).rows[0].n, 1, "the credentials are still good");
}

/** Asks again until there is an answer, for a minute at most. */
async function until<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 300; tries++) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`waited too long for ${what}`);
}
