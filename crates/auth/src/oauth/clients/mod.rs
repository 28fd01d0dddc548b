//! Applications that act for people: OAuth calls them clients. Those of a workspace are made in the
//! console (`domain::applications`), others register themselves, some are built in.

mod store;

use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use subtle::ConstantTimeEq as _;

use super::RedirectUri;
use base::error::{Error, Result};
use base::id::{OauthClientId, WorkspaceId};
use base::name::{ApplicationDescription, ApplicationName};
use base::secret::{Secret, hash, random_text};
use base::store::{Session, Tx};

/// The command line that others have built in comes with this id.
pub const COMMAND_LINE: &str = "cmm3lndn701oo0uefvxzo0ivw";
/// The interactive pages about the API.
pub const API_PAGES: &str = "apipages";
/// What people know the two by.
const COMMAND_LINE_NAME: &str = "Command line";
const API_PAGES_NAME: &str = "API pages";

/// The most addresses that one application may register.
pub const MOST_REDIRECTS: usize = 10;
/// The most applications that have registered themselves and that nobody has used yet.
const MOST_UNUSED: i64 = 10_000;
/// After so long, one that nobody has used is forgotten.
const UNUSED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// An application.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub id: OauthClientId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Where it may be answered.
    pub redirect_uris: Vec<RedirectUri>,
    /// It keeps no secret: it runs in browsers or on its users' machines.
    pub is_public: bool,
    /// How it came here.
    pub origin: ClientOrigin,
    /// Whose it is, if it was made in a workspace.
    pub workspace: Option<OwnerWorkspace>,
}

/// The workspace that an application belongs to.
#[derive(Clone, Debug)]
pub struct OwnerWorkspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name, which may say anything.
    pub name: String,
}

/// How an application came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientOrigin {
    /// Howdah brings it.
    BuiltIn,
    /// Somebody of a workspace made it.
    Console,
    /// It registered itself, and nobody has vouched for it.
    Registration,
}

impl ClientOrigin {
    fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "built_in",
            Self::Console => "console",
            Self::Registration => "registration",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::BuiltIn, Self::Console, Self::Registration].into_iter().find(|origin| origin.as_str() == text)
    }
}

/// An application to be.
#[derive(Clone, Debug)]
pub struct NewClient {
    /// Its name.
    pub name: ApplicationName,
    /// What it is for.
    pub description: Option<ApplicationDescription>,
    /// Where it may be answered: one address at least.
    pub redirect_uris: Vec<RedirectUri>,
    /// It keeps no secret.
    pub is_public: bool,
}

impl Client {
    /// Where to answer an authorization that names this address, or none; `None` when it may not be
    /// answered there. It may be left out where there is no choice.
    pub fn redirect(&self, asked: Option<&str>) -> Option<String> {
        match (asked, &self.redirect_uris[..]) {
            (None, [only]) => Some(only.as_str().to_owned()),
            (None, _) => None,
            (Some(asked), registered) => {
                let is_registered = registered.iter().any(|redirect| redirect.admits(asked, !self.is_public));
                is_registered.then(|| asked.to_owned())
            }
        }
    }
}

/// Makes an application, of a workspace or of nobody; its secret is known this once.
///
/// # Errors
/// [`Error::Invalid`] when it has no address, or too many, or a name that is reserved.
pub async fn create(
    tx: &Tx,
    now: Timestamp,
    workspace: Option<WorkspaceId>,
    origin: ClientOrigin,
    new: &NewClient,
) -> Result<(OauthClientId, Option<Secret>)> {
    check_redirects(&new.redirect_uris)?;
    check_name(&new.name)?;
    let id = OauthClientId::generate(now);
    let secret = (!new.is_public).then(generate_secret);
    let secret_hash = secret.as_ref().map(|secret| hash(secret.expose()));
    store::insert(tx, &id, workspace, origin, new, secret_hash, now).await?;
    Ok((id, secret))
}

/// Lets an application register itself (RFC 7591).
///
/// # Errors
/// [`Error::Invalid`] as for [`create`]; [`Error::Unavailable`] while there are too many that nobody uses.
pub async fn register(tx: &Tx, now: Timestamp, new: &NewClient) -> Result<(OauthClientId, Option<Secret>)> {
    if store::count_unused(tx).await? >= MOST_UNUSED {
        return Err(Error::Unavailable {
            message: "too many registered applications have not been used yet; try again later".into(),
            cause: None,
        });
    }
    create(tx, now, None, ClientOrigin::Registration, new).await
}

