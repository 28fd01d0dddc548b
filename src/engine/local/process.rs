//! Server processes: started, found again after a crash of Howdah, stopped.
//!
//! A process is only ever signalled through a pidfd that was opened before its identity was
//! checked, so that a recycled pid is never hit.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::place::Place;
use super::programs::{FileIdentity, Programs};

/// How long a server may take for a fast shutdown (it writes a checkpoint).
const FAST: Duration = Duration::from_secs(20);
/// How long it may take to give up at once.
const IMMEDIATE: Duration = Duration::from_secs(8);
/// Above this size a log is put aside.
pub(super) const LOG_LIMIT: u64 = 1 << 20;

/// A command as the instance's user (this process's own when `uid` is `None`), with nothing of
/// Howdah's environment.
pub(super) fn command(program: &Path, uid: Option<u32>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LANG", "C.UTF-8").env("PATH", "/usr/bin:/bin").env("TZ", "UTC").stdin(Stdio::null());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    command
}

/// What Howdah wrote down about a server when it started it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    pid: i32,
    /// In clock ticks since boot; with the pid and the boot it names one process for ever.
    start_ticks: u64,
    boot: String,
    program: FileIdentity,
}

/// A running server, or one that has just ended.
#[derive(Debug)]
pub(super) struct Server {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// `None` for an adopted one, which somebody else reaps.
    child: Mutex<Option<Child>>,
    /// The `postgres` that it runs; `None`: not known, so take it for replaced.
    pub(super) program: Option<FileIdentity>,
    /// SQL has worked.
    pub(super) ready: AtomicBool,
    /// How long the log was when it started.
    pub(super) log_start: u64,
}

/// Why a start did not come to be.
pub(super) type Spawned = io::Result<Server>;

impl Server {
    /// Starts a server. Call it inside the runtime, off its threads.
    pub(super) fn spawn(programs: &Programs, place: &Place, uid: Option<u32>, arguments: &[OsString]) -> Spawned {
        let log = open_log(place)?;
        let log_start = log.metadata()?.len();
        let mut command = command(&programs.path("postgres"), uid);
        command.args(arguments).current_dir(&place.root).process_group(0).stdout(log.try_clone()?).stderr(log);
        let child = spawn_without_new_privileges(command)?;
        let pid = Pid::from_child(&child);
        let pidfd = watch(pidfd_open(pid, PidfdFlags::empty())?)?;
        let record = Record {
            pid: pid.as_raw_nonzero().get(),
            start_ticks: start_ticks(pid).unwrap_or_default(),
            boot: boot(),
            program: programs.identity,
        };
        fs::write(place.server_record(), serde_json::to_vec(&record)?)?;
        Ok(Self {
            pid,
            pidfd,
            child: Mutex::new(Some(child)),
            program: Some(programs.identity),
            ready: AtomicBool::new(false),
            log_start,
        })
    }

