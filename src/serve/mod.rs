//! Start-up in order, and shutdown in the opposite one.

mod backups;
mod ballast;
mod banner;
pub mod certificate;
mod directory;
mod disk;
mod first_start;
pub mod init;
mod logs;
mod mail;
mod metadata;
mod open_files;
mod provider;
mod recover;
mod signals;
mod tls_files;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_postgres::config::{Host, SslMode};

use self::ballast::Ballast;
use self::banner::Banner;
use self::certificate::Certificate;
use self::directory::DataDirectory;
use self::open_files::Shares;
pub use self::recover::recover;
use self::signals::Signals;
use self::tls_files::Files;
use crate::config::{Place, Serve};
use crate::http;
use auth::provider::Provider;
use base::clock::Clock;
use base::disk::Disk;
use base::error::describe;
use base::health::Health;
use base::id::InstanceId;
use base::keyring::Keyring;
use base::network::is_this_machine;
use base::scram;
use base::secret::Secret;
use base::store::{Store, in_background};
use base::tasks::Tasks;
use cli::print;
use domain::app::{App, PublicAddresses};
use domain::regions::Regions;
use engine::local::{LocalConfig, LocalEngine, MetadataInstance, prepare_this_process};
use engine::{EngineError, Instances, Limits};
use gateway::Gateway;
use jobs::context::JobCtx;
use jobs::{Workflows, reconcile, retention, trial, usage};
use queue::{Lane, Runner};
use smtp::Mailer;

/// Workflows that run at a time. A provision mostly waits for the disk and for a server to start.
const WORKERS: usize = 8;
/// Workflows that copy or delete databases, at a time.
const LONG_WORKERS: usize = 4;
/// Mails that are handed over at a time.
const MAIL_WORKERS: usize = 2;
/// Pooled connections to the metadata store.
const METADATA_CONNECTIONS: usize = 32;
/// How long open HTTP requests may take to end at shutdown.
const HTTP_GRACE: Duration = Duration::from_secs(3);
/// How long work in the background may take to end at shutdown, before the metadata store goes away under it.
const WORK_GRACE: Duration = Duration::from_secs(8);
/// How long everything together may take to stop. A server has 20 seconds for its checkpoint.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// Runs the platform until it is told to stop. The error is one sentence with the cure.
pub async fn run(config: Serve) -> Result<(), String> {
    logs::start();
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;

    // What can be found out without making anything comes first.
    let local = local(&config.place)?;
    let local = LocalConfig { stock_target: config.stock, sessions: config.sessions_per_database, ..local };
    let local = LocalConfig { backups: backups::config(&config, local.backups.clone())?, ..local };
    let reserve = config.disk_reserve.map(|mebibytes| u64::from(mebibytes) << 20);
    let disk = Arc::new(Disk::of("data directory", &local.data_directory, reserve));
    let local = LocalConfig { disk, ..local };
    local.check()?;
    let regions = Regions::parse(&config.regions)?;
    let provider = provider::configured(&config.oidc)?;
    config.audit_stream.as_deref().map(|target| jobs::audit::Target::parse(target).check()).transpose()?;
    let mailer = mail::mailer(&config.mail, config.public_url.as_deref())?;
    // This may warn. Wrong options are reported before it, in one line each.
    let shares = open_files::share(prepare_this_process(), &config);
    let directory = DataDirectory::open_to_serve(&local.data_directory)?;
    if directory.is_some() {
        Ballast::of(&local.data_directory).give_back_to_start(&local.disk);
    }
    let http = listen(config.http, "--http").await?;
    drop(listen(config.gateway, "--gateway").await?);
    let metrics = match config.metrics {
        Some(address) => Some(listen(address, "--metrics").await?),
        None => None,
    };
    let listeners = Listeners { http, metrics };
    let tls_files = Files::read(&config)?;
    let external = external_store(&config.place).await?;
    let directory = match directory {
        Some(directory) => directory,
        None => DataDirectory::create(&local.data_directory)?,
    };

    let mut started = Started::default();
    let served = tokio::select! {
        served = start(&config, shares, local, &directory, external, regions, provider, mailer, tls_files, listeners, &mut started) => served,
        () = signals.next() => Err("stopped while starting".to_owned()),
    };
    let outcome = match served.and_then(|addresses| {
        directory.write_addresses(&addresses.to_string())?;
        tracing::info!(http = %addresses.http, gateway = %addresses.gateway, "ready");
        Ok(())
    }) {
        Ok(()) => {
            signals.next().await;
            tracing::info!("shutting down: closing sessions and stopping instances");
            directory.remove_addresses();
            Ok(())
        }
        failed => failed,
    };
    let stopped = tokio::select! {
        stopped = started.stop() => stopped,
        () = tokio::time::sleep(STOP_LIMIT) => Err("not everything stopped in time".to_owned()),
        () = signals.next() => Err("stopped immediately by a second signal".to_owned()),
    };
    match stopped {
        Ok(()) if outcome.is_ok() => tracing::info!("stopped"),
        Ok(()) => {}
        Err(reason) => {
            tracing::warn!("{reason}: PostgreSQL servers that are still running will be adopted by the next start")
        }
    }
    outcome
}

