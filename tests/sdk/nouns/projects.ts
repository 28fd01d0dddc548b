// Projects: made with and without a database, found, changed, given away and deleted.

import assert from "node:assert/strict";

import { ok, refused, type Api } from "../program.js";

export async function useProjects(api: Api, recipient: Api, recipientToken: string): Promise<void> {
  const body = { name: "plain", createDatabase: false, logicalId: "plain", region: "eu-west-3" as const };
  const created = await ok("create a project", 201, api.POST("/v1/projects", { body }));
  const { id, workspace } = created.data;
  assert.equal(created.data.database, null, "no database was wanted");
  assert.equal(created.data.defaultRegion, "eu-west-3");
  await refused("create it again", 409, "client-error", api.POST("/v1/projects", { body }));

  const path = { id };
  const got = await ok("get the project", 200, api.GET("/v1/projects/{id}", { params: { path } }));
  assert.deepEqual([got.data.type, got.data.name, got.data.logicalId], ["project", "plain", "plain"]);
  const bare = { id: id.replace("proj_", "") };
  const same = await ok("get it without the prefix", 200, api.GET("/v1/projects/{id}", { params: { path: bare } }));
  assert.deepEqual(same.data, got.data);
  const query = { logicalId: "plain", limit: 1000 };
  const found = await ok("find the project", 200, api.GET("/v1/projects", { params: { query } }));
  assert.deepEqual(found.data, [got.data]);

  const change = { name: "renamed", settings: { theme: "dark" } };
  const changed = await ok("rename it", 200, api.PATCH("/v1/projects/{id}", { params: { path }, body: change }));
  assert.equal(changed.data.name, "renamed");
  await refused(
    "rename it to nothing",
    422,
    "validation-error",
    api.PATCH("/v1/projects/{id}", { params: { path }, body: { name: "" } }),
  );

  await refused(
    "give it away with a bad token",
    400,
    "client-error",
    api.POST("/v1/projects/{id}/transfer", { params: { path }, body: { recipientAccessToken: "nonsense" } }),
  );
  // 200 with the project, where the SDK's types say 204 without a body: see the API document.
  const given: unknown = await ok(
    "give it away",
    200,
    api.POST("/v1/projects/{id}/transfer", { params: { path }, body: { recipientAccessToken: recipientToken } }),
  );
  assert.notEqual((given as typeof got).data.workspace.id, workspace.id);
  await refused(
    "get what was given away",
    404,
    "resource-not-found",
    api.GET("/v1/projects/{id}", { params: { path } }),
  );
  const theirs = await ok("get it as its new owner", 200, recipient.GET("/v1/projects/{id}", { params: { path } }));
  assert.equal(theirs.data.name, "renamed");
  await ok("delete it", 204, recipient.DELETE("/v1/projects/{id}", { params: { path } }));
  await refused(
    "delete it again",
    404,
    "resource-not-found",
    recipient.DELETE("/v1/projects/{id}", { params: { path } }),
  );
}
