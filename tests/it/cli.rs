//! The client's commands: the built binary against a real Howdah, against one that fails as the
//! test wants, and at a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Howdah, ask, binary, psql};

/// Somebody with a home of their own who uses the client.
pub(crate) struct Client {
    home: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Client {
    fn new(environment: &[(&'static str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { home: tempfile::tempdir().unwrap(), environment }
    }

    pub(crate) fn of(howdah: &Howdah) -> Self {
        Self::new(&[("HOWDAH_URL", &howdah.url()), ("HOWDAH_TOKEN", &howdah.token())])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        for name in ["HOWDAH_URL", "HOWDAH_TOKEN", "NO_COLOR"] {
            command.env_remove(name);
        }
        // This machine may have a Howdah of its own.
        command.env("HOWDAH_DATA_DIR", self.home.path().join("none")).env("XDG_CONFIG_HOME", self.home.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        Done::from(self.command(arguments).output().unwrap())
    }

    /// Gives a command this on standard input.
    fn run_with(&self, arguments: &[&str], input: &str) -> Done {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Done::from(child.wait_with_output().unwrap())
    }

    /// What a command that works prints with `--json`.
    fn json(&self, arguments: &[&str]) -> Value {
        let done = self.run(&[arguments, &["--json"]].concat());
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{arguments:?}: {done:?}");
        if done.stdout.is_empty() { Value::Null } else { serde_json::from_str(&done.stdout).unwrap() }
    }

    /// What a command that works prints for people.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {done:?}");
        done.stdout
    }

    /// What a command that fails with this exit code says.
    pub(crate) fn failure(&self, code: i32, arguments: &[&str]) -> String {
        let done = self.run(arguments);
        assert_eq!((done.code, done.stdout.as_str()), (code, ""), "{arguments:?}: {done:?}");
        done.stderr
    }
}

impl From<std::process::Output> for Done {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

fn names(list: &Value) -> Vec<&str> {
    let field = |thing: &'_ Value| if thing["gitName"].is_null() { "name" } else { "gitName" };
    list.as_array().unwrap().iter().map(|thing| text(&thing[field(thing)])).collect()
}

#[tokio::test]
async fn client_creates_and_deletes_by_name() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    assert_eq!(client.json(&["projects", "list"]), json!([]));
    assert_eq!(client.run(&["projects", "list"]).stderr, "There are no projects.\n");

    let made = client.json(&["projects", "create", "shop", "--region", "eu-west-3", "--logical-id", "shop-1"]);
    assert_eq!((&made["name"], &made["logicalId"]), (&json!("shop"), &json!("shop-1")));
    assert_eq!(
        (&made["database"]["status"], &made["database"]["region"]["id"]),
        (&json!("ready"), &json!("eu-west-3"))
    );
    assert_eq!(ask(text(&made["database"]["connectionString"]), "SELECT 42"), "42");
    assert_eq!(client.json(&["projects", "create", "empty", "--no-database"])["database"], Value::Null);
    assert_eq!(names(&client.json(&["projects", "list"])), ["shop", "empty"]);
    assert_eq!(names(&client.json(&["projects", "list", "--limit", "1"])), ["shop"]);
    assert_eq!(names(&client.json(&["projects", "list", "--logical-id", "shop-1"])), ["shop"]);

    // By name, by id, and by id without its prefix; the answer is the API's.
    let id = text(&made["id"]);
    let shown = howdah.owner().get(&format!("/v1/projects/{id}")).await.data(200).clone();
    for which in ["shop", id, id.trim_start_matches("proj_")] {
        assert_eq!(client.json(&["projects", "get", which]), shown);
    }
    assert_eq!(client.json(&["projects", "rename", "empty", "--name", "depot"])["name"], "depot");

    let printed = client.text(&["databases", "create", "reports", "--project", "shop", "--region", "inherit"]);
    let secrets: Vec<&str> = printed.lines().filter(|line| line.starts_with("postgres://")).collect();
    assert_eq!(secrets.len(), 1, "{printed}");
    assert!(printed.contains("not shown again") && printed.contains("The database is ready."), "{printed}");
    assert_eq!(ask(secrets[0], "SELECT 1"), "1");
    let other = client.json(&["databases", "create", "--project", "depot", "--branch", "feature", "--default"]);
    assert_eq!(other["isDefault"], true);
    assert_eq!(names(&client.json(&["databases", "list", "--project", "shop"])), ["shop", "reports"]);
    assert_eq!(client.json(&["databases", "list", "--branch", "feature"])[0]["id"], other["id"]);
    assert_eq!(client.json(&["databases", "list", "--branch", text(&other["branchId"])])[0]["id"], other["id"]);
    let changed = ["databases", "update", "reports", "--name", "numbers", "--logical-id", "numbers-1"];
    assert_eq!(client.json(&changed)["logicalId"], "numbers-1");
    assert_eq!(client.json(&["databases", "update", "numbers", "--branch", "feature"])["logicalId"], "numbers-1");
    let shown = client.text(&["databases", "get", "numbers"]);
    assert!(shown.contains("ready") && !shown.contains("sk_"), "{shown}");

    // What may not go by itself, what needs a word first, and what is gone then.
    assert!(client.failure(4, &["databases", "delete", "shop", "--yes"]).contains("default"));
    assert!(client.failure(2, &["databases", "delete", "numbers"]).contains("--yes"));
    assert_eq!(client.json(&["databases", "delete", "numbers", "--yes"])["name"], "numbers");
    assert!(client.failure(5, &["databases", "get", "numbers"]).contains("no database named"));
    assert!(psql(secrets[0], "SELECT 1").status.code() != Some(0));
    for project in ["shop", "depot"] {
        client.text(&["projects", "delete", project, "-y"]);
    }
    assert_eq!(client.json(&["projects", "list"]), json!([]));
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn ambiguous_name_is_rejected() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    let ids: Vec<String> =
        (0..2).map(|_| text(&client.json(&["projects", "create", "twin", "--no-database"])["id"]).to_owned()).collect();
    let said = client.failure(2, &["projects", "delete", "twin", "--yes"]);
    assert!(ids.iter().all(|id| said.contains(id)), "{said}");
    assert_eq!(client.json(&["projects", "list"]).as_array().unwrap().len(), 2, "nothing is deleted");
}

#[tokio::test]
async fn connections_are_shown_once_and_replaced() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    client.json(&["projects", "create", "shop"]);
    let made = client.json(&["connections", "create", "web", "--database", "shop"]);
    let old = text(&made["connectionString"]);
    assert_eq!(ask(old, "SELECT 1"), "1");
    assert_eq!(names(&client.json(&["connections", "list", "--database", "shop"])), ["Default", "web"]);
    let shown = client.json(&["connections", "get", "web", "--database", "shop"]);
    assert_eq!((&shown["id"], &shown["connectionString"]), (&made["id"], &Value::Null));

    let printed = client.text(&["connections", "rotate", "web", "--yes"]);
    let new = printed.lines().find(|line| line.starts_with("postgres://")).unwrap();
    assert_eq!(ask(new, "SELECT 1"), "1");
    assert!(psql(old, "SELECT 1").status.code() != Some(0));
    assert!(client.failure(7, &["connections", "create", "", "--database", "shop"]).contains("too short"));
    client.text(&["connections", "delete", text(&made["id"]), "--yes"]);
    assert!(psql(new, "SELECT 1").status.code() != Some(0));
    assert_eq!(names(&client.json(&["connections", "list"])), ["Default"]);

    // psql gets a connection for as long as it runs, and its exit code is ours.
    let asked = client.text(&["databases", "psql", "shop", "--", "-X", "-A", "-t", "-c", "SELECT 6 * 7"]);
    assert_eq!(asked, "42\n");
    let failed = client.run(&["databases", "psql", "shop", "--", "-X", "-v", "ON_ERROR_STOP=1", "-f", "/dev/null/no"]);
    assert_eq!(failed.code, 1, "{failed:?}");
    assert_eq!(names(&client.json(&["connections", "list"])), ["Default"]);
    client.text(&["projects", "delete", "shop", "--yes"]);
}

#[tokio::test]
async fn branches_are_found_within_their_project() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    client.json(&["projects", "create", "shop", "--no-database"]);
    let made = client.json(&["branches", "create", "feature", "--project", "shop"]);
    assert_eq!((&made["gitName"], &made["isDefault"]), (&json!("feature"), &json!(false)));
    assert_eq!(names(&client.json(&["branches", "list", "--project", "shop"])), ["main", "feature"]);
    assert_eq!(names(&client.json(&["branches", "list", "--project", "shop", "--contains", "feat"])), ["feature"]);
    assert_eq!(client.json(&["branches", "get", text(&made["id"])])["gitName"], "feature");
    assert!(client.failure(2, &["branches", "get", "feature"]).contains("--project"));
    assert_eq!(client.json(&["branches", "set-default", "feature", "--project", "shop"])["isDefault"], true);
    assert!(client.text(&["branches", "get", "feature", "--project", "shop"]).contains("preview"));
    client.failure(6, &["branches", "create", "feature", "--project", "shop"]);
    client.failure(7, &["branches", "delete", "feature", "--project", "shop", "--yes"]);
    client.json(&["branches", "create", "old", "--project", "shop"]);
    client.text(&["branches", "delete", "old", "--project", "shop", "--yes"]);
    client.failure(5, &["branches", "get", "old", "--project", "shop"]);
}

#[tokio::test]
async fn restricted_tokens_are_limited_and_expire() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    client.json(&["projects", "create", "shop", "--no-database"]);
    let limits = ["--read-only", "--project", "shop", "--expires", "90d"];
    let printed = client.text(&[&["tokens", "create", "reader"][..], &limits].concat());
    let token = printed.lines().find(|line| line.split('.').count() == 3).unwrap();
    assert!(printed.contains("not shown again"), "{printed}");
    let reader = Client::new(&[("HOWDAH_URL", &howdah.url()), ("HOWDAH_TOKEN", token)]);
    assert_eq!(names(&reader.json(&["projects", "list"])), ["shop"]);
    assert!(reader.failure(4, &["projects", "create"]).contains("read-only"));

