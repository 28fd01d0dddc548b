//! Limits of sign-in attempts, counted in the metadata store across all processes.

use std::net::IpAddr;

use auth::Origin;
use auth::attempts::{self, Proof};
use base::clock::Clock;
use base::store::Store;
use futures_util::future::join_all;
use totp_rs::Builder;

use crate::browser::{Browser, PASSWORD, Page};
use crate::harness::Howdah;

const ADA: &str = "ada@example.com";

fn from(address: &str) -> Origin {
    Origin { address: Some(address.parse::<IpAddr>().unwrap()), request_id: String::new() }
}

/// Whether an attempt was left.
async fn take(store: &Store, proof: Proof, account: &str, address: &str) -> bool {
    let tx = store.begin().await.unwrap();
    let taken = attempts::take(&tx, proof, account, &from(address)).await.unwrap();
    if taken.is_ok() {
        tx.commit().await.unwrap();
    }
    taken.is_ok()
}

/// Simulates that this much time has passed.
async fn pass(store: &Store, seconds: i32) {
    let session = store.session().await.unwrap();
    for update in [
        "UPDATE sign_in_attempts SET full_at = full_at - make_interval(secs => $1::int)",
        "UPDATE sign_in_places SET expires_at = expires_at - make_interval(secs => $1::int)",
    ] {
        session.execute(update, &[&seconds]).await.unwrap();
    }
}

/// One attempt from this address, in a new browser.
async fn attempt(howdah: &Howdah, email: &str, password: &str, address: &str) -> Page {
    let mut browser = Browser::new(howdah);
    browser.get("/console/sign-in").await;
    let form = [("email", email), ("password", password)];
    let request = browser.post("/console/sign-in", &browser.filled(&form)).header("x-forwarded-for", address);
    browser.send(request).await
}