/// What has been started so far, and has to be stopped, however far the start got.
#[derive(Default)]
struct Started {
    tasks: Tasks,
    engine: Option<Arc<LocalEngine>>,
    private: Option<Arc<MetadataInstance>>,
    instances: Option<Arc<Instances>>,
    /// HTTP requests: shutdown waits for them, but not for as long as for other work.
    http: Option<Tasks>,
}

impl Started {
    async fn stop(&mut self) -> Result<(), String> {
        self.tasks.stop();
        if let Some(engine) = &self.engine {
            engine.expect_all_to_stop();
        }
        if let Some(instances) = &self.instances {
            instances.shutdown().await;
        }
        if let Some(http) = self.http.take()
            && tokio::time::timeout(HTTP_GRACE, http.finished()).await.is_err()
        {
            tracing::warn!("some HTTP requests did not end before the shutdown timeout");
        }
        if tokio::time::timeout(WORK_GRACE, self.tasks.finished()).await.is_err() {
            tracing::warn!(
                "some background work did not end before the shutdown timeout; it continues at the next start"
            );
        }
        if let Some(private) = &self.private {
            private.ensure_stopped().await.map_err(|error| error.to_string())?;
        }
        if let Some(engine) = &self.engine {
            warn_of_waiting(engine.archive_last_words().await, self.private.as_deref()).await;
        }
        Ok(())
    }
}

/// Says what is in no backup yet when everything has stopped.
async fn warn_of_waiting(waiting: Result<Vec<InstanceId>, EngineError>, private: Option<&MetadataInstance>) {
    let waiting = match waiting {
        Ok(waiting) if waiting.is_empty() => return,
        Ok(waiting) => waiting,
        Err(error) => return tracing::warn!(%error, "could not check whether all WAL is archived"),
    };
    let own = match private {
        Some(private) => private.id().await.ok(),
        None => None,
    };
    let name = |id: &InstanceId| if Some(*id) == own { "Howdah's metadata".to_owned() } else { id.to_string() };
    let names: Vec<String> = waiting.iter().map(name).collect();
    tracing::warn!(
        "not archived: the latest WAL of {}; it stays in the data directory and is archived when Howdah runs again and \
         the backup storage is available",
        names.join(", ")
    );
}

