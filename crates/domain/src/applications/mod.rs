//! OAuth applications of a workspace: what its people register so that users of any workspace can let
//! it act for them. What an application is worth when it shows up is `auth::oauth`'s.

mod store;

use jiff::Timestamp;

use crate::audit::{self, Change, Resource};
use auth::oauth::RedirectUri;
use auth::oauth::clients::{self, ClientOrigin, NewClient};
use auth::{Action, Principal};
use base::error::{Error, Result};
use base::id::OauthClientId;
use base::name::{ApplicationDescription, ApplicationName};
use base::secret::Secret;
use base::store::{Session, Tx};

/// The most applications of one workspace.
const MOST: i64 = 100;

/// An application, without its secret.
#[derive(Clone, Debug)]
pub struct Application {
    /// The application's ID; people know it without prefix.
    pub id: OauthClientId,
    /// The application's name.
    pub name: String,
    /// The application's purpose.
    pub description: Option<String>,
    /// Where people come back to it.
    pub redirect_uris: Vec<String>,
    /// It keeps no secret: it runs in browsers or on its users' machines.
    pub is_public: bool,
    /// When the application was created.
    pub created_at: Timestamp,
    /// When it acted for somebody last, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// How many integrations it has, in all workspaces.
    pub integrations: i64,
}

impl Application {
    /// The fields that the audit log records.
    fn audited(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name,
            "description": self.description,
            "redirectUris": self.redirect_uris,
            "public": self.is_public,
        })
    }

    fn change(&self, action: &'static str, before: Option<&Self>, after: Option<&Self>) -> Change {
        Change {
            action,
            resource: Resource::new("application", &self.id, &self.name),
            project: None,
            before: before.map(Self::audited),
            after: after.map(Self::audited),
        }
    }
}

/// What to change about an application; all of it is set.
#[derive(Clone, Debug)]
pub struct ApplicationChange {
    /// The application's name.
    pub name: ApplicationName,
    /// The application's purpose.
    pub description: Option<ApplicationDescription>,
    /// Where people come back to it.
    pub redirect_uris: Vec<RedirectUri>,
}

/// Makes an application of the caller's workspace, and its secret unless it is a public one, which is
/// known this once.
///
/// # Errors
/// [`Error::Forbidden`] when the caller may not; [`Error::Invalid`] as for [`clients::create`];
/// [`Error::LimitReached`].
pub async fn create(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    new: &NewClient,
) -> Result<(Application, Option<Secret>)> {
    actor.may(Action::ManageCredentials)?;
    actor.may_see_all()?;
    let (id, secret) = clients::create(tx, now, Some(actor.workspace()), ClientOrigin::Console, new).await?;
    if store::count(tx, actor.workspace()).await? > MOST {
        return Err(Error::LimitReached {
            message: "The workspace has reached its limit of applications.".into(),
            hint: format!("A workspace can have {MOST} applications. Delete one that is no longer needed."),
        });
    }
    let application = get(tx, actor, &id).await?;
    audit::record(tx, actor, now, application.change("create_application", None, Some(&application))).await?;
    Ok((application, secret))
}

/// The applications of the caller's workspace, oldest first.
pub async fn list(session: &Session, actor: &Principal) -> Result<Vec<Application>> {
    store::list(session, &actor.scope()).await
}

/// The application with this id.
///
/// # Errors
/// [`Error::NotFound`] when the caller's workspace has no such application.
pub async fn get(session: &Session, actor: &Principal, id: &OauthClientId) -> Result<Application> {
    store::get(session, &actor.scope(), id).await?.ok_or_else(|| Error::not_found("application", id.bare()))
}

/// Changes an application.
///
/// # Errors
/// [`Error::NotFound`] when the caller's workspace has no such application; [`Error::Forbidden`] when the
/// caller may not; [`Error::Invalid`] when it would have no address, or too many, or a name that is reserved.
pub async fn update(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    id: &OauthClientId,
    change: &ApplicationChange,
) -> Result<Application> {
    let before = get(tx, actor, id).await?;
    actor.may(Action::ManageCredentials)?;
    clients::check_redirects(&change.redirect_uris)?;
    clients::check_name(&change.name)?;
    store::update(tx, &actor.scope(), id, change).await?;
    let after = get(tx, actor, id).await?;
    audit::record(tx, actor, now, after.change("update_application", Some(&before), Some(&after))).await?;
    Ok(after)
}

/// Gives an application another secret, which is known this once. The one of before is good no more;
/// tokens that it has got stay good.
///
/// # Errors
/// As for [`update`]; [`Error::Conflict`] for a public application, which keeps none.
pub async fn rotate_secret(tx: &Tx, actor: &Principal, now: Timestamp, id: &OauthClientId) -> Result<Secret> {
    let application = get(tx, actor, id).await?;
    actor.may(Action::ManageCredentials)?;
    if application.is_public {
        return Err(Error::conflict(
            format!("{} is a public client and has no secret", application.name),
            "Create another application if it can keep a secret.",
        ));
    }
    let secret = clients::rotate_secret(tx, id).await?;
    audit::record(tx, actor, now, application.change("rotate_application_secret", None, None)).await?;
    Ok(secret)
}

/// Deletes an application: what anybody has let it do, in whatever workspace, ends with it.
///
/// # Errors
/// [`Error::NotFound`] when the caller's workspace has no such application; [`Error::Forbidden`] when the
/// caller may not.
pub async fn delete(tx: &Tx, actor: &Principal, now: Timestamp, id: &OauthClientId) -> Result<()> {
    let application = get(tx, actor, id).await?;
    actor.may(Action::ManageCredentials)?;
    if !store::remove(tx, &actor.scope(), id).await? {
        return Err(Error::not_found("application", id.bare()));
    }
    audit::record(tx, actor, now, application.change("delete_application", Some(&application), None)).await
}
