//! One harness for all tests: the built binary on a data directory of its own, and people who
//! use it by HTTP and by PostgreSQL's own clients.

#![expect(unreachable_pub, reason = "tests are one crate; pub says what tests may use of the harness")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use auth::signing::Signer;
use auth::{Limits, service_tokens};
use base::clock::Clock;
use base::id::WorkspaceId;
use base::keyring::Keyring;
use base::name::TokenName;
use base::secret::random_hex;
use base::store::Store;
use base::tasks::Tasks;
use domain::workspaces;
use engine::local::{LocalConfig, MetadataInstance};
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::document;

/// Nothing that a test waits for takes longer, even on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A running Howdah. Dropping it stops it and checks that nothing of it is left.
pub struct Howdah {
    child: Option<Child>,
    directory: Directory,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// What may be logged as an error.
    expected: Vec<&'static str>,
    /// The limits on open files that it is started with, soft and hard, as `prlimit` takes them.
    open_files: Option<&'static str>,
    pub addresses: Value,
}

/// A data directory that is removed at the end, with whatever still runs in it.
pub struct Directory(PathBuf);

impl Directory {
    /// A new one, where instances' users can reach it.
    pub fn new() -> Self {
        let parent = std::env::var("HOWDAH_TEST_DIRECTORY").unwrap_or_else(|_| "/tmp".to_owned());
        Self(PathBuf::from(format!("{parent}/howdah-test-{}", random_hex::<6>())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Opens a metadata instance in it, made from the template that all tests share.
    pub async fn metadata_instance(&self) -> MetadataInstance {
        template::bring(&self.0);
        let instance = MetadataInstance::open(LocalConfig::new(self.0.clone())).await.unwrap();
        template::keep(&self.0);
        instance
    }

    /// Every PostgreSQL server in it: process id and data directory.
    pub fn servers(&self) -> Vec<(i32, PathBuf)> {
        let mut found: Vec<(i32, i32, PathBuf)> = Vec::new();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
            let Ok(facts) = std::fs::read_to_string(process.path().join("stat")) else { continue };
            let mut arguments = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            if !arguments.next().is_some_and(|program| program.ends_with("postgres")) {
                continue;
            }
            let data = arguments.by_ref().skip_while(|word| word != "-D").nth(1).unwrap_or_default();
            if Path::new(&data).starts_with(&self.0) {
                let parent = facts.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
                found.push((pid, parent.and_then(|pid| pid.parse().ok()).unwrap_or_default(), PathBuf::from(data)));
            }
        }
        // A server's new child looks like the server until it has set its title.
        let servers: Vec<i32> = found.iter().map(|(pid, ..)| *pid).collect();
        found.retain(|(_, parent, _)| !servers.contains(parent));
        found.into_iter().map(|(pid, _, data)| (pid, data)).collect()
    }

    /// The directories of all instances, without the stock.
    pub fn instances(&self) -> Vec<String> {
        let listed = std::fs::read_dir(self.0.join("instances")).into_iter().flatten().flatten();
        listed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for (pid, _) in self.servers() {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        // The standard library's own removal overflows the stack where directories are nested deep.
        let _ = Command::new("rm").arg("-rf").arg(&self.0).status();
    }
}

/// The built binary.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_howdah"));
    command.env("RUST_LOG", "info,howdah=debug,refinery_core=warn").stdin(Stdio::null());
    command
}

/// Waits until `found` finds something.
///
/// # Panics
/// When it does not within [`LIMIT`].
pub async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = found().await {
            return value;
        }
        assert!(begun.elapsed() < LIMIT, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The template of PostgreSQL's data directory that the first start of all makes. Each start would make the
/// same one, and takes longer for it than for most of what tests look at.
mod template {
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use base::secret::random_hex;

    /// Where that of this very binary is kept.
    fn kept() -> PathBuf {
        let binary = fs::metadata(env!("CARGO_BIN_EXE_howdah")).unwrap();
        let name = format!("templates-{}-{}-{}", binary.len(), binary.mtime(), binary.mtime_nsec());
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
    }

    /// Links where that can be done: nobody writes into a template.
    fn copy(from: &Path, to: &Path) -> bool {
        ["-al", "-a"].iter().any(|how| {
            let _ = fs::remove_dir_all(to);
            Command::new("cp")
                .arg(how)
                .arg(from)
                .arg(to)
                .stderr(std::process::Stdio::null())
                .status()
                .unwrap()
                .success()
        })
    }

    /// Makes a data directory that has the template already, if there is one.
    pub fn bring(directory: &Path) {
        let kept = kept();
        if !kept.exists() {
            return;
        }
        fs::DirBuilder::new().mode(0o711).create(directory).unwrap();
        assert!(copy(&kept, &directory.join("templates")));
        fs::File::create(directory.join("lock")).unwrap();
    }

    /// Keeps the template of a data directory for those that come later.
    pub fn keep(directory: &Path) {
        let kept = kept();
        if kept.exists() {
            return;
        }
        for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR")).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("templates-") && entry.path() != kept {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let partial = kept.with_file_name(format!("partial-{}", random_hex::<6>()));
        if copy(&directory.join("templates"), &partial) && fs::rename(&partial, &kept).is_err() {
            let _ = fs::remove_dir_all(&partial);
        }
    }
}

impl Howdah {
    /// Starts one on a new data directory.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with more arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(&[], arguments).await
    }

    /// The same, with these variables in its environment.
    pub async fn start_in(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let path = Directory::new().path().to_owned();
        Self::start_on_in(path, environment, arguments).await
    }

    /// Starts one on this data directory, which is removed at the end.
    pub async fn start_on(directory: PathBuf, arguments: &[&str]) -> Self {
        Self::start_on_in(directory, &[], arguments).await
    }

    /// The same, with these variables in its environment.
    pub async fn start_on_in(directory: PathBuf, environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        Self::start_limited(directory, environment, arguments, None).await
    }

    /// Starts one that may have few files open: `prlimit` takes `soft:hard`.
    pub async fn start_with_open_files(limits: &'static str) -> Self {
        let path = Directory::new().path().to_owned();
        Self::start_limited(path, &[], &["--sessions-per-database", "50"], Some(limits)).await
    }

    async fn start_limited(
        directory: PathBuf,
        environment: &[(&str, &str)],
        arguments: &[&str],
        open_files: Option<&'static str>,
    ) -> Self {
        let mut howdah = Self {
            child: None,
            directory: Directory(directory),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            expected: Vec::new(),
            open_files,
            addresses: Value::Null,
        };
        howdah.launch().await;
        howdah
    }

    /// The command that starts it, for tests that want to see it fail.
    pub fn command(directory: &Path, arguments: &[String]) -> Command {
        let mut command = binary();
        command.arg("serve").arg("--data-dir").arg(directory).args(arguments);
        for (flag, default) in [
            ("--http", "127.0.0.1:0"),
            ("--gateway", "127.0.0.1:0"),
            ("--stock", "2"),
            ("--undelete", "0"),
            ("--drill-every", "0"),
            ("--backup-every", "0"),
        ] {
            if !arguments.iter().any(|argument| argument == flag) {
                command.args([flag, default]);
            }
        }
        command
    }

    /// Lets errors with these texts be logged.
    pub fn expect_errors(&mut self, texts: &[&'static str]) {
        self.expected.extend(texts);
    }

    /// For the next launch.
    pub fn add_arguments(&mut self, more: &[&str]) {
        self.arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    }

    /// For the next launch: another value of an option that was given.
    pub fn replace_argument(&mut self, flag: &str, value: &str) {
        let at = self.arguments.iter().position(|argument| argument == flag).unwrap();
        self.arguments[at + 1] = value.to_owned();
    }

    /// Starts it (again) and waits until it is ready.
    pub async fn launch(&mut self) {
        // After kill -9 the file of the run before is still there.
        let path = self.directory.path().join("run/addresses.json");
        let _ = std::fs::remove_file(&path);
        let is_usual = !self.arguments.iter().any(|argument| argument == "--postgres-bin");
        if is_usual && !self.directory.path().exists() {
            template::bring(self.directory.path());
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let out = log.try_clone().unwrap();
        let mut command = Self::command(self.directory.path(), &self.arguments);
        if let Some(limits) = self.open_files {
            // It becomes the program that it is given.
            let mut limited = Command::new("prlimit");
            limited.arg(format!("--nofile={limits}")).arg(command.get_program()).args(command.get_args());
            limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
            command = limited;
        }
        let mut child = command.envs(self.environment.iter().cloned()).stdout(out).stderr(log).spawn().unwrap();
        let log = self.log_path();
        self.addresses = eventually("Howdah to be ready", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("Howdah ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap());
            }
            serde_json::from_str(&std::fs::read_to_string(&path).ok()?).ok()
        })
        .await;
        self.child = Some(child);
        if is_usual {
            template::keep(self.directory.path());
        }
    }

    /// Where that is kept, beside the data directory.
    pub fn log_path(&self) -> PathBuf {
        self.directory.path().with_extension("log")
    }

    /// What it has written to standard output and standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    /// The log of the metadata instance. It names both sides of a deadlock.
    pub fn metadata_log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("metadata/log/postgres.log")).unwrap()
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().id().cast_signed()
    }

    /// Stops it as Ctrl-C does, and waits.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        self.stop_by(Signal::INT).await
    }

