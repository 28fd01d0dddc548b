//! PostgreSQL's own clients through the gateway: psql, pgbench, pg_dump, and hostile ones.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;

use crate::harness::{
    Howdah, LIMIT, ask, complaint, connection_string, eventually, postgres_program, psql, with_sslmode,
};

#[tokio::test]
async fn psql_connects_in_every_way() {
    let howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("ways").await);
    for (sslmode, encrypted) in [("disable", false), ("prefer", true), ("require", true)] {
        let info = ask(&with_sslmode(&connection, sslmode), "\\conninfo");
        assert_eq!(info.contains("SSL connection"), encrypted, "{sslmode}: {info}");
    }
    let bound = with_sslmode(&connection, "require") + "&channel_binding=require";
    assert!(ask(&bound, "\\conninfo").contains("SSL connection"));
    assert_eq!(ask(&format!("{connection}&options=-c%20work_mem%3D1234kB"), "SHOW work_mem"), "1234kB");
    assert_eq!(ask(&format!("{connection}&application_name=mine"), "SHOW application_name"), "mine");
    let nameless = connection.replace("/postgres?", "?");
    assert_eq!(ask(&nameless, "SELECT current_database()"), "postgres");
    assert!(complaint(&format!("{connection}&replication=true"), "SELECT 1").contains("replication"));
    assert!(complaint(&connection.replace("/postgres?", "/nowhere?"), "SELECT 1").contains("does not exist"));
    let own = complaint(&connection.replace("/postgres?", "/howdah?"), "SELECT 1");
    assert!(own.contains("is reserved for Howdah") && own.contains("--exclude-database=howdah"), "{own}");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("guess").await);
    let (user, _) = connection.trim_start_matches("postgres://").split_once(':').unwrap();
    let other = "0".repeat(64);
    // Like PostgreSQL, the gateway quotes at most 63 letters of a name.
    let wrong = complaint(&connection.replace(":sk_", ":sk_x"), "SELECT 1").replace(&user[..63], "U");
    let unknown = complaint(&connection.replace(user, &other), "SELECT 1").replace(&other[..63], "U");
    assert_eq!(wrong, unknown);
    assert!(wrong.contains("password authentication failed"), "{wrong}");
}

#[tokio::test]
async fn ctrl_c_in_psql_cancels_the_query() {
    let howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("cancel").await);
    for sslmode in ["disable", "require"] {
        let client = Command::new(postgres_program("psql"))
            .args(["-X", "-d", &with_sslmode(&connection, sslmode), "-c", "SELECT pg_sleep(600)"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND state = 'active'";
        eventually("the query to run", async || (ask(&connection, running) == "1").then_some(())).await;
        kill_process(Pid::from_child(&client), Signal::INT).unwrap();
        let output = client.wait_with_output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("canceling statement due to user request"), "{text}");
        assert_eq!(ask(&connection, running), "0");
    }
}

#[tokio::test]
async fn a_query_does_not_outlive_its_client() {
    let howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("vanish").await);
    let mut client = Command::new(postgres_program("psql"))
        .args(["-X", "-d", &connection, "-c", "SELECT pg_sleep(601)"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(601)' AND state = 'active'";
    eventually("the query to run", async || (ask(&connection, running) == "1").then_some(())).await;
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("the query to end", async || (ask(&connection, running) == "0").then_some(())).await;
}

#[tokio::test]
async fn pgbench_and_dumps_run_as_the_tenant() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("bench").await;
    let connection = connection_string(&project);
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(postgres_program(program)).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("pgbench", &["-i", "-q", "-s", "1", &connection]);
    run("pgbench", &["-c", "4", "-j", "2", "-t", "50", &connection]);
    run("pgbench", &["-n", "-S", "-M", "prepared", "-c", "4", "-t", "200", &with_sslmode(&connection, "require")]);
    let databases = format!("/v1/projects/{}/databases", project["id"].as_str().unwrap());
    let second = connection_string(owner.post(&databases, json!({"name": "copy"})).await.data(201));
    let file = howdah.directory().path().join("dump");
    let file = file.to_str().unwrap();
    run("pg_dump", &["-Fc", "-f", file, "-d", &connection]);
    run("pg_restore", &["--no-owner", "-d", &second, file]);
    run("pg_restore", &["--no-owner", "--clean", "-d", &second, file]);
    run("vacuumdb", &["-q", "-z", "-d", &connection]);
    run("reindexdb", &["-q", "--schema", "public", "-d", &connection]);
    let (_, password) = connection.split_once('@').unwrap().0.rsplit_once(':').unwrap();
    let everything = Command::new(postgres_program("pg_dumpall"))
        .args(["--no-role-passwords", "--exclude-database=howdah", "-f", file, "-d", &connection])
        .env("PGPASSWORD", password)
        .output()
        .unwrap();
    assert!(everything.status.success(), "{}", String::from_utf8_lossy(&everything.stderr));
    let sizes = "SELECT bool_and(pg_database_size(datname) > 0) FROM pg_database";
    assert_eq!(ask(&connection, sizes), "t");
    let triggers = "SET session_replication_role = replica; SHOW session_replication_role";
    assert!(ask(&connection, triggers).ends_with("replica"));
    let count = "SELECT count(*), (SELECT count(*) FROM pgbench_history) > 0 FROM pgbench_accounts";
    assert_eq!(ask(&second, count), "100000|t");
}

