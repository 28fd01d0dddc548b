//! Templates: one initialised data directory for each installed version, with the platform's
//! and the tenant's database and roles in it, that every new instance is a copy of.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, Gid, Uid};
use rustix::process::Pid;

use super::children::{self, Role};
use super::place::{GROUP_ACCESS, make_directory, sync_directory, sync_tree};
use super::process::command;
use super::programs::Programs;
use super::{tree, users};
use crate::{EngineError, Major};

/// Changes with what [`preparation`] does, so that instances are not copied from an older template.
const REVISION: u32 = 2;
/// How long a segment of WAL is, in every instance.
pub(super) const SEGMENT_BYTES: u64 = 1 << 20;

/// Makes a sentence of a failure.
pub(super) fn failed(doing: &'static str) -> impl Fn(io::Error) -> EngineError {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EngineError::NoSpace { doing },
        _ => EngineError::Failed { doing, reason: error.to_string() },
    }
}

/// Runs one of PostgreSQL's programs to its end. `input` goes to its standard input.
pub(super) fn run(mut command: Command, input: &str, doing: &'static str) -> Result<(), EngineError> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed(doing))?;
    children::adjust(Pid::from_child(&child), Role::Program);
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed(doing))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // In single-user mode a failed statement does not end the program.
    let complaint =
        said.lines().find(|line| ["ERROR:", "FATAL:", "PANIC:", "error:"].iter().any(|word| line.contains(word)));
    if output.status.success() && complaint.is_none() {
        return Ok(());
    }
    if said.contains("No space left on device") {
        return Err(EngineError::NoSpace { doing });
    }
    let reason = complaint.or(said.lines().last()).unwrap_or("no output");
    Err(EngineError::Failed { doing, reason: format!("{}: {reason}", output.status) })
}

/// The template of a version; made if there is none yet.
pub(super) fn ensure(templates: &Path, programs: &Programs) -> Result<PathBuf, EngineError> {
    const DOING: &str = "prepare a new PostgreSQL version";
    let finished = templates.join(format!("{}-{REVISION}", programs.version));
    if finished.is_dir() {
        return Ok(finished.join("data"));
    }
    let partial = finished.with_added_extension("partial");
    let data = partial.join("data");
    let prepare = || -> io::Result<()> {
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        make_directory(&partial, 0o711)?;
        make_directory(&data, 0o700)
    };
    prepare().map_err(failed(DOING))?;

    // initdb asks for the name of its user, which the users of instances do not have.
    let user = if users::is_root() {
        let user = users::initdb_user().ok_or_else(|| EngineError::Failed {
            doing: DOING,
            reason: "this machine has neither a user postgres nor a user nobody".into(),
        })?;
        std::os::unix::fs::chown(&data, Some(user.uid), None).map_err(failed(DOING))?;
        Some(user)
    } else {
        None
    };
    let as_user = |program: &str| {
        use std::os::unix::process::CommandExt as _;
        let mut command = command(&programs.path(program), user.as_ref().map(|user| user.uid));
        if let Some(user) = &user {
            command.gid(user.gid);
        }
        command
    };
    let mut initdb = as_user("initdb");
    initdb.current_dir(&partial).arg("-D").arg(&data).args([
        "--username=howdah",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--data-checksums",
        &format!("--wal-segsize={}", SEGMENT_BYTES >> 20),
        "--auth=reject",
        "--no-sync",
        "--no-instructions",
    ]);
    run(initdb, "", DOING)?;
    let mut single = as_user("postgres");
    single.current_dir(&partial).args(["--single", "-j", "-D"]).arg(&data).arg("postgres");
    run(single, &preparation(programs.major), DOING)?;
    // The WAL of these two programs is of no use to a copy: one empty segment takes its place.
    let mut resetwal = as_user("pg_resetwal");
    resetwal.current_dir(&partial).arg("-D").arg(&data);
    run(resetwal, "", DOING)?;

    let finish = || -> io::Result<()> {
        // The files that count stand elsewhere; without these nobody starts it by mistake.
        for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
            fs::remove_file(data.join(name))?;
        }
        forget_statistics(&data)?;
        remove_rebuildable_forks(&data)?;
        if user.is_some() {
            give(&data, rustix::process::geteuid().as_raw())?;
        }
        sync_tree(&partial)?;
        fs::rename(&partial, &finished)?;
        sync_directory(templates)
    };
    finish().map_err(failed(DOING))?;
    Ok(finished.join("data"))
}

