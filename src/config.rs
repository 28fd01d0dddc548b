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
    /// Where everything is kept [default: /var/lib/howdah for root, ~/.local/share/howdah for others]
    #[arg(long, env = "HOWDAH_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// A PostgreSQL for Howdah's own data, instead of the private one that it runs itself
    #[arg(long, env = "HOWDAH_METADATA_URL", value_name = "URL", hide_env_values = true)]
    pub metadata_url: Option<String>,

    /// The directory of PostgreSQL's programs, instead of looking in the usual places
    #[arg(long, env = "HOWDAH_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,

    /// As root: the users that instances run as, one each [default: 16384 that nothing else has]
    #[arg(long, env = "HOWDAH_UID_RANGE", value_name = "FROM-TO", value_parser = uid_range)]
    pub uid_range: Option<RangeInclusive<u32>>,
}

/// What `howdah serve` can be told.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a flattened group of options has no text of its own")]
    pub place: Place,

    /// Where the API listens; port 0 picks a free one
    #[arg(long, env = "HOWDAH_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,

    /// Where numbers are told to Prometheus, at /metrics, without asking who it is [default: nowhere]
    #[arg(long, env = "HOWDAH_METRICS", value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,

    /// Where PostgreSQL clients connect; port 0 picks a free one
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

    /// Sign tokens with a new key after so long; 0: never. Old keys stay good for what they have signed
    #[arg(long, env = "HOWDAH_KEY_ROTATION", value_name = "TIME", default_value = "2160h", value_parser = rotation)]
    pub key_rotation: Duration,

    /// The gateway's address in connection strings [default: the gateway's address]; some tools assume port 5432
    #[arg(long, env = "HOWDAH_PUBLIC_GATEWAY", value_name = "HOST:PORT", value_parser = host_and_port)]
    pub public_gateway: Option<(String, u16)>,

    /// The gateway's certificate chain, PEM [default: one that Howdah's own authority issues]
    #[arg(long, env = "HOWDAH_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, PEM
    #[arg(long, env = "HOWDAH_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Stop an instance after this long without a transaction or traffic; 0: never
    #[arg(long, env = "HOWDAH_IDLE_STOP", value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub idle_stop: Duration,

    /// End a session that has been idle for this long; 0: never
    #[arg(long, env = "HOWDAH_SESSION_IDLE", value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub session_idle: Duration,

    /// How many instances may run at a time [default: one for each 64 MiB of memory]
    #[arg(long, env = "HOWDAH_MAX_RUNNING", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_running: Option<u32>,

    /// How many prepared instances to hold ready
    #[arg(long, env = "HOWDAH_STOCK", value_name = "N", default_value_t = 8)]
    pub stock: usize,

    /// Sessions of one database at a time, from 1 to 1000; an instance that runs takes a new number at its next start
    #[arg(long, env = "HOWDAH_SESSIONS_PER_DATABASE", value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=i64::from(MOST_SESSIONS)))]
    pub sessions_per_database: u16,

    /// Sessions of all databases at a time
    #[arg(long, env = "HOWDAH_SESSIONS", value_name = "N", default_value_t = 5000)]
    pub sessions: usize,

    /// Requests a second with one token, in the long run; 0: no limit
    #[arg(long, env = "HOWDAH_RATE_LIMIT", value_name = "N", default_value_t = 100)]
    pub rate_limit: u32,

    /// Requests with one token that may come at once
    #[arg(long, env = "HOWDAH_RATE_BURST", value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_burst: u32,

    /// Requests a second from one address, in the long run; a tenth of it without a good token; 0: no limit
    #[arg(long, env = "HOWDAH_ADDRESS_RATE_LIMIT", value_name = "N", default_value_t = 500)]
    pub address_rate_limit: u32,

    /// Requests from one address that may come at once; a tenth of it without a good token
    #[arg(long, env = "HOWDAH_ADDRESS_RATE_BURST", value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub address_rate_burst: u32,

    /// A proxy whose X-Forwarded-For is believed, as an address or a network; may be given several times
    #[arg(long = "trusted-proxy", env = "HOWDAH_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// Projects of a workspace, unless its own limits say otherwise; 0: no limit
    #[arg(long, env = "HOWDAH_MAX_PROJECTS", value_name = "N", default_value_t = 1000)]
    pub max_projects: u32,

    /// Databases of a workspace, unless its own limits say otherwise; 0: no limit
    #[arg(long, env = "HOWDAH_MAX_DATABASES", value_name = "N", default_value_t = 1000)]
    pub max_databases: u32,

    /// Connections of a database, unless its workspace's own limits say otherwise; 0: no limit
    #[arg(long, env = "HOWDAH_MAX_CONNECTIONS_PER_DATABASE", value_name = "N", default_value_t = 100)]
    pub max_connections_per_database: u32,

    /// A region, instead of the built-in list; may be given several times
    #[arg(long = "region", env = "HOWDAH_REGIONS", value_name = "ID=NAME", value_delimiter = ';')]
    pub regions: Vec<String>,

    /// Where backups are kept [default: `backups` in the data directory]
    #[arg(long, env = "HOWDAH_BACKUP_DIR", value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a flattened group of options has no text of its own")]
    pub backup_s3: BackupS3,

    /// How much of what one database writes may wait on this machine's disk when it cannot be archived, in
    /// MiB; then it is given up, and a new backup made
    #[arg(long, env = "HOWDAH_BACKUP_QUEUE", value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub backup_queue: u32,

    /// Archive what was written after so long at the latest, from 1s on; less makes more files in the place of backups
    #[arg(long, env = "HOWDAH_ARCHIVE_TIMEOUT", value_name = "TIME", default_value = "60s", value_parser = archive_timeout)]
    pub archive_timeout: Duration,

    /// Back a database that is in use, and the metadata, up after so long since the last time; 0: never by itself
    #[arg(long, env = "HOWDAH_BACKUP_EVERY", value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub backup_every: Duration,

    /// Back a new database that is in use up for the first time after so long
    #[arg(long, env = "HOWDAH_BACKUP_FIRST", value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub backup_first: Duration,

    /// Restore the newest backup of each database in use for a trial so long after the last time; 0: never
    #[arg(long, env = "HOWDAH_DRILL_EVERY", value_name = "TIME", default_value = "168h", value_parser = duration)]
    pub drill_every: Duration,

    /// Keep deleted databases restorable for so long; 0: not at all
    #[arg(long, env = "HOWDAH_UNDELETE", value_name = "TIME", default_value = "168h", value_parser = duration)]
    pub undelete: Duration,

    /// Remove no backup for its age before the machine's clock has gone evenly for so long; 0: at once
    #[arg(long, env = "HOWDAH_STEADY_CLOCK", value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub steady_clock: Duration,

    /// How much of the data directory's disk to keep for Howdah itself, in MiB: new instances and growing ones are
    /// stopped while four times and twice as much is left; 0: nothing [default: a 64th of the disk, 64 to 512]
    #[arg(long, env = "HOWDAH_DISK_RESERVE", value_name = "MIB")]
    pub disk_reserve: Option<u32>,

    /// Also write the audit log out, a line of JSON each entry: to a file, or to `syslog`
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
    /// The mail server, such as smtp://howdah@mail.example.com:587, with TLS by STARTTLS, or smtps:// for TLS
    /// from the start; HOWDAH_SMTP_PASSWORD in the environment has the user's password
    #[arg(long, env = "HOWDAH_SMTP_URL", value_name = "URL", hide_env_values = true)]
    pub smtp_url: Option<String>,

    /// A file with the password instead
    #[arg(long, env = "HOWDAH_SMTP_PASSWORD_FILE", value_name = "FILE")]
    pub smtp_password_file: Option<PathBuf>,

    /// Authorities to trust for the mail server's certificate, PEM [default: the machine's]
    #[arg(long, env = "HOWDAH_SMTP_CA_FILE", value_name = "FILE")]
    pub smtp_ca_file: Option<PathBuf>,

    /// Who mail is from, such as "Howdah <howdah@example.com>"
    #[arg(long, env = "HOWDAH_MAIL_FROM", value_name = "SENDER")]
    pub mail_from: Option<String>,
}

