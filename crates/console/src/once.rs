//! Forms that create something, delete something with an id, or show a secret are carried out once, even if
//! they are sent twice. Both requests get the same response. Forms are sent twice by double clicks, by
//! reloading the response, and by browsers that retry when they get no response.
//!
//! Each rendering of a page has its own hidden `once`. The key of a request is the hash of everything that
//! was sent: with another name in its field, the same page creates another thing. The response is kept like
//! that of an `Idempotency-Key` (`http/retry.rs`): sealed, for 24 hours, written in the transaction of the
//! change. A form that was refused keeps nothing.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, OriginalUri, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::form;
use super::visitor::Sender;
use base::error::{Error, Result};
use base::id::FormId;
use base::store::Tx;
use domain::app::App;
use domain::idempotency::{self, Claim, IdempotencyKey};
use web::answer::REPLAYED;
use web::failure::{Failure, Kind};
use web::retry::{self, Guard, Turn};

/// How long after its rendering a form is accepted. Less than the 24 hours that responses are kept, so that
/// a form is never carried out again after its response was removed.
const GOOD_FOR: SignedDuration = SignedDuration::from_hours(20);
/// The largest response that is kept, in bytes.
const LARGEST: usize = 1024 * 1024;

/// The fields of a form that is carried out once, and the claim to do so. As an extractor, it must follow
/// [`Visitor`](super::Visitor) or [`Member`](super::Member). A repeated form gets its kept response here and
/// does not reach the handler.
pub struct Once<T>(pub T, pub Attempt);

#[derive(Deserialize)]
struct Hidden {
    #[serde(default)]
    once: String,
}

impl<T: DeserializeOwned + Send> FromRequest<Arc<App>> for Once<T> {
    type Rejection = Response;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Response> {
        let sender = request.extensions().get().map(|Sender(user)| user.uuid());
        let address = request.extensions().get().map_or_else(|| request.uri().clone(), |OriginalUri(uri)| uri.clone());
        let begun = async {
            let sender = sender.ok_or_else(|| Error::internal("a form that is carried out once has no sender"))?;
            let bytes = form::read(request, app).await?;
            // Pages of older versions send none; without it, the form could be carried out twice.
            let Hidden { once } = form::parse(&bytes)?;
            let shown = FormId::parse(&once).ok_or_else(form::not_of_ours)?;
            let form = form::parse(&bytes)?;
            let hash = Sha256::new().chain_update(format!("{address}\n")).chain_update(&bytes).finalize();
            Ok::<_, Failure>((form, begin(app, sender, shown, &hash).await?))
        };
        match begun.await.map_err(Failure::into_response)? {
            (form, Begun::Fresh(attempt)) => Ok(Self(form, attempt)),
            (_, Begun::Answered(answer)) => Err(answer),
        }
    }
}

enum Begun {
    Fresh(Attempt),
    Answered(Response),
}

async fn begin(app: &Arc<App>, sender: Uuid, shown: FormId, hash: &[u8]) -> Result<Begun, Failure> {
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let key = IdempotencyKey::parse(format!("form-{digits}").as_bytes())?;
    match retry::find(app, sender, &key, hash).await? {
        Turn::Ours(_) if is_old(shown, app.clock.now()) => Err(Error::invalid(
            "The form was open for too long and may have been submitted before.",
            "Nothing was changed. Reload the page and submit the form again.",
        )
        .into()),
        Turn::Ours(guard) => Ok(Begun::Fresh(Attempt(guard))),
        Turn::Answered(kept) => {
            let mut answer = Kept::from_bytes(&kept)?.into_response()?;
            answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(Begun::Answered(answer))
        }
        Turn::UnderWay => Err(Failure::new(
            Kind::Conflict,
            "This form was already submitted and is being processed.",
            "Wait a moment, then reload the page.",
        )),
    }
}

fn is_old(shown: FormId, now: Timestamp) -> bool {
    let at = shown.uuid().get_timestamp().map_or(0, |at| at.to_unix().0);
    now.as_second() - i64::try_from(at).unwrap_or(i64::MAX) > GOOD_FOR.as_secs()
}

/// The claim to carry out a form and to keep its response. If it is dropped, the form can be sent again.
pub struct Attempt(Guard);

impl Attempt {
    /// Commits a change together with its response.
    pub async fn commit(mut self, app: &App, tx: Tx, answer: Response) -> Result<Response> {
        let answer = self.keep(app, &tx, answer, true).await?;
        tx.commit().await?;
        self.0.claim = None;
        Ok(answer)
    }

    /// Commits a change together with a preliminary response, which [`Attempt::settle`] replaces.
    pub async fn commit_unsettled(&self, app: &App, tx: Tx, answer: Response) -> Result<()> {
        self.keep(app, &tx, answer, false).await?;
        tx.commit().await
    }

    /// Keeps the final response.
    pub async fn settle(self, app: &App, answer: Response) -> Result<Response> {
        let tx = app.store.begin().await?;
        self.commit(app, tx, answer).await
    }

    async fn keep(&self, app: &App, tx: &Tx, answer: Response, settled: bool) -> Result<Response> {
        let kept = Kept::of(answer).await?;
        idempotency::keep(tx, &app.keyring, self.claim()?, &kept.to_bytes()?, settled).await?;
        kept.into_response()
    }

    fn claim(&self) -> Result<&Claim> {
        self.0.claim.as_ref().ok_or_else(|| Error::internal("a form is carried out without its claim"))
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Kept {
    async fn of(answer: Response) -> Result<Self> {
        let (head, body) = answer.into_parts();
        if !head.status.is_success() && !head.status.is_redirection() {
            return Err(Error::internal("the response to a form has an error status"));
        }
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| Ok((name.as_str().to_owned(), value.to_str().map_err(Error::internal)?.to_owned())));
        let body = to_bytes(body, LARGEST).await.map_err(Error::internal)?;
        Ok(Self {
            status: head.status.as_u16(),
            headers: headers.collect::<Result<_>>()?,
            body: String::from_utf8(body.to_vec()).map_err(Error::internal)?,
        })
    }

    fn into_response(self) -> Result<Response> {
        let mut answer = Response::new(Body::from(self.body));
        *answer.status_mut() = StatusCode::from_u16(self.status).map_err(Error::internal)?;
        for (name, value) in self.headers {
            let name = HeaderName::try_from(name).map_err(Error::internal)?;
            answer.headers_mut().append(name, HeaderValue::try_from(value).map_err(Error::internal)?);
        }
        Ok(answer)
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(Error::internal)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(Error::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_expires_before_its_kept_response() {
        let shown: Timestamp = "2030-01-31T12:00:00Z".parse().unwrap();
        let form = FormId::generate(shown);
        assert!(!is_old(form, shown) && !is_old(form, shown + GOOD_FOR));
        assert!(is_old(form, shown + GOOD_FOR + SignedDuration::from_secs(1)));
        assert!(is_old(FormId::from(Uuid::nil()), shown), "an id without a time");
    }

    #[tokio::test]
    async fn a_kept_answer_is_the_answer() {
        let answer = super::super::go_to("/console");
        let kept = Kept::of(answer).await.unwrap().to_bytes().unwrap();
        let again = Kept::from_bytes(&kept).unwrap().into_response().unwrap();
        assert_eq!(
            (again.status(), &again.headers()["location"]),
            (StatusCode::SEE_OTHER, &"/console".parse().unwrap())
        );
        assert!(Kept::of(StatusCode::INTERNAL_SERVER_ERROR.into_response()).await.is_err());
    }
}
