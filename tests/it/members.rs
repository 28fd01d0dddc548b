//! Members of workspaces, their roles, and how accounts authenticate.

use auth::users::{self, Proven, User};
use auth::{Action, Origin, Principal, Role, links};
use base::clock::Clock;
use base::error::Error;
use base::id::WorkspaceId;
use base::keyring::Keyring;
use base::name::{Email, PersonName, WorkspaceName};
use base::secret::Secret;
use base::store::{Session, Store};
use domain::members;
use jiff::{SignedDuration, Timestamp};

use crate::harness::Howdah;

const PASSWORD: &str = "tusk-marble-wander-94";

async fn account(store: &Store, now: Timestamp, name: &str) -> User {
    let email = Email::parse(&format!("{name}@example.com")).unwrap();
    let tx = store.begin().await.unwrap();
    let user = users::create(&tx, now, &email, &PersonName::parse(name).unwrap(), None, false).await.unwrap();
    tx.commit().await.unwrap();
    user
}

async fn as_member(session: &Session, user: &User, workspace: WorkspaceId) -> Principal {
    members::principal(session, user, workspace, Origin::default()).await.unwrap()
}

#[tokio::test]
async fn workspace_keeps_an_owner_and_roles_are_enforced() {
    let howdah = Howdah::start().await;
    let (store, tasks) = howdah.store();
    let now = Clock::system().now();
    let ada = account(&store, now, "ada").await;
    let tx = store.begin().await.unwrap();
    let name = WorkspaceName::parse("Research").unwrap();
    let workspace = members::create_workspace(&tx, now, &ada, &name, Origin::default()).await.unwrap().id;
    let owner = as_member(&tx, &ada, workspace).await;
    assert_eq!(owner.role(), Role::Owner);

    let invite = async |actor: &Principal, who: &str, role| {
        members::invite(&tx, actor, now, &Email::parse(&format!("{who}@example.com")).unwrap(), role).await
    };
    let (_, replaced) = invite(&owner, "grace", Role::Owner).await.unwrap();
    let (_, link) = invite(&owner, "Grace", Role::Admin).await.unwrap();
    tx.commit().await.unwrap();
    let grace = account(&store, now, "grace").await;

    let tx = store.begin().await.unwrap();
    let accept = async |link: &Secret, at| members::accept(&tx, at, link.expose(), &grace, Origin::default()).await;
    assert!(matches!(accept(&replaced, now).await, Err(Error::NotFound { .. })));
    let later = now + SignedDuration::from_hours(7 * 24);
    assert!(matches!(accept(&link, later).await, Err(Error::NotFound { .. })));
    assert_eq!(accept(&link, now).await.unwrap(), workspace);
    assert!(matches!(accept(&link, now).await, Err(Error::NotFound { .. })), "a link works once");

    let admin = as_member(&tx, &grace, workspace).await;
    let (own, other) = (grace.id, ada.id);
    for refused in [
        members::change_role(&tx, &admin, now, own, Role::Owner).await,
        members::change_role(&tx, &admin, now, other, Role::Viewer).await,
        members::remove(&tx, &admin, now, other).await,
        members::invite(&tx, &admin, now, &Email::parse("x@example.com").unwrap(), Role::Owner).await.map(drop),
        admin.may(Action::OwnWorkspace),
    ] {
        assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
    }
    for refused in [
        members::change_role(&tx, &owner, now, other, Role::Admin).await,
        members::remove(&tx, &owner, now, other).await,
        members::invite(&tx, &owner, now, &Email::parse("GRACE@example.com").unwrap(), Role::Viewer).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    }
    members::change_role(&tx, &owner, now, own, Role::Owner).await.unwrap();
    members::remove(&tx, &owner, now, other).await.unwrap();
    let gone = members::principal(&tx, &ada, workspace, Origin::default()).await;
    assert!(matches!(gone, Err(Error::NotFound { .. })));
    tx.commit().await.unwrap();
    tasks.stop();
}

