//! The harness of the benches: a Howdah and plain PostgreSQL servers in temporary directories, one client for all
//! of them, and tables of times. Started programs end when their value is dropped, also when a bench panics.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use auth::signing::Signer;
use auth::{Limits, service_tokens};
use base::clock::Clock;
use base::keyring::Keyring;
use base::name::TokenName;
use base::secret::random_hex;
use base::store::Store;
use base::tasks::Tasks;
use domain::workspaces;
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

/// The longest that a bench waits for something.
const LIMIT: Duration = Duration::from_secs(60);
/// The same for work that copies a large database.
const LONG_LIMIT: Duration = Duration::from_secs(600);
/// How often to poll; a server started by hand is queried this often.
const INTERVAL: Duration = Duration::from_millis(1);

/// Options of `initdb`, the same as for Howdah's own templates.
const INITDB: [&str; 4] = ["--data-checksums", "--wal-segsize=1", "--encoding=UTF8", "--locale=C.UTF-8"];

/// Runs a bench.
pub(crate) fn run(bench: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(bench);
}

/// Reads a number from an environment variable.
pub(crate) fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("the variable holds a number"))
}

/// A directory directly under `/tmp`, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(owner: Option<(u32, u32)>) -> Self {
        let parent = std::env::var("HOWDAH_BENCH_DIRECTORY").unwrap_or_else(|_| "/tmp".to_owned());
        let path = PathBuf::from(format!("{parent}/howdah-bench-{}", random_hex::<6>()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
        }
        Self(path)
    }

    /// The PostgreSQL servers on data directories in it: process ID and arguments.
    fn servers(&self) -> Vec<(i32, Vec<String>)> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let found = processes.filter_map(|process| {
            let pid: i32 = process.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
            let arguments: Vec<String> = line.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
            let is_server = arguments.first()?.ends_with("postgres") && arguments.get(1)? == "-D";
            (is_server && Path::new(arguments.get(2)?).starts_with(&self.0)).then_some((pid, arguments))
        });
        found.collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for (pid, _) in self.servers() {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program that is asked to end, waited for, and killed if it does not end.
struct Program {
    child: Child,
    signal: Signal,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), self.signal);
        let begun = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if begun.elapsed() > LIMIT {
                let _ = self.child.kill();
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

/// A running Howdah and its owner's token.
pub(crate) struct Howdah {
    _program: Program,
    directory: Directory,
    url: String,
    token: String,
    client: reqwest::Client,
}

impl Howdah {
    /// Starts Howdah and waits until it is ready and the pool of prepared instances is full.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let directory = Directory::new(None);
        let data = directory.0.join("data");
        let log = std::fs::File::create(directory.0.join("howdah.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_howdah"));
        command.args(["serve", "--http", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--data-dir"]);
        command.arg(&data).args(arguments);
        // Without this, the backup of the metadata at the first start would run during the measurement.
        command.env("HOWDAH_BACKUP_EVERY", "0");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let program = Program { child: command.spawn().unwrap(), signal: Signal::TERM };
        let addresses: Value = eventually("Howdah to be ready", async || {
            serde_json::from_str(&std::fs::read_to_string(data.join("run/addresses.json")).ok()?).ok()
        })
        .await;
        let token = std::fs::read_to_string(data.join("initial-token")).unwrap().trim().to_owned();
        let howdah = Self {
            _program: program,
            directory,
            url: format!("http://{}", addresses["http"].as_str().unwrap()),
            token,
            client: reqwest::Client::new(),
        };
        howdah.restock().await;
        howdah
    }

    /// The repository that backups and WAL are kept in.
    pub(crate) fn repository(&self) -> PathBuf {
        self.directory.0.join("data/backups")
    }

    /// The token of the first workspace.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Where the API listens.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The path of the first resource in a list.
    pub(crate) async fn first(&self, token: &str, list: &str) -> String {
        let answer = self.client.get(format!("{}{list}", self.url)).bearer_auth(token).send().await.unwrap();
        let body: Value = answer.json().await.unwrap();
        format!("{list}/{}", body["data"][0]["id"].as_str().unwrap_or_else(|| panic!("{body}")))
    }

    /// The connection string of a database of the metadata instance.
    pub(crate) fn metadata(&self, database: &str) -> String {
        let socket = self.directory.0.join("data/metadata/socket");
        format!("host={} user=howdah dbname={database} sslmode=disable", socket.display())
    }

    /// Runs SQL in the metadata store.
    pub(crate) async fn in_metadata(&self, sql: &str) {
        execute(&self.metadata("howdah"), sql).await;
    }

    /// Creates another workspace; returns its token.
    pub(crate) async fn another_workspace(&self, name: &str) -> String {
        let tasks = Tasks::default();
        let store = Store::open(self.metadata("howdah").parse().unwrap(), 1, &tasks).unwrap();
        let key = std::fs::read(self.directory.0.join("data/keys/master.key")).unwrap();
        let keyring = Keyring::new(key.as_slice().try_into().unwrap());
        let now = Clock::system().now();
        let tx = store.begin().await.unwrap();
        let workspace = workspaces::create(&tx, name, now).await.unwrap();
        let signer = Signer::load_or_create(&tx, &keyring, now).await.unwrap();
        let name = TokenName::parse(name).unwrap();
        let issued = service_tokens::issue(&tx, &signer, now, workspace.id, &name, &Limits::default()).await.unwrap();
        tx.commit().await.unwrap();
        tasks.stop();
        issued.value.expose().to_owned()
    }

    /// The number of prepared instances.
    pub(crate) fn stock(&self) -> usize {
        let listed = std::fs::read_dir(self.directory.0.join("data/stock")).into_iter().flatten().flatten();
        listed.filter(|entry| entry.path().extension().is_none()).count()
    }

    /// Waits until the pool of prepared instances is full, with the default size.
    pub(crate) async fn restock(&self) {
        eventually("the stock to be full", async || (self.stock() >= 8).then_some(())).await;
    }

    /// Creates a project with a database; returns the connection string.
    pub(crate) async fn create(&self) -> String {
        let made = self.create_project().await;
        made["database"]["connectionString"].as_str().expect("an answer with a connection string").to_owned()
    }

    /// Creates a project with a database; returns `data`.
    pub(crate) async fn create_project(&self) -> Value {
        self.send(Method::POST, "/v1/projects", &json!({"name": "bench", "region": "us-east-1"})).await.0
    }

    /// Sends a request; returns `data`, and the operation that it started.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> (Value, Option<String>) {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        let answer = request.json(body).send().await.unwrap();
        let (status, operation) = (answer.status(), answer.headers().get("howdah-operation").cloned());
        let mut body: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{path}: {body}");
        (body["data"].take(), operation.map(|id| id.to_str().unwrap().to_owned()))
    }

    /// Sends a request that starts an operation, and waits for its end; returns `data`.
    pub(crate) async fn carry_out(&self, path: &str, body: &Value) -> Value {
        let (data, operation) = self.send(Method::POST, path, body).await;
        let path = format!("/v1/operations/{}", operation.expect("an operation"));
        let ended = eventually_within(LONG_LIMIT, "an operation to end", async || {
            let operation = self.send(Method::GET, &path, &json!({})).await.0;
            operation["endedAt"].is_string().then_some(operation)
        });
        let ended = ended.await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        data
    }

    /// Waits until no workflow is running.
    pub(crate) async fn settled(&self) {
        eventually_within(LONG_LIMIT, "all operations to end", async || {
            let all = self.send(Method::GET, "/v1/operations", &json!({})).await.0;
            all.as_array().unwrap().iter().all(|operation| operation["endedAt"].is_string()).then_some(())
        })
        .await;
    }

    /// The disk space of the smallest instance, in bytes.
    pub(crate) fn bytes_per_database(&self) -> u64 {
        fn bytes(path: &Path) -> u64 {
            // The server may remove a file during the count.
            let Ok(facts) = std::fs::symlink_metadata(path) else { return 0 };
            let below = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| bytes(&entry.path()));
            facts.blocks() * 512 + below.sum::<u64>()
        }
        let instances = std::fs::read_dir(self.directory.0.join("data/instances")).unwrap().flatten();
        instances.map(|entry| bytes(&entry.path())).min().expect("there is an instance")
    }

    fn instances(&self) -> Vec<Vec<String>> {
        let all = self.directory.servers().into_iter().map(|(_, arguments)| arguments);
        all.filter(|arguments| Path::new(&arguments[2]).starts_with(self.directory.0.join("data/instances"))).collect()
    }

    /// Waits until no instance is running.
    pub(crate) async fn asleep(&self) {
        eventually("the instances to be stopped", async || self.instances().is_empty().then_some(())).await;
    }

    /// How the server of the only instance was started.
    pub(crate) fn recipe(&self) -> Recipe {
        let mut all = self.instances();
        let arguments = all.pop().expect("an instance runs");
        assert!(all.is_empty(), "only one instance runs");
        let root = Path::new(&arguments[2]).parent().unwrap();
        let settings = std::fs::read_to_string(root.join("conf/postgresql.conf")).unwrap();
        Recipe { root: root.to_str().unwrap().to_owned(), arguments: arguments[1..].to_vec(), settings }
    }
}

