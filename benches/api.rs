//! `GET /v1/projects/{id}` and `GET /v1/databases?limit=100`, in a workspace with 100 databases and
//! in one with 10,000, compared with `pgbench -S -M prepared` on the same metadata instance. All use the same
//! number of clients, each with one connection, in alternating rounds.
//!
//! `HOWDAH_BENCH_SECONDS` sets the length of a run, `HOWDAH_BENCH_ROUNDS` the number of runs, and
//! `HOWDAH_BENCH_CLIENTS` the number of clients.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench prints, or fails at once")]

#[expect(dead_code, reason = "each bench uses its part of the harness")]
mod harness;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Howdah, Times, judge, number, postgres_program, print_machine, run};

/// Inserts databases without instances into the metadata store: `many` in the second workspace, and 100 in the
/// first, with IDs spread evenly between them. Each has a connection.
const FILL: &str = "
    INSERT INTO projects (id, workspace_id, name, created_at)
    SELECT id('1', n), CASE WHEN n % 11 = 0 THEN few.id ELSE many.id END, 'project ' || n, now()
      FROM generate_series(0, 1099) n, few, many;
    INSERT INTO branches (id, project_id, git_name, is_default, role, created_at, updated_at)
    SELECT id, id, 'main', true, 'production', now(), now() FROM projects;
    INSERT INTO databases
           (id, project_id, workspace_id, branch_id, name, region, is_default, status, instance_id, created_at)
    SELECT id('2', n), project.id, project.workspace_id, project.id, 'database ' || n, 'us-east-1', false, 'ready',
           id('3', n), now()
      FROM generate_series(0, 10099) n,
           LATERAL (SELECT CASE WHEN n % 101 = 0 THEN n / 101 * 11 ELSE n % 1000 / 10 * 11 + n % 10 + 1 END AS p) o
      JOIN projects project ON project.id = id('1', p);
    INSERT INTO connections (id, database_id, workspace_id, name, user_name, verifier, created_at)
    SELECT gen_random_uuid(), id, workspace_id, 'Default', 'user of ' || id, 'none', now() FROM databases;
    ANALYZE projects, branches, databases, connections";

/// A request that is sent repeatedly.
struct Request {
    name: &'static str,
    bytes: Vec<u8>,
    rates: Vec<f64>,
    times: Times,
}

impl Request {
    fn get(name: &'static str, path: &str, token: &str) -> Self {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n");
        Self { name, bytes: head.into_bytes(), rates: Vec::new(), times: Times::new() }
    }

    /// Sends the request with this many clients for this long.
    fn round(&mut self, address: &str, clients: usize, length: Duration) {
        let begun = Instant::now();
        let asked: Vec<Vec<Duration>> = std::thread::scope(|scope| {
            let bytes = &self.bytes;
            let client = || scope.spawn(move || ask(address, bytes, begun + length));
            let running: Vec<_> = (0..clients).map(|_| client()).collect();
            running.into_iter().map(|client| client.join().unwrap()).collect()
        });
        self.rates.push(asked.iter().map(Vec::len).sum::<usize>() as f64 / begun.elapsed().as_secs_f64());
        asked.into_iter().flatten().for_each(|time| self.times.add(time));
    }

    fn rate(&self) -> f64 {
        median(&self.rates)
    }

    fn print(&self, beside: f64) {
        let (p50, p99) = (self.times.p50(), self.times.percentile(99));
        let each: Vec<String> = self.rates.iter().map(|rate| format!("{rate:.0}")).collect();
        println!(
            "{:<46} {:>9.0} {:>9.3} {:>9.3} {:>8.2}   {}",
            self.name,
            self.rate(),
            p50,
            p99,
            self.rate() / beside,
            each.join(" ")
        );
    }
}

/// Runs one client; returns the time of each response.
fn ask(address: &str, request: &[u8], until: Instant) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut times = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while Instant::now() < until {
        let begun = Instant::now();
        stream.write_all(request).unwrap();
        let (mut filled, mut whole) = (0, None);
        while whole.is_none_or(|whole| filled < whole) {
            let read = stream.read(&mut buffer[filled..]).unwrap();
            assert!(read > 0, "the server has ended the connection");
            filled += read;
            whole = whole.or_else(|| length(&buffer[..filled]));
        }
        times.push(begun.elapsed());
    }
    times
}