/// Resets PostgreSQL's statistics in a stopped server: what it has counted so far was not done by a tenant.
pub(super) fn forget_statistics(data: &Path) -> io::Result<()> {
    match fs::remove_file(data.join("pg_stat/pgstat.stat")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the free space maps and visibility maps of a stopped server's catalogs: a quarter of its files and a
/// sixth of its bytes. PostgreSQL takes a map that is not there for an empty one and writes it again at the next
/// vacuum (PostgreSQL manual, chapters 73.3 and 73.4).
fn remove_rebuildable_forks(data: &Path) -> io::Result<()> {
    let databases = fs::read_dir(data.join("base"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    for directory in databases.iter().chain([&data.join("global")]) {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.ends_with(b"_fsm") || name.ends_with(b"_vm") {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

/// What a new instance has beside what `initdb` makes. Each statement ends with `;` and an
/// empty line, as single-user mode wants it.
fn preparation(major: Major) -> String {
    // Before 16 a role that may create roles can grant itself what reads the server's files
    // and runs its programs.
    let create_role = if major >= Major(16) { "CREATEROLE" } else { "NOCREATEROLE" };
    [
        "CREATE DATABASE howdah",
        "REVOKE ALL ON DATABASE howdah FROM PUBLIC",
        "CREATE ROLE howdah_owner NOLOGIN",
        "ALTER DATABASE postgres OWNER TO howdah_owner",
        &format!("CREATE ROLE tenant LOGIN NOSUPERUSER NOREPLICATION NOBYPASSRLS CREATEDB {create_role}"),
        "GRANT ALL ON DATABASE postgres TO tenant",
        "ALTER SCHEMA public OWNER TO tenant",
        // For the sizes of all databases, which tools ask for. `pg_hba.conf` lets no tenant in.
        "GRANT CONNECT ON DATABASE howdah TO tenant",
        // Data-only restores and replication tools turn triggers off by it. In a tenant's databases there are none
        // but the tenant's own.
        "GRANT SET ON PARAMETER session_replication_role TO tenant",
    ]
    .map(|statement| format!("{statement};\n\n"))
    .concat()
}

/// Gives a directory and everything in it to this user.
pub(super) fn give(directory: &Path, uid: u32) -> io::Result<()> {
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
    tree::visit(directory, tree::DEEPEST_IN_REPOSITORY, &mut |parent, name, _| {
        Ok(rustix::fs::chownat(parent, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?)
    })?;
    std::os::unix::fs::lchown(directory, Some(uid), Some(uid))
}

/// Copies a data directory, sharing blocks where the file system can; the copy belongs to `uid`.
/// A template holds directories and plain files only, and anything else is refused.
pub(super) fn copy(from: &Path, to: &Path, uid: Option<u32>) -> io::Result<()> {
    copy_directory(from, to, uid, &mut true)
}

fn copy_directory(from: &Path, to: &Path, uid: Option<u32>, share: &mut bool) -> io::Result<()> {
    fs::create_dir(to)?;
    let mode = if uid.is_some() { GROUP_ACCESS } else { 0o700 };
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_directory(&source, &target, uid, share)?;
        } else if kind.is_file() {
            copy_file(&source, &target, uid, share)?;
        } else {
            return Err(io::Error::other("a template contains something that is neither a file nor a directory"));
        }
    }
    std::os::unix::fs::chown(to, uid, uid)
}

fn copy_file(from: &Path, to: &Path, uid: Option<u32>, share: &mut bool) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mode = if uid.is_some() { GROUP_ACCESS & 0o666 } else { 0o600 };
    let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
    if source.metadata()?.size() > 0 {
        *share = *share && rustix::fs::ioctl_ficlone(&target, &source).is_ok();
        if !*share {
            io::copy(&mut source, &mut target)?;
        }
    }
    std::os::unix::fs::fchown(&target, uid, uid)?;
    target.set_permissions(fs::Permissions::from_mode(mode))
}
