//! What Howdah asks of the operating system for itself and for what it starts: signals, open files, who is killed first.

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use base::tasks::Tasks;
use futures_util::future::join_all;
use reqwest::Method;
use rustix::process::{Signal, geteuid};
use serde_json::json;

use crate::harness::{Howdah, LIMIT, ask, connection_string, eventually};

#[tokio::test]
async fn only_term_int_and_quit_end_the_process() {
    let mut howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("survivor").await);
    let pid = howdah.pid();
    let ignored = ["HUP", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XCPU", "XFSZ"];
    for signal in ignored.into_iter().chain(["34", "64"]) {
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        assert!(sent.unwrap().success(), "{signal}");
        let line = format!("ignored the signal {signal};");
        eventually(&line, async || howdah.log().contains(&line).then_some(())).await;
    }
    assert_eq!(ask(&connection, "SELECT 1"), "1");
    assert!(howdah.stop_by(Signal::QUIT).await.success(), "QUIT ends it in order");
    assert!(howdah.directory().servers().is_empty(), "and stops every server");
}

/// Whether this process may give others a lower `oom_score_adj`, and other limits: root in a container mostly may not.
fn has_cap_sys_resource() -> bool {
    const BIT: u64 = 24;
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let set = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() >> BIT & 1 == 1
}

fn oom_score_adj(pid: i32) -> i32 {
    fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

#[tokio::test]
async fn kernel_kills_tenants_first_and_howdah_last() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("tenant").await;
    let connection = connection_string(&project);
    let (tenant, session) = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.unwrap();
    let looking = async {
        let backend: i32 = tenant.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let servers = howdah.directory().servers();
        let server = |of: &str| servers.iter().find(|(_, data)| data.to_string_lossy().contains(of)).unwrap().0;
        let (metadata, instance) = (server("/metadata/"), server("/instances/"));
        // Without the right to it no number can be lowered, only raised.
        let inherited = oom_score_adj(std::process::id().cast_signed());
        let (own, second) = if has_cap_sys_resource() { (-900, -800) } else { (inherited, inherited) };
        assert_eq!(oom_score_adj(howdah.pid()), own, "Howdah");
        assert_eq!(oom_score_adj(metadata), second, "the metadata instance");
        for child in children(metadata) {
            assert_eq!(oom_score_adj(child), second, "a process {child} of the metadata instance");
        }
        assert_eq!(oom_score_adj(instance), 200, "a tenant's server");
        assert_eq!(oom_score_adj(backend), 300, "a tenant's session");
        assert!(children(instance).len() > 3);
        for child in children(instance) {
            assert_eq!(oom_score_adj(child), 300, "a process {child} of a tenant's server");
        }
        if geteuid().is_root() && has_cap_sys_resource() {
            // What was set for it is the lowest that it can give itself: it is no privileged user.
            let lower = format!("echo -900 > /proc/{backend}/oom_score_adj");
            let uid = fs::metadata(format!("/proc/{backend}")).unwrap();
            let uid = std::os::unix::fs::MetadataExt::uid(&uid);
            let mut shell = std::process::Command::new("sh");
            std::os::unix::process::CommandExt::uid(&mut shell, uid);
            shell.arg("-c").arg(lower).stderr(std::process::Stdio::null()).status().unwrap();
            assert!(oom_score_adj(backend) >= 200, "a tenant's process has made itself safe");
        }

        // pgBackRest, while it makes a backup.
        let path = format!("/v1/databases/{}/backups", project["database"]["id"].as_str().unwrap());
        let made = owner.post(&path, json!({})).await;
        made.data(202);
        let mut seen = HashMap::new();
        let begun = Instant::now();
        while seen.is_empty() {
            assert!(begun.elapsed() < LIMIT, "pgBackRest was not seen");
            for child in children(howdah.pid()) {
                let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                // It may have ended, or have been started in this instant.
                if line.starts_with(b"pgbackrest") || line.windows(11).any(|part| part == b"/pgbackrest") {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    if let Ok(text) = fs::read_to_string(format!("/proc/{child}/oom_score_adj")) {
                        seen.insert(child, text.trim().to_owned());
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        assert!(seen.values().all(|number| number == "100"), "pgBackRest: {seen:?}");
        let operation = made.headers["howdah-operation"].to_str().unwrap().to_owned();
        assert_eq!(owner.ended(&operation).await["state"], "succeeded");
    };
    tokio::select! {
        () = looking => {}
        ended = session => panic!("the session ended: {ended:?}"),
    }
}

/// Soft and hard limit on open files of a process.
fn open_files(pid: i32) -> (String, String) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().skip(3).map(str::to_owned);
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[tokio::test]
async fn soft_limit_on_open_files_is_raised_for_howdah_alone() {
    let howdah = Howdah::start_with_open_files("256:4096").await;
    let connection = connection_string(&howdah.owner().create_project("few_files").await);
    assert_eq!(ask(&connection, "SELECT 1"), "1");
    let pair = |soft: &str| (soft.to_owned(), "4096".to_owned());
    assert_eq!(open_files(howdah.pid()), pair("4096"));
    for (pid, data) in howdah.directory().servers() {
        // Of another user's process only who has the right to it can set limits.
        let soft = if geteuid().is_root() && !has_cap_sys_resource() { "4096" } else { "256" };
        assert_eq!(open_files(pid), pair(soft), "{}", data.display());
    }
    assert!(howdah.log().contains("the limit on open files (4096) allows"), "it warns: --sessions is 5000");
}

#[tokio::test]
async fn six_hundred_sessions_with_few_open_files_leave_room_for_the_api() {
    let howdah = Howdah::start_with_open_files("1024:1024").await;
    let owner = howdah.owner();
    let mut connections = Vec::new();
    for name in ["one", "two", "three", "four", "five"] {
        connections.push(connection_string(&owner.create_project(name).await));
    }
    let (mut open, tasks) = (Vec::new(), Tasks::default());
    let mut refused = Vec::new();
    // 600 of them, 30 at a time, as the gateway lets in from one address.
    for round in 0..20 {
        let connecting = (0..30).map(|n| tokio_postgres::connect(&connections[(round + n) % 5], tokio_postgres::NoTls));
        for connected in join_all(connecting).await {
            match connected {
                Ok((client, connection)) => {
                    tasks.spawn(async move { drop(connection.await) });
                    open.push(client);
                }
                Err(error) => refused.push(error),
            }
        }
        for path in ["/healthz", "/v1/projects"] {
            let begun = Instant::now();
            let answer = owner.request(Method::GET, path).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path} with {} sessions", open.len());
            assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{path} took {:?}", begun.elapsed());
        }
    }
    assert_eq!(open.len(), 156, "as many as the limit allows");
    for error in &refused {
        let said = error.as_db_error().unwrap_or_else(|| panic!("refused without a sentence: {error}"));
        assert_eq!(said.code().code(), "53300", "{said}");
        assert!(said.message().contains("too many connections"), "{said}");
    }
    assert!(howdah.log().contains("the limit on open files (1024) allows 156 sessions"));
    assert!(!howdah.log().contains("Too many open files"), "nothing ran out of them");
    // Each of the open ones works, and a job has room, too.
    for client in &open {
        assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1);
    }
    owner.create_project("meanwhile").await;
}
