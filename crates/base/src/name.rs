//! Names that people give to things, parsed once at the edge.

use std::fmt;

/// The tenant's database inside every instance.
pub const TENANT_DATABASE: &str = "postgres";

use unicode_general_category::{GeneralCategory, get_general_category};

use super::error::{Error, Result};

/// Names are at most this many characters, whatever the original leaves open:
/// long enough for any name, short enough for every table and page.
pub const LONGEST: usize = 256;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $field:literal, $what:literal, $min:literal..=$max:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// Reads a name.
            ///
            /// # Errors
            /// [`Error::Invalid`] when it is too short, too long, only blanks or has characters that cannot be
            /// seen.
            pub fn parse(text: &str) -> Result<Self> {
                Self::parse_field($field, text)
            }

            /// Reads a name that stands in another field than usual, which errors are to name.
            ///
            /// # Errors
            /// As [`Self::parse`].
            pub fn parse_field(field: &str, text: &str) -> Result<Self> {
                check(field, $what, text, $min, $max)?;
                Ok(Self(text.to_owned()))
            }

            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// A project's name: 1 to 256 characters.
    ProjectName: "name", "the project's name", 1..=LONGEST;
    /// A database's name in the API: 1 to 256 characters. (Inside PostgreSQL it is always `postgres`.)
    DatabaseName: "name", "the database's name", 1..=LONGEST;
    /// A connection's name: 1 to 256 characters.
    ConnectionName: "name", "the connection's name", 1..=LONGEST;
    /// A branch's name, which is that of a branch in git: 1 to 256 characters.
    BranchName: "gitName", "the branch's name", 1..=LONGEST;
    /// A workspace's name: 1 to 256 characters.
    WorkspaceName: "name", "the workspace's name", 1..=LONGEST;
    /// A person's name: 1 to 256 characters.
    PersonName: "name", "the name", 1..=LONGEST;
    /// An application's name: 1 to 256 characters.
    ApplicationName: "name", "the application's name", 1..=LONGEST;
    /// What an application is for: 1 to 1000 characters.
    ApplicationDescription: "description", "the description", 1..=1000;
    /// A service token's name: 1 to 256 characters.
    TokenName: "name", "the token's name", 1..=LONGEST;
}

fn check(field: &str, what: &str, text: &str, min: usize, max: usize) -> Result<()> {
    let hint = format!("Give a name of {min} to {max} characters.");
    let length = text.chars().count();
    let characters = if length == 1 { "1 character".to_owned() } else { format!("{length} characters") };
    if length < min || text.trim().is_empty() {
        return Err(Error::invalid(format!("{field}: {what} is too short ({characters})"), hint));
    }
    if length > max {
        return Err(Error::invalid(format!("{field}: {what} is too long ({characters})"), hint));
    }
    check_visible(field, what, text)
}

/// More combining marks than this on one character are refused: no language needs more, and endless ones run over
/// the lines around them.
const MOST_MARKS: usize = 8;

/// Refuses characters that make two names look alike or change the text around them: control characters, line breaks,
/// bidirectional controls and what has no width. The two joiners stay allowed between other than ASCII characters,
/// where scripts such as Persian and families of emoji need them.
fn check_visible(field: &str, what: &str, text: &str) -> Result<()> {
    let characters: Vec<char> = text.chars().collect();
    let mut marks = 0;
    for (place, &character) in characters.iter().enumerate() {
        let beside = [place.checked_sub(1), place.checked_add(1)];
        let joins = matches!(character, '\u{200c}' | '\u{200d}')
            && beside.iter().all(|at| at.and_then(|at| characters.get(at)).is_some_and(|other| !other.is_ascii()));
        if is_invisible(character) && !joins {
            let code = u32::from(character);
            return Err(Error::invalid(
                format!("{field}: {what} contains U+{code:04X}, which is invisible (character {})", place + 1),
                "Remove this character.",
            ));
        }
        marks = if is_mark(character) { marks + 1 } else { 0 };
        if marks > MOST_MARKS {
            return Err(Error::invalid(
                format!(
                    "{field}: {what} has more than {MOST_MARKS} combining marks in a row (character {})",
                    place + 1
                ),
                "Remove some of them.",
            ));
        }
    }
    Ok(())
}

