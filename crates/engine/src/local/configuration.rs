//! What a server is told: `postgresql.conf`, `pg_hba.conf`, `pg_ident.conf`, the command line.
//!
//! The files lie outside the data directory and are not writable by the instance's user. What
//! security rests on stands on the command line, which `postgresql.auto.conf` (inside the data
//! directory) cannot override.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::time::Duration;

use super::place::{Place, write_unsynced};
use crate::{BACKUP_ROLE, Endpoint, Major, PLATFORM_DATABASE};

/// The most sessions of one database that can be configured.
pub const MOST_SESSIONS: u16 = 1000;
/// As few sessions as the lock table is made for, however few are configured.
const FEWEST_SESSIONS: u16 = 40;
/// Connections beside the tenant's sessions: the platform's, and backends that are still ending.
const BESIDE_SESSIONS: u16 = 10;
/// Of these, some are for superusers only, which a tenant is not.
const RESERVED: u16 = 5;

/// `max_connections` of an instance that takes so many sessions.
pub(super) const fn connections(sessions: u16) -> u16 {
    let sessions = if sessions < FEWEST_SESSIONS { FEWEST_SESSIONS } else { sessions };
    sessions + BESIDE_SESSIONS + RESERVED
}

/// What a server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// One tenant's database: as small as it can safely be.
    Tenant,
    /// A database that nobody but the platform is in for a moment, such as one that is checked and thrown
    /// away: it archives nothing, and runs nothing that a tenant wrote.
    Private,
    /// Howdah's own data.
    Metadata,
}

/// How the platform and the gateway log in.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// Whether every instance has a user of its own.
    pub(super) separate_users: bool,
    /// The name of Howdah's user, which `peer` compares with.
    pub(super) own_name: String,
}

impl Access {
    /// To an instance that carries the password of its origin: nobody gets in with that, only Howdah by its name.
    pub(super) fn without_password(&self) -> Self {
        Self { separate_users: true, own_name: self.own_name.clone() }
    }
}

/// Writes the files unless they are there and right. Each start does that, so a power failure may take them.
pub(super) fn write_files(
    place: &Place,
    purpose: Purpose,
    sessions: u16,
    access: &Access,
    gid: Option<u32>,
) -> io::Result<()> {
    let mode = if gid.is_some() { 0o640 } else { 0o600 };
    for (name, text) in [
        ("postgresql.conf", settings(purpose, sessions)),
        ("pg_hba.conf", host_based_authentication(purpose, access)),
        ("pg_ident.conf", user_map(access)),
    ] {
        let path = place.conf().join(name);
        if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
            continue;
        }
        write_unsynced(&path, text.as_bytes(), mode, gid)?;
    }
    Ok(())
}

/// The arguments of `postgres`.
pub(super) fn arguments(place: &Place, purpose: Purpose, major: Major, archive_timeout: Duration) -> Vec<OsString> {
    let conf = place.conf();
    let path = |key: &str, path: std::path::PathBuf| {
        let mut setting = OsString::from(format!("{key}="));
        setting.push(path);
        setting
    };
    let mut settings: Vec<OsString> = vec![
        path("config_file", conf.join("postgresql.conf")),
        path("hba_file", conf.join("pg_hba.conf")),
        path("ident_file", conf.join("pg_ident.conf")),
        path("data_directory", place.data()),
        path("unix_socket_directories", place.socket()),
        format!("port={}", Endpoint::PORT).into(),
    ];
    let verbosity = match purpose {
        // A tenant's RAISE must not fill the disk, nor its statements reach the log.
        Purpose::Tenant | Purpose::Private => "log_min_messages=fatal",
        Purpose::Metadata => "log_min_messages=warning",
    };
    settings.push(verbosity.into());
    // Finished segments are marked and kept until Howdah has archived or given them up. There is
    // no command: nothing is run by the instance's user.
    settings.push(format!("archive_mode={}", if purpose == Purpose::Private { "off" } else { "on" }).into());
    settings.push(format!("archive_timeout={}", archive_timeout.as_secs().max(1)).into());
    settings.extend(
        [
            "external_pid_file=",
            "unix_socket_permissions=0770",
            "unix_socket_group=",
            "listen_addresses=",
            "ssl=off",
            "shared_preload_libraries=",
            "session_preload_libraries=",
            "local_preload_libraries=",
            "archive_command=",
            "archive_library=",
            "restore_command=",
            "archive_cleanup_command=",
            "recovery_end_command=",
            "primary_conninfo=",
            "logging_collector=off",
            "log_destination=stderr",
            "log_line_prefix=%m [%p] ",
            "log_statement=none",
            "log_min_error_statement=panic",
            "log_min_duration_statement=-1",
            "log_connections=off",
            "log_disconnections=off",
            "track_activities=on",
            "fsync=on",
            "full_page_writes=on",
            "password_encryption=scram-sha-256",
        ]
        .map(OsString::from),
    );
    if purpose == Purpose::Private {
        settings.push("autovacuum=off".into());
    }
    if major >= Major(17) {
        settings.push("allow_alter_system=off".into());
    }
    let mut arguments = vec!["-D".into(), place.data().into_os_string()];
    for setting in settings {
        arguments.push("-c".into());
        arguments.push(setting);
    }
    arguments
}

