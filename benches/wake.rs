//! The time from connecting to a sleeping database to its first row. The comparison starts `postgres` by hand on
//! a similar data directory with the same settings, and queries it every millisecond until it returns a row.
//!
//! `HOWDAH_BENCH_WAKES` sets the number of wakes and of starts by hand.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench prints, or fails at once")]

#[expect(dead_code, reason = "each bench uses its part of the harness")]
mod harness;

use std::time::Instant;

use harness::{Howdah, Plain, Times, first_row, judge, number, print_machine, run};

fn main() {
    run(async {
        let howdah = Howdah::start(&["--idle-stop", "1s"]).await;
        let connection = howdah.create().await;
        first_row(&connection).await;
        let plain = Plain::init(&howdah.recipe(), &[]);
        howdah.restock().await;

        let (mut wakes, mut warm, mut by_hand) = (Times::new(), Times::new(), Times::new());
        for _ in 0..number("HOWDAH_BENCH_WAKES", 20) {
            howdah.asleep().await;
            let begun = Instant::now();
            let running = plain.start(false);
            plain.until_row().await;
            by_hand.add(begun.elapsed());
            drop(running);

            let begun = Instant::now();
            first_row(&connection).await;
            wakes.add(begun.elapsed());
            let begun = Instant::now();
            first_row(&connection).await;
            warm.add(begun.elapsed());
        }

        print_machine();
        Times::print_head();
        wakes.print("wake: connect to first row");
        by_hand.print("postgres started by hand, to first row");
        warm.print("already awake: connect to first row");
        println!();
        let ratio = wakes.p50() / by_hand.p50();
        judge("wake / by hand, p50", ratio, "", "at most 2", ratio <= 2.0);
    });
}
