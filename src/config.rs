//! What can be set, by flag or by environment variable. There is no configuration file.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use url::Url;

use jobs::retention::Schedule;

use base::network::Network;
use base::options::{data_directory, duration};
use domain::app::{Rate, Rates};
use domain::limits::Quotas;
use engine::local::MOST_SESSIONS;

/// Where things are kept and where PostgreSQL is.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// The data directory [default: /var/lib/howdah for root, ~/.local/share/howdah for others]
    #[arg(long, env = "HOWDAH_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// A PostgreSQL database for Howdah's metadata, instead of the private instance that Howdah runs
    #[arg(long, env = "HOWDAH_METADATA_URL", value_name = "URL", hide_env_values = true)]
    pub metadata_url: Option<String>,

    /// The directory of the PostgreSQL programs [default: the usual directories are searched]
    #[arg(long, env = "HOWDAH_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,

    /// When run as root: the range of user IDs for instances, one per instance [default: 16384 unused IDs]
    #[arg(long, env = "HOWDAH_UID_RANGE", value_name = "FROM-TO", value_parser = uid_range)]
    pub uid_range: Option<RangeInclusive<u32>>,
}

/// What `howdah serve` can be told.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a flattened group of options has no text of its own")]
    pub place: Place,

    /// The address that the API and the console listen on; port 0 picks a free port
    #[arg(long, env = "HOWDAH_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,

    /// The address for Prometheus metrics at /metrics, without authentication [default: none]
    #[arg(long, env = "HOWDAH_METRICS", value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,

    /// The address that PostgreSQL clients connect to; port 0 picks a free port
    #[arg(long, env = "HOWDAH_GATEWAY", value_name = "ADDRESS", default_value = "127.0.0.1:7432")]
    pub gateway: SocketAddr,

    /// The URL of the API and the console, as clients see it [default: http:// and the address of --http]
    #[arg(long, env = "HOWDAH_PUBLIC_URL", value_name = "URL", value_parser = http_url)]
    pub public_url: Option<String>,

    /// The URL of the authorization server, as clients see it [default: that of the API]
    #[arg(long, env = "HOWDAH_PUBLIC_AUTH_URL", value_name = "URL", value_parser = http_url)]
    pub public_auth_url: Option<String>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a flattened group of options has no text of its own")]
    pub oidc: Oidc,

    /// Do not let applications register themselves (RFC 7591)
    #[arg(long, env = "HOWDAH_NO_CLIENT_REGISTRATION")]
    pub no_client_registration: bool,

    /// Create a new token signing key after this time; 0: never. Tokens signed with older keys stay valid
    #[arg(long, env = "HOWDAH_KEY_ROTATION", value_name = "TIME", default_value = "2160h", value_parser = rotation)]
    pub key_rotation: Duration,

    /// The gateway's address in connection strings; some tools require port 5432 [default: that of --gateway]
    #[arg(long, env = "HOWDAH_PUBLIC_GATEWAY", value_name = "HOST:PORT", value_parser = host_and_port)]
    pub public_gateway: Option<(String, u16)>,

    /// The gateway's certificate chain, PEM [default: issued by Howdah's certificate authority]
    #[arg(long, env = "HOWDAH_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, PEM
    #[arg(long, env = "HOWDAH_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Stop an instance after this long without a transaction or traffic; 0: never
    #[arg(long, env = "HOWDAH_IDLE_STOP", value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub idle_stop: Duration,

    /// End a session that has been idle for this long; 0: never
    #[arg(long, env = "HOWDAH_SESSION_IDLE", value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub session_idle: Duration,

    /// The maximum number of running instances [default: one per 64 MiB of memory, at least 16]
    #[arg(long, env = "HOWDAH_MAX_RUNNING", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_running: Option<u32>,

    /// The number of prepared instances to keep ready
    #[arg(long, env = "HOWDAH_STOCK", value_name = "N", default_value_t = 8)]
    pub stock: usize,

    /// The maximum number of sessions per database, 1 to 1000; takes effect when an instance next starts
    #[arg(long, env = "HOWDAH_SESSIONS_PER_DATABASE", value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_SESSIONS)))]
    pub sessions_per_database: u16,

    /// The maximum number of sessions of all databases
    #[arg(long, env = "HOWDAH_SESSIONS", value_name = "N", default_value_t = 5000)]
    pub sessions: usize,

    /// The maximum number of API requests per second and token, on average; 0: no limit
    #[arg(long, env = "HOWDAH_RATE_LIMIT", value_name = "N", default_value_t = 100)]
    pub rate_limit: u32,

    /// The maximum number of API requests per token in a burst
    #[arg(long, env = "HOWDAH_RATE_BURST", value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_burst: u32,

    /// The maximum number of requests per second and IP address, on average; a tenth of it without a valid token;
    /// 0: no limit
    #[arg(long, env = "HOWDAH_ADDRESS_RATE_LIMIT", value_name = "N", default_value_t = 500)]
    pub address_rate_limit: u32,

    /// The maximum number of requests per IP address in a burst; a tenth of it without a valid token
    #[arg(long, env = "HOWDAH_ADDRESS_RATE_BURST", value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub address_rate_burst: u32,

    /// A proxy whose X-Forwarded-For header is trusted, as an IP address or a network; can be repeated
    #[arg(long = "trusted-proxy", env = "HOWDAH_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// The maximum number of projects per workspace, unless the workspace has its own limit; 0: no limit
    #[arg(long, env = "HOWDAH_MAX_PROJECTS", value_name = "N", default_value_t = 1000)]
    pub max_projects: u32,

    /// The maximum number of databases per workspace, unless the workspace has its own limit; 0: no limit
    #[arg(long, env = "HOWDAH_MAX_DATABASES", value_name = "N", default_value_t = 1000)]
    pub max_databases: u32,

    /// The maximum number of connections per database, unless the workspace has its own limit; 0: no limit
    #[arg(long, env = "HOWDAH_MAX_CONNECTIONS_PER_DATABASE", value_name = "N", default_value_t = 100)]
    pub max_connections_per_database: u32,

    /// A region, replacing the built-in list; can be repeated
    #[arg(long = "region", env = "HOWDAH_REGIONS", value_name = "ID=NAME", value_delimiter = ';')]
    pub regions: Vec<String>,

    /// The directory for backups [default: `backups` in the data directory]
    #[arg(long, env = "HOWDAH_BACKUP_DIR", value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a flattened group of options has no text of its own")]
    pub backup_s3: BackupS3,

    /// The maximum amount of WAL per database that waits on this machine's disk for archiving, in MiB; beyond it,
    /// the WAL is discarded and a new backup is created
    #[arg(long, env = "HOWDAH_BACKUP_QUEUE", value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub backup_queue: u32,

    /// Archive WAL at least this often, 1s to 1h; shorter times create more files in the backup storage
    #[arg(long, env = "HOWDAH_ARCHIVE_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = archive_timeout)]
    pub archive_timeout: Duration,

    /// Back up databases in use, and the metadata, this long after the last backup; 0: no scheduled backups
    #[arg(long, env = "HOWDAH_BACKUP_EVERY", value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub backup_every: Duration,

    /// Create the first backup of a new database in use after this time
    #[arg(long, env = "HOWDAH_BACKUP_FIRST", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub backup_first: Duration,

    /// Verify the newest backup of each database in use this long after the last verification; 0: never
    #[arg(long, env = "HOWDAH_DRILL_EVERY", value_name = "TIME", default_value = "168h", value_parser = duration)]
    pub drill_every: Duration,

    /// Keep deleted databases restorable for this time; 0: not at all
    #[arg(long, env = "HOWDAH_UNDELETE", value_name = "TIME", default_value = "168h", value_parser = duration)]
    pub undelete: Duration,

    /// Remove expired backups only after the system clock has been stable for this time; 0: immediately
    #[arg(long, env = "HOWDAH_STEADY_CLOCK", value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub steady_clock: Duration,

    /// Disk space in the data directory to reserve for Howdah, in MiB: below four times as much free space no
    /// database can be created, below twice as much growing instances are stopped; 0: none [default: 1/64 of the
    /// disk, 64 to 512]
    #[arg(long, env = "HOWDAH_DISK_RESERVE", value_name = "MIB")]
    pub disk_reserve: Option<u32>,

    /// Also write the audit log to a file or to `syslog`, as one line of JSON per entry
    #[arg(long, env = "HOWDAH_AUDIT_STREAM", value_name = "FILE|syslog")]
    pub audit_stream: Option<String>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a flattened group of options has no text of its own")]
    pub mail: Mail,
}

