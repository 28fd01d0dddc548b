//! The gateway as a whole, on TCP, in front of an instance that is a few lines on a unix socket.

mod certificate;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::Socket;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::lookup::table::Table;
use super::*;
use base::clock::Clock;
use base::id::{ConnectionId, DatabaseId, InstanceId};
use base::scram::Verifier;
use base::secret::Secret;
use base::store::{Announcement, Channel};
use credential::{Credential, Readiness};
use engine::backups::{
    ArchiveStatus, BackupError, BackupFacts, BackupKind, BackupLabel, Backups, CheckFacts, ProgressSink, RecoverTo,
    RestoreFacts, Retention, Vault,
};
use engine::{DiskUsage, Endpoint, Engine, EngineError, InstanceFacts, Major, Measured, StockLevel};

/// An engine with one instance that always runs.
struct OneInstance {
    directory: PathBuf,
    starts: Arc<AtomicUsize>,
}

#[async_trait]
impl Engine for OneInstance {
    async fn majors(&self) -> Vec<Major> {
        vec![Major(15)]
    }
    async fn ensure_created(&self, _: InstanceId, _: Major) -> Result<(), EngineError> {
        Ok(())
    }
    async fn ensure_started(&self, _: InstanceId) -> Result<Endpoint, EngineError> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        Ok(Endpoint { directory: self.directory.clone() })
    }
    async fn ensure_stopped(&self, _: InstanceId) -> Result<(), EngineError> {
        Ok(())
    }
    async fn ensure_destroyed(&self, _: InstanceId) -> Result<(), EngineError> {
        Ok(())
    }
    async fn is_busy(&self, _: InstanceId) -> Result<bool, EngineError> {
        Ok(false)
    }
    async fn measure(&self, _: InstanceId) -> Result<Option<Measured>, EngineError> {
        Ok(None)
    }
    async fn disk_usage(&self, _id: InstanceId) -> Result<DiskUsage, EngineError> {
        Ok(DiskUsage::default())
    }

    async fn has_exited(&self, _: InstanceId) {
        std::future::pending().await
    }
    async fn instances(&self) -> Result<Vec<InstanceFacts>, EngineError> {
        Ok(vec![])
    }
    async fn replenish_stock(&self) -> Result<StockLevel, EngineError> {
        Ok(StockLevel { ready: 0, target: 0 })
    }
}

