//! Values of options that the platform and the client share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;

/// The data directory that was chosen, or the usual one; absolute.
///
/// # Errors
/// A message if there is no home directory to put it in.
pub fn data_directory(chosen: Option<&Path>) -> Result<PathBuf, String> {
    let chosen = match chosen {
        Some(directory) => directory.to_owned(),
        None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/howdah"),
        None => std::env::home_dir()
            .ok_or("there is no home directory for the data; choose a directory with --data-dir")?
            .join(".local/share/howdah"),
    };
    std::path::absolute(&chosen)
        .map_err(|error| format!("the data directory {} cannot be used: {error}", chosen.display()))
}

/// Reads `5m`, `90s`, `1h 30m`; a bare `0` is no limit.
///
/// # Errors
/// A message if the text is not such a duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed: SignedDuration = text.parse().map_err(|_| format!("{text:?} is not a time such as 90s, 5m or 1h"))?;
    parsed.try_into().map_err(|_| format!("{text:?} is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert!(duration("five").is_err());
        assert!(duration("-5m").is_err());
    }
}