/// Brings the schema up to date and stops.
pub async fn migrate(place: Place) -> Result<(), String> {
    let local = local(&place)?;
    let mut private = None;
    let done = async {
        let (config, _directory) = match external_store(&place).await? {
            Some(config) => (config, None),
            None => {
                local.check()?;
                let directory = match DataDirectory::open_to_serve(&local.data_directory)? {
                    Some(directory) => directory,
                    None => DataDirectory::create(&local.data_directory)?,
                };
                Ballast::of(&local.data_directory).give_back_to_start(&local.disk);
                let instance = MetadataInstance::open(local).await.map_err(|error| error.to_string())?;
                let config = private.insert(instance).ensure_started().await.map_err(|error| error.to_string())?;
                (config, Some(directory))
            }
        };
        crate::metadata::migrate(&config).await.map_err(|error| describe(&error))
    };
    let applied = done.await;
    if let Some(private) = private {
        private.ensure_stopped().await.map_err(|error| error.to_string())?;
    }
    match applied?.as_slice() {
        [] => print("The metadata store is up to date.\n"),
        applied => print(&format!("Applied {}.\n", applied.join(", "))),
    }
    Ok(())
}

/// Makes a token in the first workspace and prints it, past the API: the way back in for whoever reads the
/// data directory.
pub async fn issue_token(place: Place) -> Result<(), String> {
    let path = place.data_directory()?;
    let keyring = Keyring::new(&*directory::read_master_key(&path)?);
    let config = match external_store(&place).await? {
        Some(config) => config,
        None => {
            let mut config = tokio_postgres::Config::new();
            config.host_path(path.join("metadata/socket")).user("howdah").dbname("howdah");
            crate::metadata::check(&config).await.map_err(|error| {
                let shown = path.display();
                format!("the server of {shown} is not running: {}; start it with `howdah serve`", describe(&error))
            })?;
            config
        }
    };
    let tasks = Tasks::default();
    let store = Store::open(config, 1, &tasks).map_err(|error| describe(&error))?;
    let issued = first_start::issue_token(&store, &keyring, &Clock::system()).await;
    tasks.stop();
    print(&format!("{}\n", issued.map_err(|error| describe(&error))?.expose()));
    Ok(())
}

/// What is listened on from the beginning, so that a busy port is found out before anything is made.
struct Listeners {
    http: TcpListener,
    metrics: Option<TcpListener>,
}

/// The addresses in use.
struct Addresses {
    http: SocketAddr,
    gateway: SocketAddr,
    metrics: Option<SocketAddr>,
}

