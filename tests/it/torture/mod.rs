//! Torture by a seed: clients create, write, back up, restore and delete while Howdah, the metadata instance, instances
//! and pgBackRest are killed or frozen and the disk fills up. After each round everything that was acknowledged is
//! checked. `script/torture --seed N --rounds N` runs it for long; the test is a short run of it.

mod check;
mod client;
mod faults;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::FutureExt as _;
use futures_util::future::try_join_all;
use rand::prelude::{RngExt as _, SeedableRng as _, StdRng};

use crate::harness::{Directory, Disk, Howdah, ask};
use client::{Client, Gone};
use faults::{Fault, Figures};

const CLIENTS: u64 = 4;
/// How long clients work in a round.
const ROUND: Duration = Duration::from_secs(12);

/// A number from the environment.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_acknowledged_survives_seeded_faults() {
    let (seed, rounds) = (number("HOWDAH_TORTURE_SEED", 1), number("HOWDAH_TORTURE_ROUNDS", 1));
    let repeat = format!("script/torture --seed {seed} --rounds {rounds}");
    eprintln!("seed {seed}, {rounds} rounds");
    // A small disk of its own, which can be filled, where root can mount one.
    let disk = rustix::process::geteuid().is_root().then(|| Disk::of_mebibytes(3_000));
    let directory = disk.as_ref().map_or_else(|| Directory::new().path().to_owned(), |disk| disk.path().to_owned());
    if let Some(disk) = &disk {
        // A data directory begins empty.
        std::fs::remove_dir(disk.path().join("lost+found")).unwrap();
    }
    let mut howdah = start(directory).await;
    let log = howdah.log_path();
    let outcome = AssertUnwindSafe(torture(&mut howdah, disk.as_ref(), seed, rounds)).catch_unwind().await;
    let broken = match outcome {
        Ok(Ok(figures)) => return eprintln!("{figures}"),
        Ok(Err(broken)) => format!("{broken:#}"),
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic, see above".to_owned()),
    };
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{seed}.log"));
    let _ = std::fs::copy(&log, &kept);
    panic!("a promise was broken: {broken}\nrepeat it with {repeat}\nHowdah's log is {}", kept.display());
}

/// Starts a Howdah that listens at the same addresses after each start.
async fn start(directory: PathBuf) -> Howdah {
    let [http, gateway] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let arguments = ["--http", &http, "--gateway", &gateway, "--idle-stop", "3s"];
    let mut howdah = Howdah::start_on(directory, &arguments).await;
    // Faults are what this is about: what they leave in the log is not judged.
    howdah.expect_errors(&[""]);
    howdah
}

/// A port that the system gives nobody by itself, so that it is free again after a kill.
fn free_port() -> u16 {
    std::iter::repeat_with(|| rand::random_range(20_000..30_000))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}

async fn torture(howdah: &mut Howdah, disk: Option<&Disk>, seed: u64, rounds: u64) -> Result<Figures> {
    let owner = howdah.owner();
    let mut figures = Figures::default();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| Client::new(n, seed, owner.clone())).collect();
    let mut dice = StdRng::seed_from_u64(seed);
    let mut canary = Client::new(CLIENTS, seed, owner.clone());
    canary.create().await?;
    for round in 1..=rounds {
        let begun = Instant::now();
        let end = begun + ROUND;
        let faults: Vec<(Duration, Fault)> = {
            let mut moments: Vec<u64> = (0..dice.random_range(1..=3)).map(|_| dice.random_range(500..9_000)).collect();
            moments.sort_unstable();
            moments.into_iter().map(|at| (Duration::from_millis(at), Fault::draw(&mut dice, disk.is_some()))).collect()
        };
        let shown: Vec<String> = faults.iter().map(|(_, fault)| fault.to_string()).collect();
        let injecting = async {
            for (at, fault) in &faults {
                tokio::time::sleep_until((begun + *at).into()).await;
                let Some(since) = fault.inject(howdah, disk, &mut dice).await? else { continue };
                figures.count(fault);
                canary.write_until_acknowledged(check::BOUND).await?;
                figures.back_after(since.elapsed());
            }
            anyhow::Ok(())
        };
        let working = try_join_all(clients.iter_mut().map(|client| client.work(end)));
        tokio::try_join!(injecting, working)?;
        check::everything(howdah, clients.iter().chain([&canary])).await?;
        figures.take(clients.iter().chain([&canary]));
        eprintln!("round {round}: {}; {} s; {}", shown.join(", "), begun.elapsed().as_secs(), figures.so_far());
    }
    try_join_all(clients.iter_mut().chain([&mut canary]).map(Client::delete_all)).await?;
    check::everything(howdah, clients.iter().chain([&canary])).await?;
    howdah.assert_tidy().await;
    anyhow::ensure!(howdah.directory().instances().is_empty(), "instances of deleted databases are left");
    Ok(figures)
}

#[tokio::test]
async fn checker_notices_each_kind_of_broken_promise() {
    let howdah = Howdah::start().await;
    let mut client = Client::new(0, 1, howdah.owner());
    client.create().await.unwrap();
    client.write_until_acknowledged(check::BOUND).await.unwrap();
    client.write_until_acknowledged(check::BOUND).await.unwrap();
    let check = async |client: &Client| check::everything(&howdah, std::iter::once(client)).await;
    let broken = async |client: &Client| format!("{:#}", check(client).await.unwrap_err());
    check(&client).await.unwrap();

    let string = client.projects[0].databases[0].connections[0].string.clone();
    let lost = ask(&string, "DELETE FROM kept WHERE id = (SELECT max(id) FROM kept) RETURNING id");
    assert!(broken(&client).await.contains("acknowledged rows are lost"));
    ask(&string, &format!("INSERT INTO kept VALUES ({lost}), (-1)"));
    assert!(broken(&client).await.contains("of nobody: [-1]"));
    ask(&string, "DELETE FROM kept WHERE id = -1");
    check(&client).await.unwrap();

    client.projects[0].databases[0].revoked.push(string.clone());
    assert!(broken(&client).await.contains("a connection was revoked"));
    client.projects[0].databases[0].revoked.clear();
    let path = format!("/v1/projects/{}", client.projects[0].id);
    client.gone.push(Gone { path, strings: vec![string] });
    assert!(broken(&client).await.contains("was deleted and answers 200"));
    client.gone.clear();
    howdah.owner().create_project(&client.projects[0].name).await;
    assert!(broken(&client).await.contains("projects are"), "created twice");
}