/// A provider that people sign in with (OpenID Connect).
#[derive(Args, Clone, Debug)]
pub struct Oidc {
    /// An OpenID Connect provider that people may sign in with, by its issuer; what proves who Howdah is to it
    /// is in the environment, in HOWDAH_OIDC_CLIENT_SECRET
    #[arg(long = "oidc-issuer", env = "HOWDAH_OIDC_ISSUER", value_name = "URL", requires = "client_id")]
    pub issuer: Option<String>,

    /// Howdah's client id at the provider
    #[arg(long = "oidc-client-id", env = "HOWDAH_OIDC_CLIENT_ID", value_name = "ID", requires = "issuer")]
    pub client_id: Option<String>,

    /// What the provider is called on the sign-in page [default: its host]
    #[arg(long = "oidc-name", env = "HOWDAH_OIDC_NAME", value_name = "NAME", requires = "issuer")]
    pub name: Option<String>,

    /// Who signs in there with an address of this domain gets an account without an invitation; may be given
    /// several times
    #[arg(
        long = "oidc-domain",
        env = "HOWDAH_OIDC_DOMAINS",
        value_name = "DOMAIN",
        value_delimiter = ',',
        requires = "issuer"
    )]
    pub domains: Vec<String>,

    /// Believe the provider's addresses even where it does not say that they were verified: only where nobody
    /// chooses their own
    #[arg(long = "oidc-trust-addresses", env = "HOWDAH_OIDC_TRUST_ADDRESSES", requires = "issuer")]
    pub trust_addresses: bool,
}

