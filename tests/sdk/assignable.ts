// Howdah's document against the official SDK's types: what Howdah answers is what the SDK says that
// it gets, and Howdah takes what the SDK sends. There is nothing to run here; a wrong shape does
// not compile.

import type { paths as Sdk } from "@prisma/management-api-sdk";

import type { paths as Howdah } from "./generated/howdah.js";

/** The paths of the SDK that a Howdah has. Its other products are not Howdah's. */
type Area =
  | `/v1/workspaces${string}`
  | `/v1/projects`
  | `/v1/projects/{id}${string}`
  | `/v1/projects/{projectId}/${"branches" | "databases"}`
  | `/v1/branches${string}`
  | `/v1/databases${string}`
  | `/v1/connections${string}`
  | `/v1/integrations${string}`
  | `/v1/regions${string}`
  | `/v1/me`;

/** Operations of the SDK's areas that Howdah does not have yet. This list may only shrink. */
type NotYet = never;

/** Successes that are not the SDK's, and what comes instead. This list may only shrink. */
type Deviations = {
  /** 200 with the deleted database, where the SDK says 204. */
  "delete /v1/databases/{databaseId}": 200;
  /** 200 with the project, where the SDK says 204. */
  "post /v1/projects/{id}/transfer": 200;
};

/** Failures of the SDK that Howdah never answers: what a token may not see is 404. */
type Unsaid = {
  "get /v1/databases": 403;
  "get /v1/databases/{databaseId}": 403;
};

/** What the SDK may send that Howdah refuses, as the original does: see the document's descriptions. */
type Refused = {
  /** Every database is on a branch. */
  branchId: null;
  branchGitName: null;
  /** Databases cannot be made from backups or from each other yet. */
  source: { type: "backup" | "database" };
};

type Method = "get" | "post" | "patch" | "delete";

/** `get /v1/projects` and so on. */
type Operations<Paths, Path extends keyof Paths & string = keyof Paths & string> = {
  [P in Path]: { [M in Method]: Paths[P] extends { [m in M]: object } ? `${M} ${P}` : never }[Method];
}[Path];

type Of<Paths, O> = O extends `${infer M} ${infer P}`
  ? P extends keyof Paths
    ? M extends keyof Paths[P]
      ? Paths[P][M]
      : never
    : never
  : never;

type InArea = Operations<Sdk, Extract<keyof Sdk, Area>>;

/** The operations that the SDK and Howdah share. */
export type Shared = Extract<InArea, Operations<Howdah>>;

/** The statuses of success that an operation declares. */
type Success<Op> = Op extends { responses: infer R } ? Extract<keyof R, 200 | 201 | 202 | 204> : never;
/** The statuses of failure that an operation declares. */
type Failure<Op> = Op extends { responses: infer R } ? Exclude<keyof R, 200 | 201 | 202 | 204> : never;
/** The body of an answer; nothing when there is none. */
type Body<Op, Status> = Op extends { responses: infer R }
  ? Status extends keyof R
    ? R[Status] extends { content: { "application/json": infer B } }
      ? B
      : undefined
    : never
  : never;
type Sent<Op> = Op extends { requestBody?: infer R }
  ? NonNullable<R> extends { content: { "application/json": infer B } }
    ? B
    : undefined
  : undefined;
type Parameters<Op, In extends "path" | "query"> = Op extends { parameters: { [i in In]?: infer P } }
  ? NonNullable<P>
  : never;

/** A value without what is refused of it. */
type Sendable<T> = {
  [K in keyof T]: K extends keyof Refused ? Exclude<T[K], Refused[K]> : K extends "cursor" ? NonNullable<T[K]> : T[K];
};

type Equal<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
/** Nothing when it holds; otherwise what to read in the compiler's message. */
type Unless<Holds, Complaint> = Holds extends true ? never : Complaint;
type Fits<Given, Wanted> = [Given] extends [Wanted] ? true : false;

type Bodies<O, Ours, Theirs, Statuses> = {
  [S in Statuses & PropertyKey]: Unless<
    Fits<Body<Ours, S>, Body<Theirs, S>>,
    [O, S, "has another body:", Body<Ours, S>, "and not", Body<Theirs, S>]
  >;
}[Statuses & PropertyKey];

