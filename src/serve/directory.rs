//! The data directory: who has it open, and the few files that stand in it beside the instances.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use base::id::InstallationId;
use base::secret::{Secret, random_bytes};

/// The file whose lock says who has the directory open; where it is, the directory is Howdah's.
const LOCK: &str = "lock";
const MASTER_KEY: &str = "keys/master.key";
/// Where it is, a recovery was begun and has not ended.
const RECOVERY: &str = "recovery";

/// An open data directory. One process has it at a time; a lock says who.
pub(super) struct DataDirectory {
    path: PathBuf,
    /// Never closed, so held until the process ends: work that outlives the value is still
    /// nobody else's.
    _lock: ManuallyDrop<File>,
}

/// The master key of a data directory that has one.
///
/// # Errors
/// A sentence when it cannot be read.
pub(super) fn read_master_key(directory: &Path) -> Result<Zeroizing<[u8; 32]>, String> {
    let path = directory.join(MASTER_KEY);
    let bytes = fs::read(&path).map(Zeroizing::new).map_err(|error| unusable(&path, &error))?;
    <[u8; 32]>::try_from(bytes.as_slice())
        .map(Zeroizing::new)
        .map_err(|_| format!("{} is damaged: it must be 32 bytes long; restore it from a copy", path.display()))
}

/// The master key in a copy of its file.
///
/// # Errors
/// A sentence when it cannot be read, or is none.
pub(super) fn read_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, String> {
    let bytes = fs::read(path).map(Zeroizing::new).map_err(|error| {
        format!("cannot read the master key in {}: {error}; name the file with --master-key-file", path.display())
    })?;
    <[u8; 32]>::try_from(bytes.as_slice())
        .map(Zeroizing::new)
        .map_err(|_| format!("{} is not a master key: it must be a 32-byte copy of keys/master.key", path.display()))
}

impl DataDirectory {
    /// Opens a data directory to serve from; otherwise as [`DataDirectory::lock_existing`].
    ///
    /// # Errors
    /// The same, and when a recovery into it has not ended.
    pub(super) fn open_to_serve(path: &Path) -> Result<Option<Self>, String> {
        let opened = Self::lock_existing(path)?;
        if opened.is_some() && path.join(RECOVERY).exists() {
            return Err(format!(
                "the recovery into {} is incomplete; run `howdah recover` again with the same options",
                path.display()
            ));
        }
        Ok(opened)
    }

    /// Opens a new or empty data directory to recover into, or one in which that was begun.
    ///
    /// # Errors
    /// A sentence when it is none of these, or cannot be used.
    pub(super) fn open_for_recovery(path: &Path) -> Result<Self, String> {
        let opened = Self::lock_existing(path)?;
        let used = [MASTER_KEY, "installation", "metadata", "instances"];
        if opened.is_some() && !path.join(RECOVERY).exists() && used.iter().any(|name| path.join(name).exists()) {
            return Err(format!(
                "{} is in use: it holds a Howdah's data, which is left alone; recover into an empty or a new directory \
                 with --data-dir",
                path.display()
            ));
        }
        let directory = match opened {
            Some(directory) => directory,
            None => Self::create(path)?,
        };
        directory.write(RECOVERY, b"", 0o600)?;
        Ok(directory)
    }

    /// The recovery is complete.
    ///
    /// # Errors
    /// A sentence when that cannot be written down.
    pub(super) fn end_recovery(&self) -> Result<(), String> {
        let path = self.path.join(RECOVERY);
        let ended = fs::remove_file(&path).and_then(|()| File::open(&self.path)?.sync_all());
        ended.map_err(|error| unusable(&path, &error))
    }

