//! Backing up, restoring and copying a database of 1 GB, compared with the same pgBackRest commands by hand and
//! with `cp -a`. Archiving WAL during a load, compared with `pgbackrest archive-push`. Restoring a small database, compared with `pg_dump | pg_restore`. Both sides have the same data,
//! PostgreSQL settings, and compression, cipher and number of processes of pgBackRest.
//!
//! `HOWDAH_BENCH_SCALE` sets the scale of pgbench (15 MB each), `HOWDAH_BENCH_ROUNDS` the number of rounds.
//! `HOWDAH_BENCH_DIRECTORY` is the directory of all data. On XFS or Btrfs, `cp -a` and Howdah's copy of a sleeping
//! database share blocks with the original.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench prints, or fails at once")]

#[expect(dead_code, reason = "each bench uses its part of the harness")]
mod harness;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use harness::{
    Howdah, Plain, Running, Times, eventually, first_row, judge, number, postgres_program, print_machine, run,
    wal_position,
};
use reqwest::Method;
use serde_json::{Value, json};

/// A database of Howdah that is backed up, restored and copied.
struct Kept<'a> {
    howdah: &'a Howdah,
    id: String,
    project: String,
    connection: String,
}

impl<'a> Kept<'a> {
    async fn new(howdah: &'a Howdah) -> Self {
        let made = howdah.create_project().await;
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let database = &made["database"];
        let (id, connection) = (text(&database["id"]), text(&database["connectionString"]));
        Self { howdah, id, project: text(&made["id"]), connection }
    }

    async fn back_up(&self) -> String {
        let path = format!("/v1/databases/{}/backups", self.id);
        let made = self.howdah.carry_out(&path, &json!({"backupType": "full"})).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Creates a database from this one, reads a row from it, and deletes it.
    async fn make_from(&self, source: Value, times: &mut Times) {
        let begun = Instant::now();
        let body = json!({"projectId": self.project, "name": "made", "source": source});
        let made = self.howdah.carry_out("/v1/databases", &body).await;
        let connection = made["connections"][0]["endpoints"]["direct"]["connectionString"].as_str().expect("a secret");
        first_row(connection).await;
        times.add(begun.elapsed());
        // The new database's own first backup must not run during the next measurement.
        self.howdah.settled().await;
        let path = format!("/v1/databases/{}", made["id"].as_str().expect("an id"));
        self.howdah.send(Method::DELETE, &path, &json!({})).await;
        self.howdah.settled().await;
    }

    async fn restore(&self, backup: &str, times: &mut Times) {
        self.make_from(json!({"type": "backup", "databaseId": self.id, "backupId": backup}), times).await;
    }

    async fn clone(&self, times: &mut Times) {
        self.make_from(json!({"type": "database", "databaseId": self.id}), times).await;
    }
}

/// The comparison by hand: a plain server with its own repository.
struct ByHand<'a> {
    plain: &'a Plain,
    environment: Vec<(String, String)>,
}

/// The size of a segment in instances and in the plain server.
const SEGMENT_BYTES: u64 = 1 << 20;
const PUSH: &str = "archive_command=pgbackrest --no-config archive-push %p";
const GET: &str = "restore_command=pgbackrest --no-config archive-get %f \"%p\"";

