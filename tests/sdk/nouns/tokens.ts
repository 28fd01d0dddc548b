// Service tokens: one is made, used, and revoked.

import assert from "node:assert/strict";

import { createManagementApiClient } from "@prisma/management-api-sdk";

import { ok, refused, type Api } from "../program.js";

export async function useTokens(api: Api, workspaceId: string, baseUrl: string): Promise<void> {
  const path = { workspaceId };
  const tokens = "/v1/workspaces/{workspaceId}/service-tokens";
  const created = await ok("create a token", 201, api.POST(tokens, { params: { path }, body: { name: "ci" } }));
  const { id, type, value, valueHint } = created.data;
  assert.equal(type, "serviceToken");
  assert.equal(value.split(".").length, 3, "a token is a JWT");

  const query = { limit: 1 };
  const listed = await ok("list tokens", 200, api.GET(tokens, { params: { path, query } }));
  const [newest] = listed.data;
  assert.deepEqual([newest?.id, newest?.name, newest?.valueHint], [id, "ci", valueHint], "newest first");
  assert(!JSON.stringify(listed).includes(value), "a value is shown once");
  assert.equal(listed.pagination.hasMore, true);
  assert(listed.pagination.nextCursor);

  const other = createManagementApiClient({ token: value, baseUrl });
  const me = await ok("use the token", 200, other.GET("/v1/me"));
  assert.deepEqual(me.data.credential, { type: "service_token", id, name: "ci" });
  await ok(
    "revoke the token",
    204,
    api.DELETE("/v1/workspaces/{workspaceId}/service-tokens/{serviceTokenId}", {
      params: { path: { workspaceId, serviceTokenId: id } },
    }),
  );
  await refused("use the revoked token", 401, "authentication-failed", other.GET("/v1/me"));
  await refused(
    "create a token without a name",
    422,
    "validation-error",
    api.POST(tokens, { params: { path }, body: { name: "" } }),
  );
}
