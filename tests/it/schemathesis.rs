//! schemathesis makes requests out of the API document, good ones and bad ones, and holds every
//! answer against it: `tests/schemathesis/` says how.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::document::{DOCUMENT, template};
use crate::harness::{Howdah, eventually};
use crate::integrations::consent;

/// What the run may take, on a busy machine.
const LONGEST: Duration = Duration::from_secs(200);

#[tokio::test]
async fn every_answer_to_made_up_requests_is_documented() {
    let limits = ["--max-databases", "12", "--max-projects", "40", "--max-connections-per-database", "20"];
    let rates = ["--rate-limit", "0", "--address-rate-limit", "0"];
    let howdah = Howdah::start_with(&[&limits[..], &rates, &["--max-running", "16", "--stock", "4"]].concat()).await;
    let things = things(&howdah).await;
    let configuration =
        things.iter().fold(include_str!("../schemathesis/schemathesis.toml").to_owned(), |text, thing| {
            text.replace(&format!("${{{}}}", thing.0), thing.1)
        });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("schemathesis.toml");
    std::fs::write(&file, configuration).unwrap();

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/schemathesis/bin/schemathesis");
    assert!(program.exists(), "{} is missing; script/bootstrap --test installs it", program.display());
    let run = Command::new(program)
        .arg("--config-file")
        .arg(file)
        .args(["run", &format!("{}/v1/doc", howdah.url()), "--no-color"])
        .current_dir(directory.path())
        .env("PYTHONPATH", root.join("tests/schemathesis"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(things)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LONGEST, run).await.expect("schemathesis ends in time").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    let answers = answers(&howdah);
    let some = |answers: &[u16], fits: fn(&u16) -> bool| answers.iter().any(fits);
    // Neither what is read before a rule is asked, nor the rule that there must be such a thing.
    let reached = |status: &u16| !matches!(status, 401 | 404 | 405 | 408 | 411..=417 | 422 | 429 | 431 | 500..);
    let unreached: Vec<&String> =
        answers.iter().filter(|(_, answers)| !some(answers, reached)).map(|(operation, _)| operation).collect();
    assert!(unreached.is_empty(), "give the requests to these things that are there: {unreached:#?}");
    let carried_out = answers.values().filter(|answers| some(answers, |status| (200..300).contains(status))).count();
    assert!(carried_out * 5 >= answers.len() * 4, "only {carried_out} of {} were carried out", answers.len());
    howdah.owner().get("/v1/me").await.data(200);
    howdah.assert_tidy().await;
}

/// Things that requests can be about, by the names that the configuration has for them.
async fn things(howdah: &Howdah) -> BTreeMap<&'static str, String> {
    let owner = howdah.owner();
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let project = id(&owner.create_project("fuzzed").await);
    let databases = format!("/v1/projects/{project}/databases");
    let database = id(owner.post(&databases, json!({"name": "spare"})).await.data(201));
    // In a project that is not deleted before the branch is.
    let other = owner.post("/v1/projects", json!({"name": "branched", "createDatabase": false})).await;
    let other = format!("/v1/projects/{}", id(other.data(201)));
    owner.patch(&other, json!({"deleteProtection": true})).await.data(200);
    let branches = format!("{other}/branches");
    let branch = id(owner.post(&branches, json!({"gitName": "spare"})).await.data(201));
    eventually("the database to be ready", async || {
        let shown = owner.get(&format!("/v1/databases/{database}")).await;
        (shown.data(200)["status"] == "ready").then_some(())
    })
    .await;
    let made = owner.post(&format!("/v1/databases/{database}/backups"), json!({})).await;
    let backup = id(made.data(202));
    owner.ended(made.headers["howdah-operation"].to_str().unwrap()).await;
    let workspace = owner.workspace_id().await;
    let client = "cmm3lndn701oo0uefvxzo0ivw";
    consent(howdah, &workspace, client).await;
    let integration = consent(howdah, &workspace, "another").await;
    let spare = owner.create_token(json!({"name": "spare"})).await;
    let own = owner.create_token(json!({"name": "fuzzing"})).await;
    let initial = id(&owner.get("/v1/me").await.data(200)["credential"]);
    BTreeMap::from([
        ("HOWDAH_TOKEN", own.made["value"].as_str().unwrap().to_owned()),
        ("HOWDAH_KEPT_TOKENS", format!("{} {initial}", own.id)),
        ("HOWDAH_SPARE_TOKEN", spare.id),
        ("HOWDAH_RECIPIENT_TOKEN", howdah.stranger_with_token().await.1),
        ("HOWDAH_WORKSPACE", workspace),
        ("HOWDAH_PROJECT", project),
        ("HOWDAH_BRANCH", branch),
        ("HOWDAH_DATABASE", database),
        ("HOWDAH_BACKUP", backup),
        ("HOWDAH_INTEGRATION", integration),
        ("HOWDAH_CLIENT", format!("itgr_{client}")),
    ])
}

/// What each operation has answered, as the log says.
fn answers(howdah: &Howdah) -> BTreeMap<String, Vec<u16>> {
    let paths = DOCUMENT["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| (format!("{} {path}", method.to_uppercase()), Vec::new()))
    });
    let mut answers: BTreeMap<String, Vec<u16>> = operations.collect();
    for line in howdah.log().lines() {
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let Some((request, status)) = entry["message"].as_str().and_then(|text| text.split_once(" answered ")) else {
            continue;
        };
        let Some((method, path)) = request.split_once(' ') else { continue };
        if let Some(known) = template(path).and_then(|path| answers.get_mut(&format!("{method} {path}"))) {
            known.push(status.parse().unwrap());
        }
    }
    answers
}