#[tokio::test]
async fn invitation_is_valid_while_its_inviter_may_invite() {
    let howdah = Howdah::start().await;
    let (store, tasks) = howdah.store();
    let now = Clock::system().now();
    let (ada, grace) = (account(&store, now, "ada").await, account(&store, now, "grace").await);
    let tx = store.begin().await.unwrap();
    let name = WorkspaceName::parse("Research").unwrap();
    let workspace = members::create_workspace(&tx, now, &ada, &name, Origin::default()).await.unwrap().id;
    let owner = as_member(&tx, &ada, workspace).await;
    let invite = async |actor: &Principal, who: &str, role| {
        let email = Email::parse(&format!("{who}@example.com")).unwrap();
        members::invite(&tx, actor, now, &email, role).await.unwrap().1
    };
    let is_good = async |link: &Secret| members::find_invitation(&tx, now, link.expose()).await.unwrap().is_some();
    let link = invite(&owner, "grace", Role::Owner).await;
    members::accept(&tx, now, link.expose(), &grace, Origin::default()).await.unwrap();

    let second = as_member(&tx, &grace, workspace).await;
    let to_own = invite(&second, "one", Role::Owner).await;
    let to_work = invite(&second, "two", Role::Developer).await;
    members::change_role(&tx, &owner, now, grace.id, Role::Admin).await.unwrap();
    assert!(!is_good(&to_own).await && is_good(&to_work).await);
    let refused = members::accept(&tx, now, to_own.expose(), &grace, Origin::default()).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })));
    members::change_role(&tx, &owner, now, grace.id, Role::Developer).await.unwrap();
    assert!(!is_good(&to_work).await);
    members::change_role(&tx, &owner, now, grace.id, Role::Owner).await.unwrap();
    assert!(!is_good(&to_own).await && !is_good(&to_work).await, "invitations stay invalid");

    let to_return = invite(&second, "three", Role::Admin).await;
    members::remove(&tx, &owner, now, grace.id).await.unwrap();
    let refused = members::accept(&tx, now, to_return.expose(), &grace, Origin::default()).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })));
    tx.commit().await.unwrap();
    tasks.stop();
}

#[tokio::test]
async fn set_up_links_and_second_factor_codes_work_once() {
    let howdah = Howdah::start().await;
    let (store, tasks) = howdah.store();
    let (now, keyring) = (Clock::system().now(), Keyring::new(&[7; 32]));
    let (email, name) = (Email::parse("ada@example.com").unwrap(), PersonName::parse("Ada").unwrap());
    let password = Secret::new(PASSWORD);
    let hash = users::hash_password(&password, email.as_str(), Some("Ada")).await.unwrap();

    let tx = store.begin().await.unwrap();
    let first = links::make_set_up(&tx, now).await.unwrap();
    let link = links::make_set_up(&tx, now).await.unwrap();
    let set_up =
        async |link: &Secret| members::set_up(&tx, now, link.expose(), &email, &name, &hash, Origin::default()).await;
    assert!(matches!(set_up(&first).await, Err(Error::NotFound { .. })), "only the newest link works");
    let ada = set_up(&link).await.unwrap();
    assert!(ada.is_administrator);
    assert!(matches!(set_up(&link).await, Err(Error::NotFound { .. })));
    tx.commit().await.unwrap();

    let session = store.session().await.unwrap();
    let check = async |email: &str, password: &str| {
        users::check_password(&session, email, &Secret::new(password)).await.unwrap()
    };
    assert!(matches!(check("ADA@example.com", PASSWORD).await, Some(Proven::All(_))));
    assert!(check("ada@example.com", "tusk-marble-wander-95").await.is_none());
    assert!(check("nobody@example.com", PASSWORD).await.is_none());

    let tx = store.begin().await.unwrap();
    let enrolment = users::begin_totp(&tx, &keyring, &ada, "Howdah: test").await.unwrap();
    let pending = users::pending_totp(&tx, &keyring, &ada, "Howdah: test").await.unwrap().unwrap();
    assert_eq!(pending.url, enrolment.url);
    let totp = totp_rs::Totp::from_url(enrolment.url.expose()).unwrap();
    let code = |at: Timestamp| totp.generate(at.as_second().unsigned_abs()).to_string();
    let wrong = users::confirm_totp(&tx, &keyring, now, ada.id, "000000").await;
    assert!(matches!(wrong, Err(Error::Invalid { .. })) || code(now) == "000000");
    let recovery = users::confirm_totp(&tx, &keyring, now, ada.id, &code(now)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(check("ada@example.com", PASSWORD).await, Some(Proven::Password(_))));

    let tx = store.begin().await.unwrap();
    let second = async |at, code: &str| users::check_second_factor(&tx, &keyring, at, ada.id, code).await.unwrap();
    assert!(!second(now, &code(now)).await, "the code that confirmed the setup is used up");
    let later = now + SignedDuration::from_secs(30);
    assert!(second(later, &code(later)).await);
    assert!(!second(later, &code(later)).await);
    assert!(!second(later, &code(now)).await, "older codes are rejected");
    assert!(second(later, recovery[0].expose()).await);
    assert!(!second(later, recovery[0].expose()).await);
    assert!(second(later, &recovery[1].expose().to_uppercase()).await);
    assert_eq!(users::get(&tx, ada.id).await.unwrap().recovery_codes, 8);

    let last = users::set_disabled(&tx, now, ada.id, true).await;
    assert!(matches!(last, Err(Error::Conflict { .. })));
    tx.commit().await.unwrap();
    tasks.stop();
}
