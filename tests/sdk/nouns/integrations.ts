// Integrations: those that the test has put there are listed, and end by themselves and by client.

import assert from "node:assert/strict";

import { ok, refused, type Api } from "../program.js";

/** The workspace has two integrations, of two clients. */
export async function useIntegrations(api: Api, workspaceId: string): Promise<void> {
  const nested = () => api.GET("/v1/workspaces/{workspaceId}/integrations", { params: { path: { workspaceId } } });
  const listed = await ok("list the workspace's integrations", 200, nested());
  const query = { workspaceId };
  const flat = await ok("list integrations", 200, api.GET("/v1/integrations", { params: { query } }));
  assert.deepEqual(flat, listed);
  const [first, second] = listed.data;
  assert(first && second);
  assert.equal(first.createdByUser.email, "ada@example.com");

  const path = { id: first.id };
  const got = await ok("get an integration", 200, api.GET("/v1/integrations/{id}", { params: { path } }));
  assert.deepEqual(got.data, first);
  await ok("delete it", 204, api.DELETE("/v1/integrations/{id}", { params: { path } }));
  await refused("get it", 404, "resource-not-found", api.GET("/v1/integrations/{id}", { params: { path } }));
  const client = { workspaceId, clientId: second.client.id };
  await ok(
    "delete the other client's",
    204,
    api.DELETE("/v1/workspaces/{workspaceId}/integrations/{clientId}", { params: { path: client } }),
  );
  assert.deepEqual((await ok("list them again", 200, nested())).data, []);
}
