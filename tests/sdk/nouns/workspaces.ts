// Workspaces, their subscription, regions, and who is calling.

import assert from "node:assert/strict";

import { ok, refused, type Api } from "../program.js";

/** The workspace that the token reaches. */
export async function useWorkspaces(api: Api): Promise<string> {
  const listed = await ok("list workspaces", 200, api.GET("/v1/workspaces"));
  assert.equal(listed.data.length, 1, "a service token reaches exactly one workspace");
  assert.deepEqual(listed.pagination, { nextCursor: null, hasMore: false });
  const [workspace] = listed.data;
  assert(workspace);
  assert.equal(workspace.type, "workspace");

  const path = { id: workspace.id };
  const got = await ok("get the workspace", 200, api.GET("/v1/workspaces/{id}", { params: { path } }));
  assert.deepEqual(got.data, workspace);
  const subscription = await ok(
    "get the subscription",
    200,
    api.GET("/v1/workspaces/{id}/subscription", { params: { path } }),
  );
  assert.equal(subscription.data.usageBlocked, false);
  assert(subscription.data.planName);
  assert(URL.canParse(subscription.data.upgradeUrl));

  const me = await ok("say who is calling", 200, api.GET("/v1/me"));
  assert.equal(me.data.user, null, "a service token stands for no person");
  assert.deepEqual(me.data.workspace, { id: workspace.id, name: workspace.name });
  assert.equal(me.data.credential.type, "service_token");
  assert(me.data.credential.id?.startsWith("itgr_"));

  await refused(
    "create a workspace",
    403,
    "permission-denied",
    api.POST("/v1/workspaces", { body: { displayName: "Another" } }),
  );
  const missing = { id: "wksp_00000000000000000000000000" };
  await refused(
    "get a workspace that is not there",
    404,
    "resource-not-found",
    api.GET("/v1/workspaces/{id}", { params: { path: missing } }),
  );
  return workspace.id;
}

export async function useRegions(api: Api): Promise<void> {
  const all = await ok("list regions", 200, api.GET("/v1/regions"));
  const ours = all.data.filter((region) => region.product === "postgres");
  assert(ours.some((region) => region.id === "us-east-1"));
  const query = { product: "accelerate" as const };
  assert.deepEqual((await ok("list regions", 200, api.GET("/v1/regions", { params: { query } }))).data, []);

  assert.deepEqual((await ok("list Accelerate regions", 200, api.GET("/v1/regions/accelerate"))).data, []);

  const postgres = await ok("list the regions of databases", 200, api.GET("/v1/regions/postgres"));
  assert.deepEqual(
    postgres.data.map((region) => [region.id, region.type, region.status]),
    ours.map((region) => [region.id, "region", "available"]),
  );
}
