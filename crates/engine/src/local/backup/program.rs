//! Running pgBackRest: as the backup user, told everything by its environment, and kept from
//! every file that it has no business with.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Child;

use super::confine;
use crate::backups::{BackupError, Vault};
use crate::local::process;
use crate::local::programs::find_on_path;
use crate::local::{Machine, blocking};
use base::id::InstanceId;

/// How much of its words is passed on.
const LONGEST_REASON: usize = 500;
/// How much of a complaint is kept to be shortened.
const LONGEST_COMPLAINT: usize = 64 << 10;
/// The most bytes of output that are kept: a listing of all files of a large vault has some megabytes.
const LONGEST_OUTPUT: usize = 64 << 20;
/// How long it waits for an instance's server to accept a session, in seconds.
const CONNECT_TIMEOUT: &str = "30";
/// How what it says of an answer begins that waiting does not change: 400 to 499.
const ANSWERED_NO: &str = "HTTP request failed with 4";
/// How long it may wait for storage, in seconds. When that is gone, `info` does so four times and
/// `archive-push` eight times before they say it (2.45: tried).
const IO_TIMEOUT: &str = "8";
/// The same for what takes long, and would begin again.
pub(super) const LONG_IO_TIMEOUT: &str = "60";

/// The codes that it ends with which mean something to Howdah.
mod code {
    pub(super) const CHECKSUM: i32 = 26;
    pub(super) const FILE_INVALID: i32 = 28;
    pub(super) const FORMAT: i32 = 29;
    pub(super) const PROTOCOL: i32 = 39;
    pub(super) const HOST_CONNECT: i32 = 49;
    pub(super) const LOCK_ACQUIRE: i32 = 50;
    pub(super) const HOST_INVALID: i32 = 72;
    pub(super) const CRYPTO: i32 = 95;
    pub(super) const JSON_FORMAT: i32 = 99;
    pub(super) const SERVICE: i32 = 101;
    pub(super) const REPO_INVALID: i32 = 103;
}

/// One command of pgBackRest's on one vault.
pub(super) struct PgBackRest {
    program: PathBuf,
    uid: Option<u32>,
    gid: Option<u32>,
    settings: Vec<(&'static str, OsString)>,
    /// The session on PostgreSQL's password.
    password: Option<String>,
    readable: Vec<PathBuf>,
    writable: Vec<PathBuf>,
}

/// What a command said.
pub(super) struct Said {
    /// Its standard output, without what was a line of its log.
    pub(super) text: String,
}

/// How a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: Option<i32>,
    reason: String,
}

impl PgBackRest {
    /// A command on this vault that can do no more than read the repository.
    pub(super) fn new(machine: &Machine, vault: &Vault) -> Result<Self, BackupError> {
        let program = match &machine.config.backups.program {
            Some(program) => Some(program.clone()).filter(|program| program.is_file()),
            None => find_on_path("pgbackrest"),
        };
        let repository = machine.repository();
        let mut settings: Vec<(&'static str, OsString)> = vec![
            ("STANZA", vault.instance.bare().into()),
            ("REPO1_CIPHER_TYPE", "aes-256-cbc".into()),
            ("REPO1_CIPHER_PASS", vault.key.expose().into()),
            ("LOCK_PATH", machine.backup_work(vault.instance).join("lock").into()),
            ("SPOOL_PATH", machine.backup_work(vault.instance).join("spool").into()),
            ("COMPRESS_TYPE", "zst".into()),
            ("COMPRESS_LEVEL", "1".into()),
            ("IO_TIMEOUT", IO_TIMEOUT.into()),
            ("PROCESS_MAX", machine.config.backups.processes.max(1).to_string().into()),
            ("LOG_LEVEL_CONSOLE", "error".into()),
            ("LOG_LEVEL_STDERR", "off".into()),
            ("LOG_LEVEL_FILE", "off".into()),
            ("LOG_TIMESTAMP", "n".into()),
        ];
        settings.extend(repository.settings(vault.instance).into_iter().map(|(name, value)| (name, value.into())));
        let mut readable: Vec<PathBuf> = repository.directory_of(vault.instance).into_iter().collect();
        readable.extend(repository.ca_file().map(Path::to_owned));
        Ok(Self {
            program: program.ok_or(BackupError::NotInstalled)?,
            uid: machine.backup_user,
            gid: machine.backup_user,
            settings,
            password: None,
            readable,
            writable: Vec::new(),
        })
    }

    /// It may change the repository, and holds locks meanwhile.
    pub(super) fn that_writes(mut self, machine: &Machine, instance: InstanceId) -> Self {
        self.writable.extend(machine.repository().directory_of(instance));
        self.writable.push(machine.backup_work(instance));
        self
    }

