//! Starting where it cannot work: one clear line, exit code 1, nothing half made.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Directory, Howdah, binary, eventually};

/// Starts Howdah, which must refuse; answers the one line that it says.
fn refusal(directory: &Path, arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let output = Howdah::command(directory, &arguments).env("RUST_LOG", "error").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("howdah: "), "{text}");
    text
}

#[tokio::test]
async fn a_second_howdah_on_the_same_directory_is_refused() {
    let howdah = Howdah::start().await;
    let text = refusal(howdah.directory().path(), &[]);
    assert!(text.contains("another Howdah is using"), "{text}");
    assert_eq!(howdah.owner().get("/v1/projects").await.status, 200, "the first one goes on");
}

#[tokio::test]
async fn the_banner_names_the_public_addresses_and_plain_http_is_warned_of() {
    let public = ["--public-url", "http://howdah.lan:8080/", "--public-gateway", "db.howdah.lan:5432"];
    let howdah = Howdah::start_with(&public).await;
    let log =
        eventually("the banner", async || Some(howdah.log()).filter(|log| log.contains("/console/set-up/"))).await;
    for line in [
        "  API       http://howdah.lan:8080\n",
        "  Gateway   db.howdah.lan:5432\n",
        "  curl -X POST http://howdah.lan:8080/v1/projects \\\n",
        "  http://howdah.lan:8080/console/set-up/",
    ] {
        assert!(log.contains(line), "{line:?} in {log}");
    }
    let warned = |log: &str| log.contains("are served over plain HTTP");
    assert!(warned(&log), "{log}");
    for quiet in [&["--public-url", "https://howdah.example"][..], &[]] {
        assert!(!warned(&Howdah::start_with(quiet).await.log()), "{quiet:?}");
    }
}

#[test]
fn invalid_public_url_is_rejected() {
    for wrong in ["howdah.lan:8080", "ftp://howdah.lan", "http://", "https://howdah.lan/?a=b"] {
        let output = binary().args(["serve", "--public-url", wrong]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(&format!("{wrong:?} is not a URL such as https://howdah.example.com")), "{text}");
    }
}

#[test]
fn start_on_a_busy_port_fails_and_creates_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--http", "--gateway"] {
        let directory = Directory::new();
        let text = refusal(directory.path(), &[flag, &address]);
        assert!(text.contains(&address) && text.contains(flag), "{text}");
        assert!(!directory.path().exists());

        std::fs::create_dir(directory.path()).unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o751)).unwrap();
        refusal(directory.path(), &[flag, &address]);
        assert_untouched(directory.path(), &[]);
    }
}

/// The directory has these entries and the mode 0751.
fn assert_untouched(directory: &Path, entries: &[&str]) {
    let found: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(found, entries);
    assert_eq!(std::fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o751);
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let directory = Directory::new();
    std::fs::create_dir(directory.path()).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o751)).unwrap();
    std::fs::write(directory.path().join("holiday.jpg"), "").unwrap();
    let text = refusal(directory.path(), &[]);
    assert!(text.contains("holiday.jpg") && text.contains("--data-dir"), "{text}");
    assert_untouched(directory.path(), &["holiday.jpg"]);
}

