//! Copying an instance that sleeps, where the file system lets files share their blocks (`FICLONE`: XFS,
//! Btrfs and others). The copy is there at once, whatever its size, and takes room as the two come to differ.
//!
//! Howdah may be root here, and the files are of a user who may have put anything there: so they are reached
//! by handles, no link is followed, and only what is that user's own is copied. What the copy shares with its
//! origin is taken from it as it is after a restore.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::restore::{disinherit, hand_over, milliseconds_since};
use crate::EngineError;
use crate::backups::{BackupError, RestoreFacts};
use crate::local::configuration::Purpose;
use crate::local::control_file;
use crate::local::place::{GROUP_ACCESS, Manifest, Place, make_directory, sync_tree};
use crate::local::process::{ensure_vacant, living_processes_of};
use crate::local::start::{self, Private};
use crate::local::template::failed;
use crate::local::tree::{self, DIRECTORY};
use crate::local::{LocalEngine, blocking};
use base::id::InstanceId;

const DOING: &str = "copy the instance";

/// Directories whose content is the origin's alone: replication slots, what PostgreSQL has counted, and which
/// segments are archived.
const LEFT_OUT: [&str; 3] = ["pg_replslot", "pg_stat", "pg_wal/archive_status"];

impl LocalEngine {
    pub(super) async fn copy_sleeping(
        &self,
        target: InstanceId,
        source: InstanceId,
        asleep: Box<dyn Send>,
    ) -> Result<Option<RestoreFacts>, BackupError> {
        if let Some(facts) = self.brought_back(target)? {
            return Ok(Some(facts));
        }
        let (origin, sleeper) = match self.manifest(source) {
            Ok(manifest) => (self.place(source), manifest),
            Err(EngineError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.abandon_restore(target).await?;
        let begun = Instant::now();
        let (place, manifest) = self.make_room(target, sleeper.major(), 0).await?;
        let stop = CancellationToken::new();
        let _stop_with_this = stop.clone().drop_guard();
        let (here, uid) = (place.clone(), manifest.uid);
        let fill = move || {
            let _asleep = asleep;
            fill(&origin, &sleeper, &here, &stop)
        };
        let Some(bytes) = blocking(DOING, move || fill().map_err(failed(DOING))).await? else {
            self.abandon(&place).await?;
            return Ok(None);
        };
        let here = place.clone();
        let settle = move || {
            disinherit(&here)?;
            hand_over(&here.data(), uid)?;
            sync_tree(&here.data())
        };
        blocking(DOING, move || settle().map_err(failed(DOING))).await?;

        let access = self.machine.access.without_password();
        let server = start::ensure(&self.machine, &place, &manifest, Purpose::Private, &access, None).await?;
        let server = Private(server);
        let facts = self.take_over(target, &place, bytes).await?;
        start::stop(&place, &manifest, Some(server.0.clone())).await?;
        let facts = RestoreFacts { milliseconds: milliseconds_since(begun), ..facts };
        self.finish(target, &place, manifest, &facts).await?;
        tracing::info!(instance.id = %target, "copied the sleeping instance {source} to {target}");
        Ok(Some(facts))
    }
}

/// Fills a place with the files of an instance that sleeps: how many bytes they are. `None`: it does not
/// sleep, or the file system does not share blocks.
fn fill(origin: &Place, sleeper: &Manifest, place: &Place, stop: &CancellationToken) -> io::Result<Option<u64>> {
    let lives = sleeper.uid.is_some_and(|uid| living_processes_of(uid).next().is_some());
    if lives || ensure_vacant(origin, sleeper.uid).is_err() || !control_file::is_shut_down(&origin.read_control_file()?)
    {
        return Ok(None);
    }
    let from = rustix::fs::open(origin.data(), DIRECTORY, Mode::empty())?;
    match (Sharing { of: sleeper.uid, stop }).directory(&from, &place.data(), Path::new("")) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
        shared => shared.map(Some),
    }
}

/// A copy under way.
struct Sharing<'a> {
    /// Whose files are copied, where each instance has a user.
    of: Option<u32>,
    stop: &'a CancellationToken,
}

