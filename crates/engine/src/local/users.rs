//! Whose processes and files an instance's are.
//!
//! As root every instance gets a user of its own out of a range of numbers (uid = gid; no passwd
//! entry is needed). As an ordinary user all instances share that user.
//!
//! Two data directories on one machine must not share users: what runs as a removed instance's
//! user is killed, and instances are kept apart by nothing else. So each directory draws a block
//! of numbers for itself at its first start, and keeps it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::place::write_whole;
use base::secret::random_bytes;

/// Numbers that nobody hands out: "unused" in systemd's table of users and groups
/// (`UIDS-GIDS.md`), above those of containers and below the sign bit.
const UNUSED: RangeInclusive<u32> = 0x7000_0000..=0x7FFF_FFFF;
/// How many of them one data directory takes.
const BLOCK: u32 = 1 << 14;
/// Where a container with few numbers has those for instances: above its own services'.
const CONTAINER_FIRST: u32 = 10_000;
/// Fewer users than this are not worth starting with.
const FEWEST: u32 = 100;

/// Hands out users.
#[derive(Debug)]
pub(super) struct Users {
    /// `None`: instances run as this process's user.
    range: Option<RangeInclusive<u32>>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    numbers: BTreeSet<u32>,
    /// Where to look next: a number is not given again soon after it came free.
    next: u32,
}

impl Users {
    /// `range`: as the operator wants it; otherwise the block of this data directory, drawn when
    /// it has none. As an ordinary user there is nothing to hand out.
    pub(super) fn open(directory: &Path, range: Option<RangeInclusive<u32>>) -> io::Result<Self> {
        let range = match range {
            _ if !is_root() => None,
            Some(range) => Some(range),
            None => Some(own_block(directory)?),
        };
        Ok(Self { range, taken: Mutex::default() })
    }

    /// True when every instance has a user of its own.
    pub(super) fn are_separate(&self) -> bool {
        self.range.is_some()
    }

    /// Notes that something on the disk belongs to this user.
    pub(super) fn note(&self, uid: Option<u32>) {
        let Some(uid) = uid else { return };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.numbers.insert(uid);
        taken.next = taken.next.max(uid.saturating_add(1));
    }

    /// A user that nothing else has; `Ok(None)` when users are shared, an error when all are taken.
    pub(super) fn take(&self) -> Result<Option<u32>, String> {
        let Some(range) = &self.range else { return Ok(None) };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let from = if range.contains(&taken.next) { taken.next } else { *range.start() };
        let uid = (from..=*range.end())
            .chain(*range.start()..from)
            .find(|uid| !taken.numbers.contains(uid))
            .ok_or_else(|| format!("all users from {} to {} are in use by instances", range.start(), range.end()))?;
        taken.numbers.insert(uid);
        taken.next = uid.saturating_add(1);
        Ok(Some(uid))
    }

    /// The user whom the vaults belong to: taken once, and kept for this data directory. `Ok(None)`
    /// when users are shared.
    pub(super) fn backup_user(&self, directory: &Path) -> io::Result<Option<u32>> {
        if !self.are_separate() {
            return Ok(None);
        }
        let file = directory.join("backup-user");
        match fs::read_to_string(&file) {
            Ok(text) => {
                let uid = text.trim().parse().ok().filter(|uid| *uid > 0);
                let damaged = || {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("{} is damaged: it contains no user", file.display()),
                    )
                };
                self.note(Some(uid.ok_or_else(damaged)?));
                Ok(uid)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let uid = self.take().map_err(io::Error::other)?;
                write_whole(&file, format!("{}\n", uid.unwrap_or_default()).as_bytes(), 0o600, None)?;
                Ok(uid)
            }
            Err(error) => Err(error),
        }
    }

    /// The user's files and processes are gone.
    pub(super) fn give_back(&self, uid: Option<u32>) {
        if let Some(uid) = uid {
            self.taken.lock().unwrap_or_else(PoisonError::into_inner).numbers.remove(&uid);
        }
    }
}

/// The block that this data directory has drawn, from `uid-range` in it.
fn own_block(directory: &Path) -> io::Result<RangeInclusive<u32>> {
    let file = directory.join("uid-range");
    match fs::read_to_string(&file) {
        Ok(text) => parse_range(&text).ok_or_else(|| {
            let damaged =
                format!("{} is damaged: it contains no range of users; choose one with --uid-range", file.display());
            io::Error::new(io::ErrorKind::InvalidData, damaged)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let block = draw_block(&mapped_users(), u32::from_le_bytes(random_bytes()));
            let block = block.ok_or_else(|| io::Error::other(too_few_users()))?;
            write_whole(&file, format!("{}-{}\n", block.start(), block.end()).as_bytes(), 0o600, None)?;
            Ok(block)
        }
        Err(error) => Err(error),
    }
}

/// Reads `from-to`.
fn parse_range(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.trim().split_once('-')?;
    let range = first.parse().ok()?..=last.parse().ok()?;
    (*range.start() > 0 && !range.is_empty()).then_some(range)
}

/// A block of the numbers that nobody hands out; where they do not exist, as in a container with
/// a user namespace of its own, one of the numbers that do.
fn draw_block(mapped: &[RangeInclusive<u32>], random: u32) -> Option<RangeInclusive<u32>> {
    let within = |inner: &RangeInclusive<u32>, outer: &RangeInclusive<u32>| {
        outer.start() <= inner.start() && inner.end() <= outer.end()
    };
    let area = if mapped.iter().any(|extent| within(&UNUSED, extent)) {
        UNUSED
    } else {
        let highest = mapped.iter().max_by_key(|extent| *extent.end())?;
        (*highest.start()).max(CONTAINER_FIRST)..=*highest.end()
    };
    let size = area.end().checked_sub(*area.start())?.saturating_add(1);
    let blocks = (size / BLOCK).max(1);
    let first = area.start() + random % blocks * BLOCK;
    (size >= FEWEST).then(|| first..=first.saturating_add(BLOCK - 1).min(*area.end()))
}

/// The numbers of users that exist here (`user_namespaces(7)`): all of them outside containers.
fn mapped_users() -> Vec<RangeInclusive<u32>> {
    let Ok(text) = fs::read_to_string("/proc/self/uid_map") else { return vec![0..=u32::MAX - 1] };
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (inside, _, count) =
                (fields.next()?.parse::<u32>().ok()?, fields.next()?, fields.next()?.parse::<u32>().ok()?);
            Some(inside..=inside.checked_add(count.checked_sub(1)?)?)
        })
        .collect()
}

