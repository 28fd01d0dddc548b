//! A backup that does not restore: how the API, the console and the client show it, and what they offer instead.

use serde_json::json;

use crate::backups::{Kept, directory_of, flip_a_byte, largest, notes};
use crate::browser::Browser;
use crate::cli::Client;
use crate::harness::Howdah;

fn bare(id: &str) -> &str {
    id.split_once('_').unwrap().1
}

#[tokio::test]
async fn damaged_backup_is_shown_with_alternatives() {
    let mut howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    howdah.expect_errors(&["cannot be restored", "workflow failed"]);
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let client = Client::of(&howdah);
    let kept = Kept::new(&howdah).await;
    let page_of_database = format!("{workspace}/databases/{}", bare(&kept.id));
    kept.note("one");
    let first = kept.back_up().await;
    assert_eq!(first["isDamaged"], false);
    let table = client.text(&["backups", "list", "kept"]);
    assert!(table.contains("VERIFIED") && table.contains("not yet"), "{table}");
    assert!(!ada.get(&page_of_database).await.text.contains("damaged"));

    let broken = largest(&directory_of(&howdah), "bundle");
    flip_a_byte(&broken);
    let source = json!({"type": "backup", "databaseId": kept.id, "backupId": first["id"]});
    let body = json!({"projectId": kept.project, "name": "copy", "source": source});
    let copy = kept.owner.post("/v1/databases", body).await;
    let operation = copy.headers["howdah-operation"].to_str().unwrap().to_owned();
    let copy = copy.data(201)["id"].as_str().unwrap().to_owned();
    let ended = kept.owner.ended(&operation).await;
    assert_eq!((&ended["state"], &ended["canRetry"]), (&json!("failed"), &json!(false)), "{ended}");
    let reason = "the backup is damaged; choose another backup";
    assert_eq!(ended["reason"], reason);
    let retry = format!("/v1/operations/{operation}/retry");
    let refused = kept.owner.post(&retry, json!({})).await;
    refused.assert_error(409, "client-error");
    let error = &refused.body["error"];
    assert!(error["message"].as_str().unwrap().ends_with("its backup is damaged"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains(&kept.id), "{error}");
    let listed = kept.backups().await;
    let listed = &listed["data"][0];
    assert_eq!((&listed["isDamaged"], &listed["verificationFailure"]), (&json!(true), &json!(reason)));

    // The console offers only other backups.
    let backups = ada.get(&format!("{page_of_database}/backups")).await;
    for words in
        ["Damaged: does not restore", reason, "No backup of this database restores.", "every backup is damaged"]
    {
        backups.assert_says(200, words);
    }
    assert!(!backups.text.contains("restore?backup="), "{}", backups.text);
    ada.get(&page_of_database).await.assert_says(200, "No backup of this database restores.");
    let projects = ada.get(&format!("{workspace}/projects")).await;
    projects.assert_says(200, "1 with damaged backups");
    projects.assert_says(200, "1 failed");
    ada.get(&format!("{workspace}/projects/{}", bare(&kept.project))).await.assert_says(200, "Damaged backups");
    let restore = ada.get(&format!("{page_of_database}/restore")).await;
    restore.assert_says(200, "Every backup is damaged.");
    assert!(!restore.text.contains("name=\"backup\""), "{}", restore.text);
    let page_of_copy = format!("{workspace}/databases/{}", bare(&copy));
    for page in [page_of_copy.clone(), format!("{workspace}/operations/{}", bare(&operation))] {
        let page = ada.get(&page).await;
        page.assert_says(200, &format!("<a class=\"button small\" href=\"{page_of_database}/restore\">"));
        page.assert_says(200, &format!("<a class=\"button small\" href=\"{page_of_copy}/settings\">"));
        assert!(!page.text.contains("/retry\""), "{}", page.text);
    }
    ada.get(&format!("{workspace}/operations?state=failed")).await.assert_says(200, reason);

    // The client.
    let table = client.text(&["backups", "list", "kept"]);
    for words in [&format!("damaged: {reason}"), "FAILED", "Nothing can be restored: every backup is damaged."] {
        assert!(table.contains(words), "no {words:?} in {table}");
    }
    let said = client.failure(5, &["databases", "restore", "kept", "--backup", "latest", "--as", "another"]);
    assert!(said.contains("every backup of the database") && said.contains("is damaged"), "{said}");
    let table = client.text(&["operations", "list", "--database", "copy"]);
    assert!(table.contains(&format!("failed: {reason}")), "{table}");

    // Another backup can be restored instead.
    kept.note("two");
    kept.back_up().await;
    let backups = ada.get(&format!("{page_of_database}/backups")).await;
    backups.assert_says(200, "1 of 2 backups is damaged and will not restore.");
    assert_eq!(backups.text.matches("restore?backup=").count(), 1, "{}", backups.text);
    let restore = ada.get(&format!("{page_of_database}/restore")).await;
    assert_eq!(restore.text.matches("<option value=").count(), 1, "{}", restore.text);
    restore.assert_says(200, "Damaged backups are not listed.");
    let listed = client.run(&["backups", "list", "kept"]);
    assert!(listed.stdout.contains("not yet") && listed.stderr.contains("1 of these backups is damaged"), "{listed:?}");
    let made = client.text(&["databases", "restore", "kept", "--backup", "latest", "--as", "beside"]);
    assert_eq!(notes(made.lines().find(|line| line.starts_with("postgres://")).unwrap()), "one two");

    // A backup that passes a later verification is no longer marked as damaged, and the failed copy can be retried.
    flip_a_byte(&broken);
    let verify = format!("{}/backups/{}/verify", kept.path(), first["id"].as_str().unwrap());
    let verified = kept.owner.post(&verify, json!({})).await;
    let verified = kept.owner.ended(verified.headers["howdah-operation"].to_str().unwrap()).await;
    assert_eq!(verified["state"], "succeeded", "{verified}");
    assert!(!ada.get(&page_of_database).await.text.contains("damaged"));
    ada.get(&page_of_copy).await.assert_says(200, "/retry\"");
    kept.owner.post(&retry, json!({})).await;
    assert_eq!(kept.owner.ended(&operation).await["state"], "succeeded");
    howdah.assert_tidy().await;
}

/// A failure of the verification itself says nothing about the backup.
#[tokio::test]
async fn verification_that_could_not_run_does_not_mark_a_backup_as_damaged() {
    let howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    kept.back_up().await;
    let (store, tasks) = howdah.store();
    let update = "UPDATE backups SET verification_failure = 'the server''s disk is full'";
    assert_eq!(store.session().await.unwrap().execute(update, &[]).await.unwrap(), 1);
    tasks.stop();
    let backups = ada.get(&format!("{workspace}/databases/{}/backups", bare(&kept.id))).await;
    for words in ["Completed", "Failed", "the server&#39;s disk is full", "restore?backup="] {
        backups.assert_says(200, words);
    }
    assert!(!backups.text.contains("amaged"), "{}", backups.text);
    let table = Client::of(&howdah).text(&["backups", "list", "kept"]);
    assert!(table.contains("completed") && table.contains("FAILED") && !table.contains("damaged"), "{table}");
}