/// Unicode's general categories (The Unicode Standard, section 4.5), and the letters and the symbol that are blank.
fn is_invisible(character: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    const BLANK: [char; 6] = ['\u{34f}', '\u{115f}', '\u{1160}', '\u{2800}', '\u{3164}', '\u{ffa0}'];
    let category = get_general_category(character);
    matches!(category, Control | Format | LineSeparator | ParagraphSeparator) || BLANK.contains(&character)
}

fn is_mark(character: char) -> bool {
    matches!(get_general_category(character), GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark)
}

/// The identity that an external tool gives a thing: up to 256 lower-case letters, digits, `-` and
/// `_`, a letter or digit first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalId(String);

impl LogicalId {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it does not fit.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = text.len() <= LONGEST
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(
            "logicalId: does not match ^[a-z0-9][-_a-z0-9]*$",
            "Use up to 256 lower-case letters, digits, - and _, starting with a letter or digit.",
        ))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An address of e-mail, as far as that can be told without writing to it: something, an `@`, a host
/// with no blanks; at most 254 characters (RFC 5321, section 4.5.3.1.3, less the brackets).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Reads one; blanks round it are left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || is_invisible(c));
        let fits = text.len() <= 254
            && text.rsplit_once('@').is_some_and(|(local, host)| plain(local) && plain(host) && !local.contains('@'));
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid("email: not a valid email address", "Give an email address such as ada@example.com."))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const FIRST: &[&str] = &[
    "amber", "brave", "bright", "calm", "clear", "cobalt", "coral", "crisp", "early", "gentle", "golden", "green",
    "happy", "ivory", "jade", "keen", "kind", "late", "lucid", "mellow", "noble", "olive", "plain", "proud", "quick",
    "quiet", "ready", "royal", "rustic", "silver", "steady", "sunny", "swift", "tidy", "violet", "warm", "wise",
];
const SECOND: &[&str] = &[
    "acacia", "banyan", "bridge", "canyon", "cedar", "cloud", "delta", "elephant", "field", "forest", "garden",
    "harbor", "hill", "island", "lake", "maple", "meadow", "monsoon", "mountain", "orchard", "palm", "plain", "pond",
    "prairie", "river", "savanna", "shore", "spring", "stone", "summit", "teak", "trail", "valley", "village",
];

impl ProjectName {
    /// Two plain words and a short suffix, for a project that was given no name.
    pub fn generate() -> Self {
        let [a, b] = super::secret::random_bytes::<2>();
        let first = FIRST[usize::from(a) % FIRST.len()];
        let second = SECOND[usize::from(b) % SECOND.len()];
        Self(format!("{first}-{second}-{}", super::secret::random_hex::<2>()))
    }
}

impl From<ProjectName> for DatabaseName {
    /// A project's first database carries the project's name.
    fn from(name: ProjectName) -> Self {
        Self(name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_limits() {
        assert!(ProjectName::parse("").is_err());
        assert!(ProjectName::parse("   ").is_err());
        let message = |text: &str| TokenName::parse(text).unwrap_err().to_string();
        assert_eq!(message(" "), "name: the token's name is too short (1 character)");
        assert_eq!(message(""), "name: the token's name is too short (0 characters)");
        assert!(ProjectName::parse("a\nb").is_err());
        assert!(ProjectName::parse(&"x".repeat(256)).is_ok());
        assert!(ProjectName::parse(&"x".repeat(257)).is_err());
        assert!(ConnectionName::parse("").is_err());
        assert!(ConnectionName::parse("c").is_ok());
        assert!(ConnectionName::parse(&"é".repeat(256)).is_ok());
    }

    #[test]
    fn addresses_have_two_parts() {
        assert_eq!(Email::parse(" ada@example.com ").unwrap().as_str(), "ada@example.com");
        for wrong in ["", "ada", "@example.com", "ada@", "a b@example.com", "a@b@c", "a@b\r\nc"] {
            assert!(Email::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_generated_name_is_a_name() {
        let name = ProjectName::generate();
        assert!(ProjectName::parse(name.as_str()).is_ok());
    }

    proptest! {
        #[test]
        fn a_parsed_name_is_the_text_that_came_in(text: String) {
            if let Ok(name) = DatabaseName::parse(&text) {
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
