//! How much, how fast, and how many: what is refused is refused in words, and nobody gets around it.

use std::collections::BTreeMap;
use std::time::Instant;

use base::id::WorkspaceId;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Answer, Howdah, LIMIT, Person, answer, eventually};

/// Sends these bytes and reads until the connection ends.
async fn raw(howdah: &Howdah, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(howdah.url().trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    // What comes is read even when the server ends the connection with bytes left to read.
    let _ = tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("it ends");
    answer
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let path = |length: usize| format!("/v1/projects?cursor={}", "x".repeat(length - 20));
    owner.get(&path(8 * 1024)).await.assert_error(422, "validation-error");
    for person in [&owner, &howdah.anonymous()] {
        let long = person.get(&path(8 * 1024 + 1)).await;
        long.assert_error(414, "client-error");
        assert!(long.body["error"]["message"].as_str().unwrap().contains("8193 bytes"), "{}", long.body);

        let with = async |count: usize, size: usize| {
            let mut request = person.request(Method::GET, "/v1/regions");
            for number in 0..count {
                request = request.header(format!("x-{number}"), "y".repeat(size));
            }
            answer(&Method::GET, "/v1/regions", request.send().await.unwrap()).await
        };
        with(101, 1).await.assert_error(431, "client-error");
        with(1, 16 * 1024).await.assert_error(431, "client-error");
        assert_ne!(with(90, 100).await.status, 431);
    }
    // What is out of all proportion is not read to its end.
    for head in [
        format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000)),
        format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(1000)),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(200_000)),
    ] {
        let answer = raw(&howdah, head.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(owner.get("/v1/projects").await.data(200), &json!([]));
}

#[tokio::test]
async fn a_body_that_is_nested_too_deep_is_refused() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.post("/v1/projects", json!({"createDatabase": false})).await.data(201)["id"].clone();
    let path = format!("/v1/projects/{}", project.as_str().unwrap());
    let nested = |levels: usize| {
        // The body and the settings are two levels.
        let inside = (2..levels).fold(json!("[[[[ \" not nested"), |inside, _| json!([inside]));
        json!({"settings": {"a": inside}})
    };
    owner.patch(&path, nested(32)).await.data(200);
    for levels in [33, 100, 200] {
        let refused = owner.patch(&path, nested(levels)).await;
        refused.assert_error(422, "validation-error");
        assert!(refused.body["error"]["message"].as_str().unwrap().contains("32 levels"), "{}", refused.body);
    }
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn unknown_routes_and_methods_are_answered_in_the_envelope_to_everybody() {
    let howdah = Howdah::start().await;
    for person in [howdah.owner(), howdah.anonymous()] {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = person.send(method.clone(), "/v1/buckets", None).await;
            answer.assert_error(404, "resource-not-found");
            let expected = format!("This server has no route {method} /v1/buckets.");
            assert_eq!(answer.body["error"]["message"], expected);
            assert!(answer.body["error"]["hint"].as_str().unwrap().contains("GET /v1/doc"), "{}", answer.body);
            person.send(method, "/", None).await.assert_error(404, "resource-not-found");
        }
        for method in ["PUT", "OPTIONS", "TRACE", "BREW", "DELETE"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = person.send(method.clone(), "/v1/projects", None).await;
            answer.assert_error(405, "client-error");
            let mut allowed: Vec<&str> = answer.headers["allow"].to_str().unwrap().split(',').collect();
            allowed.sort_unstable();
            assert_eq!(allowed, ["GET", "HEAD", "POST"], "{method}");
        }
        for path in ["/healthz", "/readyz", "/v1/doc"] {
            let answer = person.send(Method::POST, path, None).await;
            answer.assert_error(405, "client-error");
            assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
        }
        // The answer to HEAD is that to GET without its body.
        let transfer = "/v1/projects/proj_00000000000000000000000000/transfer";
        for (path, status) in [("/v1/nothing", 404), (transfer, 405)] {
            let answer = person.send(Method::HEAD, path, None).await;
            assert_eq!((answer.status.as_u16(), &answer.body), (status, &Value::Null));
        }
    }
    assert_eq!(howdah.owner().send(Method::HEAD, "/v1/projects", None).await.status, 200);
    assert_eq!(howdah.anonymous().send(Method::HEAD, "/v1/projects", None).await.status, 401);
    let star = raw(&howdah, b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(star.starts_with("HTTP/1.1 404") && star.contains("x-request-id"), "{star}");
    assert!(raw(&howdah, b"nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
}

/// The three numbers of an answer.
fn rate(answer: &Answer) -> (u32, u32, u32) {
    let number = |name| answer.headers[name].to_str().unwrap().parse().unwrap();
    (number("ratelimit-limit"), number("ratelimit-remaining"), number("ratelimit-reset"))
}

/// Checks that it is refused for its rate, with all that has to be said.
fn assert_too_fast(answer: &Answer, who: &str) {
    answer.assert_error(429, "rate-limit-exceeded");
    assert!(answer.body["error"]["message"].as_str().unwrap().starts_with(who), "{}", answer.body);
    assert!(answer.body["error"]["hint"].as_str().unwrap().contains("Retry-After"), "{}", answer.body);
    let wait: u32 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    let (limit, remaining, reset) = rate(answer);
    assert!(wait >= 1 && remaining == 0 && reset >= wait && limit >= 1, "{:?}", answer.headers);
}

/// So many requests at the same time, as many of each status as there were.
async fn flood(person: &Person, path: &str, count: usize) -> (BTreeMap<u16, usize>, Vec<Answer>) {
    let answers = join_all((0..count).map(|_| person.get(path))).await;
    let mut statuses = BTreeMap::new();
    for answer in &answers {
        *statuses.entry(answer.status.as_u16()).or_default() += 1;
    }
    (statuses, answers)
}

#[tokio::test]
async fn token_over_its_rate_limit_gets_429() {
    let howdah = Howdah::start_with(&["--rate-limit", "1", "--rate-burst", "5"]).await;
    let (owner, stranger) = (howdah.owner(), howdah.stranger().await);
    let first = owner.get("/v1/projects").await;
    first.data(200);
    assert_eq!(rate(&first), (5, 4, 1));

    let begun = Instant::now();
    let (statuses, answers) = flood(&owner, "/v1/projects", 30).await;
    let came_back = begun.elapsed().as_secs() as usize + 1;
    assert!(statuses[&200] >= 4 && statuses[&200] <= 5 + came_back, "{statuses:?} in {:?}", begun.elapsed());
    assert_eq!(statuses[&200] + statuses[&429], 30, "{statuses:?}");
    for refused in answers.iter().filter(|answer| answer.status == 429) {
        assert_too_fast(refused, "This token");
        assert_eq!(rate(refused).0, 5);
    }
    stranger.get("/v1/regions").await.data(200);
    // Every route counts, and what was taken comes back.
    eventually("the token to be taken again", async || {
        let nothing = owner.get("/v1/projects/proj_00000000000000000000000000").await;
        assert!([404, 429].contains(&nothing.status.as_u16()), "{}", nothing.body);
        assert_eq!(rate(&nothing).0, 5);
        (nothing.status == 404).then_some(())
    })
    .await;
    let limits = format!("/v1/workspaces/{}/limits", stranger.workspace_id().await);
    let limits = stranger.get(&limits).await;
    assert_eq!(limits.data(200)["requestsPerToken"], json!({"perSecond": 1, "burst": 5}));
}

#[tokio::test]
async fn addresses_are_limited_before_anybody_is_identified_and_guesses_harder() {
    let limits = ["--rate-limit", "0", "--address-rate-limit", "1", "--address-rate-burst", "300"];
    let howdah = Howdah::start_with(&[&limits[..], &["--trusted-proxy", "127.0.0.1"]].concat()).await;
    let owner = howdah.owner();
    let from = async |person: &Person, address: &str, path: &str| {
        let request = person.request(Method::GET, path).header("x-forwarded-for", address);
        answer(&Method::GET, path, request.send().await.unwrap()).await
    };
    let at_once = async |person: &Person, address: &str, path: &str, count: usize| {
        join_all((0..count).map(|_| from(person, address, path))).await
    };

    // The proxy's word counts, and only its own: what stands before it can be made up.
    let seen = from(&owner, "198.51.100.1", "/v1/regions").await;
    seen.data(200);
    assert_eq!(rate(&seen).0, 300);
    // So many that a slow machine's pauses do not give them back.
    at_once(&owner, "198.51.100.1", "/v1/regions", 100).await;
    let before = rate(&from(&owner, "203.0.113.9, 198.51.100.1", "/v1/regions").await).1;
    assert!(before < rate(&from(&owner, "198.51.100.7", "/v1/regions").await).1, "the same address has less left");

    // Guessing is refused long before the address is, and does not keep out tokens known to be good.
    let guesser = Person::new(howdah.url(), Some("a.b.c".into()));
    let guesses = at_once(&guesser, "198.51.100.2", "/v1/projects", 60).await;
    let refused: Vec<&Answer> = guesses.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty() && refused.len() <= 30, "{}", refused.len());
    refused.iter().for_each(|answer| assert_too_fast(answer, "This IP address, with invalid tokens,"));
    assert!(guesses.iter().all(|answer| [401, 429].contains(&answer.status.as_u16())));
    from(&owner, "198.51.100.2", "/v1/regions").await.data(200);
    assert_eq!(from(&guesser, "198.51.100.3", "/v1/projects").await.status, 401, "another address");

    // Without a token, and where no token is needed, the address counts all the same.
    let flood = at_once(&howdah.anonymous(), "198.51.100.4", "/v1/doc", 500).await;
    let refused: Vec<&Answer> = flood.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty(), "more than the burst came at once");
    refused.iter().for_each(|answer| assert_too_fast(answer, "This IP address"));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(from(&owner, "198.51.100.4", path).await.status, 200, "{path} is for who watches over the process");
    }
}

