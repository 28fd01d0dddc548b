//! Files in an instance's data directory that PostgreSQL did not make.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid, fchown, mkdirat, mknodat, open, openat};
use serde_json::json;

use crate::backups::Kept;
use crate::harness::{Howdah, eventually};

/// The data directory of the only tenant's instance that runs.
fn data_directory(howdah: &Howdah) -> PathBuf {
    let servers = howdah.directory().servers();
    let instances = howdah.directory().path().join("instances");
    servers.into_iter().map(|(_, data)| data).find(|data| data.starts_with(&instances)).unwrap()
}

/// Nests so many directories in `at`, which belong to whom `at` belongs to.
fn nest_directories(at: &Path, levels: usize) {
    let facts = std::fs::metadata(at).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory: OwnedFd = open(at, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&directory, c"d", Mode::RWXU).unwrap();
        directory = openat(&directory, c"d", flags, Mode::empty()).unwrap();
        fchown(&directory, Some(Uid::from_raw(facts.uid())), Some(Gid::from_raw(facts.gid()))).unwrap();
    }
}

#[tokio::test]
async fn deep_directories_fail_backups_with_the_true_reason_and_hold_up_no_delete_or_start() {
    let mut howdah = Howdah::start_with(&["--undelete", "1h"]).await;
    howdah.expect_errors(&["workflow failed"]);
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    let data = data_directory(&howdah);
    nest_directories(&data.join("base"), 20_000);

    let begun = kept.owner.post(&format!("{}/backups", kept.path()), json!({})).await;
    let ended = kept.owner.ended(begun.headers["howdah-operation"].to_str().unwrap()).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    let reason = ended["reason"].as_str().unwrap();
    assert!(reason.contains("directories nested more than 32 levels deep"), "{reason}");

    // A server that is not found by its lock file, and a delete that was begun before a kill.
    if rustix::process::geteuid().is_root() {
        std::fs::remove_file(data.join("postmaster.pid")).unwrap();
        mknodat(CWD, data.join("postmaster.pid"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    }
    howdah.kill();
    nest_directories(&howdah.directory().path().join("trash"), 20_000);
    howdah.launch().await;
    let owner = kept.owner.on(&howdah);
    assert_eq!(owner.delete(&format!("/v1/projects/{}", kept.project)).await.status, 204);
    eventually("the deleted database's files to be removed", async || (!data.exists()).then_some(())).await;
    assert!(howdah.directory().servers().iter().all(|(_, server)| *server != data), "its server runs on");
    eventually("the trash to be empty", async || {
        std::fs::read_dir(howdah.directory().path().join("trash")).unwrap().next().is_none().then_some(())
    })
    .await;
}