#[tokio::test]
async fn a_start_that_is_interrupted_leaves_no_server() {
    let directory = Directory::new();
    let mut command = Howdah::command(directory.path(), &[]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the metadata instance", async || (!directory.servers().is_empty()).then_some(())).await;
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    eventually("Howdah to stop", async || child.try_wait().unwrap()).await;
    assert!(directory.servers().is_empty(), "{:?}", directory.servers());
}

#[tokio::test]
async fn it_goes_on_when_nobody_reads_what_it_prints() {
    let directory = Directory::new();
    let mut command = Howdah::command(directory.path(), &[]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let addresses = directory.path().join("run/addresses.json");
    eventually("Howdah to be ready", async || {
        assert_eq!(child.try_wait().unwrap(), None, "it should not end");
        addresses.exists().then_some(())
    })
    .await;
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(eventually("Howdah to stop", async || child.try_wait().unwrap()).await.success());
    assert!(directory.servers().is_empty(), "{:?}", directory.servers());
}

#[test]
fn unusable_directories_are_refused_with_a_sentence() {
    if rustix::process::geteuid().is_root() {
        let text = refusal(Path::new("/root/howdah-test"), &[]);
        assert!(text.contains("/root") && text.contains("--data-dir"), "{text}");
        assert!(!Path::new("/root/howdah-test").exists());
    }
    let text = refusal(Path::new("/proc/howdah"), &[]);
    assert!(text.contains("--data-dir"), "{text}");
    let directory = Directory::new();
    let text = refusal(&directory.path().join("x".repeat(80)), &[]);
    assert!(text.contains("too long"), "{text}");
    assert!(!directory.path().exists());
}

#[test]
fn a_missing_postgresql_is_named_with_the_cure() {
    let directory = Directory::new();
    let text = refusal(directory.path(), &["--postgres-bin", "/usr/share"]);
    assert!(text.contains("install"), "{text}");
    assert!(!directory.path().exists());
}

#[test]
fn start_names_an_unreachable_metadata_store() {
    let directory = Directory::new();
    let text = refusal(directory.path(), &["--metadata-url", "postgres://nobody:secret@127.0.0.1:1/none"]);
    assert!(text.contains("metadata store") && !text.contains("secret"), "{text}");
    assert!(!directory.path().exists());
}

#[tokio::test]
async fn the_first_start_prints_how_to_go_on_and_later_ones_the_addresses() {
    let mut howdah = Howdah::start().await;
    let log = howdah.log();
    assert!(log.contains("curl -X POST") && log.contains("initial-token") && log.contains("Gateway"), "{log}");
    let token = howdah.directory().path().join("initial-token");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&token).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let bare = std::fs::read_to_string(&token).unwrap();
    assert_eq!(bare.trim_end_matches('\n').len() + 1, bare.len(), "the bare token and a newline");
    assert!(!log.contains(bare.trim()), "the token itself is not printed");
    howdah.stop().await;
    howdah.launch().await;
    let later = &howdah.log()[log.len()..];
    assert!(later.contains("API") && !later.contains("curl"), "{later}");
}

#[tokio::test]
async fn migrate_prepares_the_store_and_can_be_repeated() {
    let directory = Directory::new();
    let migrate = || {
        let output = binary().arg("migrate").arg("--data-dir").arg(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(migrate().contains("main_job"));
    assert!(migrate().contains("up to date"));
    assert!(directory.servers().is_empty(), "nothing is left running");
}

#[test]
fn help_reads_well_for_every_subcommand() {
    for arguments in
        [&["--help"][..], &["serve", "--help"], &["recover", "--help"], &["migrate", "--help"], &["openapi", "--help"]]
    {
        let output = binary().args(arguments).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("Usage: howdah"));
    }
    assert_eq!(binary().arg("--version").output().unwrap().stdout, b"howdah 0.1.0\n");
}

#[tokio::test]
async fn as_process_1_it_reaps_and_passes_signals_on() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = Directory::new();
    std::fs::create_dir_all(directory.path()).unwrap();
    let binary = env!("CARGO_BIN_EXE_howdah");
    let mut child = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", binary, "serve", "--stock", "1"])
        .args(["--http", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let addresses = directory.path().join("run/addresses.json");
    crate::harness::eventually("Howdah to be ready as process 1", async || addresses.exists().then_some(())).await;
    // The direct child of unshare is process 1 of the new namespace.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let init: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(init).unwrap(), rustix::process::Signal::TERM)
        .unwrap();
    let status = crate::harness::eventually("it to stop", async || child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    assert!(directory.servers().is_empty());
}

#[tokio::test]
async fn an_external_metadata_store_serves_and_is_not_mixed_up() {
    let elsewhere = Directory::new();
    let external = elsewhere.metadata_instance().await;
    external.ensure_started().await.unwrap();
    let socket = elsewhere.path().join("metadata/socket");
    let url = format!("postgres://howdah@/howdah?host={}", socket.display());
    {
        let mut howdah = Howdah::start_with(&["--metadata-url", &url]).await;
        let project = howdah.owner().create_project("external").await;
        let connection = crate::harness::connection_string(&project);
        assert_eq!(crate::harness::ask(&connection, "SELECT 1"), "1");
        assert!(!howdah.directory().path().join("metadata").exists(), "no private instance is made");
        howdah.stop().await;
        // Neither a new directory on this store nor this directory on a new store is taken.
        let other = Directory::new();
        let text = refusal(other.path(), &["--metadata-url", &url]);
        assert!(text.contains("belongs to the installation"), "{text}");
        let text = refusal(howdah.directory().path(), &[]);
        assert!(text.contains("the metadata store is empty"), "{text}");
        howdah.launch().await;
        assert_eq!(howdah.owner().get("/v1/projects").await.data(200)[0]["name"], "external");
    }
    external.ensure_stopped().await.unwrap();
}
