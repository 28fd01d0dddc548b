//! Which PostgreSQL servers are installed: their programs, majors and minor versions.
//!
//! Looked up again at every question by the identity of the files, so that a new major or a
//! replaced minor version is noticed without a restart.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::Major;

/// The oldest major that Howdah runs.
pub const OLDEST: Major = Major(15);

/// A file as it was when it was looked at; a replaced file has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    modified: i64,
    modified_nanoseconds: i64,
}

impl FileIdentity {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(Self {
            device: facts.dev(),
            inode: facts.ino(),
            modified: facts.mtime(),
            modified_nanoseconds: facts.mtime_nsec(),
        })
    }
}

/// One installed server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    directory: PathBuf,
    pub(super) major: Major,
    /// Such as `15.18`.
    pub(super) version: String,
    pub(super) identity: FileIdentity,
}

impl Programs {
    /// The path of `postgres`, `initdb` and so on.
    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }

    /// Where its libraries and files are: the directory above that of its programs.
    pub(super) fn home(&self) -> Option<&Path> {
        self.directory.parent()
    }

    fn minor(&self) -> Vec<u32> {
        self.version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    }
}

/// Finds the installed servers.
#[derive(Debug)]
pub(super) struct Finder {
    explicit: Option<PathBuf>,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// By the path of `postgres`; `None`: it was tried and is not a server that can be used.
    servers: HashMap<PathBuf, (FileIdentity, Option<Programs>)>,
    /// What `pg_config --bindir` said.
    pg_config: Option<(FileIdentity, Option<PathBuf>)>,
}

impl Finder {
    /// Looks in `explicit` only, or, without it, in the usual places.
    pub(super) fn new(explicit: Option<PathBuf>) -> Self {
        Self { explicit, cache: Mutex::default() }
    }

    /// Every usable server, one a major (the highest minor version of it), newest first.
    pub(super) fn all(&self) -> Vec<Programs> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let directories = match &self.explicit {
            Some(directory) => vec![directory.clone(), directory.join("bin")],
            None => usual_directories(&mut cache),
        };
        let mut best: HashMap<Major, Programs> = HashMap::new();
        for directory in directories {
            let Some(found) = look(&mut cache, &directory) else { continue };
            let better = best.get(&found.major).is_none_or(|other| found.minor() > other.minor());
            if better {
                best.insert(found.major, found);
            }
        }
        let mut all: Vec<Programs> = best.into_values().collect();
        all.sort_by_key(|programs| std::cmp::Reverse(programs.major));
        all
    }

    /// The server of one major.
    pub(super) fn of(&self, major: Major) -> Option<Programs> {
        self.all().into_iter().find(|programs| programs.major == major)
    }
}

fn usual_directories(cache: &mut Cache) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if let Some(path) = find_on_path("pg_config") {
        if let Some(identity) = FileIdentity::of(&path)
            && cache.pg_config.as_ref().map(|(known, _)| *known) != Some(identity)
        {
            let answer = run(&path, "--bindir").map(PathBuf::from);
            cache.pg_config = Some((identity, answer));
        }
        directories.extend(cache.pg_config.iter().filter_map(|(_, directory)| directory.clone()));
    }
    directories.extend(children("/usr/lib/postgresql", |_| true));
    for homebrew in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        directories.extend(children(homebrew, |name| name.starts_with("postgresql@")));
    }
    directories
}

/// The file of this name in the first directory of the path that has one.
pub(super) fn find_on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// The `bin` directories one level below `parent`.
fn children(parent: &str, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| wanted(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path().join("bin"))
        .collect()
}

fn look(cache: &mut Cache, directory: &Path) -> Option<Programs> {
    let server = directory.join("postgres");
    let identity = FileIdentity::of(&server)?;
    match cache.servers.get(&server) {
        Some((known, found)) if *known == identity => found.clone(),
        _ => {
            let found = examine(directory, &server, identity);
            cache.servers.insert(server, (identity, found.clone()));
            found
        }
    }
}

fn examine(directory: &Path, server: &Path, identity: FileIdentity) -> Option<Programs> {
    for program in ["initdb", "pg_resetwal"] {
        if !directory.join(program).is_file() {
            return None;
        }
    }
    let version = read_version(&run(server, "--version")?)?;
    let major = Major(version.split('.').next()?.parse().ok()?);
    if major < OLDEST {
        return None;
    }
    Some(Programs { directory: directory.to_owned(), major, version, identity })
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`; betas have no dot: `19beta1`.
fn read_version(text: &str) -> Option<String> {
    let version = text.split(") ").nth(1)?.split_whitespace().next()?;
    version.split('.').all(|part| part.bytes().all(|byte| byte.is_ascii_digit())).then(|| version.to_owned())
}

fn run(program: &Path, argument: impl AsRef<OsStr>) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let debian = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)";
        assert_eq!(read_version(debian).as_deref(), Some("15.18"));
        assert_eq!(read_version("postgres (PostgreSQL) 18.1").as_deref(), Some("18.1"));
        assert_eq!(read_version("postgres (PostgreSQL) 19beta1"), None);
        assert_eq!(read_version("something else"), None);
    }

    #[test]
    fn this_machine_has_a_server() {
        let finder = Finder::new(None);
        let all = finder.all();
        assert!(!all.is_empty(), "install a PostgreSQL server of version 15 or newer to run the tests");
        assert_eq!(finder.of(all[0].major).as_ref(), all.first());
        assert_eq!(finder.of(Major(9)), None);
    }

    #[test]
    fn an_explicit_directory_is_the_only_one() {
        assert!(Finder::new(Some("/nonexistent".into())).all().is_empty());
    }
}
