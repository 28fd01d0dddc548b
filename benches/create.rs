//! The time from `POST /v1/projects` to the first row over the returned connection string, compared with
//! `initdb` + start + first row, and with `CREATE DATABASE` + first row on a running server. Then a burst from
//! several clients at once, compared with as many `CREATE DATABASE` on a running server.
//!
//! `HOWDAH_BENCH_CREATES` sets the number of creates, `HOWDAH_BENCH_PACE_MS` the pause between the
//! creates of the paced series. `HOWDAH_BENCH_BURST` and `HOWDAH_BENCH_CLIENTS` set the size of the burst.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench prints, or fails at once")]

#[expect(dead_code, reason = "each bench uses its part of the harness")]
mod harness;

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use harness::{Howdah, Plain, Times, first_row, judge, number, print_machine, run};

struct Series {
    whole: Times,
    post: Times,
    /// How many creates found no prepared instance.
    unprepared: usize,
}

async fn series(howdah: &Howdah, count: usize, pause: Duration) -> Series {
    let mut series = Series { whole: Times::new(), post: Times::new(), unprepared: 0 };
    for _ in 0..count {
        series.unprepared += usize::from(howdah.stock() == 0);
        let begun = Instant::now();
        let connection = howdah.create().await;
        series.post.add(begun.elapsed());
        first_row(&connection).await;
        series.whole.add(begun.elapsed());
        tokio::time::sleep(pause).await;
    }
    series
}

/// Runs `create` `count` times from `clients` clients at once. Returns the time of each, and the rate per second.
async fn burst(count: usize, clients: usize, create: impl AsyncFn(usize)) -> (Times, f64) {
    let (next, begun) = (Cell::new(0), Instant::now());
    let client = async || {
        let mut times = Vec::new();
        while next.get() < count {
            let number = next.replace(next.get() + 1);
            let begun = Instant::now();
            create(number).await;
            times.push(begun.elapsed());
        }
        times
    };
    let done = join_all((0..clients).map(|_| client())).await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    let mut times = Times::new();
    done.into_iter().flatten().for_each(|time| times.add(time));
    (times, rate)
}

fn main() {
    run(async {
        let count = number("HOWDAH_BENCH_CREATES", 100);
        let pace = Duration::from_millis(number("HOWDAH_BENCH_PACE_MS", 500) as u64);

        let howdah = Howdah::start(&[]).await;
        first_row(&howdah.create().await).await;
        let recipe = howdah.recipe();
        howdah.restock().await;
        let back_to_back = series(&howdah, count, Duration::ZERO).await;
        howdah.restock().await;
        let paced = series(&howdah, count, pace).await;
        drop(howdah);

        let (burst_count, clients) = (number("HOWDAH_BENCH_BURST", 200), number("HOWDAH_BENCH_CLIENTS", 16));
        let howdah = Howdah::start(&[]).await;
        let (concurrent, rate) = burst(burst_count, clients, async |_| first_row(&howdah.create().await).await).await;
        let bytes = howdah.bytes_per_database();
        drop(howdah);

        let (mut synced, mut unsynced, mut createdb) = (Times::new(), Times::new(), Times::new());
        for _ in 0..5 {
            for (times, options) in [(&mut synced, &[][..]), (&mut unsynced, &["--no-sync"][..])] {
                let begun = Instant::now();
                let plain = Plain::init(&recipe, options);
                let running = plain.start(false);
                plain.until_row().await;
                times.add(begun.elapsed());
                drop(running);
            }
        }
        let plain = Plain::init(&recipe, &[]);
        let running = plain.start(false);
        plain.until_row().await;
        for n in 0..20 {
            let begun = Instant::now();
            plain.execute(&format!("CREATE DATABASE d{n}")).await;
            first_row(&plain.local(&format!("d{n}"))).await;
            createdb.add(begun.elapsed());
        }
        let (createdb_concurrent, createdb_rate) = burst(burst_count, clients, async |n| {
            plain.execute(&format!("CREATE DATABASE c{n}")).await;
            first_row(&plain.local(&format!("c{n}"))).await;
        })
        .await;
        drop(running);

        print_machine();
        Times::print_head();
        back_to_back.whole.print("create, back to back: POST to first row");
        back_to_back.post.print("  of which the POST");
        let name = format!("create, {} ms apart: POST to first row", pace.as_millis());
        paced.whole.print(&name);
        paced.post.print("  of which the POST");
        synced.print("initdb + start + first row");
        unsynced.print("initdb --no-sync + start + first row");
        createdb.print("CREATE DATABASE on a running server + first row");
        concurrent.print(&format!("create, {clients} clients: POST to first row"));
        createdb_concurrent.print(&format!("CREATE DATABASE, {clients} clients, + first row"));
        println!();
        for (name, series) in [("back to back", &back_to_back), ("paced", &paced)] {
            let (p50, p99) = (series.whole.p50(), series.whole.percentile(99));
            let faster = synced.p50() / p50;
            println!("{name}: {} of {count} creates found the pool empty", series.unprepared);
            judge("  p50", p50, " ms", "at most 100 ms", p50 <= 100.0);
            judge("  p99", p99, " ms", "at most 500 ms", p99 <= 500.0);
            judge("  times as fast as initdb + start", faster, "", "at least 10", faster >= 10.0);
            println!("  times as fast as CREATE DATABASE: {:.2}", createdb.p50() / p50);
        }
        println!("{burst_count} creates from {clients} clients, starting with a full pool of prepared instances");
        judge("  creates", rate, " /s", "at least 15 /s", rate >= 15.0);
        let p99 = concurrent.percentile(99);
        judge("  p99 to the first row", p99, " ms", "at most 1500 ms", p99 <= 1500.0);
        println!("  times the rate of CREATE DATABASE: {:.2} ({createdb_rate:.1} /s)", rate / createdb_rate);
        println!("disk space of an unused database: {:.1} MB", bytes as f64 / 1e6);
    });
}
