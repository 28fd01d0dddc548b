//! Names of WAL segments.

use std::fmt;

use crate::local::template::SEGMENT_BYTES;

/// How many segments share the middle part of a name.
const IN_ONE_FILE: u64 = (1 << 32) / SEGMENT_BYTES;

/// A segment of WAL. Later ones of a timeline compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) timeline: u32,
    number: u64,
}

impl Segment {
    /// Reads a name such as `0000000100000000000000A7`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        if name.len() != 24 || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')) {
            return None;
        }
        let part = |from: usize| u64::from_str_radix(name.get(from..from + 8)?, 16).ok();
        let (timeline, file, within) = (part(0)?, part(8)?, part(16)?);
        (within < IN_ONE_FILE).then_some(Self { timeline: timeline as u32, number: file * IN_ONE_FILE + within })
    }

    /// The one after this. Behind the last one that PostgreSQL could write is one with no name of its own.
    pub(super) fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }

    /// How many segments there are from this one to a later one, without that.
    pub(super) fn until(self, later: Self) -> u64 {
        later.number.saturating_sub(self.number)
    }

    /// Where in the WAL it begins, in bytes.
    pub(super) fn start(self) -> u64 {
        // A name can be made up in which this is more than there can be.
        self.number.saturating_mul(SEGMENT_BYTES)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.number / IN_ONE_FILE, self.number % IN_ONE_FILE)
    }
}

/// Reads a position in the WAL such as `1/7000F28`, in bytes.
pub(super) fn parse_position(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_follow_each_other() {
        let last = Segment::parse("000000020000000000000FFF").unwrap();
        assert_eq!(last.next().to_string(), "000000020000000100000000");
        assert_eq!(last.until(last.next().next()), 2);
        assert_eq!(last.next().start(), 1 << 32);
        assert!(last < last.next());
        assert_eq!(Segment::parse("FFFFFFFFFFFFFFFF00000FFF").unwrap().next().start(), u64::MAX);
        assert_eq!(parse_position("1/0"), Some(last.next().start()));
        assert_eq!(parse_position("0/1700100"), Some(0x0170_0100));
        for other in ["00000002.history", "000000020000000000001000", "00000002000000000000000g", ""] {
            assert_eq!(Segment::parse(other), None, "{other}");
        }
    }
}