impl Sharing<'_> {
    /// Copies an open directory; `within` is its path in the data directory. How many bytes its files are.
    fn directory(&self, from: &OwnedFd, to: &Path, within: &Path) -> io::Result<u64> {
        let mut bytes = 0;
        tree::check_depth(within.components().count() + 1, tree::DEEPEST)?;
        make_directory(to, if self.of.is_some() { GROUP_ACCESS } else { 0o700 })?;
        let is_copied = !LEFT_OUT.iter().any(|path| Path::new(path) == within);
        for entry in Dir::read_from(from)?.filter(|_| is_copied) {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if self.stop.is_cancelled() {
                return Err(io::Error::other("the copy was cancelled"));
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let facts = rustix::fs::fstat(&source)?;
            if self.of.is_some_and(|owner| owner != facts.st_uid) {
                return Err(io::Error::other("it contains a file that its user does not own"));
            }
            let target = to.join(name);
            bytes += match FileType::from_raw_mode(facts.st_mode) {
                FileType::Directory => self.directory(&source, &target, &within.join(name))?,
                FileType::RegularFile => self.file(&source, &target)?,
                _ => return Err(io::Error::other("it contains something that is neither a file nor a directory")),
            };
        }
        Ok(bytes)
    }

    fn file(&self, from: &OwnedFd, to: &Path) -> io::Result<u64> {
        let mode = if self.of.is_some() { GROUP_ACCESS & 0o666 } else { 0o600 };
        let target = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
        match rustix::fs::ioctl_ficlone(target.as_fd(), from) {
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            shared => shared?,
        }
        target.set_permissions(Permissions::from_mode(mode))?;
        Ok(target.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What comes of copying a directory that this has filled.
    fn copied(of: Option<u32>, fill: impl FnOnce(&Path)) -> io::Result<u64> {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("base")).unwrap();
        fs::create_dir_all(from.join("pg_wal/archive_status")).unwrap();
        fs::create_dir_all(from.join("pg_replslot")).unwrap();
        fill(&from);
        let handle = rustix::fs::open(&from, DIRECTORY, Mode::empty()).unwrap();
        let stop = CancellationToken::new();
        Sharing { of, stop: &stop }.directory(&handle, &to, Path::new(""))
    }

    #[test]
    fn only_the_user_s_own_files_and_directories_are_copied() {
        let own = Some(rustix::process::geteuid().as_raw());
        assert_eq!(copied(own, |_| {}).unwrap(), 0);
        let hostile: [fn(&Path); 5] = [
            |from| symlink("/etc/passwd", from.join("base/1")).unwrap(),
            |from| symlink("/etc", from.join("base/5")).unwrap(),
            |from| symlink("/dev/zero", from.join("pg_wal/0")).unwrap(),
            |from| fs::create_dir_all(from.join("d/".repeat(tree::DEEPEST))).unwrap(),
            |from| {
                let status = std::process::Command::new("mkfifo").arg(from.join("base/pipe")).status();
                assert!(status.unwrap().success());
            },
        ];
        for fill in hostile {
            let error = copied(own, fill).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::Unsupported, "{error}");
        }
        let error = copied(own.map(|user| user + 1), |_| {}).unwrap_err();
        assert!(error.to_string().contains("its user does not own"), "{error}");
        // What belongs to the origin alone is not even looked at.
        let inside = |from: &Path| {
            symlink("/etc/passwd", from.join("pg_replslot/slot")).unwrap();
            symlink("/etc/passwd", from.join("pg_wal/archive_status/x.ready")).unwrap();
        };
        assert_eq!(copied(own, inside).unwrap(), 0);
    }
}
