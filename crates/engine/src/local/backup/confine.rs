//! Keeping pgBackRest to its own files.
//!
//! It reads a data directory in which a tenant who has broken out of SQL can put links, and it
//! follows them. What it can reach besides are secrets: its own environment in `/proc`, and other
//! tenants' vaults. So where the kernel has Landlock, it is only let to what the command is about.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access as _, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::process::Child;

use crate::local::children::{self, Role};

/// What every program needs: itself, libraries, and what they read to resolve names and to trust
/// certificates.
const SYSTEM: [&str; 8] =
    ["/usr", "/bin", "/lib", "/lib64", "/etc", "/run/systemd/resolve", "/dev/urandom", "/dev/random"];
/// What may be written to without harm.
const NOTHING: &str = "/dev/null";

/// How much address space a program may take, in bytes. pgBackRest keeps the list of all files of a backup in
/// memory: about 1 KiB for each.
const MOST_MEMORY: u64 = 4 << 30;

/// Starts a program on a thread that has given up gaining privileges, and all files but these:
/// the child inherits that, and nothing else of this process is touched. It is killed when its
/// handle is dropped.
pub(super) fn spawn(command: Command, readable: &[PathBuf], writable: &[PathBuf]) -> io::Result<Child> {
    let runtime = tokio::runtime::Handle::current();
    let child = std::thread::scope(|scope| {
        let spawning = std::thread::Builder::new().name("spawn".into()).spawn_scoped(scope, || {
            let _entered = runtime.enter();
            rustix::thread::set_no_new_privs(true)?;
            restrict(command.get_program().as_ref(), readable, writable).map_err(io::Error::other)?;
            tokio::process::Command::from(command).kill_on_drop(true).spawn()
        })?;
        spawning.join().map_err(|_| io::Error::other("the spawning thread panicked"))?
    })?;
    // On this thread, since that one can't write to /proc.
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        children::adjust(pid, Role::Program);
        bound_memory(pid);
    }
    Ok(child)
}

/// A server that is not what it should be could send the program an answer without end. Best effort: where
/// Howdah is root in a container without `CAP_SYS_RESOURCE`, it may not set limits for another user's process.
fn bound_memory(pid: Pid) {
    let limit = Rlimit { current: Some(MOST_MEMORY), maximum: Some(MOST_MEMORY) };
    if let Err(cause) = prlimit(Some(pid), Resource::As, limit) {
        tracing::debug!(%cause, "could not limit the memory of a program");
    }
}

fn restrict(program: &Path, readable: &[PathBuf], writable: &[PathBuf]) -> Result<(), RulesetError> {
    // What a kernel does not know it leaves open.
    let abi = ABI::V3;
    let system = SYSTEM.iter().map(Path::new).chain([program]);
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(abi))?.create()?;
    let read = system.chain(readable.iter().map(PathBuf::as_path)).map(|path| (path, AccessFs::from_read(abi)));
    let write = writable.iter().map(PathBuf::as_path).chain([Path::new(NOTHING)]);
    for (path, access) in read.chain(write.map(|path| (path, AccessFs::from_all(abi)))) {
        // What is not there needs no rule. Only directories have what is beneath them.
        let Ok(opened) = PathFd::new(path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
        rules = rules.add_rule(PathBeneath::new(opened, access))?;
    }
    rules.restrict_self().map(drop)
}
