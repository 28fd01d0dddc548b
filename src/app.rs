//! What a request may reach, and what a workflow step may reach.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::auth::signing::Signer;
use crate::base::clock::Clock;
use crate::base::store::Store;
use crate::base::tasks::Tasks;
use crate::domain::regions::Regions;
use crate::engine::Instances;

/// What a request may reach. There is no engine in it.
pub struct App {
    /// The metadata store.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Signs and checks tokens.
    pub signer: Signer,
    /// The regions of this installation.
    pub regions: Regions,
    /// The addresses that customers are given.
    pub public: PublicAddresses,
    /// Background work that shutdown waits for.
    pub tasks: Tasks,
}

/// The addresses that customers are given.
#[derive(Clone, Debug)]
pub struct PublicAddresses {
    /// The API's base, without a slash at the end.
    pub api: String,
    /// The gateway's host.
    pub gateway_host: String,
    /// The gateway's port.
    pub gateway_port: u16,
}

impl PublicAddresses {
    /// `disable` while the gateway's public address is a loopback one, since some drivers verify
    /// certificates under `require` and nothing leaves the machine; `require` otherwise.
    pub fn sslmode(&self) -> &'static str {
        let host = self.gateway_host.trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if loopback { "disable" } else { "require" }
    }
}

/// What a workflow step may reach.
pub struct JobCtx {
    /// What a request may reach.
    pub app: Arc<App>,
    /// The instances.
    pub instances: Arc<Instances>,
    /// Where probes reach the gateway: the address that it listens on.
    pub gateway: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_needs_no_tls() {
        let at = |host: &str| PublicAddresses { api: String::new(), gateway_host: host.into(), gateway_port: 1 };
        assert_eq!(at("127.0.0.1").sslmode(), "disable");
        assert_eq!(at("localhost").sslmode(), "disable");
        assert_eq!(at("[::1]").sslmode(), "disable");
        assert_eq!(at("10.0.0.1").sslmode(), "require");
        assert_eq!(at("db.example.com").sslmode(), "require");
    }
}