    /// With one more setting, by the name of its variable after `PGBACKREST_`.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.settings.retain(|(there, _)| *there != name);
        self.settings.push((name, value.into()));
        self
    }

    /// It may read what is here.
    pub(super) fn reading(mut self, path: PathBuf) -> Self {
        self.readable.push(path);
        self
    }

    /// It may change what is here.
    pub(super) fn writing(mut self, path: PathBuf) -> Self {
        self.writable.push(path);
        self
    }

    /// It may read what an instance lets its group read.
    pub(super) fn in_group_of(mut self, instance: Option<u32>) -> Self {
        self.gid = instance.or(self.gid);
        self
    }

    /// It logs in to PostgreSQL with this password.
    pub(super) fn with_password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Runs it to its end. Dropping the future kills it.
    pub(super) async fn run(self, arguments: &[&str]) -> Result<Said, Failure> {
        self.run_and_watch(arguments, |_| {}).await
    }

    /// The same; every line of its log goes to `watch` too.
    pub(super) async fn run_and_watch(
        self,
        arguments: &[&str],
        mut watch: impl FnMut(&str) + Send,
    ) -> Result<Said, Failure> {
        let mut child = self.spawn(arguments).await.map_err(Failure::of)?;
        let mut text = String::new();
        let mut complaint = String::new();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            let mut complaining = false;
            loop {
                line.clear();
                // One more byte than there is room for, to see that there is not.
                let room = (LONGEST_OUTPUT - text.len() + 1) as u64;
                if (&mut output).take(room).read_until(b'\n', &mut line).await.map_err(Failure::of)? == 0 {
                    break;
                }
                if line.len() as u64 == room {
                    return Err(Failure::of(io::Error::other(format!(
                        "pgBackRest wrote more than {LONGEST_OUTPUT} bytes of output"
                    ))));
                }
                let line = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
                match after_prefix(&line) {
                    Some(logged) => {
                        complaining = logged.starts_with("ERROR:");
                        if let Some(error) = logged.strip_prefix("ERROR:") {
                            complaint = without_code(error).to_owned();
                        }
                        watch(logged);
                    }
                    // What it adds to a complaint is indented.
                    None if complaining && line.starts_with("   ") && complaint.len() > LONGEST_COMPLAINT => {}
                    None if complaining && line.starts_with("   ") => {
                        complaint.push_str("; ");
                        complaint.push_str(line.trim());
                    }
                    None => {
                        text.push_str(&line);
                        text.push('\n');
                    }
                }
            }
        }
        let status = child.wait().await.map_err(Failure::of)?;
        if status.success() { Ok(Said { text }) } else { Err(Failure::new(status, &complaint)) }
    }

    async fn spawn(self, arguments: &[&str]) -> io::Result<Child> {
        let mut command = process::command(&self.program, self.uid);
        if let Some(gid) = self.gid.filter(|_| self.uid.is_some()) {
            std::os::unix::process::CommandExt::gid(&mut command, gid);
        }
        for (name, value) in &self.settings {
            command.env(format!("PGBACKREST_{name}"), value);
        }
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT);
        }
        command.arg("--no-config").args(arguments).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let (readable, writable) = (self.readable, self.writable);
        let spawned = blocking("run pgBackRest", move || Ok(confine::spawn(command, &readable, &writable))).await;
        spawned.map_err(io::Error::other)?
    }
}

impl Failure {
    fn new(status: ExitStatus, complaint: &str) -> Self {
        let said =
            if complaint.is_empty() { format!("pgBackRest ended with {status}") } else { complaint.trim().into() };
        Self { code: status.code(), reason: shorten(&said) }
    }

    /// What `info` quotes of a failure, such as `[CryptoError] …`, and succeeds all the same.
    pub(super) fn quoted(text: &str) -> Self {
        let (name, said) = text.strip_prefix('[').and_then(|rest| rest.split_once("] ")).unwrap_or(("", text));
        let code = match name {
            "CryptoError" => Some(code::CRYPTO),
            "FormatError" => Some(code::FORMAT),
            "ProtocolError" => Some(code::PROTOCOL),
            "HostConnectError" => Some(code::HOST_CONNECT),
            "HostInvalidError" => Some(code::HOST_INVALID),
            "ServiceError" => Some(code::SERVICE),
            _ => None,
        };
        let said = said.lines().map(str::trim).collect::<Vec<_>>().join("; ");
        Self { code, reason: shorten(&said) }
    }

    /// What `archive-push` leaves in its spool: a code, and what it says.
    pub(super) fn spooled(text: &str) -> Self {
        let (code, said) = text.split_once('\n').unwrap_or(("", text));
        let said = said.lines().map(str::trim).collect::<Vec<_>>().join("; ");
        Self { code: code.trim().parse().ok(), reason: shorten(&said) }
    }

    /// It may be that there is no vault.
    pub(super) fn misses_vault(&self) -> bool {
        self.reason.contains("[FileMissingError] unable to load info file")
    }

    fn of(error: io::Error) -> Self {
        Self { code: None, reason: error.to_string() }
    }

