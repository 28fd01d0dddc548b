//! A panic is a fault of Howdah: one error line in the log, like every other fault.

/// Logs panics from now on, once each, instead of printing them. A line has what the span around
/// the panicking code knows, such as the id of the request.
pub fn log() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, "task panicked: {message}");
    }));
}
