//! Clients that we did not write: the official SDK, node-postgres, a migration tool.

use std::path::Path;

use tokio::process::Command;

use crate::harness::Howdah;
use crate::integrations::consent;

/// Runs one of the programs of tests/sdk, compiled by `npm run build`, against this address.
pub(crate) async fn run(program: &str, url: &str, token: &str, variables: &[(&str, &str)]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
    let compiled = directory.join("dist").join(program);
    assert!(compiled.exists(), "{} is missing; script/bootstrap --test and script/test make it", compiled.display());
    let output = Command::new("node")
        .arg(compiled)
        .current_dir(directory)
        .env("HOWDAH_URL", url)
        .env("HOWDAH_TOKEN", token)
        .envs(variables.iter().copied())
        .output()
        .await
        .expect("node runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{text}");
}

#[tokio::test]
async fn the_official_sdk_does_the_main_job() {
    let howdah = Howdah::start().await;
    run("main_job.js", &howdah.url(), &howdah.token(), &[]).await;
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn no_field_that_the_official_sdk_may_send_is_unknown() {
    let howdah = Howdah::start().await;
    run("bodies.js", &howdah.url(), &howdah.token(), &[]).await;
}

#[tokio::test]
async fn the_official_sdk_drives_every_operation() {
    let howdah = Howdah::start().await;
    let (_, recipient) = howdah.stranger_with_token().await;
    let workspace = howdah.owner().workspace_id().await;
    for client in ["one", "another"] {
        consent(&howdah, &workspace, client).await;
    }
    run("management.js", &howdah.url(), &howdah.token(), &[("HOWDAH_RECIPIENT_TOKEN", &recipient)]).await;
    howdah.assert_tidy().await;
}