/// Whether these are addresses enough, and not too many.
///
/// # Errors
/// [`Error::Invalid`] when they are not.
pub fn check_redirects(redirects: &[RedirectUri]) -> Result<()> {
    if (1..=MOST_REDIRECTS).contains(&redirects.len()) {
        return Ok(());
    }
    Err(Error::invalid(
        format!("redirectUris: {} given", redirects.len()),
        format!("Give 1 to {MOST_REDIRECTS} redirect URIs of the application."),
    ))
}

/// Whether an application may be called so: not like one that Howdah brings, whatever the case of its
/// letters and what stands between them.
///
/// # Errors
/// [`Error::Invalid`] when it may not.
pub fn check_name(name: &ApplicationName) -> Result<()> {
    let letters = |text: &str| -> String {
        text.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let wanted = letters(name.as_str());
    let taken = [COMMAND_LINE_NAME, API_PAGES_NAME].into_iter().find(|taken| letters(taken) == wanted);
    match taken {
        None => Ok(()),
        Some(taken) => Err(Error::invalid(
            format!("name: {taken} is reserved for an application of Howdah"),
            "Choose a name that cannot be mistaken for it.",
        )),
    }
}

/// Gives an application another secret; the one of before is good no more.
pub async fn rotate_secret(tx: &Tx, id: &OauthClientId) -> Result<Secret> {
    let secret = generate_secret();
    store::set_secret(tx, id, &hash(secret.expose())).await?;
    Ok(secret)
}

fn generate_secret() -> Secret {
    Secret::new(format!("howdah_cs_{}", random_text::<32>()))
}

/// The application with this id.
pub async fn find(session: &Session, id: &str) -> Result<Option<Client>> {
    Ok(find_with_secret(session, id).await?.map(|(client, _)| client))
}

/// The application that proves to be this one: by its secret, or by having none where it keeps none. It
/// takes the same time whether there is such an application or not.
pub async fn authenticate(session: &Session, id: &str, secret: Option<&Secret>) -> Result<Option<Client>> {
    static NOBODYS: LazyLock<Vec<u8>> = LazyLock::new(|| hash(&random_text::<32>()));
    let found = find_with_secret(session, id).await?;
    let expected = found.as_ref().and_then(|(_, secret_hash)| secret_hash.as_ref()).unwrap_or(&NOBODYS);
    let is_right = secret.is_some_and(|secret| hash(secret.expose()).ct_eq(expected).into());
    Ok(found.map(|(client, _)| client).filter(|client| match client.is_public {
        true => secret.is_none(),
        false => is_right,
    }))
}

async fn find_with_secret(session: &Session, id: &str) -> Result<Option<(Client, Option<Vec<u8>>)>> {
    match OauthClientId::parse(id) {
        Some(id) => store::find(session, &id).await,
        None => Ok(None),
    }
}

/// Makes sure that the applications which Howdah brings are there. `public` is the API's address.
pub async fn ensure_built_in(tx: &Tx, now: Timestamp, public: &str) -> Result<()> {
    let on_this_machine = |path: &str| ["localhost", "127.0.0.1", "[::1]"].map(|host| format!("http://{host}{path}"));
    let command_line = on_this_machine("/auth/callback").to_vec();
    store::ensure(tx, COMMAND_LINE, COMMAND_LINE_NAME, "The Prisma command line.", &command_line, now).await?;
    let path = "/swagger/oauth2-redirect.html";
    // The pages may be open under another name of this machine than the public one.
    let pages: Vec<String> = [format!("{public}{path}")].into_iter().chain(on_this_machine(path)).collect();
    store::ensure(tx, API_PAGES, API_PAGES_NAME, "The interactive API documentation of this server.", &pages, now).await
}

/// Forgets applications that have registered themselves and that nobody has used for a month.
pub async fn forget_unused(session: &Session, now: Timestamp) -> Result<()> {
    store::forget_unused(session, now - UNUSED).await
}
