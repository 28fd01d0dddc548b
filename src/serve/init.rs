//! Howdah as process 1 of a container: whoever is process 1 inherits every orphan, and must reap
//! it. So process 1 only starts the real Howdah, passes signals on, and reaps.

use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Runs until the real Howdah ends, and ends with its exit code.
pub(crate) fn run() -> ExitCode {
    match supervise() {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a command line prints")]
            {
                eprintln!("howdah: cannot start as process 1: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn supervise() -> std::io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut quit = signal(SignalKind::quit())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut child_ended = signal(SignalKind::child())?;
        let child = Command::new(std::env::current_exe()?).args(std::env::args_os().skip(1)).spawn()?;
        let own = Pid::from_child(&child);
        loop {
            tokio::select! {
                // Ctrl-C on a terminal reaches the child by itself; a second one does no harm.
                _ = interrupt.recv() => { let _ = kill_process(own, Signal::INT); }
                _ = terminate.recv() => { let _ = kill_process(own, Signal::TERM); }
                _ = quit.recv() => { let _ = kill_process(own, Signal::QUIT); }
                _ = hangup.recv() => { let _ = kill_process(own, Signal::HUP); }
                _ = child_ended.recv() => {
                    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                        if pid == own {
                            let code = status.exit_status().unwrap_or(1);
                            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
                        }
                    }
                }
            }
        }
    })
}