/// The gateway has nothing to do with backups.
#[async_trait]
impl Backups for OneInstance {
    async fn ensure_archiving(&self, _: &Vault) -> Result<(), BackupError> {
        unreachable!()
    }
    async fn archive_pending(&self) -> Result<(), EngineError> {
        unreachable!()
    }
    async fn archive_status(&self, _: InstanceId) -> Result<ArchiveStatus, BackupError> {
        unreachable!()
    }
    async fn flush_archive(&self, _: &Vault) -> Result<(), BackupError> {
        unreachable!()
    }
    async fn back_up(&self, _: &Vault, _: BackupKind, _: ProgressSink) -> Result<BackupFacts, BackupError> {
        unreachable!()
    }
    async fn backups(&self, _: &Vault) -> Result<Vec<BackupFacts>, BackupError> {
        unreachable!()
    }
    async fn restore(
        &self,
        _: InstanceId,
        _: &Vault,
        _: &BackupLabel,
        _: RecoverTo,
        _: ProgressSink,
    ) -> Result<RestoreFacts, BackupError> {
        unreachable!()
    }
    async fn copy(&self, _: InstanceId, _: InstanceId, _: Box<dyn Send>) -> Result<Option<RestoreFacts>, BackupError> {
        unreachable!()
    }
    async fn check(&self, _: InstanceId, _: ProgressSink) -> Result<CheckFacts, BackupError> {
        unreachable!()
    }
    async fn expire(&self, _: &Vault, _: Retention) -> Result<(), BackupError> {
        unreachable!()
    }
    async fn remove_backup(&self, _: &Vault, _: &BackupLabel) -> Result<(), BackupError> {
        unreachable!()
    }
    async fn verify(&self, _: &Vault) -> Result<(), BackupError> {
        unreachable!()
    }
    async fn ensure_forgotten(&self, _: &Vault) -> Result<(), BackupError> {
        unreachable!()
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

/// Answers every simple query with one row that says what the startup packet was; the query
/// `sleep` is not answered until a cancel arrives.
async fn instance(listener: UnixListener, cancelled: mpsc::UnboundedSender<Vec<u8>>, tasks: Tasks) {
    let sleepers: Arc<Mutex<Vec<mpsc::UnboundedSender<()>>>> = Arc::default();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (cancelled, sleepers) = (cancelled.clone(), sleepers.clone());
        tasks.spawn(async move {
            let mut length = [0; 4];
            stream.read_exact(&mut length).await.unwrap();
            let mut packet = vec![0; u32::from_be_bytes(length) as usize - 4];
            stream.read_exact(&mut packet).await.unwrap();
            if packet[..2] != [0, 3] {
                cancelled.send(packet).unwrap();
                for sleeper in sleepers.lock().unwrap().drain(..) {
                    let _ = sleeper.send(());
                }
                return;
            }
            let startup = String::from_utf8_lossy(&packet[4..]).replace('\0', " ");
            let mut greeting = message(b'R', &[0; 4]);
            greeting.extend(message(b'S', b"server_version\x0015.99\0"));
            greeting.extend(message(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]));
            greeting.extend(message(b'Z', b"I"));
            stream.write_all(&greeting).await.unwrap();
            loop {
                let mut header = [0; 5];
                if stream.read_exact(&mut header).await.is_err() {
                    return;
                }
                let mut body = vec![0; u32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4];
                stream.read_exact(&mut body).await.unwrap();
                let mut answer = Vec::new();
                match (header[0], &body[..]) {
                    (b'X', _) => return,
                    (_, b"sleep\0") => {
                        let (sender, mut receiver) = mpsc::unbounded_channel();
                        sleepers.lock().unwrap().push(sender);
                        receiver.recv().await;
                        answer.extend(message(b'E', b"SERROR\0C57014\0Mcanceled\0\0"));
                    }
                    _ => {
                        answer.extend(message(b'T', b"\0\x01what\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"));
                        let mut row = vec![0, 1];
                        row.extend((startup.len() as u32).to_be_bytes());
                        row.extend(startup.bytes());
                        answer.extend(message(b'D', &row));
                        answer.extend(message(b'C', b"SELECT 1\0"));
                    }
                }
                answer.extend(message(b'Z', b"I"));
                stream.write_all(&answer).await.unwrap();
            }
        });
    }
}

struct World {
    address: SocketAddr,
    table: Table,
    tasks: Tasks,
    starts: Arc<AtomicUsize>,
    cancelled: mpsc::UnboundedReceiver<Vec<u8>>,
    certificate: watch::Sender<Tls>,
    _directory: tempfile::TempDir,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self::with_room_for(10, limits)
    }

    fn with_room_for(max_running: usize, limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tasks = Tasks::default();
        let (sender, cancelled) = mpsc::unbounded_channel();
        let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap();
        let (inner, stop) = (tasks.clone(), tasks.clone());
        tasks.spawn(async move {
            tokio::select! { () = instance(listener, sender, inner) => {}, () = stop.stopping() => {} }
        });
        let starts = Arc::new(AtomicUsize::new(0));
        let engine = OneInstance { directory: directory.path().to_owned(), starts: starts.clone() };
        let idle = engine::Limits { idle_stop: None, max_running };
        let instances = Instances::new(Arc::new(engine), idle, Clock::system(), tasks.clone());
        let (certificate, tls) = watch::channel(certificate::of(&certificate::authority()));
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), tls, mock_secret: [1; 32], limits };
        let table = Table::new();
        let gateway = Gateway::with_lookup(config, Lookup::Table(table.clone()), instances, tasks.clone()).unwrap();
        let address = gateway.local_address();
        tasks.spawn(async move { gateway.serve().await });
        Self { address, table, tasks, starts, cancelled, certificate, _directory: directory }
    }

    /// A credential of this name with the password `pencil`.
    fn add(&self, user: &str, readiness: Readiness, probe: bool) -> Credential {
        let now = Clock::system().now();
        let credential = Credential {
            connection: (!probe).then(|| ConnectionId::generate(now)),
            database: DatabaseId::generate(now),
            instance: InstanceId::generate(now),
            verifier: Verifier::of(&Secret::new("pencil")),
            readiness,
        };
        self.table.rows.lock().unwrap().insert(user.to_owned(), credential.clone());
        credential
    }

    fn client(&self, user: &str, ssl: SslMode) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("localhost").hostaddr(self.address.ip()).port(self.address.port());
        config.user(user).password("pencil").ssl_mode(ssl);
        config
    }

    async fn connect(&self, config: tokio_postgres::Config) -> Result<Session, tokio_postgres::Error> {
        self.connect_by(config, any_certificate()).await
    }

    async fn connect_by<T>(&self, config: tokio_postgres::Config, tls: T) -> Result<Session, tokio_postgres::Error>
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static>,
    {
        let (client, connection) = config.connect(tls).await?;
        let (sender, ended) = tokio::sync::oneshot::channel();
        self.tasks.spawn(async move {
            let _ = sender.send(connection.await);
        });
        Ok(Session { client, ended })
    }

    async fn refusal(&self, config: tokio_postgres::Config) -> (SqlState, String) {
        let error = self.connect(config).await.err().unwrap();
        let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
        (error.code().clone(), error.message().to_owned())
    }
}

