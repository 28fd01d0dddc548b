//! What is tried again, when, and how often.

use std::time::Duration;

use super::Failure;

/// The longest that all waits of one request may be together.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(250);
/// How often a request is made at most.
const TRIES: u32 = 7;

/// The tries of one request so far.
#[derive(Debug, Default)]
pub(super) struct Retry {
    tries: u32,
    waited: Duration,
}

impl Retry {
    /// How long to wait before the next try; `None` when there is none. `chance` is any number: it
    /// spreads clients that failed together.
    pub(super) fn after(&mut self, failure: &Failure, chance: u8) -> Option<Duration> {
        self.tries += 1;
        let asked = match failure {
            // A server that was there a moment ago comes back; one that never was is not waited for.
            Failure::Unreachable { connected, .. } if *connected || self.tries > 1 => None,
            Failure::Refused(refusal) if matches!(refusal.status, 408 | 429 | 502 | 503 | 504) => refusal.retry_after,
            // The try before is still being carried out; any other conflict has no time at which it ends.
            Failure::Refused(refusal) if refusal.status == 409 && refusal.retry_after.is_some() => refusal.retry_after,
            Failure::Unreachable { .. } | Failure::Refused(_) | Failure::Foreign(_) => return None,
        };
        let own = FIRST * 2u32.pow(self.tries.min(TRIES) - 1);
        let spread = own / 2 * u32::from(chance) / 255;
        let wait = own.max(asked.unwrap_or_default()) + spread;
        self.waited += wait;
        (self.tries < TRIES && self.waited <= PATIENCE).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Refusal;

    fn refused(status: u16, retry_after: Option<u64>) -> Failure {
        Failure::Refused(Box::new(Refusal {
            status,
            code: "code".into(),
            message: "message".into(),
            hint: None,
            request_id: None,
            retry_after: retry_after.map(Duration::from_secs),
        }))
    }

    fn lost(connected: bool) -> Failure {
        Failure::Unreachable { address: "address".into(), cause: "cause".into(), connected }
    }

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again() {
        let again = |failure: &Failure| Retry::default().after(failure, 0).is_some();
        for status in [408, 429, 502, 503, 504] {
            assert!(again(&refused(status, None)), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 413, 422, 500] {
            assert!(!again(&refused(status, Some(1))), "{status}");
        }
        assert!(again(&refused(409, Some(1))) && !again(&refused(409, None)));
        assert!(again(&lost(true)));
        assert!(!again(&Failure::Foreign("text".into())));
    }

    #[test]
    fn missing_server_is_given_up() {
        assert_eq!(Retry::default().after(&lost(false), 0), None);
        let mut retry = Retry::default();
        assert!(retry.after(&lost(true), 0).is_some());
        assert!(retry.after(&lost(false), 0).is_some(), "it was there, and may be starting again");
    }

    #[test]
    fn waits_grow_as_the_server_asks_and_end() {
        let mut retry = Retry::default();
        assert_eq!(retry.after(&refused(503, Some(3)), 0), Some(Duration::from_secs(3)));
        assert_eq!(retry.after(&refused(503, None), 0), Some(Duration::from_millis(500)));
        assert_eq!(retry.after(&refused(503, None), 255), Some(Duration::from_millis(1500)));
        assert_eq!(retry.after(&refused(429, Some(60)), 0), None, "longer than anyone waits");

        let mut retry = Retry::default();
        let tries = (0..).take_while(|_| retry.after(&lost(true), 0).is_some()).count();
        assert_eq!(tries as u32 + 1, TRIES);
    }
}
