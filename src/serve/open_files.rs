//! How the limit on open files is shared out, so that sessions can't take what requests and jobs need.

use crate::config::Serve;
use engine::local::OpenFiles;

/// For the metadata store, listeners, programs that run, and files that are read or written meanwhile.
const BASE: u64 = 192;
/// HTTP connections, where there is room for so many.
const MOST_HTTP: u64 = 1024;
/// Connections that have not logged in, likewise.
const MOST_UNAUTHENTICATED: u64 = 1000;

/// How many of each there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// HTTP connections.
    pub(super) http: usize,
    /// Instances that run, each of which is watched.
    pub(super) running: usize,
    /// Connections to the gateway that have not logged in.
    pub(super) unauthenticated: usize,
    /// Sessions, each of which has a connection to its client and one to its instance.
    pub(super) sessions: usize,
}

impl Shares {
    /// Shares a limit out. At most a quarter each goes to HTTP and to instances.
    fn of(limit: u64, sessions: u64, running: u64) -> Self {
        let rest = limit.saturating_sub(BASE).max(16);
        let http = MOST_HTTP.min(rest / 4);
        let running = running.min(rest / 4);
        let gateway = rest - http - running;
        let unauthenticated = MOST_UNAUTHENTICATED.min(gateway / 4);
        let sessions = sessions.min((gateway - unauthenticated) / 2);
        let number = |share: u64| usize::try_from(share).unwrap_or(usize::MAX);
        Self {
            http: number(http),
            running: number(running),
            unauthenticated: number(unauthenticated),
            sessions: number(sessions),
        }
    }
}

/// Shares out what this process may have open, and warns when that is less than what was configured.
pub(super) fn share(open_files: OpenFiles, config: &Serve) -> Shares {
    let (sessions, running) = (config.sessions, config.max_running());
    let shares = Shares::of(open_files.now, sessions as u64, running as u64);
    if shares.sessions < sessions || shares.running < running {
        tracing::warn!(
            open_files = open_files.now,
            "the limit on open files ({}) allows {} sessions (--sessions {sessions}) and {} running instances \
             (--max-running {running}): raise its hard limit, such as by LimitNOFILE in a unit of systemd",
            open_files.now,
            shares.sessions,
            shares.running
        );
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_leaves_room_for_requests_and_jobs() {
        for limit in [0, 256, 1024, 4096, 65_536, 1 << 20] {
            let shares = Shares::of(limit, 5000, 300);
            let used = shares.http + shares.running + shares.unauthenticated + 2 * shares.sessions;
            assert!(used as u64 <= limit.saturating_sub(BASE).max(16), "{limit}: {shares:?}");
            assert!(shares.http > 0 && shares.running > 0 && shares.sessions > 0, "{limit}: {shares:?}");
        }
        let ample = Shares { http: 1024, running: 300, unauthenticated: 1000, sessions: 5000 };
        assert_eq!(Shares::of(65_536, 5000, 300), ample);
        assert_eq!(
            Shares::of(1024, 5000, 300),
            Shares { http: 208, running: 208, unauthenticated: 104, sessions: 156 }
        );
    }
}
