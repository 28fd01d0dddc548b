//! Cancelling: the gateway's own keys, and passing a cancel on to the instance.
//!
//! PostgreSQL documentation §55.2.8. Keys are random and bound to one session; the instance's own
//! never leave the gateway.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::startup::CancelKey;
use crate::base::secret::{fill_random, random_bytes};

/// How long passing a cancel on may take.
const WAIT: Duration = Duration::from_secs(5);

/// Where a session's cancel goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The instance's socket.
    pub(crate) socket: PathBuf,
    /// The instance's own key.
    pub(crate) key: CancelKey,
}

/// The keys of all open sessions.
#[derive(Clone, Default)]
pub(crate) struct Cancels(Arc<Mutex<HashMap<u32, Entry>>>);

/// A session's secret and where its cancel goes.
type Entry = (Vec<u8>, Target);

/// A session's key; it is forgotten when this is dropped.
pub(crate) struct Registered {
    cancels: Cancels,
    key: CancelKey,
}

impl Cancels {
    /// A new random key of this length that cancels at `target`.
    pub(crate) fn register(&self, length: usize, target: Target) -> Registered {
        let mut secret = vec![0; length];
        fill_random(&mut secret);
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let process = loop {
            // Some drivers read the process id as a signed number.
            let process = u32::from_be_bytes(random_bytes()) >> 1;
            if process != 0 && !sessions.contains_key(&process) {
                break process;
            }
        };
        sessions.insert(process, (secret.clone(), target));
        drop(sessions);
        Registered { cancels: self.clone(), key: CancelKey { process, key: secret } }
    }

    /// Whose key it is; compared in constant time.
    pub(crate) fn find(&self, request: &CancelKey) -> Option<Target> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (secret, target) = sessions.get(&request.process)?;
        bool::from(secret.as_slice().ct_eq(&request.key)).then(|| target.clone())
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
        self.cancels.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key.process);
    }
}

impl Target {
    /// Asks the instance to cancel what the session does. Nobody learns whether it did.
    pub(crate) async fn cancel(&self) {
        let request = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
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
            tracing::debug!(%cause, "could not pass a cancel on to the instance");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_session_s_own_key_cancels() {
        let cancels = Cancels::default();
        let target = || Target { socket: "/nowhere".into(), key: CancelKey { process: 1, key: vec![1, 2, 3, 4] } };
        let (long, short) = (cancels.register(32, target()), cancels.register(4, target()));
        assert_eq!(long.message().len(), 41);
        assert_eq!(&short.message()[..5], b"K\0\0\0\x0c");
        assert!(cancels.find(&long.key).is_some());
        assert!(cancels.find(&CancelKey { process: long.key.process, key: short.key.key.clone() }).is_none());
        assert!(cancels.find(&CancelKey { process: long.key.process, key: vec![] }).is_none());
        let key = long.key.clone();
        drop(long);
        assert!(cancels.find(&key).is_none());
        assert!(cancels.find(&short.key).is_some());
    }
}