/// The mail server that takes what Howdah writes to people. Its password is not among the arguments, which
/// are for everybody to read.
#[derive(Args, Clone, Debug)]
pub struct Mail {
    /// The mail server, such as smtp://howdah@mail.example.com:587 (STARTTLS) or smtps:// (TLS); set the
    /// password in the environment variable HOWDAH_SMTP_PASSWORD
    #[arg(long, env = "HOWDAH_SMTP_URL", value_name = "URL", hide_env_values = true)]
    pub smtp_url: Option<String>,

    /// A file with the password, instead of HOWDAH_SMTP_PASSWORD
    #[arg(long, env = "HOWDAH_SMTP_PASSWORD_FILE", value_name = "FILE")]
    pub smtp_password_file: Option<PathBuf>,

    /// CA certificates for the mail server, PEM [default: those of the system]
    #[arg(long, env = "HOWDAH_SMTP_CA_FILE", value_name = "FILE")]
    pub smtp_ca_file: Option<PathBuf>,

    /// The sender of mail, such as "Howdah <howdah@example.com>"
    #[arg(long, env = "HOWDAH_MAIL_FROM", value_name = "SENDER")]
    pub mail_from: Option<String>,
}

/// A provider that people sign in with (OpenID Connect).
#[derive(Args, Clone, Debug)]
pub struct Oidc {
    /// The issuer URL of an OpenID Connect provider to sign in with; set the client secret in the environment
    /// variable HOWDAH_OIDC_CLIENT_SECRET
    #[arg(long = "oidc-issuer", env = "HOWDAH_OIDC_ISSUER", value_name = "URL", requires = "client_id")]
    pub issuer: Option<String>,