    let listed = client.json(&["tokens", "list"]);
    assert_eq!(names(&listed), ["reader", "Initial token"]);
    assert_eq!((&listed[0]["readOnly"], &listed[0]["value"]), (&json!(true), &Value::Null));
    assert!(client.text(&["tokens", "list"]).contains("read, 1 project"));
    client.failure(2, &["tokens", "create", "x", "--expires", "soon"]);
    client.failure(7, &["tokens", "create", "x", "--expires", "2001-01-01T00:00:00Z"]);
    client.text(&["tokens", "revoke", "reader", "--yes"]);
    assert!(reader.failure(3, &["projects", "list"]).contains("howdah login"));
}

#[tokio::test]
async fn project_is_transferred_with_the_token_of_the_recipient() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    client.json(&["projects", "create", "shop", "--no-database"]);
    let (_, token) = howdah.stranger_with_token().await;
    let transfer = ["projects", "transfer", "shop", "--recipient-token-file", "-", "--yes"];
    assert_eq!(client.run_with(&transfer, "nonsense").code, 7);
    let given = client.run_with(&transfer, &token);
    assert!(given.code == 0 && given.stdout.contains("Elsewhere"), "{given:?}");
    client.failure(5, &["projects", "get", "shop"]);
    let recipient = Client::new(&[("HOWDAH_URL", &howdah.url()), ("HOWDAH_TOKEN", &token)]);
    assert_eq!(names(&recipient.json(&["projects", "list"])), ["shop"]);
}

