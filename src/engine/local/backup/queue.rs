//! The WAL that waits to be archived: `pg_wal/archive_status` in the data directory.
//!
//! PostgreSQL marks a finished segment with a file `<segment>.ready`, keeps the segment as long as
//! that is there, and lets go of it when it is renamed to `<segment>.done`. It does so whether it
//! runs an archive command of its own or, as here, has none: then whoever archives the segment
//! renames the mark. So nothing has to be run by the server, and what waits is on the disk in one
//! place only, whatever is killed.
//!
//! The directory belongs to the instance's user, so everything here is done by handles that follow
//! no links, and what is read is copied before anybody is asked to look into it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Dir, Mode, OFlags};

use super::segment::Segment;
use crate::engine::local::place::Place;
use crate::engine::local::tree::DIRECTORY;

/// More marks than this are looked at another time.
const LONGEST: usize = 100_000;
/// No file of WAL is larger, in bytes.
const LARGEST: u64 = 64 << 20;

/// The queue of one instance.
pub(super) struct Queue {
    wal: OwnedFd,
    marks: OwnedFd,
}

/// A file of WAL, copied to where the backup user reads it.
pub(super) struct Taken {
    pub(super) path: PathBuf,
    /// When PostgreSQL was done with it.
    pub(super) finished_at: Option<Timestamp>,
}

impl Queue {
    pub(super) fn open(place: &Place) -> io::Result<Self> {
        let data = rustix::fs::open(place.data(), DIRECTORY, Mode::empty())?;
        let wal = rustix::fs::openat(&data, "pg_wal", DIRECTORY, Mode::empty())?;
        let marks = rustix::fs::openat(&wal, "archive_status", DIRECTORY, Mode::empty())?;
        Ok(Self { wal, marks })
    }

    /// What waits, in the order in which it is to be archived: histories of timelines first.
    pub(super) fn ready(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.marks)?.take(LONGEST) {
            let entry = entry?;
            let name = entry.file_name().to_str().ok().and_then(|name| name.strip_suffix(".ready"));
            names.extend(name.filter(|name| is_wal(name)).map(str::to_owned));
        }
        names.sort_by_key(|name| (!name.ends_with(".history"), name.clone()));
        Ok(names)
    }

    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(self.ready()?.is_empty())
    }

    /// Copies a file of WAL into this directory, for this user to read. `None`: it is gone.
    pub(super) fn take(&self, name: &str, into: &Path, reader: Option<u32>) -> io::Result<Option<Taken>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.wal, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            opened => File::from(opened?),
        };
        let facts = file.metadata()?;
        if !facts.is_file() || facts.len() > LARGEST {
            return Err(io::Error::other(format!("{name} in pg_wal is not a file of WAL")));
        }
        let path = into.join(name);
        let mut copy = File::create(&path)?;
        io::copy(&mut file.take(LARGEST), &mut copy)?;
        std::os::unix::fs::fchown(&copy, reader, reader)?;
        let mark = rustix::fs::statat(&self.marks, mark(name, "ready")?, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok();
        let finished_at =
            mark.and_then(|mark| Timestamp::new(mark.st_mtime, i32::try_from(mark.st_mtime_nsec).ok()?).ok());
        Ok(Some(Taken { path, finished_at }))
    }

    /// Lets PostgreSQL go on without it: it is archived, or not wanted.
    pub(super) fn done(&self, name: &str) -> io::Result<()> {
        match rustix::fs::renameat(&self.marks, mark(name, "ready")?, &self.marks, mark(name, "done")?) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            renamed => Ok(renamed?),
        }
    }

    /// Forgets a mark whose file is gone.
    pub(super) fn drop_mark(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.marks, mark(name, "ready")?, rustix::fs::AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// Lets PostgreSQL go on without all of it.
    pub(super) fn discard(&self) -> io::Result<()> {
        self.ready()?.iter().try_for_each(|name| self.done(name))
    }
}

fn mark(name: &str, state: &str) -> io::Result<CString> {
    Ok(CString::new(format!("{name}.{state}"))?)
}

/// Segments, histories of timelines, and the notes that PostgreSQL makes of backups.
fn is_wal(name: &str) -> bool {
    let hexadecimal = |text: &str| text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    match name.split_once('.') {
        None => Segment::parse(name).is_some(),
        Some((timeline, "history")) => hexadecimal(timeline),
        Some((segment, rest)) => {
            Segment::parse(segment).is_some()
                && (rest == "partial" || rest.strip_suffix(".backup").is_some_and(hexadecimal))
        }
    }
}

/// Reads a small file of the data directory that its user may have replaced by anything.
pub(super) fn read_control_file(place: &Place) -> io::Result<Vec<u8>> {
    let data = rustix::fs::open(place.data(), DIRECTORY, Mode::empty())?;
    let global = rustix::fs::openat(&data, "global", DIRECTORY, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&global, "pg_control", flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(64 << 10).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn instance() -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path().to_owned());
        fs::create_dir_all(place.data().join("pg_wal/archive_status")).unwrap();
        (directory, place)
    }

    #[test]
    fn only_wal_is_taken_and_in_order() {
        let (directory, place) = instance();
        let marks = place.data().join("pg_wal/archive_status");
        for name in [
            "000000020000000000000003.ready",
            "000000020000000000000002.ready",
            "000000020000000000000001.done",
            "000000020000000000000002.00000028.backup.ready",
            "00000002.history.ready",
            "../x.ready",
            "--repo1-path.ready",
        ] {
            let _ = fs::write(marks.join(name), "");
        }
        let queue = Queue::open(&place).unwrap();
        let ready = queue.ready().unwrap();
        let sorted = [
            "00000002.history",
            "000000020000000000000002",
            "000000020000000000000002.00000028.backup",
            "000000020000000000000003",
        ];
        assert_eq!(ready, sorted);

        fs::write(place.data().join("pg_wal").join(sorted[1]), "wal").unwrap();
        let taken = queue.take(sorted[1], directory.path(), None).unwrap().unwrap();
        assert_eq!(fs::read(&taken.path).unwrap(), b"wal");
        assert!(taken.finished_at.is_some());
        queue.done(sorted[1]).unwrap();
        queue.done(sorted[1]).unwrap();
        assert!(marks.join(format!("{}.done", sorted[1])).exists());
        assert!(queue.take(sorted[3], directory.path(), None).unwrap().is_none());
        queue.drop_mark(sorted[3]).unwrap();
        queue.discard().unwrap();
        assert!(queue.is_empty().unwrap());
    }

    #[test]
    fn links_are_not_followed() {
        let (directory, place) = instance();
        let secret = directory.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let wal = place.data().join("pg_wal");
        std::os::unix::fs::symlink(&secret, wal.join("00000002.history")).unwrap();
        let into = directory.path().join("into");
        fs::create_dir(&into).unwrap();
        assert!(Queue::open(&place).unwrap().take("00000002.history", &into, None).is_err());
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0);

        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&wal, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &wal).unwrap();
        assert!(Queue::open(&place).is_err());
    }
}
