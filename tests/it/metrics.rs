//! What is told to whoever watches over the server.

use reqwest::StatusCode;

use crate::harness::Howdah;

/// The numbers as they are now, a line each.
pub(crate) async fn metrics(howdah: &Howdah) -> Vec<String> {
    let address = howdah.addresses["metrics"].as_str().unwrap();
    let answer = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    answer.text().await.unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn metrics_are_served_at_the_configured_address() {
    let howdah = Howdah::start_with(&["--metrics", "127.0.0.1:0"]).await;
    assert!(howdah.log().contains("/metrics"), "{}", howdah.log());
    let before = metrics(&howdah).await;
    assert!(before.contains(&"howdah_projects 0".to_owned()), "{before:?}");
    howdah.owner().create_project("shop").await;
    let after = metrics(&howdah).await;
    for line in [
        "howdah_workspaces 1",
        "howdah_projects 1",
        "howdah_databases{status=\"ready\"} 1",
        "howdah_databases{status=\"failure\"} 0",
        "howdah_operations{kind=\"provision_database\",state=\"succeeded\"} 1",
        "howdah_archives_stuck 0",
        "howdah_backup_trials{outcome=\"failed\"} 0",
    ] {
        assert!(after.iter().any(|found| found == line), "no {line} in {after:#?}");
    }
    // Nowhere else, and nothing else there.
    let elsewhere = howdah.anonymous().get("/metrics").await;
    elsewhere.assert_error(404, "resource-not-found");
    let address = howdah.addresses["metrics"].as_str().unwrap();
    let other = reqwest::get(format!("http://{address}/v1/projects")).await.unwrap();
    assert_eq!(other.status(), StatusCode::NOT_FOUND);
    howdah.assert_tidy().await;
}
