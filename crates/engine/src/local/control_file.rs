//! `global/pg_control`: the system identifier and the checksum over it.

/// Where PostgreSQL keeps the system identifier, in every version.
const IDENTIFIER: std::ops::Range<usize> = 0..8;

/// What the cluster is doing, in every version: a `DBState` after the versions of the file and of
/// the catalog.
const STATE: std::ops::Range<usize> = 16..20;
/// `DB_SHUTDOWNED`.
const SHUT_DOWN: u32 = 1;

/// Whether the server that ran last ended with a checkpoint.
pub(super) fn is_shut_down(control: &[u8]) -> bool {
    control.get(STATE).is_some_and(|state| state == SHUT_DOWN.to_ne_bytes())
}

/// The system identifier in a control file.
pub(super) fn system_identifier(control: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(control.get(IDENTIFIER)?.try_into().ok()?))
}

/// Gives a control file another system identifier. `None`: this is not a sound control file.
pub(super) fn set_system_identifier(control: &mut [u8], identifier: u64) -> Option<()> {
    let checksum = checksum_offset(control)?;
    control.get_mut(IDENTIFIER)?.copy_from_slice(&identifier.to_ne_bytes());
    let sum = crc32c::crc32c(control.get(..checksum)?);
    control.get_mut(checksum..checksum + 4)?.copy_from_slice(&sum.to_ne_bytes());
    Some(())
}

/// The checksum is the last field of a struct that grows from version to version, and covers
/// all that stands before it: so it can be found by what it is.
fn checksum_offset(control: &[u8]) -> Option<usize> {
    (200..=512).step_by(4).find(|offset| {
        let (Some(before), Some(stored)) = (control.get(..*offset), control.get(*offset..*offset + 4)) else {
            return false;
        };
        stored == crc32c::crc32c(before).to_ne_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_identifier_keeps_the_checksum_right() {
        let mut control = vec![7; 8192];
        let sum = crc32c::crc32c(&control[..288]);
        control[288..292].copy_from_slice(&sum.to_ne_bytes());
        set_system_identifier(&mut control, 42).unwrap();
        assert_eq!(system_identifier(&control), Some(42));
        assert_eq!(checksum_offset(&control), Some(288));
    }

    #[test]
    fn clean_shutdown_is_distinguished_from_a_crash() {
        let mut control = vec![0; 512];
        control[16..20].copy_from_slice(&1_u32.to_ne_bytes());
        assert!(is_shut_down(&control));
        control[16..20].copy_from_slice(&6_u32.to_ne_bytes()); // in production
        assert!(!is_shut_down(&control) && !is_shut_down(&[]));
    }

    #[test]
    fn a_damaged_control_file_is_refused() {
        assert_eq!(set_system_identifier(&mut [0x55; 8192], 42), None);
        assert_eq!(set_system_identifier(&mut [1; 16], 42), None);
    }
}
