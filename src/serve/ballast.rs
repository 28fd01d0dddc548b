//! The ballast: a file of the data directory that holds nothing and takes the room of the reserve, so that it can be
//! given back when the disk is full.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use base::disk::{Disk, Level};

/// A file system in memory (`TMPFS_MAGIC`, statfs(2)).
const TMPFS: u64 = 0x0102_1994;

/// The file.
#[derive(Clone, Debug)]
pub(super) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub(super) fn of(directory: &Path) -> Self {
        Self { path: directory.join("ballast") }
    }

    /// How much room it takes.
    pub(super) fn bytes(&self) -> u64 {
        fs::symlink_metadata(&self.path).map_or(0, |facts| facts.blocks().saturating_mul(512))
    }

    /// Makes it take so much. In memory there is none, since it would take memory.
    ///
    /// # Errors
    /// When there is no room for it, or the file system cannot set room aside.
    pub(super) fn fill(&self, bytes: u64) -> io::Result<()> {
        let parent = self.path.parent().unwrap_or(&self.path);
        let kind = u64::try_from(rustix::fs::statfs(parent)?.f_type).unwrap_or_default();
        if kind == TMPFS || bytes == 0 {
            return self.shrink(0);
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&self.path)?;
        let filled = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes);
        if filled.is_err() {
            let _ = self.shrink(0);
        }
        Ok(filled?)
    }

    /// Gives room back until it takes so much. Needs no room itself.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn shrink(&self, bytes: u64) -> io::Result<()> {
        match bytes {
            0 => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            _ if bytes >= self.bytes() => Ok(()),
            _ => {
                let file = OpenOptions::new().write(true).open(&self.path)?;
                file.set_len(bytes)
            }
        }
        .and_then(|()| File::open(self.path.parent().unwrap_or(&self.path))?.sync_all())
    }

    /// Gives half of it back when the disk is so full that a start might fail. Says whether it did.
    pub(super) fn give_back_to_start(&self, disk: &Disk) -> bool {
        let exhausted = disk.look().is_ok_and(|look| look.level_of_bytes() == Level::Exhausted);
        let there = self.bytes();
        exhausted && there > 0 && self.give_back(there / 2, "so that Howdah can start")
    }

    /// Gives back all but so much. Says whether that worked.
    pub(super) fn give_back(&self, rest: u64, why: &str) -> bool {
        let mebibytes = self.bytes().saturating_sub(rest) >> 20;
        match self.shrink(rest) {
            Ok(()) => {
                tracing::warn!(mebibytes, "the disk is full: released {mebibytes} MiB of the reserve {why}");
                true
            }
            Err(error) => {
                tracing::error!(%error, "the disk is full, and the reserve in {} could not be released", self.path.display());
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_takes_room_and_gives_it_back() {
        // The build's own directory is on a disk; /tmp may be in memory.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let ballast = Ballast::of(directory.path());
        assert_eq!(ballast.bytes(), 0);
        ballast.shrink(0).unwrap();
        ballast.fill(4 << 20).unwrap();
        assert!(ballast.bytes() >= 4 << 20, "{}", ballast.bytes());
        assert!(ballast.give_back(1 << 20, "for a test"));
        assert!((1 << 20..2 << 20).contains(&ballast.bytes()), "{}", ballast.bytes());
        ballast.fill(2 << 20).unwrap();
        assert!(ballast.bytes() >= 2 << 20);
        ballast.shrink(0).unwrap();
        assert!(!directory.path().join("ballast").exists());
    }

    #[test]
    fn there_is_no_ballast_in_memory() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let ballast = Ballast::of(directory.path());
        ballast.fill(4 << 20).unwrap();
        assert_eq!(ballast.bytes(), 0);
    }
}
