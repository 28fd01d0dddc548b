//! Which certificate a session is served with, and what clients verify it by.

use std::pin::Pin;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_postgres::tls::TlsConnect;

use super::*;
use crate::authority::{Authority, Leaf};
use base::secret::random_hex;

/// A new authority, of a name of its own.
pub(super) fn authority() -> Authority {
    Authority::make(&format!("Howdah CA {}", random_hex::<4>()), Clock::system().now()).unwrap().0
}

/// A certificate for localhost that it issues.
pub(super) fn of(authority: &Authority) -> Tls {
    let Leaf { pem, key, .. } = authority.issue(&["localhost".to_owned()], Clock::system().now()).unwrap();
    tls::server_config(&pem, key.expose()).unwrap()
}

/// TLS that trusts this authority alone and compares the name, like `sslmode=verify-full`.
fn trusting(authority: &Authority) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    MakeRustlsConnect::new(config)
}

/// TLS that replaces the gateway's certificate as soon as its own handshake is over.
#[derive(Clone)]
struct Replacing {
    tls: MakeRustlsConnect,
    certificate: watch::Sender<Tls>,
    next: Tls,
}

struct Handshake<C> {
    inner: C,
    replacing: Replacing,
}

impl MakeTlsConnect<Socket> for Replacing {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = Handshake<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect>;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let inner = MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls, host)?;
        Ok(Handshake { inner, replacing: self.clone() })
    }
}

impl<C> TlsConnect<Socket> for Handshake<C>
where
    C: TlsConnect<Socket> + Send + 'static,
    C::Future: Send,
{
    type Stream = C::Stream;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<C::Stream, C::Error>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let done = self.inner.connect(stream).await;
            self.replacing.certificate.send_replace(self.replacing.next);
            done
        })
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_served_to_new_sessions_and_open_ones_go_on() {
    let world = World::new(Limits::default());
    world.add("ada", Readiness::Ready, false);
    let mut config = world.client("ada", SslMode::Require);
    config.channel_binding(ChannelBinding::Require);
    let (first, second) = (authority(), authority());
    world.certificate.send_replace(of(&first));
    let open = world.connect_by(config.clone(), trusting(&first)).await.unwrap();

    world.certificate.send_replace(of(&second));
    assert!(open.startup().await.contains("user tenant"));
    let refused = world.connect_by(config.clone(), trusting(&first)).await.err().unwrap();
    assert!(format!("{refused:?}").contains("UnknownIssuer"), "{refused:?}");
    let new = world.connect_by(config, trusting(&second)).await.unwrap();
    assert!(new.startup().await.contains("user tenant"));
    assert!(open.startup().await.contains("user tenant"));
}

#[tokio::test]
async fn a_session_is_bound_to_the_certificate_of_its_own_handshake() {
    let world = World::new(Limits::default());
    world.add("ada", Readiness::Ready, false);
    let mut config = world.client("ada", SslMode::Require);
    config.channel_binding(ChannelBinding::Require);
    let authority = authority();
    world.certificate.send_replace(of(&authority));
    let replacing =
        Replacing { tls: trusting(&authority), certificate: world.certificate.clone(), next: of(&authority) };
    let session = world.connect_by(config, replacing).await.unwrap();
    assert!(session.startup().await.contains("user tenant"));
}

#[tokio::test]
async fn a_certificate_is_valid_for_its_names_only() {
    let world = World::new(Limits::default());
    world.add("ada", Readiness::Ready, false);
    let authority = authority();
    let names = ["db.example.com", "127.0.0.1"].map(str::to_owned);
    let Leaf { pem, key, .. } = authority.issue(&names, Clock::system().now()).unwrap();
    world.certificate.send_replace(tls::server_config(&pem, key.expose()).unwrap());
    let by_name = |name: &str| {
        let mut config = tokio_postgres::Config::new();
        config.host(name).hostaddr(world.address.ip()).port(world.address.port());
        config.user("ada").password("pencil").ssl_mode(SslMode::Require);
        world.connect_by(config, trusting(&authority))
    };
    for name in ["db.example.com", "127.0.0.1"] {
        assert!(by_name(name).await.is_ok(), "{name}");
    }
    let refused = by_name("other.example.com").await.err().unwrap();
    assert!(format!("{refused:?}").contains("NotValidForName"), "{refused:?}");
}
