//! Starting where it cannot work: one clear line, exit code 1, nothing half made.

use std::path::Path;

use crate::harness::{Directory, Howdah, binary};

/// Starts Howdah, which must refuse; answers the one line that it says.
fn refusal(directory: &Path, arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let output = Howdah::command(directory, &arguments).output().unwrap();
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

#[test]
fn a_busy_port_is_named_with_the_cure_and_nothing_is_made() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--http", "--gateway"] {
        let directory = Directory::new();
        let text = refusal(directory.path(), &[flag, &address]);
        assert!(text.contains(&address) && text.contains(flag), "{text}");
        assert!(!directory.path().exists());
    }
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
fn an_external_metadata_store_that_does_not_answer_is_a_sentence() {
    let directory = Directory::new();
    let text = refusal(directory.path(), &["--metadata-url", "postgres://nobody:secret@127.0.0.1:1/none"]);
    assert!(text.contains("metadata store") && !text.contains("secret"), "{text}");
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
    for arguments in [&["--help"][..], &["serve", "--help"], &["migrate", "--help"], &["openapi", "--help"]] {
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
    rustix::process::kill_process(rustix::process::Pid::from_raw(init).unwrap(), rustix::process::Signal::TERM).unwrap();
    let status = crate::harness::eventually("it to stop", async || child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    assert!(directory.servers().is_empty());
}
