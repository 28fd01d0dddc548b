//! `pgbench -S` through the gateway, directly, and through `PgBouncer` in session mode. All use TCP on the
//! loopback address, SCRAM and no TLS, on servers with the same settings.
//!
//! `HOWDAH_BENCH_SECONDS` sets the length of a run, `HOWDAH_BENCH_ROUNDS` the number of runs.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench prints, or fails at once")]

#[expect(dead_code, reason = "each bench uses its part of the harness")]
mod harness;

use std::process::{Command, Stdio};

use harness::{Bouncer, Howdah, Plain, first_row, judge, number, postgres_program, print_machine, run};

const PASSWORD: &str = "a-password-of-the-bench";

fn pgbench(connection: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(postgres_program("pgbench"));
    let output = command.args(arguments).arg(connection).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "pgbench {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Transactions per second.
fn rate(connection: &str, seconds: &str, more: &[&str]) -> f64 {
    let mut arguments = vec!["-n", "-S", "-M", "simple", "-c", "8", "-j", "2", "-T", seconds];
    arguments.extend(more);
    let said = pgbench(connection, &arguments);
    let line = said.lines().find_map(|line| line.strip_prefix("tps = ")).expect("pgbench says the rate");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn main() {
    run(async {
        let seconds = number("HOWDAH_BENCH_SECONDS", 8).to_string();
        let rounds = number("HOWDAH_BENCH_ROUNDS", 3);

        let howdah = Howdah::start(&["--idle-stop", "0"]).await;
        let gateway = howdah.create().await;
        first_row(&gateway).await;
        let plain = Plain::init(&howdah.recipe(), &[]);
        let _running = plain.start(true);
        plain.until_row().await;
        plain.execute(&format!("CREATE ROLE bench LOGIN PASSWORD '{PASSWORD}'")).await;
        plain.execute("CREATE DATABASE bench OWNER bench").await;
        let url = |address| format!("postgres://bench:{PASSWORD}@{address}/bench?sslmode=disable");
        let direct = url(format!("127.0.0.1:{}", plain.port()));
        let bouncer = Bouncer::start(&plain, "bench", "bench", PASSWORD).await;

        let mut ways = vec![("Howdah's gateway", gateway.clone()), ("direct", direct.clone())];
        match &bouncer {
            Some(bouncer) => ways.push(("PgBouncer, session mode", url(bouncer.address.to_string()))),
            None => println!("PgBouncer is not installed: skipping the comparison"),
        }
        for connection in [&gateway, &direct] {
            pgbench(connection, &["-i", "-q", "-s", "10"]);
        }
        howdah.restock().await;

        let mut rates = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for ((_, connection), rates) in ways.iter().zip(&mut rates) {
                rates.push(rate(connection, &seconds, &[]));
            }
        }
        let reconnecting: Vec<f64> = ways.iter().map(|(_, connection)| rate(connection, "4", &["-C"])).collect();

        print_machine();
        println!("pgbench -S -M simple -c 8 -j 2 -T {seconds}, scale 10, median of {rounds} interleaved rounds");
        println!("{:<28} {:>10} {:>10}  {:>10}   rounds", "transactions per second", "", "of direct", "with -C");
        for (index, (name, _)) in ways.iter().enumerate() {
            let middle = median(&rates[index]);
            let each: Vec<String> = rates[index].iter().map(|rate| format!("{rate:.0}")).collect();
            let share = middle / median(&rates[1]);
            println!("{name:<28} {middle:>10.0} {share:>10.2}  {:>10.0}   {}", reconnecting[index], each.join(" "));
        }
        println!();
        if let Some(bounced) = rates.get(2) {
            let ratio = median(&rates[0]) / median(bounced);
            judge("gateway / PgBouncer", ratio, "", "at least 1", ratio >= 1.0);
        }
    });
}
