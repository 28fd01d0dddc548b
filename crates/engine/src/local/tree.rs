//! Walks over directories whose content a tenant's process may have made.
//!
//! Such a directory may be nested deeper than a path can be long, and may hold links and pipes. Every step
//! goes through a handle, and no link is followed. PostgreSQL itself nests directories four levels deep.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::users;
use base::secret::random_hex;

/// How many levels of directories are walked in a data directory. Each level costs a descriptor and some stack.
pub(super) const DEEPEST: usize = 32;
/// The same in the backup repository of a database, which names the directories of its data directory.
pub(super) const DEEPEST_IN_REPOSITORY: usize = 2 * DEEPEST;

/// Opens a directory and nothing else.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The error for files that PostgreSQL does not create, so that they are neither copied nor backed up.
pub(super) fn foreign(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its files include {what}, which PostgreSQL does not create"))
}

/// Refuses a directory that is nested deeper than `levels`.
pub(super) fn check_depth(depth: usize, levels: usize) -> io::Result<()> {
    match depth > levels {
        true => Err(foreign(format_args!("directories nested more than {levels} levels deep"))),
        false => Ok(()),
    }
}

/// Calls `each` with the parent's handle, the name and the facts of everything below `root`: the content of a
/// directory before the directory itself. Entries that disappear meanwhile are left out.
pub(super) fn visit(
    root: &Path,
    levels: usize,
    each: &mut impl FnMut(BorrowedFd<'_>, &CStr, &Stat) -> io::Result<()>,
) -> io::Result<()> {
    visit_below(rustix::fs::open(root, DIRECTORY, Mode::empty())?, 1, levels, each)
}

fn visit_below(
    directory: OwnedFd,
    depth: usize,
    levels: usize,
    each: &mut impl FnMut(BorrowedFd<'_>, &CStr, &Stat) -> io::Result<()>,
) -> io::Result<()> {
    check_depth(depth, levels)?;
    let mut entries = Dir::new(directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let (name, parent) = (entry.file_name(), entries.fd()?);
        if is_self_or_parent(name) {
            continue;
        }
        let facts = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            facts => facts?,
        };
        if FileType::from_raw_mode(facts.st_mode) == FileType::Directory {
            match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                opened => visit_below(opened?, depth + 1, levels, each)?,
            }
        }
        each(parent, name, &facts)?;
    }
    Ok(())
}

/// Removes a directory with everything in it. A missing one is fine. Interrupted when `stop` is cancelled.
pub(super) fn remove(path: &Path, stop: &CancellationToken) -> io::Result<()> {
    match open_to_empty(CWD, path) {
        Err(Errno::NOENT) => return Ok(()),
        opened => empty(&opened?, None, stop)?,
    }
    Ok(rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
}

/// Removes everything in a directory but the file `kept`, however it is nested, with at most [`DEEPEST`]
/// directories open and at a cost that grows with the number of entries only: a directory at that depth is
/// moved up to `top` and emptied from there. Tolerates changes meanwhile.
///
/// Whatever cannot be removed is passed over until nothing else is left; then the error is about it.
pub(super) fn empty(top: &OwnedFd, kept: Option<&CStr>, stop: &CancellationToken) -> io::Result<()> {
    loop {
        let mut pass = Pass { top: top.as_fd(), kept, stop, progress: false, moved: false, obstacle: None };
        pass.directory(rustix::fs::openat(top, c".", DIRECTORY, Mode::empty())?, 0)?;
        match pass.obstacle {
            None if !pass.moved => return Ok(()),
            Some(error) if !pass.progress => return Err(error.into()),
            _ => {}
        }
    }
}

/// One walk of a removal.
struct Pass<'a> {
    top: BorrowedFd<'a>,
    kept: Option<&'a CStr>,
    stop: &'a CancellationToken,
    /// Something was removed, or is closer to the top now.
    progress: bool,
    /// A directory was moved to the top, where this walk may have passed by.
    moved: bool,
    /// Why something is left.
    obstacle: Option<Errno>,
}

