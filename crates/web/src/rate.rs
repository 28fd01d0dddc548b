//! How fast requests may come: from an address, whoever sends them, and with a token. Each answer
//! says in `RateLimit-*` how much is left of the limit that is nearest to being reached. This
//! process counts what it answers itself, since it is this process that the limits are to save from too
//! much; how often a password may be tried is for `auth::attempts` to say.
//!
//! The fields are the three plain numbers that clients know (`RateLimit-Limit`, `-Remaining`,
//! `-Reset`): the newer draft's pair of structured fields has changed its form with each version.

use std::convert::Infallible;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;
use uuid::Uuid;

use super::failure::{Failure, Kind};
use super::origin::ClientAddress;
use base::error::Error;
use base::network::Network;
use domain::app::{Rate, Rates};

/// How many a request may send at once when nothing was sent for a while.
pub const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
/// How many it may send at once now.
pub const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// In how many seconds that is the whole limit again.
pub const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// How many tokens and addresses are remembered each; the one that is not seen for longest is
/// forgotten for the next, and begins anew.
const REMEMBERED: usize = 50_000;
/// Requests whose token is not known to be good may come from an address so many times more slowly.
const ATTEMPTS: u32 = 10;

/// The limits, and where everybody stands.
pub struct RateLimits {
    tokens: Option<Limiter<Uuid>>,
    addresses: Option<Limiter<Network>>,
    attempts: Option<Limiter<Network>>,
}

impl RateLimits {
    pub fn new(rates: &Rates) -> Self {
        let fewer = |number: NonZeroU32| NonZeroU32::new(number.get() / ATTEMPTS).unwrap_or(NonZeroU32::MIN);
        let attempts = rates.address.map(|rate| Rate { per_second: fewer(rate.per_second), burst: fewer(rate.burst) });
        let clock = DefaultClock::default();
        Self {
            tokens: rates.token.map(|rate| Limiter::new(rate, clock.clone())),
            addresses: rates.address.map(|rate| Limiter::new(rate, clock.clone())),
            attempts: attempts.map(|rate| Limiter::new(rate, clock.clone())),
        }
    }
}

/// Lets through what does not come too fast from its address, and writes down on each answer where
/// the caller stands.
pub async fn limit(State(limits): State<Arc<RateLimits>>, mut request: Request, next: Next) -> Response {
    let address = request.extensions().get().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ClientAddress(found)| *found);
    let meter = Meter(Arc::new(Measured { limits, party: Network::of_one_party(address), nearest: Mutex::default() }));
    let mut response = match meter.request() {
        Ok(()) => {
            request.extensions_mut().insert(meter.clone());
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    };
    if let Some(standing) = meter.nearest() {
        let headers = response.headers_mut();
        headers.insert(LIMIT, HeaderValue::from(standing.limit));
        headers.insert(REMAINING, HeaderValue::from(standing.remaining));
        headers.insert(RESET, HeaderValue::from(standing.reset));
    }
    response
}

/// What one request is measured by; an extension of it.
#[derive(Clone)]
pub struct Meter(Arc<Measured>);

struct Measured {
    limits: Arc<RateLimits>,
    party: Network,
    nearest: Mutex<Option<Standing>>,
}

impl Meter {
    /// Counts a request of the address.
    fn request(&self) -> Result<(), Failure> {
        let Some(limiter) = &self.0.limits.addresses else { return Ok(()) };
        match limiter.take(&self.0.party) {
            Ok(standing) => {
                self.stand(standing);
                Ok(())
            }
            Err(wait) => Err(self.refuse("This IP address", limiter.rate, wait)),
        }
    }

    /// Counts a request of the address whose token is not known to be good. Where the caller stands
    /// with this is nobody's concern until it is refused.
    pub fn attempt(&self) -> Result<(), Failure> {
        let Some(limiter) = &self.0.limits.attempts else { return Ok(()) };
        let Err(wait) = limiter.take(&self.0.party) else { return Ok(()) };
        Err(self.refuse("This IP address, with invalid tokens,", limiter.rate, wait))
    }

    /// Counts a request of the token, or of the integration whose token it is.
    pub fn token(&self, token: Uuid) -> Result<(), Failure> {
        let Some(limiter) = &self.0.limits.tokens else { return Ok(()) };
        match limiter.take(&token) {
            Ok(standing) => {
                self.stand(standing);
                Ok(())
            }
            Err(wait) => Err(self.refuse("This token", limiter.rate, wait)),
        }
    }

