//! Where the files of one instance stand, and what is written down about it.
//!
//! Only `data` and `socket` belong to the instance's user. Everything else is Howdah's. `untrusted`
//! reads and writes inside those two.

use std::ffi::{CStr, OsStr};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::tree::{self, DIRECTORY};
use crate::backups::RestoreFacts;
use crate::{Endpoint, Major};
use base::secret::Secret;

/// How many files are waited for at a time. Each costs the disk a flush, and flushes that come
/// together are one.
const SYNCS_AT_ONCE: usize = 8;

/// Up to so many unwritten bytes of the whole machine one sync of the file system is quicker than one of each file
/// of an instance, which takes some 0.3 s.
const LITTLE_UNWRITTEN: u64 = 64 << 20;

/// The mode of what a backup, which runs in the instance's group, has to get into.
pub(super) const GROUP_ACCESS: u32 = 0o750;

/// The name of an instance's description.
const MANIFEST: &CStr = c"instance.json";

/// The directory of one instance, in the stock, in use or for the metadata.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) root: PathBuf,
}

/// `instance.json`: what never changes of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The major whose programs start it.
    pub(super) major: u16,
    /// Its own user (and group); `None`: it shares Howdah's.
    pub(super) uid: Option<u32>,
    pub(super) system_identifier: u64,
    /// Its files can be read by its group, which is what a backup needs.
    #[serde(default)]
    pub(super) group_access: bool,
    /// How the restore that made it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) restored: Option<RestoreFacts>,
}

impl Manifest {
    pub(super) fn major(&self) -> Major {
        Major(self.major)
    }
}

impl Place {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.root.join("socket")
    }

    pub(super) fn conf(&self) -> PathBuf {
        self.root.join("conf")
    }

    pub(super) fn log_directory(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.log_directory().join("postgres.log")
    }

    /// What Howdah wrote down about the server that it started last.
    pub(super) fn server_record(&self) -> PathBuf {
        self.root.join("server.json")
    }

    /// Exists while the instance's WAL is archived.
    pub(super) fn archive_record(&self) -> PathBuf {
        self.root.join("archive.json")
    }

    /// Exists while the instance's vault is made, where there was nothing before.
    pub(super) fn vault_intent(&self) -> PathBuf {
        self.root.join("vault-begun")
    }

    /// How far that has come.
    pub(super) fn archive_progress(&self) -> PathBuf {
        self.root.join("archived.json")
    }

    fn secret_file(&self) -> PathBuf {
        self.root.join("secret")
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint { directory: self.socket() }
    }

    fn manifest(&self) -> PathBuf {
        self.root.join(OsStr::from_bytes(MANIFEST.to_bytes()))
    }

    pub(super) fn exists(&self) -> bool {
        self.manifest().exists()
    }

    pub(super) fn read_manifest(&self) -> io::Result<Manifest> {
        Ok(serde_json::from_slice(&fs::read(self.manifest())?)?)
    }

    pub(super) fn write_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        write_private(&self.manifest(), &serde_json::to_vec_pretty(manifest)?)
    }

    /// The same in a directory that is made durable as a whole.
    pub(super) fn write_new_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        write_unsynced(&self.manifest(), &serde_json::to_vec_pretty(manifest)?, 0o600, None)
    }

    /// The platform role's password, where there is one.
    pub(super) fn read_secret(&self) -> Option<Secret> {
        fs::read_to_string(self.secret_file()).ok().map(Secret::new)
    }

    pub(super) fn write_secret(&self, secret: &Secret) -> io::Result<()> {
        write_private(&self.secret_file(), secret.expose().as_bytes())
    }

    /// Makes the directories around `data`. `uid`: the instance's own user.
    pub(super) fn make_directories(&self, uid: Option<u32>) -> io::Result<()> {
        make_directory(&self.root, 0o700)?;
        make_directory(&self.log_directory(), 0o700)?;
        make_directory(&self.conf(), 0o700)?;
        make_directory(&self.socket(), 0o700)?;
        if let Some(uid) = uid {
            std::os::unix::fs::chown(self.socket(), Some(uid), Some(uid))?;
            set_mode(&self.socket(), GROUP_ACCESS)?;
            for directory in [&self.root, &self.conf()] {
                std::os::unix::fs::chown(directory, Some(0), Some(uid))?;
                set_mode(directory, 0o750)?;
            }
        }
        Ok(())
    }

    /// Removes all of it. The manifest goes last: as long as anything is left, so is what says whose it is.
    /// Interrupted when `stop` is cancelled.
    pub(super) fn remove(&self, stop: &CancellationToken) -> io::Result<()> {
        match rustix::fs::open(&self.root, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            // A file, which was put there by hand.
            Err(Errno::NOTDIR) => return fs::remove_file(&self.root),
            opened => tree::empty(&opened?, Some(MANIFEST), stop)?,
        }
        tree::remove(&self.root, stop)
    }
}

