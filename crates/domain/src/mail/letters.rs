//! The mails' texts: templates in `templates/mail/`, with the subject in the first line.

use askama::Template;
use jiff::Timestamp;

/// The most databases listed in one mail.
const DATABASES: usize = 20;
/// Longer names are cut, in characters.
const LONGEST_NAME: usize = 80;

#[derive(Template)]
#[template(path = "mail/invitation.txt")]
pub(super) struct Invitation<'a> {
    pub(super) inviter: String,
    pub(super) inviter_email: &'a str,
    pub(super) workspace: String,
    pub(super) root: &'a str,
    pub(super) role: &'a str,
    pub(super) link: &'a str,
    pub(super) until: String,
}

#[derive(Template)]
#[template(path = "mail/reset.txt")]
pub(super) struct Reset<'a> {
    pub(super) email: &'a str,
    pub(super) root: &'a str,
    pub(super) link: &'a str,
    pub(super) until: String,
    pub(super) asked: bool,
}

#[derive(Template)]
#[template(path = "mail/changed.txt")]
pub(super) struct Changed<'a> {
    pub(super) what: &'a str,
    pub(super) sentence: &'a str,
    pub(super) email: &'a str,
    pub(super) root: &'a str,
    pub(super) when: String,
    pub(super) origin: String,
}

#[derive(Template)]
#[template(path = "mail/administrator.txt")]
pub(super) struct Administrator<'a> {
    pub(super) email: &'a str,
    pub(super) by: String,
    pub(super) by_email: &'a str,
    pub(super) root: &'a str,
}

#[derive(Template)]
#[template(path = "mail/trial_failed.txt")]
pub(super) struct TrialFailed<'a> {
    pub(super) database: String,
    pub(super) project: String,
    pub(super) workspace: String,
    pub(super) reason: &'a str,
    pub(super) backup: String,
    pub(super) root: &'a str,
    pub(super) workspace_id: String,
    pub(super) database_id: String,
}

#[derive(Template)]
#[template(path = "mail/archiving.txt")]
pub(super) struct Archiving<'a> {
    pub(super) workspace: String,
    pub(super) root: &'a str,
    pub(super) workspace_id: String,
    pub(super) stuck: Vec<Archive>,
    pub(super) moving: Vec<Archive>,
}

/// The archiving state of one database.
pub(super) struct Archive {
    pub(super) id: String,
    pub(super) database: String,
    pub(super) project: String,
    pub(super) since: String,
    pub(super) reason: String,
}

/// The databases to list.
fn first(all: &[Archive]) -> &[Archive] {
    &all[..all.len().min(DATABASES)]
}

/// The number of databases that are not listed.
fn more(all: &[Archive]) -> usize {
    all.len().saturating_sub(DATABASES)
}

pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%-d %b %Y, %H:%M UTC").to_string()
}

/// A user-chosen name, made safe for a mail to somebody else: one line, limited length, and nothing that mail
/// programs turn into a link. Invitations can be sent to anybody, so names could carry spam.
pub(super) fn plain(name: &str) -> String {
    let is_seen = |letter: &char| {
        // Invisible characters, such as direction marks, change what is read.
        !matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let name: String =
        name.chars().filter(is_seen).map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let words: Vec<String> = name.split_whitespace().map(unlinked).collect();
    let name = words.join(" ");
    match name.char_indices().nth(LONGEST_NAME) {
        Some((at, _)) => format!("{}...", name[..at].trim_end()),
        None => name,
    }
}

/// Mail programs turn `evil.example/a` into a link, but not `evil. example/a`.
fn unlinked(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    let mut letters = word.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ':' if letters.peek() == Some(&'/') => text.push(' '),
            '/' | '\\' | '@' => text.push(' '),
            '.' | '\u{3002}' | '\u{ff0e}' | '\u{ff61}' if letters.peek().is_some_and(|next| next.is_alphanumeric()) => {
                text.push_str(". ");
            }
            letter => text.push(letter),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe_for_mails() {
        for (name, shown) in [
            ("Ada Lovelace", "Ada Lovelace"),
            ("J. R. R. Tolkien", "J. R. R. Tolkien"),
            ("Grace\r\nBcc: x", "Grace Bcc: x"),
            ("Go to https://evil.example/a?b", "Go to https evil. example a?b"),
            ("www.evil.example", "www. evil. example"),
            ("evil\u{3002}example", "evil. example"),
            ("help@evil.example", "help evil. example"),
            ("\u{202e}live\u{200b}", "live"),
        ] {
            assert_eq!(plain(name), shown);
        }
        assert_eq!(plain(&"é".repeat(300)), format!("{}...", "é".repeat(80)));
    }

    #[test]
    fn moments_are_formatted() {
        let at = "2026-12-02T09:05:00Z".parse().unwrap();
        assert_eq!(moment(at), "2 Dec 2026, 09:05 UTC");
    }
}