    /// Removes everything from a directory in which a recovery has come to nothing; last what says so.
    ///
    /// # Errors
    /// A sentence when something cannot be removed.
    pub(super) fn empty(&self) -> Result<(), String> {
        let remove = || -> io::Result<()> {
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                match entry.file_name() {
                    name if name == "lost+found" || name == RECOVERY => {}
                    _ if entry.file_type()?.is_dir() => fs::remove_dir_all(entry.path())?,
                    _ => fs::remove_file(entry.path())?,
                }
            }
            fs::remove_file(self.path.join(RECOVERY))
        };
        remove().map_err(|error| unusable(&self.path, &error))
    }

    /// Keeps the master key that was brought along.
    ///
    /// # Errors
    /// A sentence when it cannot be written.
    pub(super) fn write_master_key(&self, key: &[u8; 32]) -> Result<(), String> {
        self.write(MASTER_KEY, key, 0o600)
    }

    /// Opens a data directory that exists already; `None` when there is none, or an empty one.
    /// Changes nothing in directories that are not Howdah's.
    ///
    /// # Errors
    /// A sentence when another Howdah has it, it cannot be written, or it holds something else.
    pub(super) fn lock_existing(path: &Path) -> Result<Option<Self>, String> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(format!("{} is not a directory; choose another one with --data-dir", path.display()));
            }
            Err(error) => return Err(unusable(path, &error)),
        };
        if path.join(LOCK).exists() {
            return Self::lock(path).map(Some);
        }
        // What a file system has at its root is nobody's.
        match entries.flatten().find(|entry| entry.file_name() != "lost+found") {
            None => Ok(None),
            Some(other) => Err(format!(
                "{} is not a data directory of Howdah: it contains {}; choose an empty or new directory with --data-dir",
                path.display(),
                other.file_name().display()
            )),
        }
    }

    /// Makes the directory, or takes an empty one, and opens it.
    ///
    /// # Errors
    /// A sentence when it cannot be made.
    pub(super) fn create(path: &Path) -> Result<Self, String> {
        // As root, instances' users pass through to their own directories and read nothing here.
        let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| unusable(path, &error))?;
        Self::lock(path)
    }

    fn lock(path: &Path) -> Result<Self, String> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(|error| unusable(path, &error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => format!(
                "another Howdah is using {}; stop it, or choose another directory with --data-dir",
                path.display()
            ),
            other => unusable(path, &other.into()),
        })?;
        for (name, mode) in [("run", 0o755), ("keys", 0o700)] {
            let inside = path.join(name);
            fs::create_dir_all(&inside)
                .and_then(|()| fs::set_permissions(&inside, Permissions::from_mode(mode)))
                .map_err(|error| unusable(path, &error))?;
        }
        let directory = Self { path: path.to_owned(), _lock: ManuallyDrop::new(lock) };
        directory.remove_addresses();
        Ok(directory)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the master key is.
    pub(super) fn master_key_file(&self) -> PathBuf {
        self.path.join(MASTER_KEY)
    }

    /// The master key, made when there is none.
    ///
    /// # Errors
    /// A sentence when it cannot be read or written.
    pub(super) fn master_key(&self) -> Result<Zeroizing<[u8; 32]>, String> {
        if self.path.join(MASTER_KEY).exists() {
            return read_master_key(&self.path);
        }
        let key = Zeroizing::new(random_bytes::<32>());
        self.write(MASTER_KEY, key.as_slice(), 0o600)?;
        Ok(key)
    }

    /// Which installation the directory belongs to, once it was used.
    ///
    /// # Errors
    /// A sentence when the file cannot be read.
    pub(super) fn installation(&self) -> Result<Option<InstallationId>, String> {
        let path = self.path.join("installation");
        match fs::read_to_string(&path) {
            Ok(text) => InstallationId::parse(text.trim())
                .map(Some)
                .ok_or_else(|| format!("{} is damaged; restore it from a copy", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(&path, &error)),
        }
    }

    /// Makes the directory belong to an installation.
    pub(super) fn write_installation(&self, id: InstallationId) -> Result<(), String> {
        self.write("installation", format!("{id}\n").as_bytes(), 0o644)
    }

    /// Writes the first service token where only the owner reads it.
    pub(super) fn write_initial_token(&self, token: &Secret) -> Result<(), String> {
        self.write("initial-token", format!("{}\n", token.expose()).as_bytes(), 0o600)
    }

    /// Says where this Howdah listens; it is there from readiness to a clean stop.
    pub(super) fn write_addresses(&self, json: &str) -> Result<(), String> {
        self.write("run/addresses.json", format!("{json}\n").as_bytes(), 0o644)
    }

    /// Nothing listens any more.
    pub(super) fn remove_addresses(&self) {
        let _ = fs::remove_file(self.path.join("run/addresses.json"));
    }

    /// Write, sync, rename, sync the directory: the file is whole or not there.
    fn write(&self, name: &str, content: &[u8], mode: u32) -> Result<(), String> {
        let target = self.path.join(name);
        let draft = target.with_extension("new");
        let written = || -> io::Result<()> {
            let _ = fs::remove_file(&draft);
            let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&draft)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&draft, &target)?;
            File::open(target.parent().unwrap_or(&self.path))?.sync_all()
        };
        written().map_err(|error| unusable(&target, &error))
    }
}

fn unusable(path: &Path, error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "run Howdah as a user who can write there, or choose another directory with --data-dir"
        }
        io::ErrorKind::StorageFull => "free some space on the disk, or choose another directory with --data-dir",
        _ => "choose another directory with --data-dir",
    };
    format!("cannot use {}: {error}; {cure}", path.display())
}