impl<'a> ByHand<'a> {
    fn new(plain: &'a Plain) -> Self {
        let below = |name: &str| plain.root().join(name).display().to_string();
        let environment = [
            ("STANZA", "bench".to_owned()),
            ("REPO1_PATH", below("repository")),
            ("REPO1_CIPHER_TYPE", "aes-256-cbc".to_owned()),
            ("REPO1_CIPHER_PASS", "correct horse battery staple".to_owned()),
            ("REPO1_BUNDLE", "y".to_owned()),
            ("REPO1_RETENTION_FULL", "9999999".to_owned()),
            ("LOCK_PATH", below("lock")),
            ("SPOOL_PATH", below("spool")),
            ("COMPRESS_TYPE", "zst".to_owned()),
            ("COMPRESS_LEVEL", "1".to_owned()),
            ("PROCESS_MAX", "2".to_owned()),
            ("START_FAST", "y".to_owned()),
            ("LOG_LEVEL_CONSOLE", "error".to_owned()),
            ("LOG_LEVEL_FILE", "off".to_owned()),
            ("PG1_PATH", below("data")),
            ("PG1_SOCKET_PATH", below("socket")),
            ("PG1_PORT", plain.port().to_string()),
            ("PG1_USER", "postgres".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (format!("PGBACKREST_{name}"), value)).to_vec();
        Self { plain, environment }
    }

    fn pgbackrest(&self, arguments: &[&str]) {
        let mut command = self.plain.program("pgbackrest");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        done(command.arg("--no-config").args(arguments).current_dir("/"));
    }

    fn start(&self, settings: &[&str]) -> Running {
        self.plain.start_with(settings, &self.environment)
    }

    /// With pgBackRest's asynchronous mode: a process of its own pushes all segments that wait.
    fn start_archiving_in_batches(&self) -> Running {
        let mut environment = self.environment.clone();
        environment.push(("PGBACKREST_ARCHIVE_ASYNC".to_owned(), "y".to_owned()));
        self.plain.start_with(&[PUSH], &environment)
    }

    /// Replaces the data directory with the backup, and waits until recovery has ended.
    async fn restore(&self, times: &mut Times) -> Running {
        let data = self.plain.root().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        done(self.plain.program("mkdir").arg("-m").arg("0700").arg(&data));
        let begun = Instant::now();
        self.pgbackrest(&["--type=immediate", "--target-action=promote", "restore"]);
        let running = self.start(&["archive_mode=off", GET]);
        self.plain.until_recovered().await;
        times.add(begun.elapsed());
        running
    }
}

fn done(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}{complaint}");
}

/// Fills a database with pgbench's tables.
fn fill(connection: &str, scale: usize) {
    let scale = scale.to_string();
    done(Command::new(postgres_program("pgbench")).args(["-i", "-q", "-s", &scale, connection]));
}