impl std::fmt::Display for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, r#"{{"http":"{}","gateway":"{}""#, self.http, self.gateway)?;
        match self.metrics {
            Some(metrics) => write!(f, r#","metrics":"{metrics}"}}"#),
            None => f.write_str("}"),
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "start-up hands over each thing that it has made once")]
async fn start(
    config: &Serve,
    shares: Shares,
    local: LocalConfig,
    directory: &DataDirectory,
    external: Option<tokio_postgres::Config>,
    regions: Regions,
    provider: Option<Provider>,
    mailer: Option<Mailer>,
    tls_files: Option<Files>,
    listeners: Listeners,
    started: &mut Started,
) -> Result<Addresses, String> {
    let tasks = &started.tasks;
    let clock = Clock::system();
    let health = Arc::new(Health::default());
    let master_key = directory.master_key()?;
    let keyring = Keyring::new(&master_key);
    let ballast = Ballast::of(&local.data_directory);
    let placed = local.clone();
    let engine = LocalEngine::open(local).await.map_err(|error| error.to_string())?;
    started.engine = Some(engine.clone());
    let (trash_owner, until) = (engine.clone(), tasks.clone());
    tasks.supervise("trash removal", move || trash_owner.clone().keep_trash_empty(until.clone()));
    backups::check(&engine, &config.backup_s3).await?;
    let disks = disk::disks(&placed);
    let (store_config, own) = match external {
        Some(config) => (config, None),
        None => {
            let instance = started.private.insert(Arc::new(engine.metadata())).clone();
            let first = match instance.ensure_started().await {
                Err(EngineError::NoSpace { .. }) if ballast.give_back(0, "so that the metadata instance can start") => {
                    instance.ensure_started().await
                }
                first => first,
            };
            let first = async { Ok::<_, EngineError>((first?, instance.id().await?)) };
            let (config, id) = first.await.map_err(|error| format!("cannot start the metadata instance: {error}"))?;
            let (kept, reported, until) = (instance, health.clone(), tasks.clone());
            tasks.supervise("metadata instance", move || {
                metadata::keep_running(kept.clone(), reported.clone(), until.clone())
            });
            (config, Some((engine.clone(), id)))
        }
    };
    crate::metadata::migrate(&store_config)
        .await
        .map_err(|error| format!("cannot use the metadata store: {}", describe(&error)))?;
    let store = Store::open(store_config, METADATA_CONNECTIONS, tasks).map_err(|error| describe(&error))?;

    let limits =
        Limits { idle_stop: Some(config.idle_stop).filter(|limit| !limit.is_zero()), max_running: shares.running };
    let instances = Instances::new(engine, limits, clock.clone(), tasks.clone());
    let measurements = instances.measurements();
    started.instances = Some(instances.clone());
    instances.adopt().await.map_err(|error| error.to_string())?;
    let watch = disk::Watch::new(disks.clone(), ballast, instances.clone(), health.clone(), tasks.clone());
    let watch = Arc::new(tokio::sync::Mutex::new(watch));
    tasks.supervise("disk watch", move || {
        let watch = watch.clone();
        async move { watch.lock().await.keep().await }
    });

    // The first create should find a prepared instance too.
    if let Err(error) = instances.replenish_stock().await {
        tracing::warn!(error = %describe(&error), "could not prepare an instance; retrying");
    }

    let Listeners { http: http_listener, metrics: metrics_listener } = listeners;
    let http_address =
        http_listener.local_addr().map_err(|error| format!("cannot determine the API's address: {error}"))?;
    let first = first_start::ensure(&store, directory, &keyring, &instances, &clock).await?;
    let set_up = first_start::set_up_link(&store, &clock).await.map_err(|error| describe(&error))?;
    let Certificate { tls, authorities, renewal } = match tls_files {
        Some(files) => Certificate::given(files),
        None => Certificate::issued(&store, &keyring, certificate::names(config), clock.now()).await,
    }
    .map_err(|error| describe(&error))?;
    let gateway_config = gateway::Config {
        listen: config.gateway,
        tls,
        mock_secret: scram::hmac(master_key.as_slice(), b"salts of unknown users"),
        limits: gateway::Limits {
            sessions: shares.sessions,
            sessions_per_database: config.sessions_per_database.into(),
            unauthenticated: shares.unauthenticated,
            session_idle: Some(config.session_idle).filter(|limit| !limit.is_zero()),
            ..gateway::Limits::default()
        },
    };
    let gateway = Gateway::bind(gateway_config, store.clone(), instances.clone(), tasks.clone())
        .map_err(|error| busy(config.gateway, "--gateway", &error))?;
    let gateway_address = gateway.local_address();

    let public = public(config, http_address, gateway_address);
    first_start::built_in_applications(&store, &clock, &public.api).await.map_err(|error| describe(&error))?;
    let app = Arc::new(App {
        store: store.clone(),
        clock,
        signer: first.signer,
        keyring,
        regions,
        public,
        authorities,
        trusted_proxies: config.trusted_proxies.clone(),
        provider,
        client_registration: !config.no_client_registration,
        mail: mailer.is_some(),
        rates: config.rates(),
        quotas: config.quotas(),
        scheduled_backups: !config.backup_every.is_zero(),
        undelete: config.undelete(),
        metadata_at_risk: AtomicBool::default(),
        health,
        disks,
        tasks: tasks.clone(),
    });
    let ctx = Arc::new(JobCtx { app: app.clone(), instances: instances.clone(), mailer, gateway: gateway_address });
    let runner = Runner::new(store, Arc::new(Workflows(ctx.clone())), tasks.clone());
    tasks.spawn(provider::check(app.clone()));
    tasks.spawn(mail::look(ctx.clone()));
    let gateway = Arc::new(gateway);
    tasks.supervise("gateway", move || {
        let gateway = gateway.clone();
        async move { gateway.serve().await }
    });
    let lanes = [
        ("workflows", Lane::AllBut(jobs::APART), WORKERS),
        ("long workflows", Lane::Only(jobs::LONG), LONG_WORKERS),
        ("mail workflows", Lane::Only(jobs::MAIL), MAIL_WORKERS),
    ];
    for (name, lane, workers) in lanes {
        let runner = runner.clone();
        tasks.supervise(name, move || {
            let runner = runner.clone();
            async move { in_background(runner.serve(lane, workers)).await }
        });
    }
    let (schedule, drill_every, key_rotation) = (config.schedule(), config.drill_every(), config.key_rotation());
    supervise(tasks, &ctx, "stock", reconcile::stock);
    supervise(tasks, &ctx, "idle stop", reconcile::idle_stop);
    supervise(tasks, &ctx, "archiving", retention::archive);
    supervise(tasks, &ctx, "retention", move |ctx| retention::retain(ctx, schedule));
    if !drill_every.is_zero() {
        supervise(tasks, &ctx, "restore verification", move |ctx| trial::hold(ctx, drill_every));
    }
    if let Some((engine, id)) = own {
        supervise(tasks, &ctx, "metadata backups", move |ctx| {
            jobs::metadata::back_up(ctx, engine.clone(), id, schedule)
        });
    }
    supervise(tasks, &ctx, "usage measurement", usage::measure);
    let measurements = Arc::new(tokio::sync::Mutex::new(measurements));
    supervise(tasks, &ctx, "usage records", move |ctx| usage::record(ctx, measurements.clone()));
    supervise(tasks, &ctx, "signing keys", move |ctx| jobs::keys::keep(ctx, key_rotation));
    supervise(tasks, &ctx, "certificate renewal", move |ctx| renewal.clone().keep(ctx.app.clone()));
    supervise(tasks, &ctx, "housekeeping", move |ctx| reconcile::housekeeping(ctx, runner.clone()));
    if let Some(target) = config.audit_stream.as_deref().map(jobs::audit::Target::parse) {
        supervise(tasks, &ctx, "audit stream", move |ctx| jobs::audit::stream(ctx, target.clone()));
    }
    let set_up = set_up.map(|link| Secret::new(format!("{}/console/set-up/{}", app.public.api, link.expose())));
    let metrics = metrics_listener.map(|listener| serve_metrics(listener, app.clone())).transpose()?;
    banner::warn_of_plain_http(http_address, &app.public.api);
    if app.needs_ca() {
        certificate::warn_of_own(&app.public);
    }
    let banner = Banner {
        public: &app.public,
        metrics: metrics.map(local_name),
        needs_ca: app.needs_ca(),
        directory,
        is_first: first.is_first,
        set_up: set_up.as_ref(),
    };
    let banner = banner.text();
    started.http = Some(serve_http(http_listener, app, shares.http));
    print(&banner);
    Ok(Addresses { http: http_address, gateway: gateway_address, metrics })
}

