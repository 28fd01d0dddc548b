// Every operation that Howdah shares with the official SDK, driven by the SDK, through nested and
// flat routes.
//
// HOWDAH_URL is the API's address, HOWDAH_TOKEN the token of a workspace with two integrations,
// HOWDAH_RECIPIENT_TOKEN that of another workspace.

import assert from "node:assert/strict";

import { createManagementApiClient } from "@prisma/management-api-sdk";

import { shared } from "./assignable.js";
import { useBackups } from "./nouns/backups.js";
import { useBranches } from "./nouns/branches.js";
import { useConnections } from "./nouns/connections.js";
import { createProject, useDatabases, useUsage } from "./nouns/databases.js";
import { useIntegrations } from "./nouns/integrations.js";
import { useProjects } from "./nouns/projects.js";
import { useTokens } from "./nouns/tokens.js";
import { useRegions, useWorkspaces } from "./nouns/workspaces.js";
import { done, ok, refused, required, type Api } from "./program.js";

const baseUrl = required("HOWDAH_URL");
const recipientToken = required("HOWDAH_RECIPIENT_TOKEN");

/** The operations that worked. */
const driven = new Set<string>();

/** Only people make workspaces, and nobody can sign in yet: it is refused as it should be. */
const REFUSED = ["post /v1/workspaces"];

function client(token: string): Api {
  const api = createManagementApiClient({ token, baseUrl });
  api.use({
    onResponse({ request, response, schemaPath }) {
      const operation = `${request.method.toLowerCase()} ${schemaPath}`;
      if (response.ok || REFUSED.includes(operation)) driven.add(operation);
    },
  });
  return api;
}

await done("every operation", async () => {
  const [api, recipient] = [client(required("HOWDAH_TOKEN")), client(recipientToken)];
  const workspaceId = await useWorkspaces(api);
  await useRegions(api);
  await useTokens(api, workspaceId, baseUrl);
  await useIntegrations(api, workspaceId);
  await useProjects(api, recipient, recipientToken);

  const project = await createProject(api);
  await useBranches(api, project.projectId);
  await useDatabases(api, project);
  await useConnections(api, project.databaseId);
  await useUsage(api, project.databaseId);
  await useBackups(api, project, baseUrl, required("HOWDAH_TOKEN"));
  const path = { id: project.projectId };
  await ok("delete the project", 204, api.DELETE("/v1/projects/{id}", { params: { path } }));

  const stranger = createManagementApiClient({ token: "nonsense", baseUrl });
  await refused("list projects with a bad token", 401, "authentication-failed", stranger.GET("/v1/projects"));

  const missing = Object.keys(shared).filter((operation) => !driven.has(operation));
  assert.deepEqual(missing, [], "every shared operation was driven");
});