/// How Howdah started a server: its settings and its arguments, which name files below `root`.
pub(crate) struct Recipe {
    root: String,
    arguments: Vec<String>,
    settings: String,
}

/// A plain PostgreSQL server's directory, set up by hand as PostgreSQL's user.
pub(crate) struct Plain {
    directory: Directory,
    user: Option<(u32, u32)>,
    arguments: Vec<String>,
    port: u16,
}

/// A running plain server.
pub(crate) struct Running(#[expect(dead_code, reason = "held for its end")] Program);

impl Plain {
    /// Runs `initdb`, with the same settings and arguments as in the recipe. Local sessions are trusted; those on
    /// 127.0.0.1 use SCRAM.
    pub(crate) fn init(recipe: &Recipe, options: &[&str]) -> Self {
        let user = postgres_user();
        let directory = Directory::new(user);
        let root = &directory.0;
        let mut initdb = as_user(postgres_program("initdb"), user);
        initdb.current_dir(root).arg("-D").arg(root.join("data")).args(INITDB);
        initdb.args(["--username=postgres", "--auth=trust", "--no-instructions"]).args(options);
        let output = initdb.output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        for name in ["conf", "socket"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(root.join("socket"), Some(uid), Some(gid)).unwrap();
        }
        let authentication = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        for (name, text) in
            [("postgresql.conf", recipe.settings.as_str()), ("pg_hba.conf", authentication), ("pg_ident.conf", "")]
        {
            std::fs::write(root.join("conf").join(name), text).unwrap();
        }
        let here = root.to_str().unwrap();
        let arguments = recipe.arguments.iter().map(|argument| argument.replace(&recipe.root, here)).collect();
        Self { directory, user, arguments, port: free_port() }
    }

    /// Starts `postgres`, without waiting for it. With `tcp` it listens on 127.0.0.1 too.
    pub(crate) fn start(&self, tcp: bool) -> Running {
        let settings: &[&str] = if tcp { &["listen_addresses=127.0.0.1"] } else { &[] };
        self.start_with(settings, &[])
    }

    /// Starts it with additional settings and environment variables.
    pub(crate) fn start_with(&self, settings: &[&str], environment: &[(String, String)]) -> Running {
        let log = std::fs::File::create(self.directory.0.join("postgres.log")).unwrap();
        let mut server = as_user(postgres_program("postgres"), self.user);
        server.current_dir(&self.directory.0).args(&self.arguments).args(["-c", &format!("port={}", self.port)]);
        for setting in settings {
            server.args(["-c", setting]);
        }
        server.envs(environment.iter().map(|(name, value)| (name, value)));
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Running(Program { child: server.spawn().unwrap(), signal: Signal::INT })
    }

    /// Queries the server every millisecond until it returns a row.
    pub(crate) async fn until_row(&self) {
        let connection = self.local("postgres");
        eventually("a plain server to answer", async || try_first_row(&connection).await.ok()).await;
    }

    /// A connection string with its socket.
    pub(crate) fn local(&self, database: &str) -> String {
        format!("host={} port={} user=postgres dbname={database} sslmode=disable", self.socket().display(), self.port)
    }

    /// A directory that belongs to the server's user and is removed with it.
    pub(crate) fn root(&self) -> &Path {
        &self.directory.0
    }

    /// A command that runs as the server's user.
    pub(crate) fn program(&self, program: impl Into<PathBuf>) -> Command {
        as_user(program.into(), self.user)
    }

    /// Waits until the server has recovered and accepts queries.
    pub(crate) async fn until_recovered(&self) {
        eventually_within(LONG_LIMIT, "a plain server to recover", async || {
            let (client, driver) = tokio_postgres::connect(&self.local("postgres"), NoTls).await.ok()?;
            let asked = async {
                let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await;
                drop(client);
                row.is_ok_and(|row| !row.get::<_, bool>(0))
            };
            tokio::join!(asked, driver).0.then_some(())
        })
        .await;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.0.join("socket")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL as the superuser.
    pub(crate) async fn execute(&self, sql: &str) {
        execute(&self.local("postgres"), sql).await;
    }
}

async fn execute(connection: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(connection, NoTls).await.unwrap();
    let asked = async {
        let result = client.batch_execute(sql).await;
        drop(client);
        result
    };
    let (result, _) = tokio::join!(asked, connection);
    result.unwrap();
}

/// `PgBouncer` in session mode in front of a plain server, on its socket.
pub(crate) struct Bouncer {
    _program: Program,
    _directory: Directory,
    pub(crate) address: SocketAddr,
}

impl Bouncer {
    /// Uses SCRAM on both sides, like Howdah's gateway, and defaults for everything else.
    pub(crate) async fn start(server: &Plain, database: &str, user: &str, password: &str) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let program = program.into_iter().find(|path| Path::new(path).exists())?;
        let directory = Directory::new(server.user);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let users = directory.0.join("users.txt");
        std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).unwrap();
        let configuration = format!(
            "[databases]\n{database} = host={} port={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n\
             pool_mode = session\nauth_type = scram-sha-256\nauth_file = {}\n",
            server.socket().display(),
            server.port(),
            address.port(),
            users.display()
        );
        let file = directory.0.join("pgbouncer.ini");
        std::fs::write(&file, configuration).unwrap();
        let log = std::fs::File::create(directory.0.join("pgbouncer.log")).unwrap();
        let mut command = as_user(PathBuf::from(program), server.user);
        command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let program = Program { child: command.spawn().unwrap(), signal: Signal::TERM };
        eventually("PgBouncer to listen", async || std::net::TcpStream::connect(address).ok()).await;
        Some(Self { _program: program, _directory: directory, address })
    }
}

