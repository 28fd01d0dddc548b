// Branches: the first is the default one and for production, others are made and deleted.

import assert from "node:assert/strict";

import { ok, refused, type Api } from "../program.js";

export async function useBranches(api: Api, projectId: string): Promise<void> {
  const branches = "/v1/projects/{projectId}/branches";
  const list = async (query?: { gitName?: string; gitNameContains?: string }) =>
    (await ok("list branches", 200, api.GET(branches, { params: { path: { projectId }, query } }))).data;
  const [first] = await list({ gitName: "main" });
  assert.deepEqual([first?.gitName, first?.isDefault, first?.role], ["main", true, "production"]);

  const body = { gitName: "preview-1", isDefault: true };
  const created = await ok("create a branch", 201, api.POST(branches, { params: { path: { projectId } }, body }));
  assert.deepEqual([created.data.type, created.data.role, created.data.isDefault], ["branch", "preview", true]);
  assert.deepEqual((await list({ gitNameContains: "view" })).map((branch) => branch.id), [created.data.id]);
  await refused(
    "create it again",
    409,
    "client-error",
    api.POST(branches, { params: { path: { projectId } }, body: { gitName: "preview-1" } }),
  );

  const path = { branchId: created.data.id };
  const deleteIt = () => api.DELETE("/v1/branches/{branchId}", { params: { path } });
  await refused("delete the default branch", 422, "validation-error", deleteIt());
  assert(first);
  const back = { params: { path: { branchId: first.id } }, body: { isDefault: true } };
  const moved = await ok("move the default back", 200, api.PATCH("/v1/branches/{branchId}", back));
  assert.equal(moved.data.isDefault, true);
  const got = await ok("get the branch", 200, api.GET("/v1/branches/{branchId}", { params: { path } }));
  assert.equal(got.data.isDefault, false, "there is one default branch");
  await ok("delete the branch", 204, deleteIt());
  await refused("delete it again", 404, "resource-not-found", deleteIt());
}