fn local(place: &Place) -> Result<LocalConfig, String> {
    let mut local = LocalConfig::new(place.data_directory()?);
    local.programs.clone_from(&place.postgres_bin);
    local.uid_range = place.uid_range.clone();
    Ok(local)
}

/// How to reach the metadata store that the operator has named, if it answers.
async fn external_store(place: &Place) -> Result<Option<tokio_postgres::Config>, String> {
    let Some(url) = &place.metadata_url else { return Ok(None) };
    let config = parse_url(url)?;
    match crate::metadata::check(&config).await {
        Ok(()) => Ok(Some(config)),
        Err(error) => Err(format!(
            "cannot connect to the metadata store: {}; check --metadata-url{}",
            describe(&error),
            match config.get_ssl_mode() {
                SslMode::Disable => "",
                _ => " (to trust a private CA, set SSL_CERT_FILE to its certificate)",
            }
        )),
    }
}

/// Reads the URL. What crosses a network is encrypted, unless it says `sslmode=disable`.
fn parse_url(url: &str) -> Result<tokio_postgres::Config, String> {
    // The parser's own words might quote the password.
    let mut config: tokio_postgres::Config = url.parse().map_err(|_| {
        "--metadata-url is not a PostgreSQL URL such as postgres://user:password@host:5432/database".to_owned()
    })?;
    let stays_here = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => is_this_machine(name),
    }) && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
    if config.get_ssl_mode() == SslMode::Prefer {
        config.ssl_mode(if stays_here { SslMode::Disable } else { SslMode::Require });
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(crate::metadata::CONNECT_LIMIT);
    }
    Ok(config)
}