    /// Stops it by a signal, and waits.
    pub async fn stop_by(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        eventually("Howdah to stop", async || child.try_wait().unwrap()).await
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addresses["http"].as_str().unwrap())
    }

    pub fn gateway(&self) -> std::net::SocketAddr {
        self.addresses["gateway"].as_str().unwrap().parse().unwrap()
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("initial-token")).unwrap().trim().to_owned()
    }

    /// The one who has the first token.
    pub fn owner(&self) -> Person {
        Person::new(self.url(), Some(self.token()))
    }

    /// Somebody without a token.
    pub fn anonymous(&self) -> Person {
        Person::new(self.url(), None)
    }

    /// The metadata store, as Howdah itself sees it.
    pub fn store(&self) -> (Store, Tasks) {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.directory.path().join("metadata/socket")).user("howdah").dbname("howdah");
        let tasks = Tasks::default();
        (Store::open(config, 4, &tasks).unwrap(), tasks)
    }

    /// What Howdah encrypts with.
    pub fn keyring(&self) -> Keyring {
        let key = std::fs::read(self.directory.path().join("keys/master.key")).unwrap();
        Keyring::new(key.as_slice().try_into().unwrap())
    }

    /// Somebody whose token of the first workspace was good until a second ago.
    pub async fn expired(&self) -> Person {
        let workspace = self.owner().workspace_id().await;
        let end = Clock::system().now() - jiff::SignedDuration::from_secs(1);
        let limits = Limits { expires_at: Some(end), ..Limits::default() };
        let (store, tasks) = self.store();
        let token = self.issue(&store, WorkspaceId::parse(&workspace).unwrap(), &limits).await;
        tasks.stop();
        Person::new(self.url(), Some(token))
    }

    async fn issue(&self, store: &Store, workspace: WorkspaceId, limits: &Limits) -> String {
        let now = Clock::system().now();
        let tx = store.begin().await.unwrap();
        let signer = Signer::load_or_create(&tx, &self.keyring(), now).await.unwrap();
        let name = TokenName::parse("made by the test").unwrap();
        let issued = service_tokens::issue(&tx, &signer, now, workspace, &name, limits).await.unwrap();
        tx.commit().await.unwrap();
        issued.value.expose().to_owned()
    }

    /// Somebody with a workspace of their own.
    pub async fn stranger(&self) -> Person {
        self.stranger_with_token().await.0
    }

    /// The same, with the token that speaks for that workspace.
    pub async fn stranger_with_token(&self) -> (Person, String) {
        let (store, tasks) = self.store();
        let tx = store.begin().await.unwrap();
        let workspace = workspaces::create(&tx, "Elsewhere", Clock::system().now()).await.unwrap();
        tx.commit().await.unwrap();
        let token = self.issue(&store, workspace.id, &Limits::default()).await;
        tasks.stop();
        (Person::new(self.url(), Some(token.clone())), token)
    }

    /// Everything that Howdah should have: one instance for each row, no work left, nothing failed.
    pub async fn assert_tidy(&self) {
        let (store, tasks) = self.store();
        let session = store.session().await.unwrap();
        eventually("all workflows to end", async || {
            let row = session
                .query_one("SELECT count(*) FROM workflows WHERE state IN ('waiting', 'running')", &[])
                .await
                .unwrap();
            (row.get::<_, i64>(0) == 0).then_some(())
        })
        .await;
        let rows = session.query("SELECT instance_id FROM databases WHERE instance_id IS NOT NULL", &[]).await.unwrap();
        let mut owned: Vec<String> =
            rows.iter().map(|row| base::id::InstanceId::from(row.get::<_, uuid::Uuid>(0)).bare()).collect();
        owned.sort();
        let mut existing = self.directory.instances();
        existing.sort();
        assert_eq!(existing, owned, "each instance has an owner, and each database its instance");
        tasks.stop();
    }
}

