//! Which signals end the process: INT, TERM and QUIT. All others that would end it by default are logged and ignored.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal as Name;
use tokio::signal::unix::{Signal, SignalKind, signal};

const ENDING: [Name; 3] = [Name::INT, Name::TERM, Name::QUIT];
/// Somebody may send them to other programs for a purpose, such as HUP to have files read again. Signals of faults,
/// such as SEGV and ABRT, do what they always do.
const IGNORED: [(Name, &str); 11] = [
    (Name::HUP, "HUP"),
    (Name::USR1, "USR1"),
    (Name::USR2, "USR2"),
    (Name::ALARM, "ALRM"),
    (Name::VTALARM, "VTALRM"),
    (Name::PROF, "PROF"),
    (Name::IO, "IO"),
    (Name::POWER, "PWR"),
    (Name::STKFLT, "STKFLT"),
    (Name::XCPU, "XCPU"),
    (Name::XFSZ, "XFSZ"),
];
/// Linux's real-time signals, without those that the C library keeps for itself.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// All of these.
pub(super) struct Signals(Vec<(i32, Signal)>);

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let ignored = IGNORED.into_iter().map(|(signal, _)| signal);
        let named = ENDING.into_iter().chain(ignored).map(Name::as_raw);
        let listening = named.chain(REAL_TIME).map(|number| Ok((number, signal(SignalKind::from_raw(number))?)));
        listening.collect::<io::Result<_>>().map(Self)
    }

    /// Returns when the process is told to end.
    pub(super) async fn next(&mut self) {
        poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                while signal.poll_recv(context).is_ready() {
                    if ENDING.iter().any(|ending| ending.as_raw() == *number) {
                        return Poll::Ready(());
                    }
                    let known = IGNORED.iter().find(|(ignored, _)| ignored.as_raw() == *number);
                    let name = known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned());
                    tracing::warn!("ignored the signal {name}; only INT, TERM and QUIT stop Howdah");
                }
            }
            Poll::Pending
        })
        .await;
    }
}
