//! `Idempotency-Key`: a change that is asked for twice is made once, and both get the same answer. The
//! console's forms are kept apart in the same way.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::answer::{Answer, REPLAYED};
use super::body;
use super::caller::Caller;
use super::failure::{Failure, Kind};
use base::error::{Error, Result, describe};
use base::store::{Announcement, Channel, Tx};
use domain::app::App;
use domain::idempotency::{self, Begun, Claim, IdempotencyKey};

const KEY: &str = "idempotency-key";

/// How long a repeated request waits for the first one to be answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// Behind the announcement: how often a waiting request looks by itself.
const LOOK: Duration = Duration::from_secs(1);

/// What a handler commits with, so that the answer is kept if the request has a key.
pub struct Repeatable(Option<Claim>);

impl Repeatable {
    /// Commits a change together with its answer.
    pub async fn commit(&self, app: &App, tx: Tx, answer: Answer) -> Result<Answer> {
        self.keep(app, &tx, &answer, true).await?;
        tx.commit().await?;
        Ok(answer)
    }

    /// Commits a change together with the answer as it is so far; [`Repeatable::settle`] replaces it.
    pub async fn commit_unsettled(&self, app: &App, tx: Tx, answer: &Answer) -> Result<()> {
        self.keep(app, &tx, answer, false).await?;
        tx.commit().await
    }

    /// The answer as it is after all.
    pub async fn settle(&self, app: &App, answer: Answer) -> Result<Answer> {
        if self.0.is_some() {
            let tx = app.store.begin().await?;
            self.keep(app, &tx, &answer, true).await?;
            tx.commit().await?;
        }
        Ok(answer)
    }

    async fn keep(&self, app: &App, tx: &Tx, answer: &Answer, settled: bool) -> Result<()> {
        match &self.0 {
            Some(claim) => idempotency::keep(tx, &app.keyring, claim, &answer.to_bytes()?, settled).await,
            None => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Repeatable {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        Ok(Self(parts.extensions.get::<Claim>().cloned()))
    }
}

/// Gives a claim up when the request ends without an answer to keep: refused, or its client gone.
pub struct Guard {
    app: Arc<App>,
    pub claim: Option<Claim>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.app.tasks.spawn(release(self.app.clone(), claim));
        }
    }
}

async fn release(app: Arc<App>, claim: Claim) {
    if let Err(error) = idempotency::release(&app.store, &claim).await {
        tracing::warn!(error = %describe(&error), "could not release an idempotency key; it expires in a minute");
    }
}

/// Lets the first of equal requests through, and gives the others its answer.
pub async fn once(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Failure> {
    let changes = [Method::POST, Method::PATCH, Method::DELETE].contains(request.method());
    let mut keys = request.headers().get_all(KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) if changes => IdempotencyKey::parse(key.as_bytes())?,
        (Some(_), Some(_)) if changes => {
            return Err(Error::invalid("Idempotency-Key: the header is given more than once", "Send one key.").into());
        }
        _ => return Ok(next.run(request).await),
    };
    let Some(Caller(actor)) = request.extensions().get::<Caller>().cloned() else {
        return Ok(next.run(request).await);
    };
    let (parts, sent) = request.into_parts();
    let bytes = body::read(Request::from_parts(parts.clone(), sent), &()).await?;
    let hash = Sha256::new()
        .chain_update(format!("{} {}\n", parts.method, parts.uri))
        .chain_update(&bytes)
        .finalize()
        .to_vec();
    let mut guard = match find(&app, actor.id(), &key, &hash).await? {
        Turn::Ours(guard) => guard,
        Turn::Answered(answer) => {
            let mut response = Answer::from_bytes(&answer)?.into_response();
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            return Ok(response);
        }
        Turn::UnderWay => {
            let message = "a request with the same Idempotency-Key is still in progress";
            let hint = "Wait a moment, then repeat the request with the same key to get its response.";
            return Err(Failure::new(Kind::Conflict, message, hint).retry_after(1));
        }
    };
    let mut request = Request::from_parts(parts, Body::from(bytes));
    if let Some(claim) = &guard.claim {
        request.extensions_mut().insert(claim.clone());
    }
    let response = next.run(request).await;
    // At once, so that who waits for it or repeats it at once finds the key free.
    match guard.claim.take() {
        Some(claim) if !response.status().is_success() => release(app, claim).await,
        _ => {}
    }
    Ok(response)
}

/// Whose turn it is.
pub enum Turn {
    /// Ours: carry the request out.
    Ours(Guard),
    /// It was somebody's before, with this answer.
    Answered(Vec<u8>),
    /// It is somebody's who has not answered in time.
    UnderWay,
}

/// Like [`Begun`], with the claim in safe hands.
enum Found {
    Fresh(Guard),
    UnderWay(String, Option<Vec<u8>>),
    Answered(Vec<u8>),
}

/// Looks once, beside the request: one whose client is gone must not leave a claim that nobody
/// knows of and that would hold the key for a minute.
async fn look(app: &Arc<App>, principal: Uuid, key: &IdempotencyKey, hash: &[u8]) -> Result<Found> {
    let (found, awaited) = oneshot::channel();
    let (ours, key, hash) = (app.clone(), key.clone(), hash.to_vec());
    app.tasks.spawn(async move {
        let begun =
            async { idempotency::begin(&ours.store.session().await?, &ours.keyring, principal, &key, &hash).await }
                .await;
        let _ = found.send(begun.map(|begun| match begun {
            Begun::Fresh(claim) => Found::Fresh(Guard { app: ours.clone(), claim: Some(claim) }),
            Begun::UnderWay(row, so_far) => Found::UnderWay(row, so_far),
            Begun::Answered(answer) => Found::Answered(answer),
        }));
    });
    awaited.await.map_err(Error::internal)?
}

/// Finds out whose turn it is; waits for who has it. Holds no session while it waits.
pub async fn find(app: &Arc<App>, principal: Uuid, key: &IdempotencyKey, hash: &[u8]) -> Result<Turn> {
    let mut announcements = app.store.announcements();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (row, so_far) = match look(app, principal, key, hash).await? {
            Found::Fresh(guard) => return Ok(Turn::Ours(guard)),
            Found::Answered(answer) => return Ok(Turn::Answered(answer)),
            Found::UnderWay(row, so_far) => (row, so_far),
        };
        let announced = async {
            loop {
                match announcements.recv().await {
                    Ok(Announcement::Of(Channel::AnswerStored, id)) if id == row => return,
                    Ok(Announcement::Of(..)) => {}
                    Ok(Announcement::Missed) | Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let _ = tokio::time::timeout(LOOK, announced).await;
        if tokio::time::Instant::now() >= deadline {
            return Ok(so_far.map_or(Turn::UnderWay, Turn::Answered));
        }
    }
}
