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
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::children::{self, Role};
use super::place::{self, Place};
use super::programs::{FileIdentity, Programs};

/// How long a server may take for a fast shutdown (it writes a checkpoint).
const FAST: Duration = Duration::from_secs(20);
/// How long it may take to give up at once.
const IMMEDIATE: Duration = Duration::from_secs(8);
/// How much is read of a file of `/proc`: the arguments of a server, or about a thousand children.
const MOST_OF_PROC: u64 = 8 << 10;
/// Above this size a log is put aside.
const LOG_LIMIT: u64 = 1 << 20;

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
    /// It was started so that its WAL can be archived, which older versions of Howdah did not do.
    #[serde(default)]
    archives: bool,
}

impl Record {
    fn of(pid: Pid, programs: &Programs) -> io::Result<Self> {
        let start_ticks = start_ticks(pid).ok_or_else(|| io::Error::other("/proc does not say when it started"))?;
        Ok(Self {
            pid: pid.as_raw_nonzero().get(),
            start_ticks,
            boot: boot(),
            program: programs.identity,
            archives: true,
        })
    }

    fn write(&self, place: &Place) -> io::Result<()> {
        place::write_for_this_boot(&place.server_record(), &serde_json::to_vec(self)?)
    }

    fn read(place: &Place) -> Option<Self> {
        serde_json::from_slice(&fs::read(place.server_record()).ok()?).ok()
    }

    /// Whether the process that has the pid now is the one that was started.
    fn names(&self, pid: Pid) -> bool {
        self.pid == pid.as_raw_nonzero().get() && self.boot == boot() && Some(self.start_ticks) == start_ticks(pid)
    }
}

/// A running server, or one that has just ended.
#[derive(Debug)]
pub(super) struct Server {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// `None` for an adopted one, which somebody else reaps.
    child: Mutex<Option<Child>>,
    /// The `postgres` that it runs; `None`: not known, or started in an outdated way, so take it
    /// for replaced.
    pub(super) program: Option<FileIdentity>,
    /// SQL has worked.
    pub(super) ready: AtomicBool,
    /// How long the log was when it started.
    pub(super) log_start: u64,
    /// When the lock file was changed last before the checkpointer was woken.
    checkpointer_woken: Mutex<Option<SystemTime>>,
}

/// Why a start did not come to be.
pub(super) type Spawned = io::Result<Server>;

impl Server {
    /// Starts a server. Call it inside the runtime, off its threads.
    pub(super) fn spawn(
        programs: &Programs,
        place: &Place,
        uid: Option<u32>,
        role: Role,
        arguments: &[OsString],
    ) -> Spawned {
        let log = open_log(place)?;
        let log_start = log.metadata()?.len();
        let mut command = command(&programs.path("postgres"), uid);
        command.args(arguments).current_dir(&place.root).process_group(0).stdout(log.try_clone()?).stderr(log);
        command.envs(role.environment().iter().copied());
        let mut child = spawn_without_new_privileges(command)?;
        let pid = Pid::from_child(&child);
        children::adjust(pid, role);
        let note = || -> io::Result<AsyncFd<OwnedFd>> {
            let pidfd = watch(pidfd_open(pid, PidfdFlags::empty())?)?;
            Record::of(pid, programs)?.write(place)?;
            Ok(pidfd)
        };
        let pidfd = match note() {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Nobody would find it again.
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        Ok(Self {
            pid,
            pidfd,
            child: Mutex::new(Some(child)),
            program: Some(programs.identity),
            ready: AtomicBool::new(false),
            log_start,
            checkpointer_woken: Mutex::default(),
        })
    }

    /// Finds the server that an earlier Howdah left running in this place.
    pub(super) fn adopt(place: &Place, uid: Option<u32>) -> Option<Self> {
        let pid = read_pid(place)?;
        // The handle comes first: what is checked below is then what is signalled later.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let record = Record::read(place).filter(|record| record.pid == pid.as_raw_nonzero().get());
        if !is_server_of(pid, place, uid, record.as_ref()) {
            return None;
        }
        let server = Self {
            pid,
            pidfd: watch(pidfd).ok()?,
            child: Mutex::new(None),
            program: record.filter(|record| record.archives).map(|record| record.program),
            ready: AtomicBool::new(false),
            log_start: fs::metadata(place.log()).map(|facts| facts.len()).unwrap_or_default(),
            checkpointer_woken: Mutex::default(),
        };
        // Still alive after all checks: the pid was not passed on between them.
        server.is_alive().then_some(server)
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub(super) fn is_alive(&self) -> bool {
        let ended = has_ended(self.pidfd.get_ref());
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

    /// Wakes the checkpointer once after each start of the server's processes, of which there is one after each
    /// crash of a session too. The checkpointer begins its first sleep while the server is in recovery, and
    /// ignores `archive_timeout` then: nothing that is written would be archived before `checkpoint_timeout`. A
    /// reload of the configuration ends that sleep. The lock file is written when the processes are started.
    pub(super) fn wake_checkpointer(&self, place: &Place) {
        let [lock_file, _] = lock_files(place);
        let Ok(changed) = fs::symlink_metadata(lock_file).and_then(|facts| facts.modified()) else { return };
        let mut woken = self.checkpointer_woken.lock().unwrap_or_else(PoisonError::into_inner);
        if *woken != Some(changed)
            && says(place) == Says::Ready
            && pidfd_send_signal(self.pidfd.get_ref(), Signal::HUP).is_ok()
        {
            *woken = Some(changed);
        }
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
            tracing::warn!(pid = self.pid(), signal = ?signal, "server did not stop in time; escalating");
        }
        Err(io::Error::other("the server does not exit after SIGKILL"))
    }

    /// Tells the server to go at once; nothing in it is worth keeping.
    pub(super) fn abandon(&self) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::QUIT);
    }

