//! Whose processes and files an instance's are.
//!
//! As root every instance gets a user of its own out of a range of numbers (uid = gid; no passwd
//! entry is needed). As an ordinary user all instances share that user.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

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
    pub(super) fn new(range: RangeInclusive<u32>) -> Self {
        let range = is_root().then_some(range);
        Self { range, taken: Mutex::default() }
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
            .ok_or_else(|| format!("all users from {} to {} are taken by instances", range.start(), range.end()))?;
        taken.numbers.insert(uid);
        taken.next = uid.saturating_add(1);
        Ok(Some(uid))
    }

    /// The user's files and processes are gone.
    pub(super) fn give_back(&self, uid: Option<u32>) {
        if let Some(uid) = uid {
            self.taken.lock().unwrap_or_else(PoisonError::into_inner).numbers.remove(&uid);
        }
    }
}

/// Whether this process may act as any user.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The name of this process's user, as PostgreSQL's `peer` sees it. `None`: it has none, as
/// happens in containers that are given a bare number.
pub(super) fn own_name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw();
    if let Some(name) = passwd().into_iter().find(|(_, number)| *number == uid).map(|(name, _)| name) {
        return Some(name);
    }
    let output = Command::new("id").arg("-un").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

/// An existing user without power, as whom `initdb` runs when this process is root.
pub(super) fn initdb_user() -> Option<u32> {
    let users = passwd();
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|wanted| users.iter().find(|(name, uid)| name == wanted && *uid != 0).map(|(_, uid)| *uid))
}

fn passwd() -> Vec<(String, u32)> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
        })
        .collect()
}

/// Whether the users of instances can pass through every directory on the way to `path`;
/// otherwise the directory that stops them.
pub(super) fn first_closed_directory(path: &Path) -> Option<&Path> {
    use std::os::unix::fs::PermissionsExt as _;
    path.ancestors()
        .filter(|directory| !directory.as_os_str().is_empty())
        .find(|directory| std::fs::metadata(directory).is_ok_and(|facts| facts.permissions().mode() & 0o001 == 0))
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
    fn shared_users_need_no_number() {
        let users = Users { range: None, taken: Mutex::default() };
        assert_eq!(users.take(), Ok(None));
    }
}