    /// Howdah's client ID at the provider
    #[arg(long = "oidc-client-id", env = "HOWDAH_OIDC_CLIENT_ID", value_name = "ID", requires = "issuer")]
    pub client_id: Option<String>,

    /// The provider's name on the sign-in page [default: the host of the issuer]
    #[arg(long = "oidc-name", env = "HOWDAH_OIDC_NAME", value_name = "NAME", requires = "issuer")]
    pub name: Option<String>,

    /// Create accounts without an invitation for people who sign in with an email address of this domain; can be
    /// repeated
    #[arg(
        long = "oidc-domain",
        env = "HOWDAH_OIDC_DOMAINS",
        value_name = "DOMAIN",
        value_delimiter = ',',
        requires = "issuer"
    )]
    pub domains: Vec<String>,

    /// Trust email addresses that the provider does not mark as verified; only safe if people cannot choose their
    /// own address there
    #[arg(long = "oidc-trust-addresses", env = "HOWDAH_OIDC_TRUST_ADDRESSES", requires = "issuer")]
    pub trust_addresses: bool,
}

/// Storage that speaks the protocol of S3, for backups. What opens it is in the environment only:
/// arguments are for everybody to read.
#[derive(Args, Clone, Debug)]
pub struct BackupS3 {
    /// An S3 bucket for backups, instead of a directory; set the credentials in the environment variables
    /// HOWDAH_BACKUP_S3_KEY and HOWDAH_BACKUP_S3_KEY_SECRET
    #[arg(long = "backup-s3-bucket", env = "HOWDAH_BACKUP_S3_BUCKET", value_name = "NAME")]
    pub bucket: Option<String>,

