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

use std::collections::BinaryHeap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::Dir;

use super::segment::Segment;
use crate::local::place::Place;
use crate::local::untrusted::Untrusted;

/// The most marks that are returned, the first in order. PostgreSQL's own come before false ones for later
/// segments, and false ones for earlier segments are removed when their files are missing.
const LONGEST: usize = 100_000;
/// The most entries of the directory, whatever their names.
const MOST_ENTRIES: usize = 1_000_000;
/// No file of WAL is larger, in bytes.
const LARGEST: u64 = 64 << 20;

/// The queue of one instance.
pub(super) struct Queue {
    wal: Untrusted,
    marks: Untrusted,
}

/// A file of WAL, copied to where the backup user reads it.
pub(super) struct Taken {
    /// When PostgreSQL was done with it.
    pub(super) finished_at: Option<Timestamp>,
}

impl Queue {
    pub(super) fn open(place: &Place) -> io::Result<Self> {
        let wal = Untrusted::open(&place.data())?.directory("pg_wal")?;
        let marks = wal.directory("archive_status")?;
        Ok(Self { wal, marks })
    }

    /// What waits, in the order in which it is to be archived: histories of timelines first.
    pub(super) fn ready(&self) -> io::Result<Vec<String>> {
        self.first_ready(LONGEST)
    }

    fn first_ready(&self, most: usize) -> io::Result<Vec<String>> {
        let mut first = BinaryHeap::new();
        for (index, entry) in Dir::read_from(&self.marks)?.enumerate() {
            if index == MOST_ENTRIES {
                let reason = format!("pg_wal/archive_status holds more than {MOST_ENTRIES} files");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            let entry = entry?;
            let name = entry.file_name().to_str().ok().and_then(|name| name.strip_suffix(".ready"));
            if let Some(name) = name.filter(|name| is_wal(name)) {
                first.push((!name.ends_with(".history"), name.to_owned()));
                if first.len() > most {
                    first.pop();
                }
            }
        }
        Ok(first.into_sorted_vec().into_iter().map(|(_, name)| name).collect())
    }

    /// Whether the file of a mark is there.
    pub(super) fn has(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::statat(&self.wal, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => Ok(false),
            found => Ok(found.map(|_| true)?),
        }
    }

    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(self.ready()?.is_empty())
    }

    /// Copies a file of WAL into this directory, for this user to read. `None`: it is gone.
    pub(super) fn take(&self, name: &str, into: &Path, reader: Option<u32>) -> io::Result<Option<Taken>> {
        let file = match self.wal.file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if file.metadata()?.len() > LARGEST {
            return Err(io::Error::other(format!("{name} in pg_wal is not a file of WAL")));
        }
        let path = into.join(name);
        let mut copy = File::create(&path)?;
        io::copy(&mut file.take(LARGEST), &mut copy)?;
        std::os::unix::fs::fchown(&copy, reader, reader)?;
        let mark = rustix::fs::statat(&self.marks, mark(name, "ready")?, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok();
        let finished_at =
            mark.and_then(|mark| Timestamp::new(mark.st_mtime, i32::try_from(mark.st_mtime_nsec).ok()?).ok());
        Ok(Some(Taken { finished_at }))
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
        assert_eq!(fs::read(directory.path().join(sorted[1])).unwrap(), b"wal");
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
    fn false_marks_do_not_hide_those_of_the_first_segments() {
        let (_directory, place) = instance();
        let marks = place.data().join("pg_wal/archive_status");
        for number in (0..200).rev() {
            fs::write(marks.join(format!("0000000100000001{number:08X}.ready")), "").unwrap();
            fs::write(marks.join(format!("false-{number}.ready")), "").unwrap();
        }
        fs::write(marks.join("000000010000000000000007.ready"), "").unwrap();
        let queue = Queue::open(&place).unwrap();
        let expected = ["000000010000000000000007", "000000010000000100000000", "000000010000000100000001"];
        assert_eq!(queue.first_ready(3).unwrap(), expected);
        assert_eq!(queue.ready().unwrap().len(), 201);
        assert!(!queue.has(expected[0]).unwrap());
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