fn settings(purpose: Purpose, sessions: u16) -> String {
    let mut lines = vec![
        "# Written by Howdah at every start: changes made here are lost.",
        "wal_level = replica",
        "max_wal_senders = 3",
        "max_replication_slots = 3",
        "max_slot_wal_keep_size = 64MB",
        "max_worker_processes = 4",
        "huge_pages = off",
        // Parallel queries share memory of the server's own first, and files of its data directory then. /dev/shm is
        // the same for all servers, and small in containers: one tenant could take all of it.
        "min_dynamic_shared_memory = 4MB",
        "dynamic_shared_memory_type = mmap",
        "jit = off",
        "autovacuum = on",
        "lc_messages = 'C'",
        "timezone = 'UTC'",
        "log_timezone = 'UTC'",
        "default_text_search_config = 'pg_catalog.english'",
    ];
    lines.extend(match purpose {
        Purpose::Tenant | Purpose::Private => [
            "shared_buffers = 8MB",
            "min_wal_size = 2MB",
            "max_wal_size = 64MB",
            "autovacuum_max_workers = 1",
            "maintenance_work_mem = 16MB",
            "temp_file_limit = 1GB",
        ],
        Purpose::Metadata => [
            "shared_buffers = 64MB",
            // As much is kept for reuse, so that transactions go on for a while on a full disk.
            "min_wal_size = 32MB",
            "max_wal_size = 512MB",
            "autovacuum_max_workers = 2",
            "maintenance_work_mem = 64MB",
            "synchronous_commit = on",
        ],
    });
    let mut text = lines.join("\n") + "\n";
    let (connections, reserved) = match purpose {
        Purpose::Tenant | Purpose::Private => (connections(sessions), RESERVED),
        Purpose::Metadata => (100, 3),
    };
    // The lock table holds max_connections times this, which is never less than the 100 times 64 of a stock server.
    // It does not depend on the sessions, since recovery refuses a smaller number than WAL was written with.
    let locks = 128;
    for (name, value) in [
        ("max_connections", connections),
        ("superuser_reserved_connections", reserved),
        ("max_locks_per_transaction", locks),
        ("max_pred_locks_per_transaction", locks),
    ] {
        text += &format!("{name} = {value}\n");
    }
    text
}

/// The first line that fits decides; what no line names is rejected by the last.
fn host_based_authentication(purpose: Purpose, access: &Access) -> String {
    let platform = match purpose {
        // The instance's processes run as the same user as Howdah here, so `peer` would let a
        // tenant's SQL come back in as superuser (dblink and its like): a password that only
        // Howdah reads keeps that shut.
        Purpose::Tenant | Purpose::Private if !access.separate_users => "scram-sha-256",
        _ => "peer map=howdah",
    };
    let mut lines = vec!["# TYPE DATABASE USER METHOD".to_owned(), "local howdah tenant reject".to_owned()];
    if purpose == Purpose::Private {
        // What looks at it runs as the instance's user, and logs in to every database but the
        // platform's.
        lines.push(format!("local {PLATFORM_DATABASE} howdah {platform}"));
        lines.push("local all howdah scram-sha-256".to_owned());
    } else {
        // It can log in during a backup only, with a password made for that one.
        lines.push(format!("local {PLATFORM_DATABASE} {BACKUP_ROLE} scram-sha-256"));
        lines.push(format!("local all howdah {platform}"));
    }
    if purpose == Purpose::Tenant {
        // With shared users whoever runs SQL in the instance could log in as the tenant this
        // way; but that is who they are already, so nothing is gained.
        lines.push("local all tenant peer map=howdah".to_owned());
    }
    lines.push("local all all reject".to_owned());
    lines.join("\n") + "\n"
}

fn user_map(access: &Access) -> String {
    let name = access.own_name.replace('"', "\"\"");
    format!("# MAP SYSTEM-USER ROLE\nhowdah \"{name}\" howdah\nhowdah \"{name}\" tenant\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(separate_users: bool, own_name: &str) -> Access {
        Access { separate_users, own_name: own_name.to_owned() }
    }

    #[test]
    fn an_instance_takes_its_sessions_and_the_platform_whatever_the_option_says() {
        for sessions in [1, 40, 50, 51, 250, MOST_SESSIONS] {
            let text = settings(Purpose::Tenant, sessions);
            let value = |name: &str| -> u32 {
                let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
                line.unwrap().parse().unwrap()
            };
            assert!(value("max_connections") * value("max_locks_per_transaction") >= 100 * 64, "{text}");
            let left = value("max_connections") - value("superuser_reserved_connections");
            assert!(left > sessions.into() && value("superuser_reserved_connections") > 0, "{text}");
        }
    }

    #[test]
    fn as_root_only_root_comes_in() {
        let access = access(true, "root");
        insta::assert_snapshot!(host_based_authentication(Purpose::Tenant, &access), @r"
        # TYPE DATABASE USER METHOD
        local howdah tenant reject
        local howdah howdah_backup scram-sha-256
        local all howdah peer map=howdah
        local all tenant peer map=howdah
        local all all reject
        ");
        insta::assert_snapshot!(user_map(&access), @r#"
        # MAP SYSTEM-USER ROLE
        howdah "root" howdah
        howdah "root" tenant
        "#);
    }

    #[test]
    fn with_shared_users_the_platform_needs_its_password() {
        let text = host_based_authentication(Purpose::Tenant, &access(false, "someone"));
        assert!(text.contains("local all howdah scram-sha-256\n"));
        assert!(text.contains("local all tenant peer map=howdah\n"));
    }

    #[test]
    fn only_the_platform_connects_to_an_instance_under_verification() {
        insta::assert_snapshot!(host_based_authentication(Purpose::Private, &access(true, "root")), @r"
        # TYPE DATABASE USER METHOD
        local howdah tenant reject
        local howdah howdah peer map=howdah
        local all howdah scram-sha-256
        local all all reject
        ");
        let shared = host_based_authentication(Purpose::Private, &access(false, "someone"));
        assert!(!shared.contains("peer"), "{shared}");
    }

    #[test]
    fn the_metadata_instance_knows_no_tenant() {
        let text = host_based_authentication(Purpose::Metadata, &access(true, "root"));
        assert!(!text.contains("tenant peer"));
    }
}