    /// The host of the S3 storage, always accessed over TLS [default: AWS in the region]
    #[arg(long = "backup-s3-endpoint", env = "HOWDAH_BACKUP_S3_ENDPOINT", value_name = "HOST[:PORT]",
        value_parser = storage_endpoint, requires = "bucket")]
    pub endpoint: Option<(String, Option<u16>)>,

    /// The bucket's region
    #[arg(
        long = "backup-s3-region",
        env = "HOWDAH_BACKUP_S3_REGION",
        value_name = "NAME",
        default_value = "us-east-1"
    )]
    pub region: String,

    /// The prefix of all object names [default: none]
    #[arg(long = "backup-s3-prefix", env = "HOWDAH_BACKUP_S3_PREFIX", value_name = "PATH",
        value_parser = storage_prefix, requires = "bucket")]
    pub prefix: Option<String>,

    /// The position of the bucket's name in URLs [default: in the host for AWS, in the path otherwise]
    #[arg(long = "backup-s3-uri-style", env = "HOWDAH_BACKUP_S3_URI_STYLE", value_name = "STYLE", requires = "bucket")]
    pub uri_style: Option<UriStyle>,

    /// CA certificates for the storage, PEM [default: those of the system]
    #[arg(long = "backup-s3-ca-file", env = "HOWDAH_BACKUP_S3_CA_FILE", value_name = "FILE", requires = "bucket")]
    pub ca_file: Option<PathBuf>,
}

/// Where a bucket's name stands in an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UriStyle {
    /// `bucket.host`
    Host,
    /// `host/bucket`
    Path,
}

/// What `howdah recover` can be told.
#[derive(Args, Clone, Debug)]
pub struct Recover {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a flattened group of options has no text of its own")]
    pub place: Place,

    /// The directory with the backups of the databases and of Howdah's metadata
    #[arg(long, env = "HOWDAH_BACKUP_DIR", value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a flattened group of options has no text of its own")]
    pub backup_s3: BackupS3,

    /// A copy of `keys/master.key` of the lost server
    #[arg(long, env = "HOWDAH_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: PathBuf,
}

impl Place {
    /// The data directory, absolute.
    ///
    /// # Errors
    /// A sentence when there is no home directory to put it in.
    pub fn data_directory(&self) -> Result<PathBuf, String> {
        data_directory(self.data_dir.as_deref())
    }
}

impl Serve {
    /// When backups are made and removed.
    pub fn schedule(&self) -> Schedule {
        Schedule { first: signed(self.backup_first), every: signed(self.backup_every), steady: self.steady_clock }
    }

    /// How long after its last trial a database's newest backup is tried again.
    pub fn drill_every(&self) -> SignedDuration {
        signed(self.drill_every)
    }

    /// How old a key that signs tokens may become.
    pub fn key_rotation(&self) -> Option<SignedDuration> {
        Some(signed(self.key_rotation)).filter(|time| !time.is_zero())
    }

    /// How long deleted databases can be restored.
    pub fn undelete(&self) -> SignedDuration {
        signed(self.undelete)
    }

