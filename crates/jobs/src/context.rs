//! The parts of Howdah that a workflow step can use: those of a request, the engine and the mail server.

use std::net::SocketAddr;
use std::sync::Arc;

use domain::app::App;
use engine::Instances;
use smtp::Mailer;

/// The parts of Howdah that a workflow step can use.
pub struct JobCtx {
    /// Those that a request can use, too.
    pub app: Arc<App>,
    /// The instances.
    pub instances: Arc<Instances>,
    /// Hands mail over; `None` where there is no mail server.
    pub mailer: Option<Mailer>,
    /// Where probes reach the gateway: the address that it listens on.
    pub gateway: SocketAddr,
}
