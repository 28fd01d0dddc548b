//! Clients that we did not write: the official SDK, node-postgres, a migration tool.

use std::path::Path;
use std::process::Command;

use crate::harness::Howdah;

/// Runs one of the programs of tests/sdk, compiled by `npm run build`, against a Howdah.
fn run(howdah: &Howdah, program: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
    let compiled = directory.join("dist").join(program);
    assert!(compiled.exists(), "{} is missing; script/bootstrap --test and script/test make it", compiled.display());
    let output = Command::new("node")
        .arg(compiled)
        .current_dir(directory)
        .env("HOWDAH_URL", howdah.url())
        .env("HOWDAH_TOKEN", howdah.token())
        .output()
        .expect("node runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{text}");
}

#[tokio::test]
async fn the_official_sdk_does_the_main_job() {
    let howdah = Howdah::start().await;
    run(&howdah, "main_job.js");
    howdah.assert_tidy().await;
}