    /// How fast requests may come.
    pub fn rates(&self) -> Rates {
        let rate =
            |per_second, burst| Some(Rate { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst)? });
        Rates {
            token: rate(self.rate_limit, self.rate_burst),
            address: rate(self.address_rate_limit, self.address_rate_burst),
        }
    }

    /// How much a workspace may have.
    pub fn quotas(&self) -> Quotas {
        let limit = |number| Some(number).filter(|number| *number > 0);
        Quotas {
            projects: limit(self.max_projects),
            databases: limit(self.max_databases),
            connections_per_database: limit(self.max_connections_per_database),
        }
    }

    /// How many instances may run.
    pub fn max_running(&self) -> usize {
        const EACH: u64 = 64 << 20;
        let memory = rustix::system::sysinfo();
        #[expect(clippy::useless_conversion, reason = "the C types differ between architectures")]
        let bytes = u64::from(memory.totalram) * u64::from(memory.mem_unit);
        self.max_running.map_or((bytes / EACH).max(16) as usize, |given| given as usize)
    }
}

fn signed(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

/// PostgreSQL counts it in whole seconds.
fn archive_timeout(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    match time.as_secs() {
        1..=3600 => Ok(time),
        _ => Err(format!("{text:?} is out of range; give a time from 1s to 1h")),
    }
}

/// A key signs an hour after it was made: one that lives for less than a day makes many and no sense.
fn rotation(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_secs(24 * 3600);
    let time = duration(text)?;
    if (Duration::from_nanos(1)..LEAST).contains(&time) {
        return Err(format!("{text:?} is too short; give at least 24h, or 0 for never"));
    }
    Ok(time)
}

/// Without a slash at its end, with the host as browsers write it.
fn http_url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).ok().filter(|url| {
        let is_bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_bare
    });
    let url = url.ok_or_else(|| format!("{text:?} is not a URL such as https://howdah.example.com"))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn uid_range(text: &str) -> Result<RangeInclusive<u32>, String> {
    let wrong = || format!("{text:?} is not a range of user IDs such as 700000-799999");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last): (u32, u32) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first == 0 || first > last {
        return Err(wrong());
    }
    Ok(first..=last)
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{text:?} is not of the form HOST:PORT, such as db.example.com:5432");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || host.contains(['/', '@']) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

/// `https://` may stand before it; nothing else is offered.
fn storage_endpoint(text: &str) -> Result<(String, Option<u16>), String> {
    let wrong =
        || format!("{text:?} is not of the form HOST or HOST:PORT, such as s3.example.com; only TLS is supported");
    let bare = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let (host, port) = match bare.split_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
        None => (bare, None),
    };
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-');
    if host.is_empty() || !host.chars().all(fits) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

/// Without slashes at its ends.
fn storage_prefix(text: &str) -> Result<String, String> {
    let bare = text.trim_matches('/');
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    match bare.split('/').all(|part| !matches!(part, "" | "." | "..") && part.chars().all(fits)) {
        true => Ok(bare.to_owned()),
        false => {
            Err(format!("{text:?} is not a path of letters, digits, dots, hyphens and underscores, such as howdah/one"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_is_named_by_host_and_path() {
        assert_eq!(storage_endpoint("s3.example.com"), Ok(("s3.example.com".into(), None)));
        assert_eq!(storage_endpoint("https://minio:9000/"), Ok(("minio".into(), Some(9000))));
        for wrong in ["http://minio:9000", "", "https://", "minio:x", "minio/bucket", "user@minio"] {
            assert!(storage_endpoint(wrong).is_err(), "{wrong}");
        }
        assert_eq!(storage_prefix("/howdah/one/"), Ok("howdah/one".into()));
        for wrong in ["", "/", "a//b", "../a", "a b"] {
            assert!(storage_prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_are_rotated_daily_at_most() {
        assert_eq!((rotation("0"), rotation("24h")), (Ok(Duration::ZERO), Ok(Duration::from_secs(86_400))));
        assert!(rotation("1h").is_err());
    }

    #[test]
    fn ranges_and_addresses_are_checked() {
        assert_eq!(uid_range("10-20"), Ok(10..=20));
        assert!(uid_range("0-20").is_err());
        assert!(uid_range("20-10").is_err());
        assert_eq!(host_and_port("db.example.com:5432"), Ok(("db.example.com".into(), 5432)));
        assert!(host_and_port("db.example.com").is_err());
    }
}