impl Drop for Howdah {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            let _ = std::fs::remove_file(self.log_path());
            return;
        };
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > LIMIT {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if std::thread::panicking() {
            eprintln!("--- Howdah's log ---\n{}", self.log());
        } else {
            let left = self.directory.servers();
            assert!(left.is_empty(), "a clean stop leaves no server running: {left:?}");
            let log = self.log();
            let errors: Vec<&str> = log
                .lines()
                .filter(|line| line.contains(r#""level":"ERROR""#))
                .filter(|line| !self.expected.iter().any(|text| line.contains(text)))
                .collect();
            assert!(errors.is_empty(), "nothing is logged as an error unexpectedly: {errors:#?}");
        }
        let _ = std::fs::remove_file(self.log_path());
    }
}

/// A service token that was just made.
pub struct Token {
    pub id: String,
    /// Who has it.
    pub person: Person,
    /// The answer that it came in.
    pub made: Value,
}

/// Somebody who uses the API.
#[derive(Clone)]
pub struct Person {
    url: String,
    token: Option<String>,
    client: reqwest::Client,
}

/// An answer of the API; it fits the OpenAPI document.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The body's `data`, of an answer with this status.
    pub fn data(&self, status: u16) -> &Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        &self.body["data"]
    }

    /// Checks that it is this error.
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.body["error"]["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert!(self.body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
    }
}