    /// Finds the server that an earlier Howdah left running in this place.
    pub(super) fn adopt(place: &Place, uid: Option<u32>) -> Option<Self> {
        let pid = read_pid(place)?;
        // The handle comes first: what is checked below is then what is signalled later.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let record: Option<Record> =
            fs::read(place.server_record()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let record = record.filter(|record| record.pid == pid.as_raw_nonzero().get());
        if !is_server_of(pid, place, uid, record.as_ref()) {
            return None;
        }
        let server = Self {
            pid,
            pidfd: watch(pidfd).ok()?,
            child: Mutex::new(None),
            program: record.map(|record| record.program),
            ready: AtomicBool::new(false),
            log_start: fs::metadata(place.log()).map(|facts| facts.len()).unwrap_or_default(),
        };
        // Still alive after all checks: the pid was not passed on between them.
        server.is_alive().then_some(server)
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub(super) fn is_alive(&self) -> bool {
        let mut poll = [rustix::event::PollFd::new(self.pidfd.get_ref(), rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let ended = matches!(rustix::event::poll(&mut poll, Some(&now)), Ok(ready) if ready > 0);
        if ended {
            self.reap();
        }
        !ended
    }

    /// Ends when the server has.
    pub(super) async fn exited(&self) {
        if self.pidfd.readable().await.is_err() {
            return; // the runtime is shutting down
        }
        self.reap();
    }

    fn reap(&self) {
        if let Some(child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = child.try_wait();
        }
    }

    /// Ends the server: sessions are ended, a checkpoint is written. When that takes too long,
    /// less and less politely; committed data is safe in every case.
    pub(super) async fn stop(&self) -> io::Result<()> {
        for (signal, patience) in [(Signal::INT, FAST), (Signal::QUIT, IMMEDIATE), (Signal::KILL, IMMEDIATE)] {
            match pidfd_send_signal(self.pidfd.get_ref(), signal) {
                Ok(()) => {}
                Err(rustix::io::Errno::SRCH) => {
                    self.reap();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            if timeout(patience, self.exited()).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(pid = self.pid(), signal = ?signal, "a PostgreSQL server does not stop; being firmer");
        }
        Err(io::Error::other("the server does not end, even when it is killed"))
    }

    /// Processor time that the server's processes have used, in clock ticks: it grows while a
    /// crash recovery makes progress.
    pub(super) fn processor_time(&self) -> u64 {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap_or_default();
        children.split_whitespace().chain([self.pid().to_string().as_str()]).filter_map(processor_time).sum()
    }
}

/// Runs `spawn` on a thread of its own that has given up gaining privileges: the child inherits
/// that, and nothing else of this process is touched.
fn spawn_without_new_privileges(mut command: Command) -> io::Result<Child> {
    std::thread::Builder::new()
        .name("spawn".into())
        .spawn(move || {
            rustix::thread::set_no_new_privs(true)?;
            command.spawn()
        })?
        .join()
        .map_err(|_| io::Error::other("the spawning thread panicked"))?
}

/// The log is opened by Howdah, in a directory that the instance's user cannot enter.
fn open_log(place: &Place) -> io::Result<File> {
    let path = place.log();
    if fs::symlink_metadata(&path).is_ok_and(|facts| facts.len() > LOG_LIMIT) {
        fs::rename(&path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path)
}

/// Reads a small file that the instance's user may have replaced by anything.
fn read_strange(path: &Path) -> Option<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    Some(text)
}

fn read_pid(place: &Place) -> Option<Pid> {
    let text = read_strange(&place.data().join("postmaster.pid"))?;
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    Pid::from_raw(number).filter(|_| number > 1)
}

/// Whether the server says in its lock file that it takes sessions. It is not believed, only
/// used to know when asking is worth while.
pub(super) fn says_ready(place: &Place) -> bool {
    let text = read_strange(&place.data().join("postmaster.pid"));
    text.is_some_and(|text| text.lines().nth(7).is_some_and(|status| matches!(status.trim(), "ready" | "standby")))
}

/// Removes the lock files of a server that is gone when their pid is now somebody else's: the
/// server would take that for its predecessor and refuse to start.
pub(super) fn remove_stale_locks(place: &Place) -> io::Result<()> {
    let Some(pid) = read_pid(place) else { return Ok(()) };
    if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
        return Ok(()); // the server sees that by itself
    }
    for path in [place.data().join("postmaster.pid"), place.socket().join(".s.PGSQL.5432.lock")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_server_of(pid: Pid, place: &Place, uid: Option<u32>, record: Option<&Record>) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let directory = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    // A process's directory in /proc belongs to its effective user.
    let right_user = fs::metadata(&directory).is_ok_and(|facts| facts.uid() == uid.unwrap_or(own));
    let right_program = fs::read_link(directory.join("exe")).is_ok_and(|program| {
        let name = program.file_name().unwrap_or_default().as_bytes();
        name == b"postgres" || name == b"postgres (deleted)"
    });
    // The server's working directory is its data directory.
    let same = |one: fs::Metadata, other: fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    let right_place = match (fs::metadata(directory.join("cwd")), fs::symlink_metadata(place.data())) {
        (Ok(cwd), Ok(data)) => same(cwd, data),
        _ => false,
    };
    // Its children have that too, but retitle themselves.
    let right_arguments = fs::read(directory.join("cmdline")).is_ok_and(|line| {
        let mut arguments = line.split(|byte| *byte == 0).map(OsStr::from_bytes);
        arguments.nth(1) == Some(OsStr::new("-D")) && arguments.next() == Some(place.data().as_os_str())
    });
    let right_start = record.is_none_or(|record| {
        record.boot == boot() && (record.start_ticks == 0 || Some(record.start_ticks) == start_ticks(pid))
    });
    right_user && right_program && right_place && right_arguments && right_start
}

/// The fields of `/proc/<pid>/stat` after the program's name, which may hold anything.
fn stat_fields(pid: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn start_ticks(pid: Pid) -> Option<u64> {
    stat_fields(&pid.as_raw_nonzero().to_string())?.get(19)?.parse().ok()
}

fn processor_time(pid: &str) -> Option<u64> {
    let fields = stat_fields(pid)?;
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Which boot of the machine this is.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Kills whatever still runs as an instance's own user, and waits until it is gone.
pub(super) async fn end_all_of(uid: u32) {
    for _ in 0..500 {
        let mut found = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let is_zombie = || stat_fields(&pid.as_raw_nonzero().to_string()).is_some_and(|fields| fields[0] == "Z");
            if entry.metadata().is_ok_and(|facts| facts.uid() == uid) && !is_zombie() {
                found = true;
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            }
        }
        if !found {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tracing::warn!(uid, "processes of a removed instance's user do not end");
}

impl Server {
    /// Marks that SQL has worked.
    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// Removes what killed servers of this user left in shared memory.
pub(super) fn remove_shared_memory_of(uid: u32) {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let ours = entry.metadata().is_ok_and(|facts| facts.uid() == uid && facts.is_file());
        if ours && entry.file_name().as_bytes().starts_with(b"PostgreSQL.") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Lets tasks wait for a pidfd. An owned descriptor is all that the caller of `AsyncFd::new` has
/// to see to, and its successor needs `unsafe`.
#[expect(deprecated, reason = "the successor, AsyncFd::register, is unsafe, which is forbidden here")]
fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(pidfd)
}
