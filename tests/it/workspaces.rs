//! Deleting a workspace: who may, when, and what is gone then.

use auth::{Origin, Role};
use base::clock::Clock;
use base::error::Error;
use base::id::{UserId, WorkspaceId};
use base::store::Store;
use domain::limits::Quotas;
use domain::projects::{self, NewProject};
use domain::{members, workspaces};
use serde_json::json;

use crate::browser::Browser;
use crate::harness::{Howdah, Person, ask, connection_string, eventually};
use crate::oauth::access_token;

const ADMIN: &str = "workspace:admin";

/// A workspace of Ada's beside the first one, by the address of its page.
async fn research(ada: &mut Browser) -> String {
    ada.get("/console/workspaces").await;
    ada.submit("/console/workspaces", &[("name", "Research")]).await.location().to_owned()
}

fn in_api(workspace: &str) -> String {
    format!("/v1/workspaces/{}", workspace.rsplit('/').next().unwrap())
}

/// Before an access token ends: what it makes ends before it does.
fn soon() -> String {
    (Clock::system().now() + jiff::SignedDuration::from_mins(30)).to_string()
}

#[tokio::test]
async fn only_an_owner_deletes_an_empty_workspace() {
    let howdah = Howdah::start_with(&["--undelete", "1h"]).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = research(&mut ada).await;
    let path = in_api(&workspace);
    let mut adam = ada.invite(&howdah, &workspace, "adam", "admin").await;
    let owner = Person::new(howdah.url(), Some(access_token(&howdah, &mut ada, ADMIN, &workspace).await));
    let reader = Person::new(howdah.url(), Some(access_token(&howdah, &mut ada, "workspace:read", &workspace).await));
    let admin = Person::new(howdah.url(), Some(access_token(&howdah, &mut adam, ADMIN, &workspace).await));
    let token = owner.create_token(json!({"name": "nightly", "expiresAt": soon()})).await.person;
    let made = owner.create_project("p").await;
    ask(&connection_string(&made), "CREATE TABLE orders (id int)");

    // Who may not.
    for (who, words) in [(&token, "signed-in member"), (&admin, "admin"), (&reader, "read-only")] {
        let answer = who.delete(&path).await;
        answer.assert_error(403, "permission-denied");
        assert!(answer.body["error"]["message"].as_str().unwrap().contains(words), "{}", answer.body);
    }
    howdah.owner().delete(&path).await.assert_error(404, "resource-not-found");
    howdah.anonymous().delete(&path).await.assert_error(401, "authentication-failed");
    adam.get(&format!("{workspace}/settings")).await;
    let page = adam.submit(&format!("{workspace}/settings/delete"), &[("confirm", "Research")]).await;
    page.assert_says(403, "Permission denied");
    adam.get(&format!("{workspace}/settings/delete")).await.assert_says(403, "Permission denied");
    assert!(!adam.get(&format!("{workspace}/settings")).await.text.contains("settings/delete"));

    // When it may not be: with a project, with what can be restored.
    let refused = owner.delete(&path).await;
    refused.assert_error(409, "client-error");
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("a project"), "{}", refused.body);
    assert!(refused.body["error"]["hint"].as_str().unwrap().contains("transfer"), "{}", refused.body);
    let project = made["id"].as_str().unwrap();
    let deleted = owner.delete(&format!("/v1/projects/{project}")).await;
    let operation = deleted.headers["howdah-operation"].to_str().unwrap().to_owned();
    owner.delete(&path).await.assert_error(409, "client-error");
    owner.ended(&operation).await;
    let refused = owner.delete(&path).await;
    refused.assert_error(409, "client-error");
    assert!(
        refused.body["error"]["message"].as_str().unwrap().contains("still be restored, until"),
        "{}",
        refused.body
    );
    let page = ada.get(&format!("{workspace}/settings/delete")).await;
    page.assert_says(200, "Delete <bdi>Research</bdi>");
    let delete = format!("{workspace}/settings/delete");
    ada.submit(&delete, &[("confirm", "Research")]).await.assert_says(422, "still be restored");
    ada.submit(&delete, &[("confirm", "research")]).await.assert_says(422, "does not match");
    // All of it was refused, and is in the log.
    let log = owner.get(&format!("{path}/audit-log?action=delete_workspace")).await.data(200).clone();
    assert_eq!(log.as_array().unwrap().len(), 9, "{log}");
    assert!(log.as_array().unwrap().iter().all(|entry| entry["outcome"] == "refused"), "{log}");
    assert_eq!(token.get("/v1/projects").await.status, 200, "nothing was changed");

    // Its time is over, and then it is forgotten.
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    session.execute("UPDATE databases SET forget_at = now() WHERE deleted_at IS NOT NULL", &[]).await.unwrap();
    let refused = owner.delete(&path).await;
    refused.assert_error(409, "client-error");
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("being removed"), "{}", refused.body);
    for table in ["backups", "vaults", "databases", "projects"] {
        session.execute(&format!("DELETE FROM {table}"), &[]).await.unwrap();
    }

    let link = ada.invitation(&workspace, "late@example.com", "viewer").await;
    let new = format!("{workspace}/integrations/applications/new");
    let planner = [("name", "Planner"), ("redirectUris", "https://planner.example/callback")];
    ada.submit(&new, &planner).await.assert_says(200, "Planner");
    ada.get(&delete).await;
    assert_eq!(ada.submit(&delete, &[("confirm", "Research")]).await.location(), "/console/workspaces");

    // At once, for everybody and everything.
    for who in [&owner, &admin, &reader, &token] {
        who.get("/v1/projects").await.assert_error(401, "authentication-failed");
    }
    let page = ada.get("/console/workspaces").await;
    page.assert_says(200, "Workspace “Research” deleted.");
    assert!(!page.text.contains(&workspace), "{}", page.text);
    for path in ["", "/projects", "/members", "/audit", "/settings", "/settings/delete"] {
        ada.get(&format!("{workspace}{path}")).await.assert_says(404, "Page not found");
        adam.get(&format!("{workspace}{path}")).await.assert_says(404, "Page not found");
    }
    ada.submit(&delete, &[("confirm", "Research")]).await.assert_says(404, "Page not found");
    Browser::new(&howdah).get(&link).await.assert_says(404, "expired or has already been used");
    for table in ["service_tokens", "integrations", "memberships", "invitations", "oauth_grants", "oauth_access_tokens"]
    {
        let left = session.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
        let left: i64 = left.get(0);
        let first = i64::from(["service_tokens", "memberships"].contains(&table));
        assert_eq!(left, first, "{table} holds what the first workspace has");
    }
    tasks.stop();
    assert_eq!(howdah.owner().get("/v1/projects").await.status, 200, "another workspace is as it was");

    // Administrators read its log.
    let page = ada.get("/console/audit?action=delete+workspace").await;
    page.assert_says(200, "Research");
    let bare = workspace.rsplit('/').next().unwrap();
    let page = ada.get(&format!("/console/audit?workspace={bare}")).await;
    page.assert_says(200, "Create project");
    adam.get(&format!("/console/audit?workspace={bare}")).await.assert_says(403, "Only administrators");
    // Not those of workspaces that are there.
    let there = howdah.owner().workspace_id().await;
    howdah.owner().post("/v1/projects", json!({"name": "q", "createDatabase": false})).await.data(201);
    let page = ada.get(&format!("/console/audit?workspace={there}")).await;
    page.assert_says(200, "No entries");
}