/// The number of WAL segments in a repository of pgBackRest's.
fn segments(repository: &Path) -> u64 {
    let mut find = Command::new("find");
    let output = find.arg(repository).args(["-type", "f", "-name", "????????????????????????-*"]).output().unwrap();
    output.stdout.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Fills a database anew and waits until every whole segment of WAL that this wrote is in the repository. Returns MiB
/// per second.
async fn archived(connection: &str, scale: usize, repository: &Path) -> f64 {
    let (before, from) = (segments(repository), wal_position(connection).await);
    let begun = Instant::now();
    fill(connection, scale);
    let whole = (wal_position(connection).await - from) / SEGMENT_BYTES;
    eventually("the WAL to be archived", async || (segments(repository) - before >= whole).then_some(())).await;
    whole as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The size of the files, in MB.
fn size(directory: &Path) -> f64 {
    let output = Command::new("du").args(["-sb", "--"]).arg(directory).output().unwrap().stdout;
    let bytes: f64 = String::from_utf8(output).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    bytes / 1e6
}

fn main() {
    run(async {
        let (scale, rounds) = (number("HOWDAH_BENCH_SCALE", 68), number("HOWDAH_BENCH_ROUNDS", 3));
        let howdah = Howdah::start(&[
            "--backup-every",
            "0",
            // No restore verification during the measurement: the comparison has none.
            "--drill-every",
            "0",
            "--idle-stop",
            "10s",
            "--undelete",
            "0",
            "--rate-limit",
            "0",
            "--address-rate-limit",
            "0",
        ])
        .await;
        let small = Kept::new(&howdah).await;
        fill(&small.connection, 1);
        let plain = Plain::init(&howdah.recipe(), &[]);
        let large = Kept::new(&howdah).await;
        fill(&large.connection, scale);
        // The first backup also archives the WAL of filling the database, so it is not measured.
        large.back_up().await;
        let backup_of_small = small.back_up().await;

        let hand = ByHand::new(&plain);
        let running = hand.start(&["archive_command=/bin/true"]);
        plain.until_row().await;
        fill(&plain.local("postgres"), scale);
        drop(running);
        hand.pgbackrest(&["stanza-create", "--no-online"]);

        let (mut made, mut made_by_hand) = (Times::new(), Times::new());
        let mut backup = String::new();
        let mut running = hand.start(&[PUSH]);
        plain.until_row().await;
        for _ in 0..rounds {
            let begun = Instant::now();
            backup = large.back_up().await;
            made.add(begun.elapsed());
            let begun = Instant::now();
            hand.pgbackrest(&["--type=full", "backup"]);
            made_by_hand.add(begun.elapsed());
        }
        // A quarter of the data is enough WAL, and stays within --backup-queue.
        let quarter = scale.div_ceil(4);
        let (mut archived_here, mut archived_by_hand, mut archived_in_turn) = (Vec::new(), Vec::new(), Vec::new());
        let loaded = Kept::new(&howdah).await;
        loaded.back_up().await;
        plain.execute("CREATE DATABASE loaded").await;
        let (in_plain, repository) = (plain.local("loaded"), plain.root().join("repository"));
        for _ in 0..rounds {
            archived_here.push(archived(&loaded.connection, quarter, &howdah.repository()).await);
            archived_in_turn.push(archived(&in_plain, quarter, &repository).await);
            drop(running);
            running = hand.start_archiving_in_batches();
            plain.until_row().await;
            archived_by_hand.push(archived(&in_plain, quarter, &repository).await);
            drop(running);
            running = hand.start(&[PUSH]);
            plain.until_row().await;
        }

        let (mut restored, mut restored_by_hand) = (Times::new(), Times::new());
        let (mut cloned, mut copied) = (Times::new(), Times::new());
        let (data, copy) = (plain.root().join("data"), plain.root().join("copy"));
        for _ in 0..rounds {
            large.restore(&backup, &mut restored).await;
            drop(running);
            running = hand.restore(&mut restored_by_hand).await;
        }
        drop(running);
        let megabytes = size(&data);
        let mut cloned_asleep = Times::new();
        for _ in 0..rounds {
            first_row(&large.connection).await;
            large.clone(&mut cloned).await;
            howdah.asleep().await;
            large.clone(&mut cloned_asleep).await;
            let begun = Instant::now();
            done(Command::new("cp").arg("-a").arg(&data).arg(&copy));
            copied.add(begun.elapsed());
            std::fs::remove_dir_all(&copy).unwrap();
        }

        let running = hand.start(&["archive_command=/bin/true"]);
        plain.until_row().await;
        plain.execute("CREATE DATABASE small").await;
        fill(&plain.local("small"), 1);
        let (mut restored_small, mut dumped) = (Times::new(), Times::new());
        for n in 0..rounds {
            small.restore(&backup_of_small, &mut restored_small).await;
            let begun = Instant::now();
            plain.execute(&format!("CREATE DATABASE copy{n}")).await;
            let mut dump = Command::new(postgres_program("pg_dump"));
            let mut dump = dump.args(["-Fc", &plain.local("small")]).stdout(Stdio::piped()).spawn().unwrap();
            let mut restore = Command::new(postgres_program("pg_restore"));
            let restore = restore.args(["-d", &plain.local(&format!("copy{n}"))]).stdin(dump.stdout.take().unwrap());
            assert!(restore.status().unwrap().success() && dump.wait().unwrap().success());
            dumped.add(begun.elapsed());
        }
        drop(running);

        print_machine();
        println!("{megabytes:.0} MB of files");
        Times::print_head();
        made.print("full backup: POST to the operation's end");
        made_by_hand.print("pgbackrest backup, by hand");
        restored.print("restore to a new database: POST to first row");
        restored_by_hand.print("pgbackrest restore + start + recovery, by hand");
        cloned.print("copy of it, awake: POST to first row");
        cloned_asleep.print("copy of it, asleep: POST to first row");
        copied.print("cp -a of the stopped data directory");
        restored_small.print("restore of a small database: POST to first row");
        dumped.print("CREATE DATABASE + pg_dump | pg_restore");
        println!();
        let backups = made_by_hand.p50() / made.p50();
        println!("speed of backup / pgbackrest backup: {backups:.2}");
        let restores = restored_by_hand.p50() / restored.p50();
        judge("speed of restore / pgbackrest restore", restores, "", "at least 0.8", restores >= 0.8);
        println!("restore: {:.0} MB per second", megabytes / restored.p50() * 1e3);
        let (here, by_hand, in_turn) = (median(archived_here), median(archived_by_hand), median(archived_in_turn));
        println!("WAL archived during a load, MiB per second: {here:.1}");
        println!("pgbackrest archive-push by hand, MiB per second: {in_turn:.1}, asynchronous {by_hand:.1}");
        judge(
            "speed of archiving / asynchronous archive-push",
            here / by_hand,
            "",
            "at least 0.8",
            here >= 0.8 * by_hand,
        );
        println!("speed of archiving / archive-push: {:.2}", here / in_turn);
        println!("speed of copy, awake / cp -a: {:.2}", copied.p50() / cloned.p50());
        println!("speed of copy, asleep / cp -a: {:.2}", copied.p50() / cloned_asleep.p50());
        println!("speed of small restore / pg_dump | pg_restore: {:.2}", dumped.p50() / restored_small.p50());
    });
}