    /// Tells a server in recovery to end it, once it has gone through all the WAL that it has.
    /// The file `promote` in the data directory has to be there.
    pub(super) fn promote(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(self.pidfd.get_ref(), Signal::USR1)?)
    }

    /// Processor time that the server's processes have used, in clock ticks: it grows while a
    /// crash recovery makes progress.
    pub(super) fn processor_time(&self) -> u64 {
        let children = read_proc(&format!("{0}/task/{0}/children", self.pid())).unwrap_or_default();
        let children = String::from_utf8_lossy(&children);
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

/// Empties a log that has grown too long: whoever makes a server complain without end must not
/// fill the disk. The server appends, so it goes on at the new end.
pub(super) fn bound_log(place: &Place) {
    let path = place.log();
    if fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_file() && facts.len() > 8 * LOG_LIMIT) {
        let _ = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .and_then(|log| log.set_len(0));
    }
}

fn read_pid(place: &Place) -> Option<Pid> {
    pid_in(&place.read_lock_file().ok()?)
}

/// The process that a lock file names.
pub(super) fn pid_in(text: &str) -> Option<Pid> {
    // A negative number names a process group; `Pid` refuses it.
    let number: i32 = text.lines().next()?.trim().parse().ok().filter(|number| *number > 1)?;
    Pid::from_raw(number)
}

/// What a server's lock file says of its state. The instance's user can write that file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Nothing,
    /// It recovers.
    Standby,
    /// It accepts sessions, though it may still be in recovery.
    Ready,
}

/// What the server of this place says in its lock file.
pub(super) fn says(place: &Place) -> Says {
    said_in(&place.read_lock_file().unwrap_or_default())
}

/// The state that a lock file names.
pub(super) fn said_in(text: &str) -> Says {
    match text.lines().nth(7).map(str::trim) {
        Some("ready") => Says::Ready,
        Some("standby") => Says::Standby,
        _ => Says::Nothing,
    }
}

/// Whether a lock file names this state of this server. The text is read once for both: between two reads a server
/// that starts replaces the file of its predecessor.
fn is_said_of(server: Pid, state: Says, text: &str) -> bool {
    pid_in(text) == Some(server) && said_in(text) == state
}

/// The files by which PostgreSQL knows that a server runs.
pub(super) fn lock_files(place: &Place) -> [PathBuf; 2] {
    [place.data().join("postmaster.pid"), place.socket().join(".s.PGSQL.5432.lock")]
}

/// Removes the lock files of a server that is gone when their pid is now somebody else's: the
/// server would take that for its predecessor and refuse to start.
pub(super) fn remove_stale_locks(place: &Place, uid: Option<u32>) -> io::Result<()> {
    if read_pid(place).and_then(owner).is_none() {
        return Ok(()); // nobody has it, or nobody that can be seen: the server decides by itself
    }
    ensure_vacant(place, uid)?;
    for path in lock_files(place) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Refuses while somebody runs who may be the server of this place, though [`Server::adopt`]
/// could not make sure of it: two servers at work on the same data would ruin it.
pub(super) fn ensure_vacant(place: &Place, uid: Option<u32>) -> io::Result<()> {
    let Some(holder) = read_pid(place) else { return Ok(()) };
    if owner(holder).is_none() {
        return Ok(());
    }
    // A user of the instance's own has no other business than the instance.
    refuse_any(uid, |pid| (uid.is_some() && pid == holder) || was_started_on(pid, place))
}

/// Refuses while anything runs that may be a server of this place, when its lock file tells nothing.
pub(super) fn ensure_unused(place: &Place, uid: Option<u32>) -> io::Result<()> {
    refuse_any(uid, |pid| uid.is_some() || was_started_on(pid, place))
}

fn refuse_any(uid: Option<u32>, is_suspect: impl Fn(Pid) -> bool) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    match living_processes_of(uid.unwrap_or(own)).find(|(pid, _)| is_suspect(*pid)) {
        None => Ok(()),
        Some((pid, _)) => Err(io::Error::other(format!(
            "the process {} seems to be a server of this instance that Howdah does not know; \
             end it and try again",
            pid.as_raw_nonzero()
        ))),
    }
}