/// Waits until so many others wait for a lock.
async fn waiting(store: &Store, count: i64) {
    let session = store.session().await.unwrap();
    eventually("others to wait for a lock", async || {
        let select = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        (session.query_one(select, &[]).await.unwrap().get::<_, i64>(0) == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_workspace_is_deleted_before_or_after_something_is_added_to_it() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = research(&mut ada).await;
    let path = in_api(&workspace);
    let owner = Person::new(howdah.url(), Some(access_token(&howdah, &mut ada, ADMIN, &workspace).await));
    let me = owner.get("/v1/me").await.data(200)["user"]["id"].as_str().unwrap().to_owned();
    let (store, tasks) = howdah.store();
    let id = WorkspaceId::parse(workspace.rsplit('/').next().unwrap()).unwrap();
    let now = Clock::system().now();
    let tx = store.begin().await.unwrap();
    let user = auth::users::get(&tx, UserId::parse(&me).unwrap()).await.unwrap().user;
    let actor = members::principal(&tx, &user, id, Origin::default()).await.unwrap();
    assert_eq!(actor.role(), Role::Owner);
    let new = || NewProject { name: None, region: None, logical_id: None };

    // A project that is being made comes first: the workspace has it then.
    let project = projects::create(&tx, &actor, now, &Quotas::default(), new()).await.unwrap();
    let (refused, ()) = tokio::join!(owner.delete(&path), async {
        waiting(&store, 1).await;
        tx.commit().await.unwrap();
    });
    refused.assert_error(409, "client-error");
    owner.delete(&format!("/v1/projects/{}", project.id)).await.data(204);

    // The workspace goes first: nothing is added to it any more.
    let tx = store.begin().await.unwrap();
    workspaces::delete(&tx, &actor, now, id).await.unwrap();
    let tokens = format!("{path}/service-tokens");
    let (project, token, again, ()) = tokio::join!(
        owner.post("/v1/projects", json!({"createDatabase": false})),
        owner.post(&tokens, json!({"name": "late", "expiresAt": soon()})),
        owner.delete(&path),
        async {
            waiting(&store, 3).await;
            tx.commit().await.unwrap();
        },
    );
    project.assert_error(409, "client-error");
    assert!(
        project.body["error"]["message"].as_str().unwrap().contains("deleted during the request"),
        "{}",
        project.body
    );
    assert!([404, 409].contains(&token.status.as_u16()), "{}", token.body);
    again.assert_error(404, "resource-not-found");
    let session = store.session().await.unwrap();
    let left = session.query_one("SELECT count(*) FROM projects", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
    let gone = workspaces::get(&session, &actor, id).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
    tasks.stop();
}
