//! Files in directories that an instance's user can write to: `data` and `socket`.
//!
//! Code that runs as that user can put anything there at any moment: a link to a file of root's, a
//! pipe that nobody writes to, a file without end. So every name is opened below the handle of its
//! directory, no link is followed, nothing but a plain file is opened, and what is read is bounded.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::place::Place;
use super::tree::DIRECTORY;

/// `NONBLOCK`: opening a pipe does not wait for its other end.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// `pg_control` has 8 KiB.
const LARGEST_CONTROL_FILE: u64 = 64 << 10;
/// The server's lock file has nine short lines.
const LARGEST_LOCK_FILE: u64 = 4 << 10;

/// An open directory that an instance's user can write to.
#[derive(Debug)]
pub(super) struct Untrusted(OwnedFd);

impl Untrusted {
    /// Opens a directory whose parent belongs to Howdah.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, DIRECTORY, Mode::empty())?))
    }

    pub(super) fn directory(&self, name: &str) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(&self.0, name, DIRECTORY, Mode::empty())?))
    }

    /// Opens a plain file to read it.
    pub(super) fn file(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::RDONLY)
    }

    fn open_file(&self, name: &str, access: OFlags) -> io::Result<File> {
        let file = File::from(rustix::fs::openat(&self.0, name, FILE | access, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not a plain file")));
        }
        Ok(file)
    }

    /// Reads a file of at most so many bytes.
    pub(super) fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        read_all(&mut self.file(name)?, name, most)
    }

    /// Replaces a file, whole or not at all. `uid`: to whom it is to belong.
    pub(super) fn replace(&self, name: &str, bytes: &[u8], uid: Option<u32>) -> io::Result<()> {
        let partial = format!("{name}.partial");
        match rustix::fs::unlinkat(&self.0, &partial, AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => return Err(error.into()),
            _ => {}
        }
        let flags = FILE | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = File::from(rustix::fs::openat(&self.0, &partial, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(bytes)?;
        std::os::unix::fs::fchown(&file, uid, uid)?;
        Ok(rustix::fs::renameat(&self.0, &partial, &self.0, name)?)
    }
}

impl AsFd for Untrusted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn read_all(file: &mut File, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is longer than {most} bytes")));
    }
    Ok(bytes)
}

impl Place {
    /// The instance's control file, `global/pg_control`.
    pub(super) fn read_control_file(&self) -> io::Result<Vec<u8>> {
        Untrusted::open(&self.data())?.directory("global")?.read("pg_control", LARGEST_CONTROL_FILE)
    }

    /// Changes the control file in place: its owner and mode stay.
    pub(super) fn change_control_file(&self, change: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
        let global = Untrusted::open(&self.data())?.directory("global")?;
        let mut file = global.open_file("pg_control", OFlags::RDWR)?;
        let mut bytes = read_all(&mut file, "pg_control", LARGEST_CONTROL_FILE)?;
        change(&mut bytes)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)
    }

    /// The server's lock file, `postmaster.pid`, as far as it is text.
    pub(super) fn read_lock_file(&self) -> io::Result<String> {
        let bytes = Untrusted::open(&self.data())?.read("postmaster.pid", LARGEST_LOCK_FILE)?;
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::FileType;

    use super::*;

    fn instance() -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path().to_owned());
        fs::create_dir_all(place.data().join("global")).unwrap();
        (directory, place)
    }

    #[test]
    fn only_plain_files_of_bounded_length_are_read() {
        let (directory, place) = instance();
        let secret = directory.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let lock = place.data().join("postmaster.pid");
        let reason = || place.read_lock_file().unwrap_err().to_string();

        fs::write(&lock, "123\n").unwrap();
        assert_eq!(place.read_lock_file().unwrap(), "123\n");
        fs::write(&lock, "1".repeat(4 << 10)).unwrap();
        assert_eq!(place.read_lock_file().unwrap().len(), 4 << 10);
        fs::write(&lock, "1".repeat((4 << 10) + 1)).unwrap();
        assert_eq!(reason(), "postmaster.pid is longer than 4096 bytes");
        File::options().write(true).open(&lock).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(reason(), "postmaster.pid is longer than 4096 bytes");
        fs::remove_file(&lock).unwrap();

        let none = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &lock, FileType::Fifo, none, 0).unwrap();
        assert_eq!(reason(), "postmaster.pid is not a plain file");
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        assert_eq!(reason(), "postmaster.pid is not a plain file");
        fs::remove_dir(&lock).unwrap();
        symlink(&secret, &lock).unwrap();
        assert_eq!(place.read_lock_file().unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));

        // Nor is a link followed on the way to a file.
        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("pg_control"), "control").unwrap();
        fs::remove_dir(place.data().join("global")).unwrap();
        symlink(&elsewhere, place.data().join("global")).unwrap();
        assert_eq!(place.read_control_file().unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(place.change_control_file(|_| panic!("it is not opened")).is_err());
    }

    #[test]
    fn written_files_replace_links_instead_of_following_them() {
        let (directory, place) = instance();
        let secret = directory.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        for name in ["promote", "promote.partial"] {
            symlink(&secret, place.data().join(name)).unwrap();
        }
        let own = Some(rustix::process::geteuid().as_raw());
        Untrusted::open(&place.data()).unwrap().replace("promote", b"now", own).unwrap();
        assert_eq!(fs::read(place.data().join("promote")).unwrap(), b"now");
        assert!(fs::symlink_metadata(place.data().join("promote")).unwrap().is_file());
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        symlink(&secret, place.data().join("global/pg_control")).unwrap();
        assert!(place.change_control_file(|_| panic!("it is not opened")).is_err());
    }
}
