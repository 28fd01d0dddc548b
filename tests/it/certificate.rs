//! The gateway's certificate: who issues it, for which names, and how clients come to verify it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base::keyring::Keyring;
use base::store::Store;
use base::tasks::Tasks;
use howdah::metadata;
use howdah::serve::certificate::{Certificate, Renewal};
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;

use crate::harness::{Directory, Howdah, ask, binary, complaint, connection_string};

/// A public name that no name server has.
const NAME: &str = "db.howdah.test";

/// The CA certificate that a Howdah offers, in a file of its own.
async fn fetch(howdah: &Howdah) -> tempfile::NamedTempFile {
    let answer = howdah.anonymous().get("/v1/ca.pem").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["content-type"], "application/x-pem-file");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), answer.body.as_str().unwrap()).unwrap();
    file
}

/// The parameters of a session that verifies certificate and name, at the address that the gateway listens on.
fn verified(howdah: &Howdah, string: &str, host: &str, ca: &Path) -> String {
    let url: Url = string.parse().unwrap();
    format!(
        "host={host} hostaddr={} port={} user={} password={} dbname=postgres sslmode=verify-full sslrootcert={}",
        howdah.gateway().ip(),
        howdah.gateway().port(),
        url.username(),
        url.password().unwrap(),
        ca.display()
    )
}

/// A Howdah whose clients are given this name.
async fn named(name: &str) -> Howdah {
    Howdah::start_with(&["--public-gateway", &format!("{name}:5432")]).await
}

#[tokio::test]
async fn the_certificate_verifies_for_the_public_name_also_when_that_changes() {
    let mut howdah = named(NAME).await;
    let ca = fetch(&howdah).await;
    let string = connection_string(&howdah.owner().create_project("verified").await);
    assert!(string.ends_with(&format!("@{NAME}:5432/postgres?sslmode=require")), "{string}");
    for host in [NAME, "localhost", "127.0.0.1"] {
        let session = format!("{} channel_binding=require", verified(&howdah, &string, host, ca.path()));
        assert_eq!(ask(&session, "SELECT 41 + 1"), "42", "{host}");
    }
    let other = "other.howdah.test";
    let said = complaint(&verified(&howdah, &string, other, ca.path()), "SELECT 1");
    assert!(said.contains("does not match host name"), "{said}");

    howdah.stop().await;
    howdah.replace_argument("--public-gateway", &format!("{other}:5432"));
    howdah.launch().await;
    assert_eq!(ask(&verified(&howdah, &string, other, ca.path()), "SELECT 41 + 1"), "42");
    let same = fetch(&howdah).await;
    let text = |file: &tempfile::NamedTempFile| std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(text(&same), text(&ca), "clients keep the CA certificate that they have");
    let stranger = Howdah::start().await;
    let foreign = fetch(&stranger).await;
    let said = complaint(&verified(&howdah, &string, other, foreign.path()), "SELECT 1");
    assert!(said.contains("certificate verify failed"), "{said}");
}

#[tokio::test]
async fn an_installation_with_a_self_signed_certificate_gets_an_authority() {
    let mut howdah = named(NAME).await;
    let string = connection_string(&howdah.owner().create_project("older").await);
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    // As an earlier version has left it.
    session.execute("DELETE FROM keys WHERE purpose = 'certificate authority'", &[]).await.unwrap();
    session
        .execute(
            "INSERT INTO keys (purpose, key_id, sealed, public, created_at) VALUES ('gateway certificate', 'a', 'b', 'c', now())",
            &[],
        )
        .await
        .unwrap();
    drop(session);
    tasks.stop();
    howdah.stop().await;
    let before = howdah.log().len();
    howdah.launch().await;
    let log = &howdah.log()[before..];
    let told: Vec<&str> = log.lines().filter(|line| line.contains("self-signed certificate")).collect();
    assert!(told.len() == 1 && told[0].contains("/v1/ca.pem") && told[0].contains("WARN"), "{log}");
    let ca = fetch(&howdah).await;
    assert_eq!(ask(&verified(&howdah, &string, NAME, ca.path()), "SELECT 41 + 1"), "42");

    howdah.stop().await;
    let before = howdah.log().len();
    howdah.launch().await;
    assert!(!howdah.log()[before..].contains("self-signed"), "it is said once");
    assert_eq!(ask(&verified(&howdah, &string, NAME, ca.path()), "SELECT 41 + 1"), "42");
}

