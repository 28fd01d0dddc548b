//! Where messages begin and end in a stream, without looking into them.
//!
//! Every message is a type, a length that counts itself, and a body (PostgreSQL documentation
//! §55.2 and §55.7). Bodies are stepped over.

/// The place in one direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    header: [u8; 5],
    /// How many bytes of the header are there.
    have: usize,
    /// How many bytes of the body are missing.
    missing: usize,
    /// A length made no sense: the place is lost.
    lost: bool,
}

impl Framing {
    /// Steps over `bytes`. `ended` is told each message's type and last byte. Returns how many of
    /// the bytes belong to ended messages, if one ended.
    pub(crate) fn advance(&mut self, bytes: &[u8], mut ended: impl FnMut(u8, u8)) -> Option<usize> {
        let mut place = 0;
        let mut boundary = None;
        while place < bytes.len() && !self.lost {
            if self.have < 5 {
                let taken = (5 - self.have).min(bytes.len() - place);
                self.header[self.have..self.have + taken].copy_from_slice(&bytes[place..place + taken]);
                self.have += taken;
                place += taken;
                if self.have < 5 {
                    break;
                }
                let [_, length @ ..] = self.header;
                match (u32::from_be_bytes(length) as usize).checked_sub(4) {
                    Some(missing) => self.missing = missing,
                    None => {
                        self.lost = true;
                        break;
                    }
                }
            }
            let taken = self.missing.min(bytes.len() - place);
            self.missing -= taken;
            place += taken;
            if self.missing == 0 {
                self.have = 0;
                ended(self.header[0], bytes[place - 1]);
                boundary = Some(place);
            }
        }
        boundary
    }

    /// Whether no message is under way.
    pub(crate) fn at_boundary(&self) -> bool {
        self.have == 0 && !self.lost
    }
}

/// Whether the instance has something to do for the session, judged from the messages' types.
#[derive(Debug)]
pub(crate) struct Activity {
    client: Framing,
    backend: Framing,
    /// The status of the last `ReadyForQuery`: `I`dle, in a `T`ransaction, in a failed on`E`.
    status: u8,
    /// Answered requests that end in `ReadyForQuery` and have not got it yet.
    awaited: usize,
    /// The last of them was a `Sync`.
    last_was_sync: bool,
    /// Messages of the extended protocol without a `Sync` behind them yet.
    unsynced: bool,
    /// The client is to send `COPY` data; the instance ignores `Sync` until it ends.
    copying: bool,
    /// The client said `Terminate`.
    terminated: bool,
}

impl Activity {
    /// A session that just became ready with this status.
    pub(crate) fn new(status: u8) -> Self {
        Self {
            client: Framing::default(),
            backend: Framing::default(),
            status,
            awaited: 0,
            last_was_sync: false,
            unsynced: false,
            copying: false,
            terminated: false,
        }
    }

    /// Bytes came from the client.
    pub(crate) fn client_sent(&mut self, bytes: &[u8]) {
        let Self { client, awaited, last_was_sync, unsynced, copying, terminated, .. } = self;
        client.advance(bytes, |kind, _| match kind {
            b'Q' | b'F' => {
                *awaited += 1;
                *last_was_sync = false;
            }
            b'S' if *copying => {}
            b'S' => {
                *awaited += 1;
                *last_was_sync = true;
                *unsynced = false;
            }
            b'c' | b'f' => *copying = false,
            b'd' => {}
            b'X' => *terminated = true,
            _ => *unsynced = true,
        });
    }

    /// Bytes came from the instance. Returns how many of them belong to ended messages.
    pub(crate) fn backend_sent(&mut self, bytes: &[u8]) -> Option<usize> {
        let Self { backend, status, awaited, last_was_sync, unsynced, copying, .. } = self;
        backend.advance(bytes, |kind, last| match kind {
            b'Z' => {
                *status = last;
                *awaited = awaited.saturating_sub(1);
                *copying = false;
            }
            b'G' => {
                *copying = true;
                if *last_was_sync {
                    // The Sync behind Execute came too early and is ignored.
                    *awaited = awaited.saturating_sub(1);
                    *unsynced = true;
                }
            }
            b'E' => *copying = false,
            _ => {}
        })
    }