/// A listener on this address, or the sentence that says why not.
async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| busy(address, flag, &error))
}

fn busy(address: SocketAddr, flag: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another program; stop it, or choose another address with {flag} (port 0 picks a free one)"
        ),
        _ => format!("cannot listen on {address}: {error}; choose another address with {flag}"),
    }
}

/// The addresses that customers are given.
fn public(config: &Serve, http: SocketAddr, gateway: SocketAddr) -> PublicAddresses {
    let api = config.public_url.clone().unwrap_or_else(|| format!("http://{}", local_name(http)));
    let (gateway_host, gateway_port) = match &config.public_gateway {
        Some((host, port)) => (host.trim_matches(['[', ']']).to_owned(), *port),
        None if gateway.ip().is_unspecified() => ("localhost".to_owned(), gateway.port()),
        None => (gateway.ip().to_string(), gateway.port()),
    };
    let auth = config.public_auth_url.clone().unwrap_or_else(|| api.clone());
    PublicAddresses { api, auth, gateway_host, gateway_port }
}

/// An address that works from this machine: `localhost` for "every address".
fn local_name(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}

/// Keeps a job running for as long as Howdah runs.
fn supervise<Job>(
    tasks: &Tasks,
    ctx: &Arc<JobCtx>,
    name: &'static str,
    mut job: impl FnMut(Arc<JobCtx>) -> Job + Send + 'static,
) where
    Job: Future<Output = ()> + Send + 'static,
{
    let ctx = ctx.clone();
    tasks.supervise(name, move || in_background(job(ctx.clone())));
}

fn serve_metrics(listener: TcpListener, app: Arc<App>) -> Result<SocketAddr, String> {
    let address =
        listener.local_addr().map_err(|error| format!("cannot determine the address of the metrics: {error}"))?;
    let listener = Arc::new(listener);
    app.tasks.clone().supervise("metrics listener", move || {
        let (listener, app) = (listener.clone(), app.clone());
        async move { crate::metrics::serve(&listener, app).await }
    });
    Ok(address)
}

fn serve_http(listener: TcpListener, app: Arc<App>, connections: usize) -> Tasks {
    let requests = app.tasks.separate();
    let listener = Arc::new(listener);
    requests.supervise("HTTP listener", move || {
        let (listener, app) = (listener.clone(), app.clone());
        async move { http::serve(&listener, app, connections).await }
    });
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metadata_store_across_a_network_is_reached_by_tls_unless_told_otherwise() {
        let mode = |url: &str| parse_url(url).unwrap().get_ssl_mode();
        assert_eq!(mode("postgres://h@db.example.com/h"), SslMode::Require);
        assert_eq!(mode("postgres://h@db.example.com/h?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://h@localhost,db.example.com/h"), SslMode::Require);
        assert_eq!(mode("host=localhost hostaddr=192.0.2.1 user=h"), SslMode::Require);
        assert_eq!(mode("postgres://h@127.0.0.1/h"), SslMode::Disable);
        assert_eq!(mode("postgres://h@[::1]/h"), SslMode::Disable);
        assert_eq!(mode("host=/run/postgresql user=h"), SslMode::Disable);
        assert_eq!(mode("postgres://h@localhost/h?sslmode=require"), SslMode::Require);
    }
}