/// Why the users of instances cannot be had: a sentence with the cure.
pub(super) fn unusable_users(range: Option<&RangeInclusive<u32>>) -> Option<String> {
    let mapped = mapped_users();
    match range {
        _ if !is_root() => None,
        Some(range) if *range.start() == 0 || range.is_empty() => {
            Some("the range of users for instances must not be empty and must not contain root".into())
        }
        Some(range) => (!mapped.iter().any(|extent| extent.contains(range.start()) && extent.contains(range.end()))).then(|| {
            format!(
                "the users {} to {} do not all exist in this container (/proc/self/uid_map); choose others with --uid-range",
                range.start(),
                range.end()
            )
        }),
        None => draw_block(&mapped, 0).is_none().then(too_few_users),
    }
}

fn too_few_users() -> String {
    format!(
        "this container has fewer than {FEWEST} users above {CONTAINER_FIRST} (/proc/self/uid_map) for instances; \
         give it more, or name some with --uid-range"
    )
}

/// Whether this process may act as any user.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The name of this process's user, as PostgreSQL's `peer` sees it. `None`: it has none, as
/// happens in containers that are given a bare number; `initdb` refuses such a user.
pub(super) fn own_name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw();
    if let Some(user) = passwd().into_iter().find(|user| user.uid == uid) {
        return Some(user.name);
    }
    let output = Command::new("id").arg("-un").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

/// An existing user without power, as whom `initdb` runs when this process is root.
pub(super) fn initdb_user() -> Option<User> {
    let mut users = passwd();
    ["postgres", "nobody"].into_iter().find_map(|wanted| {
        let found = users.iter().position(|user| user.name == wanted && user.uid != 0 && user.gid != 0)?;
        Some(users.swap_remove(found))
    })
}

/// A line of `/etc/passwd`.
pub(super) struct User {
    name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

fn passwd() -> Vec<User> {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            // name:password:uid:gid:…
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some(User { name, uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        })
        .collect()
}

/// Whether the users of instances can pass through every directory on the way to `path`;
/// otherwise the directory that stops them.
pub(super) fn first_closed_directory(path: &Path) -> Option<&Path> {
    use std::os::unix::fs::PermissionsExt as _;
    path.ancestors()
        .filter(|directory| !directory.as_os_str().is_empty())
        .find(|directory| fs::metadata(directory).is_ok_and(|facts| facts.permissions().mode() & 0o001 == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_handed_out_once_and_not_soon_again() {
        let users = Users { range: Some(10..=13), taken: Mutex::default() };
        users.note(Some(11));
        assert_eq!(users.take(), Ok(Some(12)));
        assert_eq!(users.take(), Ok(Some(13)));
        users.give_back(Some(12));
        assert_eq!(users.take(), Ok(Some(10)));
        assert_eq!(users.take(), Ok(Some(12)));
        assert!(users.take().is_err());
    }

    #[test]
    fn each_directory_draws_a_block_that_nobody_else_hands_out() {
        let everything = [0..=u32::MAX - 1];
        assert_eq!(draw_block(&everything, 0), Some(0x7000_0000..=0x7000_3FFF));
        assert_eq!(draw_block(&everything, 0x3FFF), Some(0x7FFF_C000..=0x7FFF_FFFF));
        assert_eq!(draw_block(&everything, 0x4000), Some(0x7000_0000..=0x7000_3FFF));
        let container = [0..=65_535];
        assert_eq!(draw_block(&container, 1), Some(26_384..=42_767));
        assert_eq!(draw_block(&container, u32::MAX), Some(10_000..=26_383));
        let small = [0..=0, 1..=12_000];
        assert_eq!(draw_block(&small, 7), Some(10_000..=12_000));
        assert_eq!(draw_block(&[0..=1000], 7), None);
        assert_eq!(draw_block(&[], 7), None);
    }

    #[test]
    fn a_directory_keeps_its_block() {
        let directory = tempfile::tempdir().unwrap();
        let drawn = own_block(directory.path()).unwrap();
        assert_eq!(own_block(directory.path()).unwrap(), drawn);
        fs::write(directory.path().join("uid-range"), "0-7").unwrap();
        assert!(own_block(directory.path()).unwrap_err().to_string().contains("--uid-range"));
    }

    #[test]
    fn shared_users_need_no_number() {
        let users = Users { range: None, taken: Mutex::default() };
        assert_eq!(users.take(), Ok(None));
    }
}