/// Storage that speaks the protocol of S3, for backups. What opens it is in the environment only:
/// arguments are for everybody to read.
#[derive(Args, Clone, Debug)]
pub struct BackupS3 {
    /// A bucket to keep backups in, instead of a directory; HOWDAH_BACKUP_S3_KEY and
    /// HOWDAH_BACKUP_S3_KEY_SECRET in the environment open it
    #[arg(long = "backup-s3-bucket", env = "HOWDAH_BACKUP_S3_BUCKET", value_name = "NAME")]
    pub bucket: Option<String>,

    /// The host of the storage, which is always reached by TLS [default: that of the region at AWS]
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

    /// What the names of all objects begin with [default: nothing]
    #[arg(long = "backup-s3-prefix", env = "HOWDAH_BACKUP_S3_PREFIX", value_name = "PATH",
        value_parser = storage_prefix, requires = "bucket")]
    pub prefix: Option<String>,

    /// Where the bucket's name stands in addresses [default: in the host at AWS, in the path elsewhere]
    #[arg(long = "backup-s3-uri-style", env = "HOWDAH_BACKUP_S3_URI_STYLE", value_name = "STYLE", requires = "bucket")]
    pub uri_style: Option<UriStyle>,

    /// Authorities to trust for the storage's certificate, PEM [default: the machine's]
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

    /// Where the backups are, of the databases and of Howdah's own metadata
    #[arg(long, env = "HOWDAH_BACKUP_DIR", value_name = "DIR")]
    pub backup_dir: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a flattened group of options has no text of its own")]
    pub backup_s3: BackupS3,

    /// A copy of the lost Howdah's `keys/master.key`
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
        _ => Err(format!("{text:?} does not fit; give a time from 1s to 1h")),
    }
}

/// A key signs an hour after it was made: one that lives for less than a day makes many and no sense.
fn rotation(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_secs(24 * 3600);
    let time = duration(text)?;
    if (Duration::from_nanos(1)..LEAST).contains(&time) {
        return Err(format!("{text:?} is too short; the least is 24h, and 0 is never"));
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
    let wrong = || format!("{text:?} is not a range of users such as 700000-799999");
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
        || format!("{text:?} is not of the form HOST or HOST:PORT, such as s3.example.com; it is reached by TLS");
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