/// Connects and reads a row.
///
/// # Panics
/// If that fails.
pub(crate) async fn first_row(connection: &str) {
    try_first_row(connection).await.expect("a row at the first attempt");
}

/// The position in the WAL, in bytes since its beginning.
pub(crate) async fn wal_position(connection: &str) -> u64 {
    let (client, driver) = tokio_postgres::connect(connection, NoTls).await.unwrap();
    let asked = async {
        let row = client.query_one("SELECT (pg_current_wal_lsn() - '0/0')::bigint", &[]).await.unwrap();
        drop(client);
        row.get::<_, i64>(0).cast_unsigned()
    };
    tokio::join!(asked, driver).0
}

async fn try_first_row(connection: &str) -> Result<(), tokio_postgres::Error> {
    let (client, driver) = tokio_postgres::connect(connection, NoTls).await?;
    #[expect(clippy::disallowed_methods, reason = "it is waited for below")]
    let driver = tokio::spawn(driver);
    let rows = client.simple_query("SELECT 1").await?;
    assert!(rows.iter().any(|message| matches!(message, tokio_postgres::SimpleQueryMessage::Row(_))));
    drop(client);
    let _ = driver.await;
    Ok(())
}

pub(crate) async fn eventually<T>(what: &str, found: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(LIMIT, what, found).await
}