/// The length of a successful response, as soon as its header is complete.
fn length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let body = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("an answer has a length");
    Some(head + 4 + body.parse::<usize>().unwrap())
}

/// Runs `pgbench` on the metadata instance; returns its output.
fn pgbench(connection: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(postgres_program("pgbench"));
    let output = command.args(arguments).arg(connection).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "pgbench {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() {
    run(async {
        let seconds = number("HOWDAH_BENCH_SECONDS", 5);
        let rounds = number("HOWDAH_BENCH_ROUNDS", 5);
        let clients = number("HOWDAH_BENCH_CLIENTS", 8);
        let length = Duration::from_secs(seconds as u64);

        let howdah = Howdah::start(&["--rate-limit", "0", "--address-rate-limit", "0"]).await;
        let (few, many) = (howdah.token().to_owned(), howdah.another_workspace("Many").await);
        let id = "CREATE FUNCTION pg_temp.id(kind text, n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
                  $$SELECT ('01900000-0000-7000-8' || kind || '00-' || lpad(to_hex(n), 12, '0'))::uuid$$";
        let workspaces = "CREATE TEMP VIEW few AS SELECT id FROM workspaces WHERE name <> 'Many';
                          CREATE TEMP VIEW many AS SELECT id FROM workspaces WHERE name = 'Many'";
        howdah.in_metadata(&format!("{id}; {workspaces}; {}", FILL.replace(" id('", " pg_temp.id('"))).await;
        howdah.in_metadata("CREATE DATABASE bench").await;
        let bench = howdah.metadata("bench");
        pgbench(&bench, &["-i", "-q", "-s", "1"]);

        let list = "/v1/databases?limit=100";
        let mut requests = [
            Request::get("GET one project", &howdah.first(&few, "/v1/projects").await, &few),
            Request::get("GET one database", &howdah.first(&few, "/v1/databases").await, &few),
            Request::get("list of 100 databases, of 100", list, &few),
            Request::get("list of 100 databases, of 10,000", list, &many),
        ];
        let mut alone = Request::get("GET one project, one client", &howdah.first(&few, "/v1/projects").await, &few);

        let (c, t) = (clients.to_string(), seconds.to_string());
        let arguments = ["-n", "-S", "-M", "prepared", "-c", &c, "-j", "2", "-T", &t];
        let mut selects = Vec::new();
        for _ in 0..rounds {
            let said = pgbench(&bench, &arguments);
            let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")).expect("pgbench says the rate");
            selects.push(rate.split_whitespace().next().unwrap().parse().unwrap());
            for request in &mut requests {
                request.round(howdah.address(), clients, length);
            }
            alone.round(howdah.address(), 1, length);
        }

        print_machine();
        println!(
            "{clients} clients, runs of {seconds} s, median of {rounds} interleaved rounds; times in milliseconds"
        );
        println!("{:<46} {:>9} {:>9} {:>9} {:>8}   rounds", "", "per s", "p50", "p99", "of -S");
        let each: Vec<String> = selects.iter().map(|rate| format!("{rate:.0}")).collect();
        let selects = median(&selects);
        println!(
            "{:<46} {:>9.0} {:>9} {:>9} {:>8.2}   {}",
            "pgbench -S -M prepared",
            selects,
            "",
            "",
            1.0,
            each.join(" ")
        );
        for request in requests.iter().chain([&alone]) {
            request.print(selects);
        }
        println!();
        let p50 = requests[0].times.p50();
        judge("GET one project, p50", p50, " ms", "at most 2 ms", p50 <= 2.0);
        let share = requests[0].rate() / selects;
        judge("GET one project / pgbench -S", share, "", "at least 0.4", share >= 0.4);
        let slower = requests[3].times.p50() / requests[2].times.p50();
        judge("list of 10,000 / of 100, p50", slower, "", "at most 1.3", slower <= 1.3);
    });
}