#[tokio::test]
async fn tenants_can_do_what_tools_need_and_nothing_to_the_platform() {
    let howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("tenant").await);
    // A migration tool's shadow database.
    ask(&connection, "CREATE DATABASE shadow");
    let shadow = connection.replace("/postgres?", "/shadow?");
    ask(&shadow, "CREATE TABLE t (id int PRIMARY KEY); DROP TABLE t; CREATE SCHEMA s");
    ask(&connection, "DROP DATABASE shadow");
    // The list in README.md.
    let trusted = ask(
        &connection,
        "SELECT string_agg(DISTINCT name, ' ' ORDER BY name) FROM pg_available_extension_versions
          WHERE trusted AND NOT superuser OR trusted",
    );
    let readme = include_str!("../../README.md");
    for name in trusted.split(' ').filter(|name| {
        !name.starts_with("pl")
            && !name.starts_with("jsonb_pl")
            && !name.starts_with("bool_pl")
            && !name.starts_with("hstore_pl")
    }) {
        ask(&connection, &format!("CREATE EXTENSION IF NOT EXISTS \"{name}\" CASCADE"));
        assert!(readme.contains(&format!("`{name}`")), "README.md lists the extension {name}");
    }
    for name in ["dblink", "postgres_fdw", "file_fdw", "adminpack"] {
        let available =
            ask(&connection, &format!("SELECT count(*) FROM pg_available_extensions WHERE name = '{name}'"));
        if available == "1" {
            assert!(complaint(&connection, &format!("CREATE EXTENSION {name}")).contains("permission denied"));
        }
    }
    for forbidden in [
        "ALTER SYSTEM SET work_mem = '1GB'",
        "ALTER DATABASE postgres RENAME TO mine",
        "ALTER DATABASE postgres SET search_path = evil",
        "DROP DATABASE howdah",
        "ALTER ROLE howdah PASSWORD 'x'",
        "SET ROLE howdah",
        "SET SESSION AUTHORIZATION howdah",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
        "CREATE ROLE other SUPERUSER",
        "SELECT lo_import('/etc/passwd')",
    ] {
        complaint(&connection, forbidden);
    }
    // What a tenant may do to its own role must not lock it or the platform out.
    ask(&connection, "ALTER ROLE tenant PASSWORD 'mine'; ALTER ROLE tenant SET search_path = nowhere");
    ask(&connection, "ALTER ROLE tenant SET local_preload_libraries = 'missing'");
    assert_eq!(ask(&connection, "SELECT 1"), "1");
}

#[tokio::test]
async fn deleting_a_connection_ends_its_sessions_only() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("sessions").await;
    let connections = format!("/v1/databases/{}/connections", project["database"]["id"].as_str().unwrap());
    let other = owner.post(&connections, json!({"name": "other"})).await.data(200).clone();
    let (_kept, kept_session) = tokio_postgres::connect(&connection_string(&project), NoTls).await.unwrap();
    let (_lost, lost_session) =
        tokio_postgres::connect(other["connectionString"].as_str().unwrap(), NoTls).await.unwrap();
    owner.delete(&format!("/v1/connections/{}", other["id"].as_str().unwrap())).await.data(204);
    let error = tokio::time::timeout(LIMIT, lost_session).await.expect("the session ends").unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("57P01"), "{error:?}");
    let kept = tokio::time::timeout(std::time::Duration::from_millis(200), kept_session).await;
    assert!(kept.is_err(), "the other session goes on");
}