#[tokio::test]
async fn sign_in_attempts_are_counted_across_processes_and_restarts() {
    let mut howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    ada.get("/console/account").await;
    let ((one, tasks), (other, more_tasks)) = (howdah.store(), howdah.store());

    // Concurrent attempts in two processes share one limit, however the address is written.
    let many = (0..40).map(|count| {
        let store = if count % 2 == 0 { &one } else { &other };
        take(store, Proof::Password, if count % 3 == 0 { " ADA@Example.com " } else { ADA }, "127.0.0.1")
    });
    assert_eq!(join_all(many).await.into_iter().filter(|taken| *taken).count(), 10);
    for round in ["in a third process", "after it was killed"] {
        let page = attempt(&howdah, ADA, PASSWORD, "").await;
        page.assert_says(429, "Too many attempts");
        let seconds: u64 = page.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=30).contains(&seconds), "{round}: {seconds}");
        let current = [("current", PASSWORD)];
        let page = ada.submit("/console/account/authenticator", &current).await;
        page.assert_says(422, "Too many attempts");
        if round == "in a third process" {
            howdah.kill();
            howdah.launch().await;
            ada.moved(&howdah);
        }
    }

    // Half a minute later one attempt is left. A correct password does not use it up, a wrong one does.
    pass(&one, 30).await;
    for _ in 0..3 {
        assert_eq!(attempt(&howdah, ADA, PASSWORD, "").await.location(), "/console");
    }
    attempt(&howdah, ADA, "wrong wrong wrong", "").await.assert_says(422, "Wrong email address");
    attempt(&howdah, ADA, PASSWORD, "").await.assert_says(429, "Too many attempts");

    // The same through pages, concurrently, for an account that does not exist.
    let many = (0..20).map(|_| attempt(&howdah, "nobody@example.com", "wrong wrong wrong", ""));
    let mut found: Vec<u16> = join_all(many).await.iter().map(|page| page.status).collect();
    found.sort_unstable();
    assert_eq!(found, [[422; 10], [429; 10]].concat());

    // Expired counters are removed.
    let session = one.session().await.unwrap();
    let rows = "SELECT (SELECT count(*) FROM sign_in_attempts), (SELECT count(*) FROM sign_in_places)";
    let count = async || {
        attempts::forget_expired(&session).await.unwrap();
        let row = session.query_one(rows, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let (counters, places) = count().await;
    assert!(counters > 0 && places == 1, "{counters} {places}");
    pass(&one, 30 * 86_400 + 1).await;
    assert_eq!(count().await, (0, 0));
    tasks.stop();
    more_tasks.stop();
}

#[tokio::test]
async fn known_addresses_can_sign_in_during_an_attack() {
    let howdah = Howdah::start_with(&["--trusted-proxy", "127.0.0.1"]).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    drop(ada.invite(&howdah, &workspace, "bea", "developer").await);
    let (store, tasks) = howdah.store();
    let (home, elsewhere) = ("198.51.100.7", "203.0.113.9");
    assert_eq!(attempt(&howdah, ADA, PASSWORD, home).await.location(), "/console");

    // An attacker with many addresses attacks three accounts.
    for account in [ADA, "bea@example.com", "nobody@example.com"] {
        let mut taken = 0;
        for address in 0..250 {
            taken += u32::from(take(&store, Proof::Password, account, &format!("192.0.2.{address}")).await);
        }
        assert!((100..=110).contains(&taken), "{taken}");
    }
    // From unknown addresses, existing and unknown accounts are blocked alike.
    for account in [ADA, "bea@example.com", "nobody@example.com"] {
        attempt(&howdah, account, PASSWORD, elsewhere).await.assert_says(429, "Too many attempts");
    }
    // The owner can sign in from a known address, but a wrong password still fails there.
    for _ in 0..10 {
        attempt(&howdah, ADA, "wrong wrong wrong", home).await.assert_says(422, "Wrong email address");
    }
    attempt(&howdah, ADA, PASSWORD, home).await.assert_says(429, "Too many attempts");
    pass(&store, 30).await;
    assert_eq!(attempt(&howdah, ADA, PASSWORD, home).await.location(), "/console");

    // An account without a known address can use a reset link of an administrator.
    for address in 0..250 {
        take(&store, Proof::Password, "bea@example.com", &format!("192.0.2.{address}")).await;
    }
    attempt(&howdah, "bea@example.com", PASSWORD, elsewhere).await.assert_says(429, "Too many attempts");
    let page = ada.get("/console/people").await;
    let bea = page.text.rsplit_once("href=\"/console/people/").unwrap().1.split_once('"').unwrap().0.to_owned();
    ada.get(&format!("/console/people/{bea}")).await;
    let page = ada.submit(&format!("/console/people/{bea}/reset"), &[]).await;
    let link = format!("/console/reset/{}", page.between("/console/reset/", "<"));
    let mut browser = Browser::new(&howdah);
    browser.get(&link).await;
    let password = "lantern-gravel-octave-52";
    let form = [("password", password), ("again", password)];
    let request = browser.post(&link, &browser.filled(&form)).header("x-forwarded-for", elsewhere);
    assert_eq!(browser.send(request).await.location(), "/console/sign-in");
    assert_eq!(attempt(&howdah, "bea@example.com", password, elsewhere).await.location(), "/console");

    // One address that tries many accounts is blocked for all accounts.
    let mut taken = 0;
    for account in 0..130 {
        taken += u32::from(take(&store, Proof::Password, &format!("{account}@example.com"), "192.0.2.251").await);
    }
    assert!((100..=102).contains(&taken), "{taken}");
    // So is an IPv6 network, since its addresses cost nothing.
    let many = (0..30).map(|count| format!("2001:db8::{count:x}"));
    let mut taken = 0;
    for address in many {
        taken += u32::from(take(&store, Proof::Password, "carl@example.com", &address).await);
    }
    assert_eq!(taken, 10);
    tasks.stop();
}

#[tokio::test]
async fn code_attempts_are_limited_more_than_passwords() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    ada.get("/console/account").await;
    let page = ada.submit("/console/account/authenticator", &[("current", PASSWORD)]).await;
    let secret = page.between("aria-label=\"Key for the authenticator app\">", "<").replace(' ', "");
    let secret = totp_rs::Secret::try_from_base32(&secret).unwrap();
    let totp = Builder::new().with_secret(secret).build().unwrap();
    let code = |steps: i64| totp.generate((Clock::system().now().as_second() + 30 * steps) as u64).to_string();
    ada.submit("/console/account/authenticator/confirm", &[("code", &code(-1))]).await.assert_says(200, "Recovery");
    let (store, tasks) = howdah.store();

    // 20 attempts from all addresses together. Passwords have a limit of their own.
    let many = (0..60).map(|address| {
        let store = &store;
        async move { take(store, Proof::Code, ADA, &format!("192.0.2.{address}")).await }
    });
    assert_eq!(join_all(many).await.into_iter().filter(|taken| *taken).count(), 20);
    assert!(take(&store, Proof::Password, ADA, "192.0.2.1").await);

    // Per ticket, too: a correct password allows ten codes at most.
    let mut browser = Browser::new(&howdah);
    let page = browser.sign_in(ADA).await;
    let ticket = page.between("name=\"ticket\" value=\"", "\"");
    for _ in 0..10 {
        let form = [("ticket", ticket.as_str()), ("code", "000000")];
        browser.submit("/console/sign-in/code", &form).await.assert_says(422, "Wrong or already used code.");
    }
    let (now, next) = (code(0), code(1));
    let right = [("ticket", ticket.as_str()), ("code", now.as_str())];
    browser.submit("/console/sign-in/code", &right).await.assert_says(429, "Too many attempts");
    pass(&store, 30).await;
    let page = browser.submit("/console/sign-in/code", &right).await;
    // The 30 seconds of the code may have passed meanwhile.
    let page = match page.status {
        422 => {
            pass(&store, 30).await;
            browser.submit("/console/sign-in/code", &[("ticket", ticket.as_str()), ("code", next.as_str())]).await
        }
        _ => page,
    };
    assert_eq!(page.location(), "/console");
    tasks.stop();
}