#[tokio::test]
async fn default_rate_limits_allow_the_load_of_a_fleet() {
    let howdah = Howdah::start().await;
    let (statuses, answers) = flood(&howdah.owner(), "/v1/projects", 400).await;
    assert_eq!(statuses, BTreeMap::from([(200, 400)]));
    let fewest = answers.iter().map(rate).min_by_key(|rate| rate.1).unwrap();
    assert!(fewest.0 == 1000 && fewest.1 >= 600, "{fewest:?}");
    let headers = howdah.anonymous().request(Method::GET, "/v1/projects").header("origin", "https://x.example");
    let headers = headers.send().await.unwrap().headers().clone();
    let exposed = headers["access-control-expose-headers"].to_str().unwrap();
    for name in ["retry-after", "x-request-id", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}

#[tokio::test]
async fn without_limits_nothing_is_counted() {
    let unlimited = ["--rate-limit", "0", "--address-rate-limit", "0", "--max-projects", "0", "--max-databases", "0"];
    let unlimited = [&unlimited[..], &["--max-connections-per-database", "0"]].concat();
    let howdah = Howdah::start_with(&unlimited).await;
    let owner = howdah.owner();
    let answer = owner.get(&format!("/v1/workspaces/{}/limits", owner.workspace_id().await)).await;
    let none = json!({"limit": null, "used": 0});
    let expected = json!({
        "projects": none,
        "databases": none,
        "connectionsPerDatabase": none,
        "requestsPerToken": null,
        "requestsPerAddress": null,
    });
    assert_eq!(answer.data(200), &expected);
    assert!(!answer.headers.contains_key("ratelimit-limit"));
    owner.post("/v1/projects", json!({"createDatabase": false})).await.data(201);
}

/// Gives a workspace limits of its own, as its operator does.
async fn set_limits(howdah: &Howdah, workspace: &str, projects: Option<i32>, databases: Option<i32>) {
    let (store, tasks) = howdah.store();
    let set = "INSERT INTO workspace_limits (workspace_id, projects, databases) VALUES ($1, $2, $3)
               ON CONFLICT (workspace_id) DO UPDATE SET projects = $2, databases = $3";
    let workspace = WorkspaceId::parse(workspace).unwrap().uuid();
    store.session().await.unwrap().execute(set, &[&workspace, &projects, &databases]).await.unwrap();
    tasks.stop();
}

/// Checks that every answer is a success or says that this limit is reached; how many are successes.
fn successes(answers: &[Answer], hint: &str) -> usize {
    let refused: Vec<&Answer> = answers.iter().filter(|answer| !answer.status.is_success()).collect();
    for answer in &refused {
        answer.assert_error(409, "planLimitReached");
        let said = answer.body["error"]["hint"].as_str().unwrap();
        assert!(said.starts_with(hint) && said.contains("Delete") && said.contains("operator"), "{said}");
    }
    answers.len() - refused.len()
}

#[tokio::test]
async fn a_workspace_gets_no_more_than_it_may_have_however_many_ask_at_once() {
    let limits = ["--max-projects", "4", "--max-databases", "2", "--max-connections-per-database", "3"];
    let howdah = Howdah::start_with(&limits).await;
    let owner = howdah.owner();
    let workspace = format!("/v1/workspaces/{}", owner.workspace_id().await);
    let (limits, subscription) = (format!("{workspace}/limits"), format!("{workspace}/subscription"));
    let used = async || {
        let limits = owner.get(&limits).await.data(200).clone();
        ["projects", "databases", "connectionsPerDatabase"].map(|name| limits[name]["used"].as_u64().unwrap())
    };
    assert_eq!(used().await, [0, 0, 0]);
    assert_eq!(owner.get(&subscription).await.data(200)["usageBlocked"], false);

    let bare = || owner.post("/v1/projects", json!({"createDatabase": false}));
    let answers = join_all((0..30).map(|_| bare())).await;
    assert_eq!(successes(&answers, "4 of 4 projects are used"), 4);
    assert_eq!(owner.get(&subscription).await.data(200)["usageBlocked"], true);
    assert_eq!(used().await, [4, 0, 0]);

    // In several projects, by both routes.
    let projects: Vec<String> = owner
        .get("/v1/projects")
        .await
        .data(200)
        .as_array()
        .unwrap()
        .iter()
        .map(|project| project["id"].as_str().unwrap().to_owned())
        .collect();
    let answers = join_all((0..12).map(async |number: usize| {
        let project = &projects[number % 4];
        if number.is_multiple_of(3) {
            owner.post("/v1/databases", json!({"projectId": project})).await
        } else {
            owner.post(&format!("/v1/projects/{project}/databases"), json!({"name": "d"})).await
        }
    }));
    assert_eq!(successes(&answers.await, "2 of 2 databases are used"), 2);
    assert_eq!(used().await, [4, 2, 1]);

    let database = owner.get("/v1/databases").await.data(200)[0].clone();
    let database = database["id"].as_str().unwrap();
    let answers = join_all((0..12).map(async |number: usize| {
        if number.is_multiple_of(2) {
            owner.post("/v1/connections", json!({"databaseId": database, "name": "more"})).await
        } else {
            owner.post(&format!("/v1/databases/{database}/connections"), json!({"name": "more"})).await
        }
    }));
    assert_eq!(successes(&answers.await, "3 of 3 connections are used"), 2, "one was made with the database");
    assert_eq!(used().await, [4, 2, 3]);

    // What is deleted makes room at once.
    owner.delete(&format!("/v1/databases/{database}")).await.data(200);
    owner.delete(&format!("/v1/projects/{}", projects[3])).await.data(204);
    assert_eq!(used().await[0], 3);
    owner.post("/v1/projects", json!({"name": "both"})).await.data(201);

    // A create that is refused leaves nothing behind: neither the project nor its database.
    let id = owner.workspace_id().await;
    let databases = i32::try_from(used().await[1]).unwrap();
    set_limits(&howdah, &id, Some(100), Some(databases)).await;
    let before = used().await;
    owner.post("/v1/projects", json!({})).await.assert_error(409, "planLimitReached");
    assert_eq!(used().await, before);

    // The workspace's own limits win over the server's, in both directions.
    for _ in 0..6 {
        bare().await.data(201);
    }
    set_limits(&howdah, &id, Some(1), None).await;
    let lowered = bare().await;
    assert_eq!(successes(&[lowered], "10 of 1 projects are used"), 0);
    set_limits(&howdah, &id, Some(0), None).await;
    bare().await.data(201);
    let limits = owner.get(&limits).await;
    assert_eq!(limits.data(200)["projects"], json!({"limit": null, "used": 11}));
    assert_eq!(limits.data(200)["databases"]["limit"], 2);
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn transfers_respect_the_quotas_of_the_recipient() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let (stranger, token) = howdah.stranger_with_token().await;
    let elsewhere = stranger.workspace_id().await;
    let full = owner.create_project("full").await;
    let full = format!("/v1/projects/{}/transfer", full["id"].as_str().unwrap());
    let empty = owner.post("/v1/projects", json!({"createDatabase": false})).await.data(201)["id"].clone();
    let empty = format!("/v1/projects/{}/transfer", empty.as_str().unwrap());
    let give = async |path: &str| owner.post(path, json!({"recipientAccessToken": token})).await;

    set_limits(&howdah, &elsewhere, Some(1), Some(0)).await;
    stranger.post("/v1/projects", json!({"createDatabase": false})).await.data(201);
    assert_eq!(successes(&[give(&empty).await, give(&full).await], "1 of 1 projects are used"), 0);

    // As many databases as there are already: one more is too many, none is not.
    set_limits(&howdah, &elsewhere, Some(0), Some(1)).await;
    give(&full).await.data(200);
    let another = owner.create_project("another").await;
    let another = format!("/v1/projects/{}/transfer", another["id"].as_str().unwrap());
    assert_eq!(successes(&[give(&another).await], "1 of 1 databases are used"), 0);
    give(&empty).await.data(200);
    assert_eq!(owner.get("/v1/projects").await.data(200).as_array().unwrap().len(), 1, "who could not give keeps it");
    howdah.assert_tidy().await;
}