/// Makes a directory if it is missing and gives it exactly this mode.
pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    set_mode(path, mode)
}

pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Writes a file that only Howdah reads: whole or not at all.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, 0o600, None)
}

/// Writes a file that only Howdah reads and that means nothing after a reboot: whole or not at
/// all, without waiting for the disk.
pub(super) fn write_for_this_boot(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_unsynced(path, bytes, 0o600, None)
}

/// Writes a file whole or not at all, with this mode and, given one, this group.
pub(super) fn write_whole(path: &Path, bytes: &[u8], mode: u32, gid: Option<u32>) -> io::Result<()> {
    let partial = path.with_extension("partial");
    write_partial(&partial, bytes, mode, gid)?.sync_all()?;
    fs::rename(&partial, path)
}

/// The same without waiting for the disk: after a power failure the file may be empty.
pub(super) fn write_unsynced(path: &Path, bytes: &[u8], mode: u32, gid: Option<u32>) -> io::Result<()> {
    let partial = path.with_extension("partial");
    write_partial(&partial, bytes, mode, gid)?;
    fs::rename(&partial, path)
}

fn write_partial(partial: &Path, bytes: &[u8], mode: u32, gid: Option<u32>) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(partial)?;
    file.write_all(bytes)?;
    if gid.is_some() {
        std::os::unix::fs::fchown(&file, None, gid)?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Whether the machine has little to write to its disks, so that [`sync_file_system`] is quick.
pub(super) fn little_is_unwritten() -> bool {
    let Ok(facts) = fs::read_to_string("/proc/meminfo") else { return false };
    let kibibytes = |name: &str| -> Option<u64> {
        facts.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    let unwritten = kibibytes("Dirty:").and_then(|dirty| Some(dirty + kibibytes("Writeback:")?));
    unwritten.is_some_and(|unwritten| unwritten << 10 <= LITTLE_UNWRITTEN)
}

/// Makes everything on a file system durable, with one flush of the disk instead of one for each file: Linux
/// reports errors of it since version 5.8.
pub(super) fn sync_file_system(on_it: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(on_it)?)?)
}

/// Makes a directory and everything in it durable. Unlike [`sync_file_system`] it does not wait for what the
/// rest of the machine has written, which can be gigabytes.
pub(super) fn sync_tree(root: &Path) -> io::Result<()> {
    let mut everything = Vec::new();
    list_tree(root, 1, &mut everything)?;
    // All of it is on its way to the disk before any of it is waited for.
    for path in &everything {
        rustix::fs::fadvise(File::open(path)?, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    let sync = |paths: &[PathBuf]| paths.iter().try_for_each(|path| File::open(path)?.sync_all());
    std::thread::scope(|scope| {
        let workers: Vec<_> = everything
            .chunks(everything.len().div_ceil(SYNCS_AT_ONCE))
            .map(|paths| std::thread::Builder::new().name("sync".into()).spawn_scoped(scope, move || sync(paths)))
            .collect::<io::Result<_>>()?;
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread that waits for the disk panicked")))
        })
    })
}

/// The plain files and the directories from here on down.
fn list_tree(root: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    tree::check_depth(depth, tree::DEEPEST)?;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list_tree(&entry.path(), depth + 1, found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found.push(root.to_owned());
    Ok(())
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