#[tokio::test]
async fn the_audit_log_is_filtered_by_who_it_was() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    client.json(&["projects", "create", "shop", "--no-database"]);
    let count = |arguments: &[&str]| {
        let all = [&["audit", "list"], arguments].concat();
        client.json(&all).as_array().unwrap().len()
    };
    assert_eq!((count(&[]), count(&["--actor", "INITIAL"]), count(&["--actor", "ada"])), (1, 1, 0));
    assert_eq!(count(&["--user", "usr_00000000000000000000000001"]), 0);
    client.failure(2, &["audit", "list", "--user", "usr_x", "--token", "itgr_x"]);
    assert!(client.text(&["audit", "list", "--actor", "initial"]).contains("create_project"));
}

#[tokio::test]
async fn workspaces_and_regions_are_listed() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    assert_eq!(names(&client.json(&["workspaces", "list"])), ["Default"]);
    let own = client.json(&["workspaces", "get"]);
    assert_eq!(client.json(&["workspaces", "get", "Default"]), own);
    assert_eq!(client.json(&["workspaces", "get", text(&own["id"])]), own);
    assert!(client.failure(2, &["workspaces", "delete", "Default"]).contains("--yes"));
    assert!(client.failure(4, &["workspaces", "delete", "Default", "--yes"]).contains("signed-in member"));
    client.failure(5, &["workspaces", "delete", "nothing", "--yes"]);
    assert_eq!(client.json(&["regions", "list"]).as_array().unwrap().len(), 6);
    assert!(client.text(&["regions", "ls"]).contains("eu-central-1"));
}