#[tokio::test]
async fn limits_are_refusals_with_a_sentence() {
    let howdah = Howdah::start_with(&["--sessions-per-database", "2", "--max-running", "1"]).await;
    let owner = howdah.owner();
    let connection = connection_string(&owner.create_project("first").await);
    let (client, session) = tokio_postgres::connect(&connection, NoTls).await.unwrap();
    let begin = async {
        client.batch_execute("BEGIN").await.unwrap();
        let (_second, _session) = tokio_postgres::connect(&connection, NoTls).await.unwrap();
        let refused = tokio_postgres::connect(&connection, NoTls).await.err().unwrap();
        assert_eq!(refused.code().map(|code| code.code()), Some("53300"), "{refused:?}");
        // The one that may run is busy: the next waits in the queue of things to do.
        let next = owner.post("/v1/projects", json!({"name": "second"})).await;
        let next = next.data(201);
        assert_eq!(next["database"]["status"], "provisioning");
        client.batch_execute("COMMIT").await.unwrap();
        drop(client);
        let path = format!("/v1/databases/{}", next["database"]["id"].as_str().unwrap());
        eventually("the second database to be ready", async || {
            (owner.get(&path).await.data(200)["status"] == "ready").then_some(())
        })
        .await;
        assert_eq!(ask(&connection_string(next), "SELECT 1"), "1");
        assert_eq!(ask(&connection, "SELECT 1"), "1", "they take turns");
    };
    let (_, ()) = tokio::join!(async { session.await.ok() }, begin);
}

#[tokio::test]
async fn idle_session_and_its_locks_end_when_the_database_is_suspended() {
    let howdah = Howdah::start_with(&["--idle-stop", "1s"]).await;
    let connection = connection_string(&howdah.owner().create_project("quiet").await);
    let (client, session) = tokio_postgres::connect(&connection, NoTls).await.unwrap();
    let hold = async {
        client.batch_execute("LISTEN news; SELECT pg_advisory_lock(7); CREATE TEMP TABLE mine ()").await.unwrap();
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(LIMIT, session) => ended.expect("the session ends").unwrap_err(),
        () = hold => unreachable!(),
    };
    assert_eq!(ended.code().map(|code| code.code()), Some("57P01"), "{ended:?}");
    assert_eq!(ask(&connection, "SELECT pg_try_advisory_lock(7)"), "t");
    for text in [include_str!("../../README.md"), include_str!("../../docs/connecting.md")] {
        assert!(text.contains("`LISTEN`") && text.contains("advisory lock") && text.contains("57P01"));
    }
}

#[tokio::test]
async fn garbage_is_rejected_and_harms_no_session() {
    let howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("door").await);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0, 0, 0, 4],
        &[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f, 1, 2, 3], // SSLRequest with bytes behind it
        &[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5],          // a broken TLS hello
        &[0, 0, 0, 9, 0, 2, 0, 0, 0],                // protocol 2
    ] {
        let mut stream = TcpStream::connect(howdah.gateway()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it is shut out");
    }
    assert_eq!(ask(&connection, "SELECT 1"), "1");
}

#[tokio::test]
async fn a_crashed_server_is_started_again() {
    let howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("crash").await);
    ask(&connection, "CREATE TABLE kept AS SELECT 5 AS n");
    let instances = howdah.directory().path().join("instances");
    let of_tenant = |servers: Vec<(i32, std::path::PathBuf)>| {
        servers.into_iter().find(|(_, data)| data.starts_with(&instances)).map(|(pid, _)| pid)
    };
    let pid = of_tenant(howdah.directory().servers()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("the server to be gone", async || (of_tenant(howdah.directory().servers()) != Some(pid)).then_some(()))
        .await;
    let answer = eventually("the database to answer again", async || {
        let output = psql(&connection, "SELECT n FROM kept");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    })
    .await;
    assert_eq!(answer.trim(), "5");
}