impl Person {
    pub fn new(url: String, token: Option<String>) -> Self {
        Self { url, token, client: reqwest::Client::builder().timeout(LIMIT).build().unwrap() }
    }

    /// The same person with the same token, at another Howdah.
    pub fn on(&self, howdah: &Howdah) -> Self {
        Self { url: howdah.url(), ..self.clone() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.request(method.clone(), path);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = answer(&method, path, request.send().await.unwrap()).await;
        if let Some(body) = body.filter(|_| answer.status.is_success()) {
            document::check_sent(&method, path, &body);
        }
        answer
    }

    /// The same change under an `Idempotency-Key`.
    pub async fn send_with_key(&self, method: Method, path: &str, key: &str, body: &Value) -> Answer {
        let request = self.request(method.clone(), path).header("idempotency-key", key).json(body);
        answer(&method, path, request.send().await.unwrap()).await
    }

    /// Waits for an operation, and answers it as it ended.
    pub async fn ended(&self, operation: &str) -> Value {
        let path = format!("/v1/operations/{operation}");
        eventually("an operation to end", async || {
            let operation = self.get(&path).await.data(200).clone();
            operation["endedAt"].is_string().then_some(operation)
        })
        .await
    }

    /// For requests that are not as they should be.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request
    }

    /// Makes a project with its database; answers the `data` of the reply.
    /// The workspace that this person's token reaches.
    pub async fn workspace_id(&self) -> String {
        self.get("/v1/me").await.data(200)["workspace"]["id"].as_str().unwrap().to_owned()
    }

    /// Makes a service token, and somebody who has it.
    pub async fn create_token(&self, new: Value) -> Token {
        let path = format!("/v1/workspaces/{}/service-tokens", self.workspace_id().await);
        let made = self.post(&path, new).await.data(201).clone();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Token { id: text("id"), person: Person::new(self.url.clone(), Some(text("value"))), made }
    }

    pub async fn create_project(&self, name: &str) -> Value {
        self.post("/v1/projects", json!({"name": name, "region": "us-east-1"})).await.data(201).clone()
    }
}