struct Session {
    client: tokio_postgres::Client,
    ended: tokio::sync::oneshot::Receiver<Result<(), tokio_postgres::Error>>,
}

impl Session {
    async fn startup(&self) -> String {
        let rows = self.client.simple_query("what").await.unwrap();
        match &rows[1] {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).unwrap().to_owned(),
            _ => panic!("a row"),
        }
    }

    async fn end(self) -> (SqlState, String) {
        let error = timeout(Duration::from_secs(5), self.ended).await.unwrap().unwrap().unwrap_err();
        let error = error.as_db_error().unwrap();
        (error.code().clone(), error.message().to_owned())
    }
}

/// TLS that trusts every certificate, like `sslmode=require`.
fn any_certificate() -> MakeRustlsConnect {
    #[derive(Debug)]
    struct Any;
    impl rustls::client::danger::ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &[rustls_pki_types::CertificateDer<'_>],
            _: &rustls_pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls_pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth();
    MakeRustlsConnect::new(config)
}

#[tokio::test]
async fn a_session_reaches_the_instance_as_the_tenant() {
    let world = World::new(Limits::default());
    world.add("ada", Readiness::Ready, false);
    for (ssl, binding) in [
        (SslMode::Disable, ChannelBinding::Disable),
        (SslMode::Require, ChannelBinding::Require),
        (SslMode::Require, ChannelBinding::Disable),
    ] {
        let mut config = world.client("ada", ssl);
        config.channel_binding(binding).application_name("pen").options("-c work_mem=1MB");
        let session = world.connect(config).await.unwrap();
        let startup = session.startup().await;
        assert!(startup.starts_with("user tenant database postgres "), "{startup}");
        assert!(startup.contains("options -c work_mem=1MB") && startup.contains("application_name pen"), "{startup}");
        assert!(!startup.contains("ada"), "{startup}");
    }
    let mut config = world.client("ada", SslMode::Require);
    config.dbname("shadow").ssl_negotiation(tokio_postgres::config::SslNegotiation::Direct);
    let session = world.connect(config).await;
    // Direct TLS without ALPN is refused; this client sends none unless told to.
    assert!(session.is_err() || session.unwrap().startup().await.contains("database shadow"));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_look_the_same_and_wake_nothing() {
    let world = World::new(Limits::default());
    world.add("ada", Readiness::Ready, false);
    for ssl in [SslMode::Disable, SslMode::Require] {
        let mut wrong = world.client("ada", ssl);
        wrong.password("pen");
        let expected =
            |user| (SqlState::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""));
        assert_eq!(world.refusal(wrong).await, expected("ada"));
        assert_eq!(world.refusal(world.client("eve", ssl)).await, expected("eve"));
    }
    assert_eq!(world.starts.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn session_waits_for_a_new_database_and_a_probe_does_not() {
    let limits = Limits { provisioning: Duration::from_millis(300), ..Limits::default() };
    let world = World::new(limits);
    let credential = world.add("ada", Readiness::Provisioning, false);
    world.add("probe", Readiness::Provisioning, true);
    world.add("bob", Readiness::Failed("the disk is full".into()), false);
    world.connect(world.client("probe", SslMode::Disable)).await.unwrap();
    let (code, _) = world.refusal(world.client("ada", SslMode::Disable)).await;
    assert_eq!(code, SqlState::CANNOT_CONNECT_NOW);
    let (code, sentence) = world.refusal(world.client("bob", SslMode::Disable)).await;
    assert!(code == SqlState::CANNOT_CONNECT_NOW && sentence.contains("the disk is full"));

    let become_ready = async {
        while world.table.announcements.receiver_count() < 2 {
            tokio::task::yield_now().await;
        }
        let ready = Credential { readiness: Readiness::Ready, ..credential.clone() };
        world.table.rows.lock().unwrap().insert("ada".into(), ready);
        world.table.announcements.send(Announcement::Of(Channel::DatabaseChanged, credential.database.bare())).unwrap();
    };
    let (session, ()) = tokio::join!(world.connect(world.client("ada", SslMode::Disable)), become_ready);
    session.unwrap().startup().await;

    world.add("eve", Readiness::Provisioning, false);
    let delete = async {
        while world.table.announcements.receiver_count() < 2 {
            tokio::task::yield_now().await;
        }
        world.table.rows.lock().unwrap().remove("eve");
        world.table.announcements.send(Announcement::Missed).unwrap();
    };
    let ((code, _), ()) = tokio::join!(world.refusal(world.client("eve", SslMode::Disable)), delete);
    assert_eq!(code, SqlState::INVALID_CATALOG_NAME);
}

#[tokio::test]
async fn sessions_are_counted_and_probes_are_not() {
    let world = World::new(Limits { sessions_per_database: 1, ..Limits::default() });
    world.add("ada", Readiness::Ready, false);
    world.add("probe", Readiness::Ready, true);
    let _one = world.connect(world.client("ada", SslMode::Disable)).await.unwrap();
    let (code, sentence) = world.refusal(world.client("ada", SslMode::Disable)).await;
    assert!(code == SqlState::TOO_MANY_CONNECTIONS && sentence.contains("at most 1 "), "{sentence}");
    for _ in 0..3 {
        world.connect(world.client("probe", SslMode::Disable)).await.unwrap();
    }
}

#[tokio::test]
async fn a_cancel_reaches_the_instance_with_its_own_key() {
    let mut world = World::new(Limits::default());
    world.add("ada", Readiness::Ready, false);
    for ssl in [SslMode::Disable, SslMode::Require] {
        let session = world.connect(world.client("ada", ssl)).await.unwrap();
        let token = session.client.cancel_token();
        let (answer, ()) = tokio::join!(session.client.simple_query("sleep"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            token.cancel_query(any_certificate()).await.unwrap();
        });
        assert_eq!(answer.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
        let request = world.cancelled.recv().await.unwrap();
        assert_eq!(request, [4, 210, 22, 46, 0, 0, 0, 9, 1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn client_receives_the_process_id_of_its_session() {
    let world = World::new(Limits::default());
    world.add("ada", Readiness::Ready, false);
    let session = world.connect(world.client("ada", SslMode::Disable)).await.unwrap();
    let (mut reading, writing) = tokio::io::duplex(64);
    session.client.cancel_token().cancel_query_raw(writing, tokio_postgres::NoTls).await.unwrap();
    let mut request = Vec::new();
    reading.read_to_end(&mut request).await.unwrap();
    assert_eq!(request[..12], [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 9]);
    assert_ne!(request[12..], [1, 2, 3, 4], "the secret is not the instance's");
}

#[tokio::test]
async fn a_statement_does_not_outlive_its_client() {
    let mut world = World::new(Limits::default());
    world.add("ada", Readiness::Ready, false);
    let (client, connection) = world.client("ada", SslMode::Disable).connect(any_certificate()).await.unwrap();
    let _ = timeout(Duration::from_millis(100), async { tokio::join!(connection, client.simple_query("sleep")) }).await;
    // The connection was dropped without a Terminate.
    assert!(timeout(Duration::from_secs(5), world.cancelled.recv()).await.unwrap().is_some());
}

#[tokio::test]
async fn sessions_end_with_a_word_when_their_credential_or_the_gateway_does() {
    let world = World::new(Limits { session_idle: Some(Duration::from_millis(700)), ..Limits::default() });
    let credential = world.add("ada", Readiness::Ready, false);
    world.add("bob", Readiness::Ready, false);
    let one = world.connect(world.client("ada", SslMode::Require)).await.unwrap();
    let two = world.connect(world.client("bob", SslMode::Disable)).await.unwrap();
    let three = world.connect(world.client("ada", SslMode::Disable)).await.unwrap();
    one.startup().await;
    let ended = credential.connection.unwrap().bare();
    world.table.announcements.send(Announcement::Of(Channel::ConnectionEnded, ended)).unwrap();
    for session in [one, three] {
        let (code, sentence) = session.end().await;
        assert!(code == SqlState::ADMIN_SHUTDOWN && sentence.contains("credential"), "{sentence}");
    }
    two.startup().await;
    let (code, sentence) = two.end().await;
    assert!(code == SqlState::ADMIN_SHUTDOWN && sentence.contains("idle"), "{sentence}");

    let four = world.connect(world.client("bob", SslMode::Require)).await.unwrap();
    world.table.rows.lock().unwrap().remove("bob");
    world.table.announcements.send(Announcement::Missed).unwrap();
    assert_eq!(four.end().await.0, SqlState::ADMIN_SHUTDOWN);

    let five = world.connect(world.client("ada", SslMode::Require)).await.unwrap();
    world.tasks.stop();
    let (code, sentence) = five.end().await;
    assert!(code == SqlState::ADMIN_SHUTDOWN && sentence.contains("administrator"), "{sentence}");
    timeout(Duration::from_secs(5), world.tasks.finished()).await.unwrap();
}

/// A connection from this address of the loopback network.
async fn connect_from(host: &str, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(host.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn half_open_connections_keep_nobody_away() {
    let limits = Limits { unauthenticated: 4, unauthenticated_per_address: 3, ..Limits::default() };
    let world = World::new(limits);
    world.add("ada", Readiness::Ready, false);
    let mut silent = Vec::new();
    for host in ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.4"] {
        silent.push(connect_from(host, world.address).await);
    }
    for ssl in [SslMode::Disable, SslMode::Require] {
        world.connect(world.client("ada", ssl)).await.unwrap().startup().await;
    }
    // The first newcomer took the oldest place of 127.0.0.2; the second one found its place free again.
    let mut said = Vec::new();
    timeout(Duration::from_secs(5), silent[0].read_to_end(&mut said)).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("C53300") && said.contains("authenticating at once"), "{said}");
    for open in &silent[1..] {
        assert_eq!(open.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    // An address that has as many as it may gets in itself.
    let _own: Vec<_> = futures_util::future::join_all((0..3).map(|_| connect_from("127.0.0.1", world.address))).await;
    world.connect(world.client("ada", SslMode::Require)).await.unwrap().startup().await;
}

#[tokio::test]
async fn waiting_client_that_disconnects_frees_its_place() {
    let world = World::new(Limits { sessions_per_database: 1, ..Limits::default() });
    let credential = world.add("ada", Readiness::Provisioning, false);
    let waiting = |number| {
        let table = world.table.clone();
        async move {
            while table.announcements.receiver_count() != number {
                tokio::task::yield_now().await;
            }
        }
    };
    waiting(1).await;
    for ssl in [SslMode::Disable, SslMode::Require] {
        tokio::select! {
            session = world.connect(world.client("ada", ssl)) => panic!("{:?}", session.err()),
            () = waiting(2) => {}
        }
        timeout(Duration::from_secs(5), waiting(1)).await.expect("its place is free");
    }
    let become_ready = async {
        waiting(2).await;
        let ready = Credential { readiness: Readiness::Ready, ..credential.clone() };
        world.table.rows.lock().unwrap().insert("ada".into(), ready);
        world.table.announcements.send(Announcement::Missed).unwrap();
    };
    let (session, ()) = tokio::join!(world.connect(world.client("ada", SslMode::Require)), become_ready);
    session.unwrap().startup().await;
}

#[tokio::test]
async fn a_session_waits_for_room_to_wake_its_database() {
    let limits = Limits { provisioning: Duration::from_secs(1), ..Limits::default() };
    let mut world = World::with_room_for(1, limits);
    world.add("ada", Readiness::Ready, false);
    world.add("bob", Readiness::Ready, false);
    let busy = world.connect(world.client("ada", SslMode::Disable)).await.unwrap();
    let statement = busy.client.simple_query("sleep");
    let others = async {
        let begun = Instant::now();
        let (code, sentence) = world.refusal(world.client("bob", SslMode::Disable)).await;
        assert!(
            code == SqlState::TOO_MANY_CONNECTIONS && sentence.contains("maximum number of databases"),
            "{sentence}"
        );
        assert!(begun.elapsed() >= Duration::from_secs(1) - Duration::from_millis(300), "{:?}", begun.elapsed());
        let (session, ()) = tokio::join!(world.connect(world.client("bob", SslMode::Require)), async {
            busy.client.cancel_token().cancel_query(any_certificate()).await.unwrap();
        });
        session.unwrap().startup().await;
    };
    let (_, ()) = tokio::join!(statement, others);
    assert!(world.cancelled.recv().await.is_some());
}

#[tokio::test]
async fn a_slow_reader_is_no_dead_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut tcp, _) = listener.accept().await.unwrap();
    let second = Duration::from_secs(1);
    prepare(&tcp, &Keepalive { idle: second, interval: second, retries: 1 }).unwrap();
    let socket = SockRef::from(&tcp);
    assert!(socket.keepalive().unwrap());
    #[cfg(target_os = "linux")]
    assert_eq!(socket.tcp_user_timeout().unwrap().unwrap_or_default(), Duration::ZERO);
    // More than fits into both sockets' buffers: the reader's window closes for longer than a dead peer is given.
    const SENT: usize = 16 << 20;
    let sending = async { tcp.write_all(&vec![7; SENT]).await };
    let reading = async {
        tokio::time::sleep(4 * second).await;
        let mut received = 0;
        let mut buffer = vec![0; 1 << 16];
        while received < SENT {
            received += reader.read(&mut buffer).await.unwrap();
        }
    };
    let (sent, ()) = tokio::join!(sending, reading);
    sent.unwrap();
}

/// What a peer answers to these bytes until it closes.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn first_packets_that_do_not_fit_are_refused() {
    let world = World::new(Limits { startup: Duration::from_millis(300), ..Limits::default() });
    let ssl = [0, 0, 0, 8, 4, 210, 22, 47];
    let smuggled = [&ssl[..], &[0, 0, 0, 8, 0, 3, 0, 0]].concat();
    for (bytes, expected) in [
        (&[0, 0, 0, 9, 0, 3, 0, 0, 0][..], "C28000"),
        (&[0, 0, 0, 8, 0, 2, 0, 0], "C0A000"),
        (b"GET / HTTP/1.1\r\n\r\n", "C08P01"),
        (&smuggled, "C08P01"),
    ] {
        let answer = answer(TcpStream::connect(world.address).await.unwrap(), bytes).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with('E') && answer.contains(expected), "{answer}");
    }
    // Too slow, or closed at once: no word.
    for bytes in [&[][..], &[0, 0], &ssl[..5]] {
        assert!(answer(TcpStream::connect(world.address).await.unwrap(), bytes).await.is_empty());
    }
    // GSS encryption is declined, then TLS is accepted.
    let gss = [0, 0, 0, 8, 4, 210, 22, 48];
    let answer = answer(TcpStream::connect(world.address).await.unwrap(), &gss).await;
    assert_eq!(answer, b"N");
}
