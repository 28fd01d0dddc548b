//! What child processes do not take over from Howdah: its limit on open files, and its place in the order in which the
//! kernel kills when memory runs out (`oom_score_adj`, proc(5)). Tenants go first, then backups and other programs
//! that run for a while, then the metadata instance, and Howdah itself last.

use std::fs;
use std::io;
use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Howdah's own number; the kernel kills those with higher numbers first.
const HOWDAH: i32 = -900;
/// What a tenant's server gives to its sessions and other children, which is where the memory goes: without the server
/// none of them is left. `PG_OOM_ADJUST_*` are in PostgreSQL's manual, section 19.4.4.
const SESSIONS: [(&str, &str); 2] =
    [("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj"), ("PG_OOM_ADJUST_VALUE", "300")];

/// What Howdah's own limit was when it started.
static LIMIT_OF_CHILDREN: OnceLock<Rlimit> = OnceLock::new();

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The server of the metadata instance; its children have its number.
    Metadata,
    /// A program that ends by itself.
    Program,
    /// A tenant's server.
    Tenant,
}

impl Role {
    fn number(self) -> i32 {
        match self {
            Self::Metadata => -800,
            Self::Program => 100,
            Self::Tenant => 200,
        }
    }

    /// What is added to its environment.
    pub(super) fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Tenant => &SESSIONS,
            Self::Metadata | Self::Program => &[],
        }
    }
}

/// How many files Howdah may have open, before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// What it was started with, and its children get.
    pub before: u64,
    /// What it has now.
    pub now: u64,
}

/// Raises the limit on open files as far as it goes, and lets the kernel kill Howdah last where that is allowed. To be
/// called once, before anything is started.
pub fn prepare_this_process() -> OpenFiles {
    if let Err(error) = set_number("self", HOWDAH)
        && rustix::process::geteuid().is_root()
    {
        tracing::warn!(%error, "could not set oom_score_adj: if memory runs out, the kernel may kill Howdah first");
    }
    let before = getrlimit(Resource::Nofile);
    let highest = before.maximum.unwrap_or(u64::MAX).min(system_limit());
    let raised = Rlimit { current: Some(highest), maximum: before.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => highest,
        Err(error) => {
            tracing::warn!(%error, "could not raise the limit on open files");
            before.current.unwrap_or(highest)
        }
    };
    let open_files = OpenFiles { before: before.current.unwrap_or(highest), now };
    let _ = LIMIT_OF_CHILDREN.set(before);
    open_files
}

/// The most that any process may have.
fn system_limit() -> u64 {
    let text = fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    text.trim().parse().unwrap_or(1 << 20)
}

/// Gives a process that was just started, and what it may have started by now, what fits its role. Root in a container
/// mostly lacks the right to that (`CAP_SYS_RESOURCE`): then the process keeps the limit, and numbers only grow.
pub(super) fn adjust(pid: Pid, role: Role) {
    let pid = pid.as_raw_nonzero();
    adjust_one(pid.get(), role);
    // One that was started before the line above took over what this process had then.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        adjust_one(child, role);
    }
}

fn adjust_one(pid: i32, role: Role) {
    if let Err(error) = set_number(&pid.to_string(), role.number()) {
        tracing::debug!(pid, %error, "could not set oom_score_adj of a child process");
    }
    if let Some(limit) = LIMIT_OF_CHILDREN.get()
        && let Err(error) = prlimit(Pid::from_raw(pid), Resource::Nofile, *limit)
    {
        tracing::debug!(pid, %error, "could not set the limit on open files of a child process");
    }
}

/// Whoever started this process may have given it a lower number, which stays.
fn set_number(process: &str, number: i32) -> io::Result<()> {
    let path = format!("/proc/{process}/oom_score_adj");
    if process == "self" && fs::read_to_string(&path)?.trim().parse().is_ok_and(|there: i32| there <= number) {
        return Ok(());
    }
    fs::write(path, number.to_string())
}