#[tokio::test]
async fn a_login_is_checked_saved_and_used_for_its_own_address_only() {
    let howdah = Howdah::start().await;
    let (url, token) = (howdah.url(), howdah.token());
    let client = Client::new(&[]);
    assert!(client.failure(3, &["projects", "list"]).contains("not logged in"));
    assert_eq!(client.run_with(&["login", "--url", &url], "nonsense\n").code, 3);
    assert!(client.failure(3, &["projects", "list"]).contains("not logged in"), "what is refused is not saved");

    let login = client.run_with(&["login", "--url", &url], &format!("{token}\n"));
    assert!(login.code == 0 && login.stdout.contains("Initial token"), "{login:?}");
    let file = client.home.path().join("howdah/login.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let beside = std::fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "no draft is left");
    assert_eq!(client.json(&["projects", "list"]), json!([]));
    assert_eq!(client.json(&["whoami"])["credential"]["name"], "Initial token");
    let shown = client.text(&["whoami"]);
    assert!(shown.contains(&url) && shown.contains("login.json") && !shown.contains(&token), "{shown}");

    // Another address hears nothing of the saved token.
    let (other, requests) = serve(vec![Reply::json(200, json!({"data": [], "pagination": {}}))]);
    assert!(client.failure(3, &["projects", "list", "--url", &other]).contains("not logged in to"));
    let given = ["projects", "list", "--url", &other, "--token-file", "-"];
    assert_eq!(client.run_with(&given, "another-token\n").code, 0);
    assert!(requests.join().unwrap()[0].contains("authorization: Bearer another-token\r\n"));

    client.text(&["logout"]);
    assert!(client.failure(3, &["projects", "list"]).contains("not logged in"));
    assert!(client.text(&["logout"]).contains("no saved login"));

    // The Howdah of this machine, by its data directory.
    let directory = howdah.directory().path().to_str().unwrap().to_owned();
    let here = Client::new(&[("HOWDAH_DATA_DIR", &directory)]);
    assert_eq!(here.json(&["projects", "list"]), json!([]));
    assert_eq!(here.json(&["projects", "list", "--url", &url]), json!([]));
    here.failure(3, &["projects", "list", "--url", "http://127.0.0.1:1"]);
    client.text(&["login", "--data-dir", &directory]);
    assert_eq!(client.json(&["projects", "list"]), json!([]));
    assert!(client.failure(1, &["login", "--data-dir", "/nonexistent"]).contains("no server is running"));
}

#[tokio::test]
async fn exit_codes_and_errors_say_what_happened() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    client.json(&["projects", "create", "shop", "--no-database", "--logical-id", "same"]);
    client.failure(6, &["projects", "create", "--no-database", "--logical-id", "same"]);
    let said = client.failure(7, &["projects", "create", "--region", "mars"]);
    assert!(said.starts_with("howdah: ") && said.contains("mars") && said.contains("Request ID: "), "{said}");
    let said = client.failure(7, &["projects", "create", "--region", "mars", "--json"]);
    let error = serde_json::from_str::<Value>(&said).unwrap()["error"].clone();
    assert_eq!((&error["code"], &error["status"]), (&json!("validation-error"), &json!(422)));
    assert!(error["requestId"].is_string() && error["hint"].is_string(), "{error}");
    client.failure(2, &["projects", "nonsense"]);
    client.failure(2, &["databases", "update", "shop"]);

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let lost = Client::new(&[("HOWDAH_URL", &format!("http://{nobody}")), ("HOWDAH_TOKEN", "x")]);
    assert!(lost.failure(9, &["projects", "list"]).contains("refused"));
    lost.failure(2, &["projects", "list", "--url", "localhost:8080"]);

    for (reply, code) in [
        (Reply::json(500, json!({"error": {"code": "internal-server-error", "message": "a fault"}})), 9),
        (Reply::json(429, json!({"error": {"code": "x", "message": "slow down"}})).header("Retry-After: 3600"), 8),
        (Reply::text(404, "<h1>nothing here</h1>"), 5),
        (Reply::text(301, "").header("Location: https://example.com/"), 1),
        (Reply::text(200, "<h1>hello</h1>"), 1),
    ] {
        let (url, requests) = serve(vec![reply]);
        let stranger = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
        stranger.failure(code, &["projects", "list"]);
        assert_eq!(requests.join().unwrap().len(), 1, "it is not tried again");
    }
}

