//! How much room a disk has left, and how tight that is.
//!
//! All limits are multiples of one number, the *reserve*: what Howdah needs to go on and to let owners delete. So much
//! is also kept aside in a file of the data directory.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const MEBIBYTE: u64 = 1 << 20;
/// The reserve is this part of the disk, within the bounds.
const PART_OF_DISK: u64 = 64;
const LEAST_BYTES: u64 = 64 * MEBIBYTE;
const MOST_BYTES: u64 = 512 * MEBIBYTE;
/// An instance has about 1,300 files.
const LEAST_FILES: u64 = 1024;
const MOST_FILES: u64 = 16_384;
/// Of a very small disk it is no more than this part, whatever the least is.
const MOST_OF_SMALL_DISK: u64 = 16;

/// How tight it is. A later level is a tighter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing to do.
    Plenty,
    /// The operator is told.
    Low,
    /// No new instance is made.
    Scarce,
    /// Instances that grow fast are stopped.
    Critical,
    /// Every instance that grows is stopped, and the reserve is given back where it is needed.
    Exhausted,
}

impl Level {
    /// Below how many halves of the reserve each level begins, the tightest first.
    const HALVES: [(u64, Self); 4] = [(1, Self::Exhausted), (4, Self::Critical), (8, Self::Scarce), (12, Self::Low)];

    /// The level of so much room.
    pub fn of(free: u64, reserve: u64) -> Self {
        let found = Self::HALVES.into_iter().find(|(halves, _)| free < (reserve / 2).saturating_mul(*halves));
        found.map_or(Self::Plenty, |(_, level)| level)
    }
}

/// So much of so much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// What is there, used or not. Zero: the file system does not say, and it is not looked at.
    pub total: u64,
    /// What others than root can still use.
    pub free: u64,
}

impl Amount {
    fn reserve(self, (least, most): (u64, u64)) -> u64 {
        (self.total / PART_OF_DISK).clamp(least, most).min(self.total / MOST_OF_SMALL_DISK)
    }
}

/// What a look at a disk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Bytes.
    pub bytes: Amount,
    /// Files and directories (inodes).
    pub files: Amount,
    /// How many bytes are the reserve.
    pub reserve: u64,
}

impl Look {
    /// The same after so many more bytes were written.
    #[must_use]
    pub fn after_writing(mut self, bytes: u64) -> Self {
        self.bytes.free = self.bytes.free.saturating_sub(bytes);
        self
    }

    /// How tight it is, by bytes or by files, whichever is tighter.
    pub fn level(&self) -> Level {
        self.level_of_bytes().max(self.level_of_files())
    }

    /// How tight it is by bytes.
    pub fn level_of_bytes(&self) -> Level {
        Level::of(self.bytes.free, self.reserve)
    }

    /// How tight it is by files.
    pub fn level_of_files(&self) -> Level {
        Level::of(self.files.free, self.files.reserve((LEAST_FILES, MOST_FILES)))
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level_of_files() > self.level_of_bytes() {
            true => write!(f, "{} of {} inodes are free", self.files.free, self.files.total),
            false => write!(f, "{} of {} MiB are free", self.bytes.free / MEBIBYTE, self.bytes.total / MEBIBYTE),
        }
    }
}

/// One disk that Howdah writes to.
#[derive(Debug)]
pub struct Disk {
    name: &'static str,
    directory: PathBuf,
    reserve: Option<u64>,
    last: Mutex<Option<Look>>,
}

impl Disk {
    /// The one that a directory is on. `reserve`: what the operator chose.
    pub fn of(name: &'static str, directory: &Path, reserve: Option<u64>) -> Self {
        Self { name, directory: directory.to_owned(), reserve, last: Mutex::default() }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Looks at it now. The file system may take its time.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn look(&self) -> io::Result<Look> {
        let facts = rustix::fs::statvfs(&self.directory)?;
        let bytes = Amount {
            total: facts.f_blocks.saturating_mul(facts.f_frsize),
            free: facts.f_bavail.saturating_mul(facts.f_frsize),
        };
        let files = Amount { total: facts.f_files, free: facts.f_favail };
        let reserve = self.reserve.unwrap_or_else(|| bytes.reserve((LEAST_BYTES, MOST_BYTES)));
        let look = Look { bytes, files, reserve };
        *self.last_mut() = Some(look);
        Ok(look)
    }

    /// What the last look found.
    pub fn last(&self) -> Option<Look> {
        *self.last_mut()
    }

    /// How tight it was at the last look.
    pub fn level(&self) -> Level {
        self.last().map_or(Level::Plenty, |look| look.level())
    }

    /// What an operator has to know about it, if anything.
    pub fn notice(&self) -> Option<String> {
        let look = self.last().filter(|look| look.level() > Level::Plenty)?;
        Some(format!("the disk of the {} is getting full: {look}", self.name))
    }

    fn last_mut(&self) -> MutexGuard<'_, Option<Look>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(total_mebibytes: u64, free_mebibytes: u64, files: Amount) -> Look {
        let bytes = Amount { total: total_mebibytes * MEBIBYTE, free: free_mebibytes * MEBIBYTE };
        Look { bytes, files, reserve: bytes.reserve((LEAST_BYTES, MOST_BYTES)) }
    }

    #[test]
    fn levels_follow_the_size_of_the_disk_within_bounds() {
        let files = Amount::default();
        let levels = |total, free: [u64; 5]| free.map(|free| look(total, free, files).level());
        let all = [Level::Plenty, Level::Low, Level::Scarce, Level::Critical, Level::Exhausted];
        // The reserve: 64 MiB of 2 GiB, 1 GiB / 16 of 1 GiB, 256 MiB of 16 GiB, 512 MiB of 1 TiB, 20 MiB of 320 MiB.
        assert_eq!(levels(2048, [384, 383, 255, 127, 31]), all);
        assert_eq!(levels(1024, [384, 383, 255, 127, 31]), all);
        assert_eq!(levels(16 << 10, [1536, 1535, 1023, 511, 127]), all);
        assert_eq!(levels(1 << 20, [3072, 3071, 2047, 1023, 255]), all);
        assert_eq!(levels(320, [120, 119, 79, 39, 9]), all);
        assert_eq!(levels(0, [0; 5]), [Level::Plenty; 5], "a file system that does not say");
    }

    #[test]
    fn inodes_count_where_the_file_system_has_a_number_of_them() {
        let with_files = |total, free| look(2048, 1024, Amount { total, free });
        assert_eq!(with_files(0, 0).level(), Level::Plenty);
        assert_eq!(with_files(131_072, 100_000).level(), Level::Plenty);
        assert_eq!(with_files(131_072, 4000).level(), Level::Critical);
        assert_eq!(with_files(131_072, 4000).to_string(), "4000 of 131072 inodes are free");
        assert_eq!(with_files(131_072, 0).level(), Level::Exhausted);
        assert_eq!(look(2048, 100, Amount::default()).to_string(), "100 of 2048 MiB are free");
    }

    #[test]
    fn reserve_of_the_operator_counts_and_zero_turns_levels_by_bytes_off() {
        let directory = tempfile::tempdir().unwrap();
        let level = |reserve| {
            let disk = Disk::of("data directory", directory.path(), reserve);
            assert!(disk.notice().is_none(), "nobody has looked");
            disk.look().unwrap();
            (disk.level(), disk.notice().is_some())
        };
        assert_eq!(level(Some(u64::MAX)), (Level::Exhausted, true));
        assert_eq!(Level::of(0, 0), Level::Plenty);
    }
}
