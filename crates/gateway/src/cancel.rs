//! Cancelling: the gateway's own keys, and passing a cancel on to the instance.
//!
//! PostgreSQL documentation §55.2.8. A client is told the process id of its session in the instance, so that
//! `pg_backend_pid()`, `pg_stat_activity` and the sender of a `NOTIFY` agree with it, and a random secret of the
//! gateway's, bound to that session. The instance's own secret never leaves the gateway. Two instances may have
//! the same process id, since one of them may run in another namespace or say what it likes: the secret decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Endpoint;
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::startup::CancelKey;
use base::secret::fill_random;

/// How long passing a cancel on may take.
const WAIT: Duration = Duration::from_secs(5);

/// Where a session's cancel goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The instance's socket.
    pub(crate) endpoint: Endpoint,
    /// The instance's own key.
    pub(crate) key: CancelKey,
}

/// The keys of all open sessions, by process id.
#[derive(Clone, Default)]
pub(crate) struct Cancels(Arc<Mutex<HashMap<u32, Vec<Entry>>>>);

/// A session's secret and where its cancel goes.
type Entry = (Vec<u8>, Target);

/// A session's key; it is forgotten when this is dropped.
pub(crate) struct Registered {
    cancels: Cancels,
    key: CancelKey,
}

impl Cancels {
    /// A key that cancels at `target`: its process id, and a new random secret of this length.
    pub(crate) fn register(&self, length: usize, target: Target) -> Registered {
        let process = target.key.process;
        let mut secret = vec![0; length];
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = sessions.entry(process).or_default();
        loop {
            fill_random(&mut secret);
            if !same.iter().any(|(other, _)| *other == secret) {
                break;
            }
        }
        same.push((secret.clone(), target));
        drop(sessions);
        Registered { cancels: self.clone(), key: CancelKey { process, key: secret } }
    }

    /// Whose key it is; compared in constant time.
    pub(crate) fn find(&self, request: &CancelKey) -> Option<Target> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut same = sessions.get(&request.process)?.iter();
        same.find(|(secret, _)| bool::from(secret.as_slice().ct_eq(&request.key))).map(|(_, target)| target.clone())
    }
}

impl Registered {
    /// `BackendKeyData` for the client.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut message = vec![b'K'];
        message.extend((8 + self.key.key.len() as u32).to_be_bytes());
        message.extend(self.key.process.to_be_bytes());
        message.extend(&self.key.key);
        message
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sessions = self.cancels.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = sessions.get_mut(&self.key.process) {
            same.retain(|(secret, _)| *secret != self.key.key);
            if same.is_empty() {
                sessions.remove(&self.key.process);
            }
        }
    }
}

impl Target {
    /// Asks the instance to cancel what the session does. Nobody learns whether it did.
    pub(crate) async fn cancel(&self) {
        let request = async {
            let mut stream = self.endpoint.connect().await?;
            let mut message = Vec::new();
            message.extend((12 + self.key.key.len() as u32).to_be_bytes());
            message.extend((1234u32 << 16 | 5678).to_be_bytes());
            message.extend(self.key.process.to_be_bytes());
            message.extend(&self.key.key);
            stream.write_all(&message).await?;
            // The instance closes once the signal is sent.
            stream.read(&mut [0]).await
        };
        if let Ok(Err(cause)) = timeout(WAIT, request).await {
            tracing::debug!(%cause, "could not forward a cancel request to the instance");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_session_s_own_key_cancels() {
        let cancels = Cancels::default();
        let target = |place: &str| Target {
            endpoint: Endpoint { directory: place.into() },
            key: CancelKey { process: 258, key: vec![1, 2, 3, 4] },
        };
        // Two instances whose sessions have the same process id.
        let (long, short) = (cancels.register(32, target("one")), cancels.register(4, target("two")));
        assert_eq!(long.message().len(), 41);
        assert_eq!(&short.message()[..9], b"K\0\0\0\x0c\0\0\x01\x02");
        let found = |key: &CancelKey| cancels.find(key).map(|target| target.endpoint.directory);
        assert_eq!((found(&long.key), found(&short.key)), (Some("one".into()), Some("two".into())));
        assert!(found(&CancelKey { process: 258, key: vec![1, 2, 3, 4] }).is_none(), "the instance's own");
        assert!(cancels.find(&long.key).is_some());
        assert!(cancels.find(&CancelKey { process: 259, key: short.key.key.clone() }).is_none());
        assert!(cancels.find(&CancelKey { process: long.key.process, key: vec![] }).is_none());
        let key = long.key.clone();
        drop(long);
        assert!(cancels.find(&key).is_none());
        assert!(cancels.find(&short.key).is_some());
        drop(short);
        assert!(cancels.0.lock().unwrap().is_empty());
    }
}