    fn refuse(&self, who: &str, rate: Rate, wait: Duration) -> Failure {
        self.stand(Standing::new(rate, 0));
        let seconds = whole_seconds(wait);
        let message = format!("{who} has sent more than {} requests per second.", rate.per_second);
        let hint = format!(
            "Wait {seconds} s (Retry-After), and send at most RateLimit-Remaining requests at once; after a pause, \
             up to {} requests can be sent at once.",
            rate.burst
        );
        Failure::new(Kind::TooManyRequests, message, hint).retry_after(seconds)
    }

    fn stand(&self, standing: Standing) {
        let mut nearest = self.0.nearest.lock().unwrap_or_else(PoisonError::into_inner);
        if nearest.is_none_or(|nearest| standing.remaining < nearest.remaining) {
            *nearest = Some(standing);
        }
    }

    fn nearest(&self) -> Option<Standing> {
        *self.0.nearest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    limit: u32,
    remaining: u32,
    /// In seconds.
    reset: u64,
}

impl Standing {
    fn new(rate: Rate, remaining: u32) -> Self {
        let limit = rate.burst.get();
        let missing = limit.saturating_sub(remaining);
        Self { limit, remaining, reset: missing.div_ceil(rate.per_second.get()).into() }
    }
}

/// One limit, for each of many.
struct Limiter<K, C: Clock = DefaultClock>
where
    K: Clone + Eq + Hash,
{
    rate: Rate,
    buckets: RateLimiter<K, Buckets<K>, C, StateInformationMiddleware>,
}

impl<K: Clone + Eq + Hash, C: Clock> Limiter<K, C> {
    fn new(rate: Rate, clock: C) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        let buckets = RateLimiter::new(quota, Buckets(Cache::new(REMEMBERED)), clock);
        Self { rate, buckets }
    }

    /// Takes one; otherwise says in how long there is one to take.
    fn take(&self, key: &K) -> Result<Standing, Duration> {
        match self.buckets.check_key(key) {
            Ok(snapshot) => Ok(Standing::new(self.rate, snapshot.remaining_burst_capacity())),
            Err(not_until) => Err(not_until.wait_time_from(self.buckets.clock().now())),
        }
    }
}

/// Where each one stands; as many as are remembered.
struct Buckets<K>(Cache<K, Arc<InMemoryState>>);

impl<S: Clone + Send + Sync> FromRequestParts<S> for Meter {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        parts.extensions.get().cloned().ok_or_else(|| Error::internal("a request is not measured").into())
    }
}

impl<K: Clone + Eq + Hash> StateStore for Buckets<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Ok(bucket) = self.0.get_or_insert_with(key, || Ok::<_, Infallible>(Arc::default()));
        bucket.measure_and_replace(&NotKeyed::NonKey, decide)
    }
}

/// At least one, so that who waits as long as that does not come too early.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn rate(per_second: u32, burst: u32) -> Rate {
        let number = |number| NonZeroU32::new(number).unwrap();
        Rate { per_second: number(per_second), burst: number(burst) }
    }

    #[test]
    fn rate_limit_refills_over_time() {
        let clock = FakeRelativeClock::default();
        let limiter = Limiter::new(rate(2, 5), clock.clone());
        for remaining in (0..5).rev() {
            let reset = u64::from(5_u32 - remaining).div_ceil(2);
            assert_eq!(limiter.take(&"a"), Ok(Standing { limit: 5, remaining, reset }));
        }
        assert_eq!(limiter.take(&"a"), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take(&"b"), Ok(Standing { limit: 5, remaining: 4, reset: 1 }), "each has its own");
        clock.advance(Duration::from_millis(499));
        assert_eq!(limiter.take(&"a"), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(limiter.take(&"a"), Ok(Standing { limit: 5, remaining: 0, reset: 3 }));
        clock.advance(Duration::from_secs(60));
        assert_eq!(limiter.take(&"a"), Ok(Standing { limit: 5, remaining: 4, reset: 1 }), "no more than the burst");
    }

    #[test]
    fn the_memory_of_a_limit_is_bounded() {
        let limiter = Limiter::new(rate(1, 1), FakeRelativeClock::default());
        for key in 0..2 * REMEMBERED {
            assert!(limiter.take(&key).is_ok(), "{key}");
        }
        let Buckets(kept) = limiter.buckets.into_state_store();
        assert!(kept.len() <= REMEMBERED, "{}", kept.len());
    }

    #[test]
    fn retry_after_is_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(2)), 2);
        assert_eq!(whole_seconds(Duration::from_millis(2001)), 3);
    }
}
