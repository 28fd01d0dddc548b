//! The console's cookies. Over https their names begin with `__Host-`: browsers accept those only from this
//! very host (RFC 6265bis, section 4.1.3).

use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderValue, header};
use jiff::SignedDuration;

use domain::app::App;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    /// The session of a signed-in account.
    Session,
    /// A browser in which nobody has signed in. Binds its forms to it.
    Guest,
    /// The notice about the last change.
    Notice,
    /// A started sign-in with the identity provider.
    Provider,
    /// The chosen theme.
    Theme,
}

impl Cookie {
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Session => ("howdah_session", "__Host-howdah_session"),
            Self::Guest => ("howdah_guest", "__Host-howdah_guest"),
            Self::Notice => ("howdah_notice", "__Host-howdah_notice"),
            Self::Provider => ("howdah_provider", "__Host-howdah_provider"),
            Self::Theme => ("howdah_theme", "__Host-howdah_theme"),
        }
    }

    fn name(self, app: &App) -> &'static str {
        let (plain, secure) = self.names();
        if is_secure(app) { secure } else { plain }
    }

    /// The value in a request.
    pub fn read<'a>(self, app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let name = self.name(app);
        pairs.find_map(|(found, value)| (found == name && !value.is_empty()).then_some(value))
    }

    /// The `Set-Cookie` header, valid for `lasts` or until the browser is closed. `None` if the value is not
    /// allowed in a cookie.
    pub fn set(self, app: &App, value: &str, lasts: Option<SignedDuration>) -> Option<HeaderValue> {
        let mut text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax", self.name(app));
        if is_secure(app) {
            text.push_str("; Secure");
        }
        if let Some(lasts) = lasts {
            let _ = write!(text, "; Max-Age={}", lasts.as_secs());
        }
        let fits = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if fits { HeaderValue::from_str(&text).ok() } else { None }
    }

    /// The `Set-Cookie` header that removes the cookie.
    pub fn clear(self, app: &App) -> Option<HeaderValue> {
        self.set(app, "", Some(SignedDuration::ZERO))
    }
}

fn is_secure(app: &App) -> bool {
    app.public.api.starts_with("https://")
}
