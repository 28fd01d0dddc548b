//! What an application may ask for.

use std::fmt;

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Everything that the person may do in the workspace.
    pub admin: bool,
    /// Seeing what the person sees in the workspace.
    pub read: bool,
    /// Refresh tokens: going on after the first hour, and while the person is away.
    pub offline: bool,
}

impl Scopes {
    /// Every scope and what it means, for people.
    pub const ALL: [(&str, &str); 3] = [
        (ADMIN, "Do everything in the workspace that you can do"),
        (READ, "Read everything in the workspace, without changing it"),
        (OFFLINE, "Keep access while you are offline, until you revoke it"),
    ];

    /// Reads a list with blanks between (RFC 6749, section 3.3); `None` when there is an unknown one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(text.split(' ').filter(|name| !name.is_empty()))
    }

    /// Reads names; `None` when there is an unknown one.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut scopes = Self::default();
        for name in names {
            match name {
                ADMIN => scopes.admin = true,
                READ => scopes.read = true,
                OFFLINE => scopes.offline = true,
                _ => return None,
            }
        }
        Some(scopes)
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let chosen = [(self.admin, ADMIN), (self.read, READ), (self.offline, OFFLINE)];
        chosen.into_iter().filter_map(|(is_chosen, name)| is_chosen.then_some(name)).collect()
    }

    /// Those of both.
    pub fn union(self, other: Self) -> Self {
        Self { admin: self.admin || other.admin, read: self.read || other.read, offline: self.offline || other.offline }
    }

    /// Whether each of them is in `other`, too.
    pub fn are_within(self, other: Self) -> bool {
        self.union(other) == other
    }

    /// Whether they open anything at all.
    pub fn reach_something(self) -> bool {
        self.admin || self.read
    }
}

const ADMIN: &str = "workspace:admin";
const READ: &str = "workspace:read";
const OFFLINE: &str = "offline_access";

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_a_set() {
        let scopes = Scopes::parse("offline_access workspace:admin  offline_access").unwrap();
        assert_eq!(scopes.to_string(), "workspace:admin offline_access");
        assert_eq!(Scopes::parse(""), Some(Scopes::default()));
        for unknown in ["workspace:write", "WORKSPACE:ADMIN", "workspace:admin,offline_access", "openid"] {
            assert_eq!(Scopes::parse(unknown), None, "{unknown}");
        }
        let read = Scopes::parse("workspace:read").unwrap();
        assert!(read.are_within(read.union(scopes)) && !read.are_within(scopes));
        assert!(read.reach_something() && !Scopes::parse("offline_access").unwrap().reach_something());
    }

    #[test]
    fn every_scope_is_explained() {
        let all = Scopes { admin: true, read: true, offline: true };
        assert_eq!(all.names(), Scopes::ALL.map(|(name, _)| name));
    }
}