    /// Whether a transaction or statement may be open.
    pub(crate) fn is_busy(&self) -> bool {
        self.status != b'I' || self.awaited > 0 || self.unsynced || self.client.have > 0
    }

    /// Whether a message of ours may be put in front of the client.
    pub(crate) fn at_boundary(&self) -> bool {
        self.backend.at_boundary()
    }

    /// Whether the client said goodbye.
    pub(crate) fn is_terminated(&self) -> bool {
        self.terminated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            messages in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            sizes in prop::collection::vec(1usize..30, 1..50),
            cut in 0usize..60,
        ) {
            let whole: Vec<u8> = messages.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
            let whole = &whole[..whole.len().saturating_sub(cut)];
            let mut expected = Vec::new();
            let mut boundaries = vec![0];
            for (kind, body) in &messages {
                let end = boundaries.last().unwrap() + body.len() + 5;
                if end > whole.len() {
                    break;
                }
                expected.push(*kind);
                boundaries.push(end);
            }
            let (mut framing, mut seen, mut place, mut last) = (Framing::default(), Vec::new(), 0, 0);
            for size in sizes.iter().cycle() {
                let chunk = &whole[place..(place + size).min(whole.len())];
                if chunk.is_empty() {
                    break;
                }
                if let Some(boundary) = framing.advance(chunk, |kind, _| seen.push(kind)) {
                    last = place + boundary;
                }
                place += chunk.len();
                prop_assert_eq!(framing.at_boundary(), boundaries.contains(&place));
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(last, *boundaries.last().unwrap());
        }

        #[test]
        fn any_bytes_are_stepped_over(chunks: Vec<Vec<u8>>) {
            let mut activity = Activity::new(b'I');
            for chunk in chunks {
                activity.client_sent(&chunk);
                activity.backend_sent(&chunk);
            }
        }
    }

    #[test]
    fn busy_means_a_request_or_a_transaction_is_open() {
        let mut activity = Activity::new(b'I');
        assert!(!activity.is_busy());
        activity.client_sent(&message(b'Q', b"begin\0")[..3]);
        assert!(activity.is_busy());
        activity.client_sent(&message(b'Q', b"begin\0")[3..]);
        activity.backend_sent(&[message(b'C', b"BEGIN\0"), message(b'Z', b"T")].concat());
        assert!(activity.is_busy());
        activity.client_sent(&message(b'Q', b"commit\0"));
        activity.backend_sent(&message(b'Z', b"I"));
        assert!(!activity.is_busy());
        // Two requests at once: the first answer does not end it.
        activity.client_sent(&[message(b'P', b""), message(b'S', b""), message(b'S', b"")].concat());
        activity.backend_sent(&message(b'Z', b"I"));
        assert!(activity.is_busy());
        activity.backend_sent(&message(b'Z', b"I"));
        assert!(!activity.is_busy());
    }

    #[test]
    fn copy_in_swallows_the_early_sync() {
        let mut activity = Activity::new(b'I');
        activity.client_sent(&[message(b'P', b""), message(b'E', b""), message(b'S', b"")].concat());
        activity.backend_sent(&message(b'G', b""));
        activity.client_sent(&[message(b'd', b"1\n"), message(b'c', b""), message(b'S', b"")].concat());
        assert!(activity.is_busy());
        activity.backend_sent(&message(b'Z', b"I"));
        assert!(!activity.is_busy());
        // With the simple protocol nothing is swallowed.
        activity.client_sent(&message(b'Q', b"copy\0"));
        activity.backend_sent(&message(b'G', b""));
        activity.client_sent(&[message(b'd', b"1\n"), message(b'c', b"")].concat());
        assert!(activity.is_busy());
        activity.backend_sent(&message(b'Z', b"I"));
        assert!(!activity.is_busy());
    }
}
