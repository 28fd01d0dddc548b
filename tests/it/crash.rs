//! kill -9 at bad moments, many things at once, and deletes that win.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Disk, Howdah, ask, connection_string, eventually, psql};

#[tokio::test]
async fn kill_9_during_fifty_creates_loses_none_that_was_answered() {
    let mut howdah = Howdah::start().await;
    let owner = howdah.owner();
    let mut creates = tokio::task::JoinSet::new();
    for n in 0..50 {
        let owner = owner.clone();
        creates.spawn(async move {
            let request = owner.request(reqwest::Method::POST, "/v1/projects").json(&json!({"name": format!("p{n}")}));
            let response = request.send().await.ok()?;
            if response.status() != 201 {
                return None;
            }
            Some(response.json::<Value>().await.ok()?["data"].clone())
        });
    }
    let mut answered = Vec::new();
    while answered.len() < 5 {
        answered.extend(creates.join_next().await.unwrap().unwrap());
    }
    howdah.kill();
    while let Some(created) = creates.join_next().await {
        answered.extend(created.unwrap());
    }
    let old_port = howdah.gateway().port();
    howdah.launch().await;
    for project in &answered {
        let connection =
            connection_string(project).replace(&format!(":{old_port}/"), &format!(":{}/", howdah.gateway().port()));
        let asked = psql(&connection, "SELECT 1");
        assert!(asked.status.success(), "{}: {}", project["name"], String::from_utf8_lossy(&asked.stderr));
    }
    // What was recorded but not answered is finished, not lost and not half made.
    howdah.assert_tidy().await;
    let projects = howdah.owner().get("/v1/projects").await;
    for project in projects.data(200).as_array().unwrap() {
        let path = format!("/v1/projects/{}/databases", project["id"].as_str().unwrap());
        assert_eq!(howdah.owner().get(&path).await.data(200)[0]["status"], "ready");
    }
}

#[tokio::test]
async fn a_delete_during_a_provision_wins() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    for _ in 0..5 {
        let creates = (0..4).map(|_| async {
            owner.send(reqwest::Method::POST, "/v1/projects", Some(json!({"name": "racing"}))).await
        });
        let deletes = async {
            // As soon as a project can be seen it is deleted, whatever its database is doing.
            let mut gone = 0;
            while gone < 4 {
                for project in owner.get("/v1/projects").await.data(200).as_array().unwrap() {
                    let path = format!("/v1/projects/{}", project["id"].as_str().unwrap());
                    assert!([204, 404].contains(&owner.delete(&path).await.status.as_u16()));
                    gone += 1;
                }
            }
        };
        let (answers, ()) = tokio::join!(futures_util::future::join_all(creates), deletes);
        for answer in answers {
            assert!([201, 404].contains(&answer.status.as_u16()), "{}", answer.body);
        }
    }
    howdah.assert_tidy().await;
    assert_eq!(howdah.directory().instances(), Vec::<String>::new());
}

#[tokio::test]
async fn kill_9_at_any_moment_of_creating_and_deleting_leaves_nothing_without_an_owner() {
    let mut howdah = Howdah::start().await;
    for round in 0..8u64 {
        let owner = howdah.owner();
        let life = async {
            let body = json!({"name": format!("round{round}")});
            let request = owner.request(reqwest::Method::POST, "/v1/projects").json(&body);
            let Ok(response) = request.send().await else { return };
            let Ok(created) = response.json::<Value>().await else { return };
            let path = format!("/v1/projects/{}", created["data"]["id"].as_str().unwrap_or_default());
            let _ = owner.request(reqwest::Method::DELETE, &path).send().await;
        };
        // Each round is killed a little later: before, in the middle of and after each step.
        let moment = tokio::time::sleep(Duration::from_millis(15 + 20 * round));
        tokio::select! { () = moment => {}, () = life => {} }
        howdah.kill();
        howdah.launch().await;
    }
    howdah.assert_tidy().await;
    let projects = howdah.owner().get("/v1/projects").await.data(200).clone();
    for project in projects.as_array().unwrap() {
        let path = format!("/v1/projects/{}/databases", project["id"].as_str().unwrap());
        eventually("the database to be ready", async || {
            (howdah.owner().get(&path).await.data(200)[0]["status"] == "ready").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_full_disk_delays_creates_and_harms_nothing() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can mount a small file system
    }
    let disk = Disk::in_memory("330m");
    let howdah = Howdah::start_on(disk.path().join("data"), &["--stock", "1"]).await;
    let owner = howdah.owner();
    // Until it is tight: a create fails at once, or waits for room if it was accepted just before.
    let (mut made, mut waiting) = (vec![owner.create_project("first").await], Vec::new());
    let refused = loop {
        let answer = owner.post("/v1/projects", json!({"name": "more"})).await;
        if answer.status != 201 {
            break answer;
        }
        let project = answer.data(201).clone();
        if project["database"]["status"] == "ready" {
            made.push(project)
        } else {
            waiting.push(project)
        }
        assert!(made.len() + waiting.len() < 20, "the disk does not get full");
    };
    refused.assert_error(503, "service-unavailable");
    let said = refused.body["error"]["message"].as_str().unwrap();
    assert!(said.contains("disk is almost full") && refused.headers.contains_key("retry-after"), "{refused:?}");
    for project in &made {
        let kept = "CREATE TABLE kept AS SELECT 1 AS n; SELECT n FROM kept";
        let asked = psql(&connection_string(project), kept);
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    }
    // One of them may be too little: the metadata store has grown meanwhile.
    for project in &made {
        owner.delete(&format!("/v1/projects/{}", project["id"].as_str().unwrap())).await.data(204);
    }
    for project in &waiting {
        let path = format!("/v1/databases/{}", project["database"]["id"].as_str().unwrap());
        eventually("the waiting database to be made", async || {
            (owner.get(&path).await.data(200)["status"] == "ready").then_some(())
        })
        .await;
    }
    let project = eventually("creates to be accepted again", async || {
        let answer = owner.post("/v1/projects", json!({"name": "afterwards"})).await;
        (answer.status == 201).then(|| answer.data(201).clone())
    })
    .await;
    assert_eq!(ask(&connection_string(&project), "SELECT 1"), "1");
    howdah.assert_tidy().await;
}