#[tokio::test]
async fn a_certificate_of_the_operator_has_no_ca_certificate_to_offer() {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(file("certificate.pem"), made.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let public = format!("{NAME}:5432");
    let arguments =
        ["--tls-cert", &file("certificate.pem"), "--tls-key", &file("key.pem"), "--public-gateway", &public];
    let howdah = Howdah::start_with(&arguments).await;
    let string = connection_string(&howdah.owner().create_project("certified").await);
    let session = verified(&howdah, &string, NAME, &directory.path().join("certificate.pem"));
    assert_eq!(ask(&session, "SELECT 41 + 1"), "42");

    let answer = howdah.anonymous().get("/v1/ca.pem").await;
    answer.assert_error(404, "resource-not-found");
    assert!(answer.body["error"]["message"].as_str().unwrap().contains("operator"), "{}", answer.body);
    let output = binary().args(["ca", "--url", &howdah.url()]).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("certificate that the operator has configured"), "{said}");
    let log = howdah.log();
    let warned = log.lines().any(|line| line.contains("WARN") && line.contains("certificate"));
    assert!(!warned && !log.contains("  CA "), "nothing to warn of: {log}");
}

#[tokio::test]
async fn clients_elsewhere_are_warned_of_and_the_client_prints_the_ca_certificate() {
    let howdah = named(NAME).await;
    let log = howdah.log();
    let ca = format!("{}/v1/ca.pem", howdah.url());
    let lines_with = |text: &str| -> Vec<&str> { log.lines().filter(|line| line.contains(text)).collect() };
    let [logged, banner] = lines_with(&ca)[..] else { panic!("a line of the log and one of the banner: {log}") };
    assert!(banner.starts_with("  CA ") && logged.contains("WARN"), "{log}");
    for part in ["--tls-cert", "docs/connecting.md"] {
        assert!(banner.contains(part) && logged.contains(part), "{part} is not in {banner}\n{logged}");
    }
    let port = lines_with("  Port ");
    assert!(port.is_empty(), "5432 is the port that clients take by themselves: {log}");
    let expected = std::fs::read_to_string(fetch(&howdah).await.path()).unwrap();
    let printed = |arguments: &[&str]| -> Output {
        let home = tempfile::tempdir().unwrap();
        let mut client = binary();
        client.args(arguments).env("XDG_CONFIG_HOME", home.path()).env_remove("HOWDAH_TOKEN");
        client.env("HOWDAH_DATA_DIR", howdah.directory().path()).output().unwrap()
    };
    for arguments in [&["ca", "--url", &howdah.url()][..], &["ca"]] {
        let output = printed(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    let here = Howdah::start().await;
    assert!(!here.log().contains("/v1/ca.pem"), "a gateway on a loopback address needs no certificate: {}", here.log());
}

#[tokio::test]
async fn node_postgres_takes_the_string_as_it_is_with_the_ca_certificate() {
    // The address has to be known before the gateway listens on it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (gateway, public) = (format!("127.0.0.1:{port}"), format!("{NAME}:{port}"));
    let howdah = Howdah::start_with(&["--gateway", &gateway, "--public-gateway", &public]).await;
    let string = connection_string(&howdah.owner().create_project("node").await);
    let ca = fetch(&howdah).await;

    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path: PathBuf = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    // As /etc/hosts would have it.
    let hosts = write(
        "hosts.cjs",
        "const dns = require('node:dns');\n\
         const { lookup } = dns;\n\
         dns.lookup = (host, ...more) => lookup(host.endsWith('.howdah.test') ? '127.0.0.1' : host, ...more);\n",
    );
    let program = write(
        "ask.mjs",
        "import pg from 'pg';\n\
         const client = new pg.Client({ connectionString: process.env.DATABASE_URL });\n\
         await client.connect();\n\
         const { rows } = await client.query('SELECT 41 + 1 AS answer');\n\
         console.log(client.connection.stream.constructor.name, rows[0].answer);\n\
         await client.end();\n",
    );
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/node_modules");
    std::os::unix::fs::symlink(modules, directory.path().join("node_modules")).unwrap();
    let node = |ca: Option<&Path>| {
        let mut node = Command::new("node");
        node.arg("--require").arg(&hosts).arg(&program).env("DATABASE_URL", &string).stdin(Stdio::null());
        node.envs(ca.map(|path| ("NODE_EXTRA_CA_CERTS", path)));
        let output = node.output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    };
    let (ended_well, text) = node(Some(ca.path()));
    // Behind it is what this version says about sslmode=require.
    assert!(ended_well && text.starts_with("TLSSocket 42\n"), "{text}");
    let (ended_well, text) = node(None);
    assert!(!ended_well && text.contains("unable to verify the first certificate"), "{text}");
}

#[tokio::test]
async fn certificates_and_authorities_are_renewed_in_time() {
    let directory = Directory::new();
    let metadata = directory.metadata_instance().await;
    let config = metadata.ensure_started().await.unwrap();
    metadata::migrate(&config).await.unwrap();
    let tasks = Tasks::default();
    let store = Store::open(config, 2, &tasks).unwrap();
    let keyring = Keyring::new(&[7; 32]);
    let start: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let day = |number: i32| start + SignedDuration::from_hours(24) * number;
    let names = vec![NAME.to_owned()];

    let issued = Certificate::issued(&store, &keyring, names.clone(), day(0)).await.unwrap();
    let Certificate { mut tls, authorities, renewal } = issued;
    let mut authorities = authorities.unwrap();
    let Renewal::Issued(renewal) = renewal else { panic!("it is issued") };
    let first = authorities.borrow_and_update().clone();
    // 397 days, of which a third is left on day 264, since it is valid from the day before.
    for (number, is_renewed) in [(1, false), (263, false), (264, true), (265, false), (2900, true)] {
        renewal.look(&store, &keyring, day(number)).await.unwrap();
        assert_eq!(tls.has_changed().unwrap(), is_renewed, "day {number}");
        assert!(!authorities.has_changed().unwrap(), "day {number}");
        tls.mark_unchanged();
    }
    // A clock that was set back: the certificate's time has not come then.
    renewal.look(&store, &keyring, day(2800)).await.unwrap();
    assert!(tls.has_changed().unwrap());
    tls.mark_unchanged();

    renewal.look(&store, &keyring, day(2919)).await.unwrap();
    let both = authorities.borrow_and_update().clone();
    assert!(both.starts_with(&first) && both.matches("BEGIN CERTIFICATE").count() == 2, "{both}");
    let again = Certificate::issued(&store, &keyring, names.clone(), day(2920)).await.unwrap();
    assert_eq!(*again.authorities.unwrap().borrow(), both, "a start finds the same ones");
    renewal.look(&store, &keyring, day(3649)).await.unwrap();
    let second = authorities.borrow_and_update().clone();
    assert_eq!(second, both.strip_prefix(&first).unwrap(), "the first one has ended");
    let other = Certificate::issued(&store, &Keyring::new(&[8; 32]), names, day(1)).await;
    assert!(other.is_err(), "the key opens under the master key only");

    tasks.stop();
    metadata.ensure_stopped().await.unwrap();
}
