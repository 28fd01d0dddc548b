//! What Howdah asks of the operating system for itself and for what it starts.

use rustix::process::Signal;

use crate::harness::{Howdah, ask, connection_string, eventually};

#[tokio::test]
async fn only_term_int_and_quit_end_the_process() {
    let mut howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("survivor").await);
    let pid = howdah.pid();
    let ignored = ["HUP", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XCPU", "XFSZ"];
    for signal in ignored.into_iter().chain(["34", "64"]) {
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        assert!(sent.unwrap().success(), "{signal}");
        let line = format!("ignored the signal {signal};");
        eventually(&line, async || howdah.log().contains(&line).then_some(())).await;
    }
    assert_eq!(ask(&connection, "SELECT 1"), "1");
    assert!(howdah.stop_by(Signal::QUIT).await.success(), "QUIT ends it in order");
    assert!(howdah.directory().servers().is_empty(), "and stops every server");
}
