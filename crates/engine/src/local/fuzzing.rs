//! What reads an instance's files and what pgBackRest says, for the fuzz targets in `fuzz/`. Each function
//! panics when the bytes are read wrongly.

pub use super::backup::fuzzing::listing;
use super::{control_file, process};

/// `global/pg_control`: after its identifier was replaced it is sound, and has the new one.
pub fn control_file(bytes: &[u8]) {
    let _ = (control_file::is_shut_down(bytes), control_file::system_identifier(bytes));
    let mut changed = bytes.to_vec();
    if control_file::set_system_identifier(&mut changed, 42).is_some() {
        assert_eq!(control_file::system_identifier(&changed), Some(42));
        assert_eq!(control_file::is_shut_down(&changed), control_file::is_shut_down(bytes));
        assert!(control_file::set_system_identifier(&mut changed, 43).is_some(), "it is not sound any more");
    }
}

/// `postmaster.pid`: a signal goes to one process only, and never to the first one of the machine.
pub fn lock_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = process::said_in(&text);
    if let Some(pid) = process::pid_in(&text) {
        assert!(pid.as_raw_nonzero().get() > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::testing::corpus;
    use proptest::prelude::*;

    #[test]
    fn the_corpora_are_read() {
        for (name, target) in
            [("control_file", control_file as fn(&[u8])), ("lock_file", lock_file), ("listing", listing)]
        {
            corpus(name).iter().for_each(|bytes| target(bytes));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            [control_file, lock_file, listing].iter().for_each(|target| target(&bytes));
        }
    }
}