async fn eventually_within<T>(limit: Duration, what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = found().await {
            return value;
        }
        assert!(begun.elapsed() < limit, "waited too long for: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// As root, the plain servers run as the user of PostgreSQL's package.
fn postgres_user() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let fields: Vec<&str> = users.lines().find(|line| line.starts_with("postgres:"))?.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn as_user(program: PathBuf, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid).current_dir("/");
    }
    command
}

/// The path of a PostgreSQL program, of the newest installed version.
pub(crate) fn postgres_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL's server package is installed");
    let newest = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("postgres").exists())
        .max_by_key(|bin| bin.parent().and_then(|path| path.file_name()?.to_str()?.parse::<u32>().ok()));
    newest.expect("a PostgreSQL server is installed").join(name)
}

/// Durations of one measurement.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that `percent` % of the times do not exceed, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1].as_secs_f64() * 1e3
    }

    pub(crate) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    /// Prints a line of the table.
    pub(crate) fn print(&self, name: &str) {
        let (p50, p99, most) = (self.p50(), self.percentile(99), self.percentile(100));
        println!("{name:<52} {:>4} {p50:>9.1} {p99:>9.1} {most:>9.1}", self.0.len());
    }

    pub(crate) fn print_head() {
        println!("{:<52} {:>4} {:>9} {:>9} {:>9}", "milliseconds", "N", "p50", "p99", "max");
    }
}

/// Prints a measurement beside the project's target for it.
pub(crate) fn judge(what: &str, value: f64, unit: &str, target: &str, met: bool) {
    let verdict = if met { "met" } else { "MISSED" };
    println!("{what:<52} {value:>9.2}{unit:<4} target: {target:<16} {verdict}");
}

/// Prints the machine that the numbers come from.
pub(crate) fn print_machine() {
    let version = Command::new(postgres_program("postgres")).arg("--version").output().unwrap().stdout;
    let cores = std::thread::available_parallelism().unwrap();
    println!("{cores} cores, {}", String::from_utf8_lossy(&version).trim());
}