fn is_server_of(pid: Pid, place: &Place, uid: Option<u32>, record: Option<&Record>) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let recorded = record.map(|record| record.names(pid));
    if owner(pid) != Some(uid.unwrap_or(own)) || !was_started_on(pid, place) || recorded == Some(false) {
        return false;
    }
    let directory = proc_directory(pid);
    let look = || Ok((fs::read_link(directory.join("exe"))?, fs::metadata(directory.join("cwd"))?));
    match look() {
        Ok((program, cwd)) => {
            let name = program.file_name().unwrap_or_default().as_bytes();
            let right_program = name == b"postgres" || name == b"postgres (deleted)";
            // The server's working directory is its data directory.
            let right_place =
                fs::symlink_metadata(place.data()).is_ok_and(|data| (cwd.dev(), cwd.ino()) == (data.dev(), data.ino()));
            right_program && right_place
        }
        // Another user's process can only be looked at with CAP_SYS_PTRACE, which containers do
        // not give to their root: then it has to be the very process that was written down.
        Err(error) if io::Error::kind(&error) == io::ErrorKind::PermissionDenied => recorded == Some(true),
        Err(_) => false,
    }
}

/// Whether the process was started as the server of this place. Its children were too, but
/// retitle themselves.
fn was_started_on(pid: Pid, place: &Place) -> bool {
    read_proc(&format!("{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|line| {
        let mut arguments = line.split(|byte| *byte == 0).map(OsStr::from_bytes);
        arguments.nth(1) == Some(OsStr::new("-D")) && arguments.next() == Some(place.data().as_os_str())
    })
}

/// Reads the beginning of a file of `/proc` about a process, who decides how long it is: a command line can
/// be made to take in all of a process's memory (`PR_SET_MM_MAP`), and children can be many.
fn read_proc(name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{name}"))?.take(MOST_OF_PROC).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn proc_directory(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()))
}

/// The effective user of a process, to whom its directory in /proc belongs. `None`: there is no
/// such process, or it is hidden from this one.
fn owner(pid: Pid) -> Option<u32> {
    fs::metadata(proc_directory(pid)).ok().map(|facts| facts.uid())
}

/// What runs as this user. A process that has ended and that nobody has reaped does not.
pub(super) fn living_processes_of(uid: u32) -> impl Iterator<Item = (Pid, OwnedFd)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(move |entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (entry.metadata().ok()?.uid() == uid && !has_ended(&pidfd)).then_some((pid, pidfd))
    })
}

pub(super) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut poll = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut poll, Some(&now)), Ok(ready) if ready > 0)
}

/// The fields of `/proc/<pid>/stat` after the program's name, which may hold anything.
fn stat_fields(pid: &str) -> Option<Vec<String>> {
    let text = read_proc(&format!("{pid}/stat")).ok()?;
    Some(String::from_utf8_lossy(&text).rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
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
pub(super) async fn end_all_of(uid: u32) -> io::Result<()> {
    end_all(|| living_processes_of(uid).collect()).await
}

/// Kills the processes of this place that outlived its server, and waits until they are gone. The server can't
/// start while one is attached to its shared memory, and a session that is busy with a statement notices the end
/// of its server only after that statement. The caller makes sure that no server runs.
pub(super) async fn end_orphans(place: &Place, uid: Option<u32>) -> io::Result<()> {
    if let Some(uid) = uid {
        return end_all_of(uid).await;
    }
    let data = place.data();
    let own = rustix::process::geteuid().as_raw();
    let is_orphan = |pid: &Pid| {
        let link = |name| fs::read_link(proc_directory(*pid).join(name)).unwrap_or_default();
        link("cwd") == data && link("exe").file_name().is_some_and(|name| name.as_bytes().starts_with(b"postgres"))
    };
    end_all(|| living_processes_of(own).filter(|(pid, _)| is_orphan(pid)).collect()).await
}

async fn end_all(find: impl Fn() -> Vec<(Pid, OwnedFd)>) -> io::Result<()> {
    for _ in 0..500 {
        let found = find();
        if found.is_empty() {
            return Ok(());
        }
        for (_, pidfd) in found {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(io::Error::other("processes of its user do not exit after SIGKILL"))
}

impl Server {
    /// Marks that SQL has worked.
    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether this process started the server, and the server's own lock file, not one that a killed predecessor
    /// left, says that it accepts sessions.
    pub(super) fn reports_ready(&self, place: &Place) -> bool {
        let is_child = self.child.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        is_child && is_said_of(self.pid, Says::Ready, &place.read_lock_file().unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_file_of_a_killed_predecessor_makes_no_server_ready() {
        let server = Pid::from_raw(4711).unwrap();
        let of = |pid: i32, state: &str| format!("{pid}\n/data\n1700000000\n5432\n/socket\n\n  123 4\n{state}\n");
        assert!(is_said_of(server, Says::Ready, &of(4711, "ready   ")));
        assert!(!is_said_of(server, Says::Ready, &of(4711, "starting")));
        assert!(!is_said_of(server, Says::Ready, &of(4710, "ready   ")));
    }
}