/// Reads an answer and checks it against the OpenAPI document.
pub async fn answer(method: &Method, path: &str, response: reqwest::Response) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(Value::String(text)) };
    assert!(headers.contains_key("x-request-id"), "every answer has a request id");
    if status.is_client_error() || status.is_server_error() {
        check_against_table(method, path, status, &body);
    }
    document::check(method, path, status, &headers, &body);
    Answer { status, headers, body }
}

/// Fails when `docs/errors.md` does not have this error.
fn check_against_table(method: &Method, path: &str, status: StatusCode, body: &Value) {
    // The answer to HEAD has no body, and probes are no part of the API.
    if method == Method::HEAD || path == "/readyz" {
        return;
    }
    let code = body["error"]["code"].as_str().unwrap_or_else(|| panic!("{method} {path} answered {status}: {body}"));
    let line = format!("| `{code}` | {} |", status.as_u16());
    assert!(include_str!("../../docs/errors.md").contains(&line), "docs/errors.md lacks {line} ({method} {path})");
}

/// The connection string in an answer that created a project or a database.
pub fn connection_string(created: &Value) -> String {
    let database = if created["database"].is_object() { &created["database"] } else { created };
    let endpoints = database["connections"][0]["endpoints"].as_object().unwrap_or_else(|| panic!("{created}"));
    endpoints["direct"]["connectionString"].as_str().unwrap().to_owned()
}

/// One of PostgreSQL's own programs.
pub fn postgres_program(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL's server package is installed; script/bootstrap does it")
            .map(|entry| entry.unwrap().path().join("bin"))
            .filter(|bin| bin.join("postgres").exists())
            .collect();
        found.sort();
        found.pop().expect("a PostgreSQL server is installed")
    });
    directory.join(name)
}

/// Runs `psql` with one command; aligned output is off.
pub fn psql(connection: &str, sql: &str) -> Output {
    Command::new(postgres_program("psql"))
        .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", connection, "-c", sql])
        .env("PGCONNECT_TIMEOUT", "30")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What `psql` prints, of a command that works.
pub fn ask(connection: &str, sql: &str) -> String {
    let output = psql(connection, sql);
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What `psql` complains about, of a command that does not work.
pub fn complaint(connection: &str, sql: &str) -> String {
    let output = psql(connection, sql);
    assert!(!output.status.success(), "{sql} should not have worked");
    String::from_utf8(output.stderr).unwrap()
}

/// The connection string with another `sslmode`, and more parameters behind it.
pub fn with_sslmode(connection: &str, sslmode: &str) -> String {
    connection.replace("sslmode=disable", &format!("sslmode={sslmode}"))
}

/// A file system of its own, which only root can mount.
pub struct Disk(PathBuf);

impl Disk {
    /// One of this size in memory.
    pub fn in_memory(size: &str) -> Self {
        let options = format!("size={size},mode=0755");
        Self::mount(&["-t", "tmpfs", "-o", &options, "tmpfs"])
    }

    /// One on which files can share their blocks.
    pub fn that_shares() -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(1 << 30).unwrap();
        let made = Command::new("mkfs.xfs").arg("-q").arg(image.path()).status();
        assert!(made.expect("xfsprogs is installed").success());
        // The file is gone with the last that uses it.
        Self::mount(&["-o", "loop", image.path().to_str().unwrap()])
    }

    /// A usual one of this size, none of which is set aside for root.
    pub fn of_mebibytes(size: u64) -> Self {
        Self::formatted(size, &[])
    }

    /// One of 1 GiB with so many inodes.
    pub fn of_inodes(inodes: u64) -> Self {
        Self::formatted(1024, &["-N", &inodes.to_string()])
    }

    fn formatted(size: u64, options: &[&str]) -> Self {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(size << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-m", "0"]).args(options).arg(image.path()).status();
        assert!(made.expect("e2fsprogs is installed").success());
        Self::mount(&["-o", "loop", image.path().to_str().unwrap()])
    }

    fn mount(arguments: &[&str]) -> Self {
        let path = PathBuf::from(format!("/tmp/howdah-disk-{}", random_hex::<6>()));
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount").args(arguments).arg(&path).status().unwrap();
        assert!(mounted.success(), "root can mount a file system");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}
