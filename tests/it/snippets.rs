//! What the console says how a connection string is used: each text as its page shows it, run as who
//! copies it would run it.
//!
//! Prisma, Go and Rust are not run here: a client that is a third of a gigabyte, modules that come from
//! elsewhere, and a minute of compiling.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::browser::{Browser, Page};
use crate::console_resources::secret;
use crate::harness::{Howdah, postgres_program};

/// The text of a snippet.
fn snippet(page: &Page, name: &str) -> String {
    let text = page.between(&format!("aria-label=\"{name}\">"), "</pre>");
    let marks = [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")];
    marks.iter().fold(text, |text, (escaped, mark)| text.replace(escaped, mark))
}

/// What a program says, that is started by a shell with what the file `.env` says in its environment.
async fn run(directory: &Path, command: &str, input: &str) -> (bool, String) {
    let path = std::env::var("PATH").unwrap();
    let programs = postgres_program("psql").parent().unwrap().display().to_string();
    let mut child = Command::new("sh")
        .args(["-ec", &format!("set -a; . ./.env; set +a\n{command}")])
        .current_dir(directory)
        .env("PATH", format!("{programs}:{path}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// Runs what the page says; answers it with the directory that it was run in.
async fn check(howdah: &Howdah, sslmode: &str) -> (Page, tempfile::TempDir) {
    let mut ada = Browser::administrator(howdah).await;
    let workspace = ada.workspace().await;
    ada.get(&format!("{workspace}/projects/new")).await;
    let new = [("name", "Shop"), ("region", "us-east-1"), ("database", "on")];
    let page = ada.submit(&format!("{workspace}/projects"), &new).await;
    assert!(secret(&page).ends_with(&format!("?sslmode={sslmode}")));
    let database = ada.get(&page.between("class=\"button primary\" href=\"", "\"")).await;
    for page in [&page, &database] {
        assert!(page.text.contains("In SQL, every connection is the role <code>tenant</code>"), "{}", page.text);
        let offered = page.text.contains("<a href=\"/v1/ca.pem\" download=\"howdah-ca.pem\">");
        assert_eq!(offered, sslmode == "require", "{}", page.text);
    }

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(".env", &snippet(&page, ".env"));
    write("shop.mjs", &snippet(&page, "Node"));
    write("shop.py", &snippet(&page, "Python"));
    std::os::unix::fs::symlink(root.join("tests/sdk/node_modules"), directory.path().join("node_modules")).unwrap();
    let python = root.join("target/snippets/bin/python");
    assert!(python.exists(), "{} is missing; script/bootstrap --test makes it", python.display());

    let psql = snippet(&page, "psql");
    let (ended_well, text) = run(directory.path(), &psql, "\\pset format unaligned\nSELECT 41 + 1, 'orders';\n").await;
    assert!(ended_well && text.contains("42|orders"), "{psql}: {text}");
    let (ended_well, text) = run(directory.path(), "node shop.mjs", "").await;
    assert!(ended_well && text.starts_with("{ now: 2"), "Node, {sslmode}: {text}");
    assert!(!text.contains("Warning"), "Node, {sslmode}: {text}");
    let (ended_well, text) = run(directory.path(), &format!("{} shop.py", python.display()), "").await;
    assert!(ended_well && text.starts_with("(datetime.datetime("), "Python, {sslmode}: {text}");
    (page, directory)
}

#[tokio::test]
async fn copied_snippets_work() {
    let howdah = Howdah::start().await;
    let (page, _) = check(&howdah, "disable").await;
    for name in ["Node", "Prisma Client"] {
        assert!(!snippet(&page, name).contains("uselibpqcompat"), "{name}");
    }
}

#[tokio::test]
async fn copied_snippets_work_with_a_self_signed_certificate() {
    // The address has to be known before the gateway listens on it, and must not look like this machine's
    // own, to which nothing is encrypted.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (gateway, public) = (format!("127.0.0.1:{port}"), format!("[::ffff:127.0.0.1]:{port}"));
    let howdah = Howdah::start_with(&["--gateway", &gateway, "--public-gateway", &public]).await;
    let (page, directory) = check(&howdah, "require").await;

    // It is encrypted: without what the text says about the certificate, that is refused.
    let strict = snippet(&page, "Node").replace("&uselibpqcompat=true", "");
    std::fs::write(directory.path().join("strict.mjs"), strict).unwrap();
    let (ended_well, text) = run(directory.path(), "node strict.mjs", "").await;
    assert!(!ended_well && text.contains("unable to verify the first certificate"), "{text}");
    let ca = howdah.anonymous().get("/v1/ca.pem").await.body;
    std::fs::write(directory.path().join("howdah-ca.pem"), ca.as_str().unwrap()).unwrap();
    let (ended_well, text) = run(directory.path(), "NODE_EXTRA_CA_CERTS=howdah-ca.pem node strict.mjs", "").await;
    assert!(ended_well && text.starts_with("{ now: 2"), "{text}");
}