type Problem<O extends Shared, Ours = Of<Howdah, O>, Theirs = Of<Sdk, O>> =
  | (O extends keyof Deviations
      ? Unless<Equal<Success<Ours>, Deviations[O]>, [O, "does not deviate in that way:", Success<Ours>]>
      : Unless<Equal<Success<Ours>, Success<Theirs>>, [O, "has other successes:", Success<Ours>, Success<Theirs>]>)
  | Bodies<O, Ours, Theirs, Extract<Success<Ours>, Success<Theirs>>>
  | Unless<
      Equal<Exclude<Failure<Theirs>, Failure<Ours>>, O extends keyof Unsaid ? Unsaid[O] : never>,
      [O, "lacks failures:", Exclude<Failure<Theirs>, Failure<Ours>>]
    >
  | Bodies<O, Ours, Theirs, Extract<Failure<Theirs>, Failure<Ours>>>
  | Unless<
      Fits<Parameters<Theirs, "path">, Parameters<Ours, "path">>,
      [O, "has other parameters in the path:", Parameters<Ours, "path">]
    >
  | Unless<
      Fits<Sendable<Parameters<Theirs, "query">>, Parameters<Ours, "query">>,
      [O, "does not take the query", Sendable<Parameters<Theirs, "query">>, "but", Parameters<Ours, "query">]
    >
  | Unless<Fits<keyof Parameters<Theirs, "query">, keyof Parameters<Ours, "query">>, [O, "does not know a parameter"]>
  | Unless<Fits<Sendable<Sent<Theirs>>, Sent<Ours>>, [O, "does not take the body", Sendable<Sent<Theirs>>, "but", Sent<Ours>]>
  | Unless<Fits<keyof Sent<Theirs>, keyof Sent<Ours> | "fromDatabase">, [O, "does not know a field of the body"]>;

type Checked = { [O in Shared]: [Problem<O>] extends [never] ? true : Problem<O> };

/**
 * Every shared operation. `true` does not compile where an operation does not fit; the compiler's
 * message then says what is wrong with it.
 */
export const shared: Checked = {
  "delete /v1/branches/{branchId}": true,
  "get /v1/branches/{branchId}": true,
  "patch /v1/branches/{branchId}": true,
  "get /v1/connections": true,
  "post /v1/connections": true,
  "delete /v1/connections/{id}": true,
  "get /v1/connections/{id}": true,
  "post /v1/connections/{id}/rotate": true,
  "get /v1/databases": true,
  "post /v1/databases": true,
  "delete /v1/databases/{databaseId}": true,
  "get /v1/databases/{databaseId}": true,
  "patch /v1/databases/{databaseId}": true,
  "get /v1/databases/{databaseId}/connections": true,
  "post /v1/databases/{databaseId}/connections": true,
  "get /v1/databases/{databaseId}/usage": true,
  "get /v1/databases/{databaseId}/backups": true,
  "post /v1/databases/{targetDatabaseId}/restore": true,
  "get /v1/integrations": true,
  "delete /v1/integrations/{id}": true,
  "get /v1/integrations/{id}": true,
  "get /v1/me": true,
  "get /v1/projects": true,
  "post /v1/projects": true,
  "delete /v1/projects/{id}": true,
  "get /v1/projects/{id}": true,
  "patch /v1/projects/{id}": true,
  "post /v1/projects/{id}/transfer": true,
  "get /v1/projects/{projectId}/branches": true,
  "post /v1/projects/{projectId}/branches": true,
  "get /v1/projects/{projectId}/databases": true,
  "post /v1/projects/{projectId}/databases": true,
  "get /v1/regions": true,
  "get /v1/regions/accelerate": true,
  "get /v1/regions/postgres": true,
  "get /v1/workspaces": true,
  "post /v1/workspaces": true,
  "get /v1/workspaces/{id}": true,
  "get /v1/workspaces/{id}/subscription": true,
  "get /v1/workspaces/{workspaceId}/integrations": true,
  "delete /v1/workspaces/{workspaceId}/integrations/{clientId}": true,
  "get /v1/workspaces/{workspaceId}/service-tokens": true,
  "post /v1/workspaces/{workspaceId}/service-tokens": true,
  "delete /v1/workspaces/{workspaceId}/service-tokens/{serviceTokenId}": true,
};

type Missing = Exclude<InArea, Shared>;

/** `true` does not compile while `NotYet` is not what is missing. */
export const theRestIsKnown: Equal<Missing, NotYet> extends true
  ? true
  : ["missing, but not in the list:", Exclude<Missing, NotYet>, "there by now:", Extract<NotYet, Shared>] = true;