impl Pass<'_> {
    fn directory(&mut self, directory: OwnedFd, depth: usize) -> io::Result<()> {
        let mut entries = Dir::new(directory)?;
        while let Some(entry) = entries.read() {
            if self.stop.is_cancelled() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "Howdah is stopping"));
            }
            let entry = match entry {
                Ok(entry) => entry,
                // The rest of it cannot be read.
                Err(error) => {
                    self.obstacle = Some(error);
                    return Ok(());
                }
            };
            let (name, parent) = (entry.file_name(), entries.fd()?);
            if is_self_or_parent(name) || (depth == 0 && self.kept == Some(name)) {
                continue;
            }
            if entry.file_type() != FileType::Directory {
                match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
                    Err(Errno::ISDIR) => {}
                    outcome => {
                        self.note(outcome);
                        continue;
                    }
                }
            }
            self.nested(parent, name, depth)?;
        }
        Ok(())
    }

    fn nested(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        let child = match open_to_empty(parent, name) {
            Ok(child) => child,
            Err(error) => {
                self.note(Err(error));
                return Ok(());
            }
        };
        if depth == DEEPEST {
            let moved = rustix::fs::renameat(parent, name, self.top, format!("moved.{}", random_hex::<8>()));
            self.moved |= moved.is_ok();
            self.note(moved);
            return Ok(());
        }
        self.directory(child, depth + 1)?;
        let removed = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
        // What keeps it from being empty is known better than that it is not.
        if !(removed == Err(Errno::NOTEMPTY) && self.obstacle.is_some()) {
            self.note(removed);
        }
        Ok(())
    }

    fn note(&mut self, outcome: Result<(), Errno>) {
        match outcome {
            Ok(()) => self.progress = true,
            Err(Errno::NOENT) => {}
            Err(error) => self.obstacle = Some(error),
        }
    }
}

/// Opens a directory that is to be emptied. Its owner may have taken the right to do so from themselves; root
/// needs none.
fn open_to_empty<Name: rustix::path::Arg + Copy>(parent: impl AsFd, name: Name) -> Result<OwnedFd, Errno> {
    if !users::is_root() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        rustix::fs::chmod(link, Mode::RWXU)?;
    }
    rustix::fs::openat(&parent, name, DIRECTORY, Mode::empty())
}

fn is_self_or_parent(name: &CStr) -> bool {
    name == c"." || name == c".."
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A chain of directories below `at`, each with a file in it, longer than any path may be.
    fn nest(at: &Path, levels: usize) {
        let mut directory = rustix::fs::open(at, DIRECTORY, Mode::empty()).unwrap();
        for level in 0..levels {
            rustix::fs::mkdirat(&directory, c"d", Mode::RWXU).unwrap();
            if level % 1000 == 0 {
                rustix::fs::openat(&directory, c"file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
            }
            directory = rustix::fs::openat(&directory, c"d", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn directories_nested_without_end_are_removed() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let root = directory.path().join("root");
        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir_all(root.join("wide")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("link")).unwrap();
        fs::write(root.join("kept"), "").unwrap();
        for branch in 0..40 {
            fs::create_dir(root.join(format!("wide/{branch}"))).unwrap();
            nest(&root.join(format!("wide/{branch}")), 2 * DEEPEST);
        }
        nest(&root, 20_000);

        let stop = CancellationToken::new();
        let handle = rustix::fs::open(&root, DIRECTORY, Mode::empty()).unwrap();
        empty(&handle, Some(c"kept"), &stop).unwrap();
        let left: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        assert!(elsewhere.join("file").exists(), "a link was followed");
        remove(&root, &stop).unwrap();
        remove(&root, &stop).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_removal_ends_early_when_howdah_stops() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(remove(directory.path(), &stop).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(directory.path().join("file").exists());
    }

    #[test]
    fn a_walk_sees_the_content_before_its_directory_and_goes_no_deeper_than_it_may() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/b/c"), "").unwrap();
        let mut seen = Vec::new();
        let mut note = |_: BorrowedFd<'_>, name: &CStr, _: &Stat| {
            seen.push(name.to_str().unwrap().to_owned());
            Ok(())
        };
        visit(directory.path(), 3, &mut note).unwrap();
        let error = visit(directory.path(), 2, &mut note).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its files include directories nested more than 2 levels deep, which PostgreSQL does not create"
        );
        assert_eq!(seen, ["c", "b", "a"]);
    }
}