#[tokio::test]
async fn client_retries_a_change_with_the_same_key() {
    let made = json!({"data": {"id": "proj_x", "name": "shop", "createdAt": "2025-07-09T11:52:15.341Z",
        "workspace": {"id": "wksp_x", "name": "Default"}, "database": null}});
    let busy = json!({"error": {"code": "service-unavailable", "message": "busy"}});
    let under_way = json!({"error": {"code": "client-error", "message": "being carried out"}});
    let (url, requests) = serve(vec![
        Reply::Lost,
        Reply::json(503, busy).header("Retry-After: 1"),
        Reply::json(409, under_way).header("Retry-After: 1"),
        Reply::json(201, made.clone()),
    ]);
    let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
    let done = client.run(&["projects", "create", "shop", "--no-database"]);
    assert_eq!(done.stdout, "Created the project shop (proj_x).\n", "{done:?}");
    assert!(done.stderr.contains("busy; retrying in 1 s"), "{done:?}");
    let requests = requests.join().unwrap();
    let keys: Vec<&str> = requests
        .iter()
        .map(|request| request.lines().find(|line| line.starts_with("idempotency-key: ")).unwrap())
        .collect();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| *key == keys[0] && key.len() > "idempotency-key: ".len() + 20), "{keys:?}");
    assert!(requests.iter().all(|request| request.ends_with(r#"{"createDatabase":false,"name":"shop"}"#)));

    let (url, requests) = serve(vec![Reply::json(201, made.clone()), Reply::json(201, made)]);
    let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
    for _ in 0..2 {
        client.json(&["projects", "create", "shop", "--no-database"]);
    }
    let requests = requests.join().unwrap();
    let key = |at: usize| requests[at].lines().find(|line| line.starts_with("idempotency-key: "));
    assert_ne!(key(0), key(1), "another command is another change");
}

#[tokio::test]
async fn lists_are_read_to_their_end_and_no_further_than_wanted() {
    let page = |ids: &[&str], next: Option<&str>| {
        let data: Vec<Value> = ids.iter().map(|id| json!({"id": id, "name": id})).collect();
        Reply::json(200, json!({"data": data, "pagination": {"nextCursor": next, "hasMore": next.is_some()}}))
    };
    let (url, requests) = serve(vec![page(&["a", "b"], Some("x&y")), page(&["c"], Some("z")), page(&["d"], None)]);
    let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
    assert_eq!(names(&client.json(&["projects", "list"])), ["a", "b", "c", "d"]);
    let requests = requests.join().unwrap();
    assert!(requests[0].starts_with("GET /v1/projects?limit=1000 "), "{}", requests[0]);
    assert!(requests[1].starts_with("GET /v1/projects?limit=1000&cursor=x%26y "), "{}", requests[1]);
    assert!(requests.iter().all(|request| !request.contains("idempotency-key")));

    let (url, requests) = serve(vec![page(&["a", "b"], Some("x")), page(&["c"], Some("y"))]);
    let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
    assert_eq!(names(&client.json(&["projects", "list", "--limit", "3"])), ["a", "b", "c"]);
    assert!(requests.join().unwrap()[1].starts_with("GET /v1/projects?limit=1&"));
}

/// A database as an answer shows it.
fn database(status: &str, reason: Option<&str>) -> Value {
    json!({"data": {"id": "db_x", "name": "shop", "status": status, "statusReason": reason, "isDefault": true,
    "createdAt": "2025-07-09T11:52:15.341Z", "connections": [
        {"id": "con_x", "name": "Default", "endpoints": {"direct": {"host": "h", "port": 1, "connectionString": "postgres://secret"}}},
    ]}})
}

#[tokio::test]
async fn a_create_waits_until_the_database_is_ready_or_is_not_to_be() {
    let create = ["databases", "create", "--project", "proj_00000000000000000000000000"];
    let provisioning = || Reply::json(200, database("provisioning", Some("there is no room")));
    let run = |replies: Vec<Reply>, more: &[&str]| {
        let (url, requests) = serve(replies);
        let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
        let done = client.run(&[&create[..], more].concat());
        requests.join().unwrap();
        done
    };
    let ready = || Reply::json(200, database("ready", None));
    let done = run(vec![provisioning(), provisioning(), ready()], &[]);
    assert!(
        done.code == 0 && done.stdout.contains("postgres://secret") && done.stdout.contains("The database is ready."),
        "{done:?}"
    );
    let done = run(vec![provisioning(), ready()], &["--json"]);
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap()["status"], "ready");

    let failed = || Reply::json(200, database("failure", Some("initdb failed")));
    let done = run(vec![provisioning(), failed()], &["--json"]);
    let shown: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((done.code, &shown["status"], &shown["statusReason"]), (1, &json!("failure"), &json!("initdb failed")));
    assert!(done.stderr.contains("initdb failed"), "{done:?}");

    let done = run(vec![provisioning(), provisioning()], &["--timeout", "1ms"]);
    assert!(
        done.code == 1 && done.stderr.contains("there is no room") && done.stdout.contains("postgres://"),
        "{done:?}"
    );
    let done = run(vec![provisioning()], &["--no-wait"]);
    assert!(done.code == 0 && done.stdout.contains("connections wait until it is ready"), "{done:?}");
}

#[tokio::test]
async fn interrupted_wait_still_prints_the_secret() {
    let (url, listener) = listener();
    let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
    let create = ["databases", "create", "--project", "proj_00000000000000000000000000", "--json"];
    let mut command = client.command(&create);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..2 {
        Reply::json(200, database("provisioning", None)).answer(&listener);
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let done = Done::from(child.wait_with_output().unwrap());
    assert_eq!(done.code, 130, "{done:?}");
    assert!(done.stdout.contains("postgres://secret"), "{done:?}");
}

#[tokio::test]
async fn it_goes_on_when_nobody_reads_what_the_client_prints() {
    let (url, requests) = serve(vec![Reply::json(200, json!({"data": [{"id": "a"}], "pagination": {}}))]);
    let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
    let mut child = client.command(&["projects", "list", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    requests.join().unwrap();
}

#[tokio::test]
async fn tls_is_spoken_and_the_certificate_is_checked() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let config = std::sync::Arc::new(config);
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let session = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(session, listener.accept().unwrap().0);
            if let Some(request) = read_request(&mut stream) {
                assert!(request.starts_with("GET /v1/projects"));
                let _ = stream.write_all(&Reply::json(200, json!({"data": [], "pagination": {}})).bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
    let said = client.failure(9, &["projects", "list"]);
    assert!(said.contains("certificate"), "{said}");
    let authority = client.home.path().join("authority.pem");
    std::fs::write(&authority, made.cert.pem()).unwrap();
    let trusting =
        Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x"), ("SSL_CERT_FILE", authority.to_str().unwrap())]);
    assert_eq!(trusting.json(&["projects", "list"]), json!([]));
    server.join().unwrap();
}

#[tokio::test]
async fn backups_are_created_listed_and_restored_by_the_client() {
    let howdah = Howdah::start_with(&["--backup-every", "0", "--undelete", "1h"]).await;
    let client = Client::of(&howdah);
    let made = client.json(&["projects", "create", "shop"]);
    let connection = text(&made["database"]["connectionString"]).to_owned();
    ask(&connection, "CREATE TABLE notes (note text)");
    ask(&connection, "INSERT INTO notes VALUES ('one')");
    let notes = |connection: &str| ask(connection, "SELECT string_agg(note, ' ') FROM notes");
    let secret = |printed: &str| printed.lines().find(|line| line.starts_with("postgres://")).unwrap().to_owned();

    let none = client.run(&["backups", "list", "shop"]);
    assert_eq!((none.code, none.stderr.as_str()), (0, "There are no backups.\n"));
    assert!(none.stdout.contains("Nothing can be restored yet") && none.stdout.contains("7 days"), "{none:?}");
    assert!(
        client.failure(5, &["databases", "restore", "shop", "--backup", "latest", "--as", "x"]).contains("backups")
    );
    let first = client.json(&["backups", "create", "shop"]);
    assert_eq!((&first["status"], &first["backupType"]), (&json!("completed"), &json!("full")));
    let printed = client.text(&["backups", "create", "shop", "--type", "incremental"]);
    assert!(printed.starts_with("Created the incremental backup bak_") && printed.contains("MiB."), "{printed}");
    let table = client.text(&["backups", "list", "shop"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("ID") && lines[1].contains("incremental") && lines[2].contains(text(&first["id"])));
    assert!(lines[2].contains("full") && lines[2].contains("MiB") && lines[2].contains("completed"), "{table}");
    let window = client.json(&["backups", "window", "shop"]);
    assert!(lines[3].starts_with(&format!("Restore window: {}", text(&window["earliestRestorableTime"]))), "{table}");
    client.json(&["workspaces", "update", "--backup-retention", "30", "--name", "Archive"]);
    assert!(client.text(&["backups", "list", "shop"]).contains("30 days"));
    let shown = client.text(&["projects", "update", "shop", "--backup-retention", "2"]);
    assert!(shown.contains("2 days") && client.text(&["backups", "window", "shop"]).contains("2 days"), "{shown}");
    assert!(
        client.text(&["projects", "update", "shop", "--backup-retention", "default"]).contains("workspace default")
    );
    assert!(client.text(&["workspaces", "update", "--backup-retention", "default"]).contains("server default"));
    client.failure(2, &["workspaces", "update", "--backup-retention", "long"]);
    client.failure(7, &["workspaces", "update", "--backup-retention", "1000"]);
    assert_eq!(client.json(&["backups", "list", "shop", "--limit", "1"]).as_array().unwrap().len(), 1);
    assert!(client.run(&["backups", "list", "shop", "--limit", "1"]).stderr.contains("Only the newest 1 backups"));
    assert!(client.text(&["backups", "window", "shop"]).contains("Earliest"));

    ask(&connection, "SELECT pg_sleep(0.05)");
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
    let then = ask(&connection, now);
    ask(&connection, "SELECT pg_sleep(0.05)");
    ask(&connection, "UPDATE notes SET note = 'two'");
    let printed = client.text(&["databases", "restore", "shop", "--to-time", &then, "--as", "before"]);
    assert!(printed.contains("Created the database before") && printed.contains("The database is ready."), "{printed}");
    assert_eq!(notes(&secret(&printed)), "one");
    let copy = client.json(&["databases", "restore", "shop", "--backup", "latest", "--as", "copy"]);
    assert_eq!((&copy["status"], &copy["branchId"]), (&json!("ready"), &made["database"]["branchId"]));
    let clone = client.text(&["databases", "create", "clone", "--project", "shop", "--copy-of", "shop"]);
    assert_eq!(notes(&secret(&clone)), "two");

    // What is not said whole, cannot be, or needs a word first.
    for incomplete in [
        &["databases", "restore", "shop", "--as", "x"][..],
        &["databases", "restore", "shop", "--backup", "latest"],
        &["databases", "restore", "shop", "--backup", "latest", "--as", "x", "--in-place"],
        &["databases", "restore", "shop", "--to-time", "yesterday", "--in-place"],
        &["databases", "restore", "shop", "--to-time", &then, "--in-place"],
    ] {
        client.failure(2, incomplete);
    }
    let outside = ["databases", "restore", "shop", "--to-time", "2001-01-01T00:00:00Z", "--in-place", "--yes"];
    assert!(client.failure(7, &outside).contains(text(&window["earliestRestorableTime"])));
    let in_place = ["databases", "restore", "shop", "--to-time", &then, "--in-place"];
    let mut terminal = Terminal::new();
    let (code, shown) = terminal.run(client.command(&in_place), "to continue", "yes\n");
    assert!(code == 1 && shown.contains("its sessions are closed"), "{shown}");
    assert_eq!(notes(&connection), "two", "a yes is not its name");
    let (code, shown) = terminal.run(client.command(&in_place), "to continue", "shop\n");
    assert!(code == 0 && shown.contains("Restored the database shop"), "{shown}");
    assert_eq!(notes(&connection), "one");

    // Deleted, and made again in another project, once its own is gone, too.
    client.json(&["databases", "delete", "copy", "--yes"]);
    howdah.assert_tidy().await;
    let deleted = client.json(&["databases", "deleted", "shop"]);
    assert_eq!(names(&deleted), ["copy"]);
    assert!(client.text(&["databases", "deleted", "shop"]).contains("until "));
    client.failure(5, &["databases", "undelete", "nothing", "--from", "shop"]);
    client.json(&["projects", "create", "other", "--no-database"]);
    let project = text(&made["id"]);
    let id = text(&made["database"]["id"]);
    client.json(&["projects", "delete", "shop", "--yes"]);
    howdah.assert_tidy().await;
    let back = ["databases", "undelete", id, "--from", project, "--into", "other", "--as", "back", "--json"];
    let back = client.run(&back);
    let back: Value = serde_json::from_str(&back.stdout).unwrap_or_else(|_| panic!("{back:?}"));
    assert_eq!((&back["name"], &back["status"]), (&json!("back"), &json!("ready")));
    assert_eq!(notes(text(&back["connections"][0]["endpoints"]["direct"]["connectionString"])), "one");

    // What is restored is backed up at once.
    howdah.assert_tidy().await;
    let begun = client.run(&["backups", "create", "back", "--no-wait"]);
    assert!(begun.stdout.ends_with("is running.\n") && begun.stderr.contains("operations watch op_"), "{begun:?}");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn wait_shows_progress_and_the_reason_of_a_failure() {
    let backup = |status: &str| {
        json!({"id": "bak_x", "backupType": "full", "createdAt": "2025-07-09T11:52:15Z",
        "status": status, "failureReason": if status == "failed" { json!("the disk is full") } else { Value::Null },
        "verifiedAt": null})
    };
    let operation = |state: &str, reason: Value, progress: Value| {
        let ended = if ["running", "waiting"].contains(&state) { Value::Null } else { json!("2025-07-09T11:52:17Z") };
        Reply::json(
            200,
            json!({"data": {"id": "op_x", "kind": "back_up_database", "state": state, "step": "copy_files",
            "attempts": 0, "reason": reason, "progress": progress, "database": {"id": "db_x", "name": "shop"},
            "projectId": "proj_x", "createdAt": "2025-07-09T11:52:15Z", "updatedAt": "2025-07-09T11:52:15Z",
            "nextAttemptAt": null, "endedAt": ended, "canCancel": true, "canRetry": false}}),
        )
    };
    let begun = || Reply::json(202, json!({"data": backup("running")})).header("Howdah-Operation: op_x");
    let half = || json!({"doneBytes": 512 << 20, "totalBytes": 1 << 30, "percent": 50});
    let list = |status: &str| Reply::json(200, json!({"data": [backup(status)], "meta": {}, "pagination": {}}));
    let create = ["backups", "create", "db_00000000000000000000000000"];

    let (url, requests) = serve(vec![
        begun(),
        operation("running", Value::Null, half()),
        operation("failed", json!("the disk is full"), Value::Null),
        list("failed"),
    ]);
    let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
    let (code, shown) = Terminal::new().run(client.command(&create), "nothing", "");
    assert!(code == 1 && shown.contains("50 %, 512.00 MiB of 1.00 GiB"), "{shown}");
    assert!(shown.contains("op_x ended with the state failed: the disk is full"), "{shown}");
    let requests = requests.join().unwrap();
    assert!(requests[1].starts_with("GET /v1/operations/op_x "), "{}", requests[1]);

    let replies = vec![begun(), operation("running", Value::Null, half()), list("running")];
    let (url, requests) = serve(replies);
    let client = Client::new(&[("HOWDAH_URL", &url), ("HOWDAH_TOKEN", "x")]);
    let done = client.run(&[&["--json"][..], &create, &["--timeout", "1ms"]].concat());
    requests.join().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap()["status"], "running");
    assert!(done.code == 1 && done.stderr.contains("operations watch op_x"), "{done:?}");
}

#[tokio::test]
async fn common_options_stand_anywhere_and_only_where_they_mean_something() {
    let list = || Reply::json(200, json!({"data": [{"id": "a", "name": "a"}], "pagination": {}}));
    let (url, requests) = serve((0..4).map(|_| list()).collect());
    let client = Client::new(&[("HOWDAH_TOKEN", "x")]);
    for arguments in [
        ["--json", "--url", &url, "projects", "list"],
        ["--json", "projects", "--url", &url, "list"],
        ["projects", "--json", "list", "--url", &url],
        ["projects", "list", "--url", &url, "--json"],
    ] {
        let done = client.run(&arguments);
        assert_eq!(serde_json::from_str::<Value>(&done.stdout).unwrap_or_default()[0]["id"], "a", "{done:?}");
    }
    requests.join().unwrap();
    let misused = client.run(&["--json", "openapi"]);
    assert!(misused.code == 2 && misused.stderr.contains("--json is only an option of client commands"), "{misused:?}");
    assert!(!client.text(&["serve", "--help"]).contains("--token-file"));
    assert!(client.text(&["--help"]).contains("--token-file"));
    let both = ["--url", "http://localhost:1", "login", "--data-dir", "/tmp"];
    assert!(client.failure(2, &both).contains("--data-dir"));
}

#[tokio::test]
async fn client_asks_at_a_terminal_and_hides_secrets() {
    let howdah = Howdah::start().await;
    let client = Client::of(&howdah);
    client.json(&["projects", "create", "shop"]);
    let mut terminal = Terminal::new();
    let no = terminal.run(client.command(&["projects", "delete", "shop"]), "[y/N]", "n\n");
    assert!(no.0 == 1 && no.1.contains("and its database with all data?"), "{no:?}");
    assert_eq!(names(&client.json(&["projects", "list"])), ["shop"]);
    let table = terminal.run(client.command(&["databases", "list"]), "NAME", "");
    assert!(table.1.contains('\u{1b}') && table.1.contains("ready"), "{table:?}");
    let mut plain = client.command(&["databases", "list"]);
    plain.env("NO_COLOR", "1");
    assert!(!terminal.run(plain, "NAME", "").1.contains('\u{1b}'));
    let yes = terminal.run(client.command(&["projects", "delete", "shop"]), "[y/N]", "y\n");
    assert_eq!(yes.0, 0, "{yes:?}");
    assert_eq!(client.json(&["projects", "list"]), json!([]));

    let token = howdah.token();
    let newcomer = Client::new(&[]);
    let login = newcomer.command(&["login", "--url", &howdah.url()]);
    let (code, shown) = terminal.run(login, "not shown", &format!("{token}\n"));
    assert!(code == 0 && shown.contains("Logged in") && !shown.contains(&token), "{shown}");
    assert_eq!(newcomer.json(&["projects", "list"]), json!([]));
}

#[test]
fn completions_and_help_are_there_for_everything() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let client = Client::new(&[]);
        let script = client.text(&["completions", shell]);
        assert!(script.contains("databases") && script.contains("rotate"), "{shell}");
    }
    let help = Client::new(&[]).text(&["--help"]);
    for command in ["serve", "projects", "databases", "connections", "tokens", "login", "completions", "Exit codes"] {
        assert!(help.contains(command), "{help}");
    }
}

/// A terminal of 80 columns.
struct Terminal {
    ours: File,
    theirs: File,
}

impl Terminal {
    fn new() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let size = rustix::termios::Winsize { ws_row: 25, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&theirs, size).unwrap();
        Self { ours: File::from(ours), theirs }
    }

    /// Runs a command at it and types `answer` once `question` is there; answers the exit code and
    /// what was to be seen.
    fn run(&mut self, mut command: Command, question: &str, answer: &str) -> (i32, String) {
        let end = || Stdio::from(self.theirs.try_clone().unwrap());
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end());
        let mut child = command.spawn().unwrap();
        let mut seen = String::new();
        let mut answered = false;
        let mut buffer = [0; 4096];
        loop {
            if !answered && seen.contains(question) {
                self.ours.write_all(answer.as_bytes()).unwrap();
                answered = true;
            }
            // What it wrote before it ended is there to be read then.
            let ended = child.try_wait().unwrap().is_some();
            let mut ready = [rustix::event::PollFd::new(&self.ours, rustix::event::PollFlags::IN)];
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if rustix::event::poll(&mut ready, Some(&wait)).unwrap() > 0 {
                let count = self.ours.read(&mut buffer).unwrap();
                seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            } else if ended {
                break;
            }
        }
        (child.wait().unwrap().code().unwrap(), seen)
    }
}

/// What a server answers that does as the test wants.
enum Reply {
    /// The request arrives and the connection ends.
    Lost,
    Answer {
        status: u16,
        headers: String,
        body: String,
    },
}

impl Reply {
    fn json(status: u16, body: Value) -> Self {
        Self::Answer { status, headers: String::new(), body: body.to_string() }
    }

    fn text(status: u16, body: &str) -> Self {
        Self::Answer { status, headers: String::new(), body: body.to_owned() }
    }

    fn header(self, line: &str) -> Self {
        match self {
            Self::Lost => Self::Lost,
            Self::Answer { status, headers, body } => {
                Self::Answer { status, headers: format!("{headers}{line}\r\n"), body }
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Lost => Vec::new(),
            Self::Answer { status, headers, body } => format!(
                "HTTP/1.1 {status} Text\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
                body.len()
            )
            .into_bytes(),
        }
    }

    /// Answers one request, and answers what it was.
    fn answer(&self, listener: &TcpListener) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&mut stream).unwrap();
        stream.write_all(&self.bytes()).unwrap();
        request
    }
}

fn listener() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (format!("http://{}", listener.local_addr().unwrap()), listener)
}

/// A server that gives these replies, and then tells what it was asked.
fn serve(replies: Vec<Reply>) -> (String, JoinHandle<Vec<String>>) {
    let (url, listener) = listener();
    let asked = std::thread::spawn(move || replies.iter().map(|reply| reply.answer(&listener)).collect());
    (url, asked)
}

/// A whole request; none if the connection ends before.
fn read_request(stream: &mut impl std::io::Read) -> Option<String> {
    let mut request = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = request.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(request);
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => request.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
        }
    }
}
