//! What a workflow step may reach.

use std::net::SocketAddr;
use std::sync::Arc;

use domain::app::App;
use engine::Instances;
use smtp::Mailer;

/// What a workflow step may reach.
pub struct JobCtx {
    /// What a request may reach.
    pub app: Arc<App>,
    /// The instances.
    pub instances: Arc<Instances>,
    /// Hands mail over; `None` where there is no mail server.
    pub mailer: Option<Mailer>,
    /// Where probes reach the gateway: the address that it listens on.
    pub gateway: SocketAddr,
}
