// The main job, done with the official SDK and node-postgres: workspaces and regions, a project
// with a database, connections, SQL, a migration tool, and everything deleted again.
//
// HOWDAH_URL is the API's address, HOWDAH_TOKEN the token.

import assert from "node:assert/strict";

import { createManagementApiClient } from "@prisma/management-api-sdk";

import { migrateWithShadowDatabase, migrateWithTool } from "./migrations.js";
import { done, ok, refused, required } from "./program.js";
import { countRows, isRefused, query, withChannelBinding, withTls } from "./sql.js";

const baseUrl = required("HOWDAH_URL");
const api = createManagementApiClient({ token: required("HOWDAH_TOKEN"), baseUrl });

/** A project's name that no other run has. */
const name = `sdk-${process.pid}-${Date.now()}`;

await done("main job", run);

async function run(): Promise<void> {
  const workspaces = await ok("list workspaces", 200, api.GET("/v1/workspaces"));
  assert.equal(workspaces.data.length, 1, "a service token reaches exactly one workspace");

  const regions = await ok("list regions", 200, api.GET("/v1/regions"));
  assert(
    regions.data.some((region) => region.id === "us-east-1"),
    "us-east-1 is in the list of regions",
  );
  await ok("list the regions of databases", 200, api.GET("/v1/regions/postgres"));

  const created = await ok(
    "create a project",
    201,
    api.POST("/v1/projects", { body: { name, region: "us-east-1" } }),
  );
  const project = created.data;
  const path = { id: project.id };
  try {
    await useProject(project.id, project.database);
  } catch (error) {
    await api.DELETE("/v1/projects/{id}", { params: { path } });
    throw error;
  }
  await ok("delete the project", 204, api.DELETE("/v1/projects/{id}", { params: { path } }));

  await refused(
    "get a deleted project",
    404,
    "resource-not-found",
    api.GET("/v1/projects/{id}", { params: { path } }),
  );
  assert(project.database, "the project was created with a database");
  await refused(
    "get a database of a deleted project",
    404,
    "resource-not-found",
    api.GET("/v1/databases/{databaseId}", { params: { path: { databaseId: project.database.id } } }),
  );
  assert(project.database.connectionString);
  assert(await isRefused(project.database.connectionString), "a deleted project's connection string is refused");
}

type DefaultDatabase = { id: string; name: string; status: string; connectionString: string | null } | null;

async function useProject(projectId: string, database: DefaultDatabase): Promise<void> {
  assert(database, "the project was created with a database");
  assert.equal(database.status, "ready", "the database is ready when the create answers");
  const url = database.connectionString;
  assert(url, "the answer to the create holds a connection string");
  assert.match(url, /^postgres:\/\/[0-9a-f]{64}:sk_[A-Za-z0-9_-]+@[^/]+\/postgres\?sslmode=/);

  await query(url, "CREATE TABLE elephants (name text PRIMARY KEY)");
  await query(url, "INSERT INTO elephants VALUES ('Hansken'), ('Abul-Abbas')");
  assert.equal(await countRows(url, "elephants"), 2, "the rows are read back over a new session");
  assert.equal(await withTls(url, (session) => countRows(session, "elephants")), 2, "TLS, sslmode=require");
  assert.equal(await withChannelBinding(url, (session) => countRows(session, "elephants")), 2, "channel binding");

  const projects = await ok("list projects", 200, api.GET("/v1/projects", { params: { query: { limit: 1000 } } }));
  assert.equal(projects.data.filter((listed) => listed.id === projectId).length, 1, "the project is listed once");

  const got = await ok("get the project", 200, api.GET("/v1/projects/{id}", { params: { path: { id: projectId } } }));
  assert.equal(got.data.name, name);

  await migrateWithShadowDatabase(url);
  await migrateWithTool(url);

  await useDefaultDatabase(projectId, database.id);
  await useConnection(database.id, url);
  await useSecondDatabase(projectId, database.id);
}

async function useDefaultDatabase(projectId: string, databaseId: string): Promise<void> {
  const listed = await ok(
    "list the project's databases",
    200,
    api.GET("/v1/projects/{projectId}/databases", { params: { path: { projectId } } }),
  );
  assert.deepEqual(
    listed.data.map((database) => [database.id, database.isDefault]),
    [[databaseId, true]],
    "the project has one database, its default one",
  );

  const got = await ok(
    "get the database",
    200,
    api.GET("/v1/databases/{databaseId}", { params: { path: { databaseId } } }),
  );
  assert.equal(got.data.status, "ready");
  assert.equal(got.data.region?.id, "us-east-1");
  assert(!JSON.stringify(got.data).includes("sk_"), "a password is shown once, never by a GET");

  await refused(
    "delete the default database",
    403,
    "permission-denied",
    api.DELETE("/v1/databases/{databaseId}", { params: { path: { databaseId } } }),
  );
}

async function useConnection(databaseId: string, firstUrl: string): Promise<void> {
  const path = { databaseId };
  const created = await ok(
    "create a connection",
    200,
    api.POST("/v1/databases/{databaseId}/connections", { params: { path }, body: { name: "second" } }),
  );
  const url = created.data.connectionString;
  assert.equal(created.data.endpoints.direct?.connectionString, url, "both places hold the same connection string");
  assert.equal(await countRows(url, "elephants"), 2, "a second connection sees the first one's rows");

  const listed = await ok(
    "list connections",
    200,
    api.GET("/v1/databases/{databaseId}/connections", { params: { path } }),
  );
  assert(
    listed.data.some((connection) => connection.id === created.data.id),
    "the new connection is listed",
  );
  assert(!JSON.stringify(listed.data).includes("sk_"), "a password is shown once, never by a list");

  await ok(
    "delete the connection",
    204,
    api.DELETE("/v1/connections/{id}", { params: { path: { id: created.data.id } } }),
  );
  assert(await isRefused(url), "a deleted connection is refused");
  assert.equal(await countRows(firstUrl, "elephants"), 2, "the other connection goes on working");
}

async function useSecondDatabase(projectId: string, defaultDatabaseId: string): Promise<void> {
  const created = await ok(
    "create a second database",
    201,
    api.POST("/v1/projects/{projectId}/databases", {
      params: { path: { projectId } },
      body: { name: "second", region: "us-east-1" },
    }),
  );
  const { id, connectionString: url, isDefault } = created.data;
  assert.notEqual(id, defaultDatabaseId);
  assert.equal(isDefault, false);
  assert(url);
  await query(url, "CREATE TABLE elephants (name text)");
  assert.equal(await countRows(url, "elephants"), 0, "databases share nothing");

  // 200 with the deleted database, where the SDK's types say 204 without a body: see the API document.
  const deleted: unknown = await ok(
    "delete the second database",
    200,
    api.DELETE("/v1/databases/{databaseId}", { params: { path: { databaseId: id } } }),
  );
  assert.equal((deleted as { data: { id: string } }).data.id, id, "the answer is the deleted database");
  await refused(
    "get the deleted database",
    404,
    "resource-not-found",
    api.GET("/v1/databases/{databaseId}", { params: { path: { databaseId: id } } }),
  );
}