    /// What that means for whoever wanted something done.
    pub(super) fn while_doing(self, doing: &'static str) -> BackupError {
        let Self { code, reason } = self;
        if reason.contains("No space left on device") {
            return BackupError::Full { doing };
        }
        if reason.starts_with("new backup label") {
            return BackupError::ClockWasAhead(reason);
        }
        match code {
            // The certificate of the storage's, not a file that the key does not open.
            Some(code::CRYPTO) if reason.contains("certificate") => BackupError::Refused { doing, reason },
            Some(code::PROTOCOL) if reason.starts_with(ANSWERED_NO) => BackupError::Refused { doing, reason },
            Some(code::LOCK_ACQUIRE) => BackupError::Busy("another backup"),
            Some(code::CHECKSUM | code::FILE_INVALID | code::FORMAT | code::CRYPTO | code::JSON_FORMAT) => {
                BackupError::Damaged(reason)
            }
            Some(code::PROTOCOL | code::HOST_CONNECT | code::HOST_INVALID | code::SERVICE | code::REPO_INVALID) => {
                BackupError::Unreachable { doing, reason }
            }
            _ => BackupError::Failed { doing, reason },
        }
    }
}

/// The words of a failure that are for people. What pgBackRest quotes of an HTTP exchange is much
/// longer, and what matters comes last: S3's code and message, in XML.
fn shorten(said: &str) -> String {
    let text = match said.split_once(": *** ").or_else(|| said.split_once(":; *** ")) {
        Some((first, rest)) => [Some(first), element(rest, "Code"), element(rest, "Message")]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": "),
        None => said.to_owned(),
    };
    text.chars().filter(|letter| !letter.is_control() && *letter != '\u{FFFD}').take(LONGEST_REASON).collect()
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    after.split_once("</").map(|(text, _)| text)
}

/// What a line of the log says after the number of its process: `P00   INFO: …`.
fn after_prefix(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('P')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    (digits >= 2).then(|| rest.get(digits..).unwrap_or_default().trim_start())
}

/// ` [041]: unable to …` without its number.
fn without_code(complaint: &str) -> &str {
    complaint.split_once("]: ").map_or(complaint, |(_, text)| text)
}

/// How far a backup or a restore is, in parts of a hundred, from a line such as
/// `DETAIL: backup file /a/b (bundle 1/0, 112KB, 95.70%) checksum …`.
pub(super) fn percentage(line: &str) -> Option<f64> {
    let before = line.strip_prefix("DETAIL:")?.split_once("%)")?.0;
    before.rsplit([' ', '(']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_are_told_from_output() {
        assert_eq!(after_prefix("P00   INFO: backup command begin"), Some("INFO: backup command begin"));
        assert_eq!(after_prefix("P12 DETAIL: x"), Some("DETAIL: x"));
        assert_eq!(after_prefix("status: error"), None);
        assert_eq!(after_prefix("Pass"), None);
        assert_eq!(without_code(" [041]: unable to open [x]: no"), "unable to open [x]: no");
    }

    #[test]
    fn storage_errors_are_shortened() {
        let said = "HTTP request failed with 404 (NOT FOUND):; *** Path/Query ***:; GET /b/?list-type=2; \
                    *** Response Content ***:; <?xml version=\"1.0\"?>; \
                    <Error><Code>NoSuchBucket</Code><Message>There is none</Message></Error>";
        let short = "HTTP request failed with 404 (NOT FOUND): NoSuchBucket: There is none";
        assert_eq!(shorten(said), short);
        let failure = Failure::quoted(&format!("[ProtocolError] {}", said.replace("; ", "\n")));
        assert!(matches!(failure.while_doing("x"), BackupError::Refused { reason, .. } if reason == short));
        let busy = Failure::quoted("[ProtocolError] HTTP request failed with 503 (SLOW DOWN)");
        assert!(matches!(busy.while_doing("x"), BackupError::Unreachable { .. }));
        let stranger = "[CryptoError] unable to find hostname 'a' in certificate common name";
        assert!(matches!(Failure::quoted(stranger).while_doing("x"), BackupError::Refused { .. }));
        let wrong_key = "[CryptoError] cipher header invalid";
        assert!(matches!(Failure::quoted(wrong_key).while_doing("x"), BackupError::Damaged(_)));
        let away = "[HostConnectError] unable to connect to 'a:1': [111] Connection refused";
        assert!(matches!(Failure::quoted(away).while_doing("x"), BackupError::Unreachable { .. }));
        let session = Failure::spooled("56\nunable to connect to 'dbname='howdah''");
        assert!(matches!(session.while_doing("x"), BackupError::Failed { .. }), "that is not the repository");
    }

    #[test]
    fn progress_is_read_from_the_log() {
        let line = "DETAIL: backup file /i/data/base/1/2 (bundle 2/1027280, 112KB, 95.70%) checksum 37b4";
        assert_eq!(percentage(line), Some(95.7));
        assert_eq!(percentage("DETAIL: restore file /i/data/base/1/2 (0B, 100.00%)"), Some(100.0));
        assert_eq!(percentage("DETAIL: store zero-length file /i/data/base/1/2"), None);
        assert_eq!(percentage("INFO: full backup size = 29MB, file total = 1262"), None);
    }
}
