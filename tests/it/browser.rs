//! A browser without JavaScript: keeps cookies and sends the forms of pages.

#![expect(unreachable_pub, reason = "tests are one crate; pub says what tests may use of the browser")]

use std::collections::BTreeMap;

use reqwest::header::{CONTENT_TYPE, COOKIE, HeaderMap, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};

use crate::harness::{Howdah, eventually};

/// A strong password for all accounts.
pub const PASSWORD: &str = "tusk-marble-wander-94";

#[derive(Clone)]
pub struct Browser {
    client: Client,
    url: String,
    pub cookies: BTreeMap<String, String>,
    /// The hidden fields of the last page's forms.
    pub csrf: String,
    pub once: String,
}

/// A response of the console.
pub struct Page {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Page {
    /// The redirect's target.
    pub fn location(&self) -> &str {
        assert_eq!(self.status, 303, "{}", self.text);
        self.headers["location"].to_str().unwrap()
    }

    /// The text between two texts.
    pub fn between(&self, before: &str, after: &str) -> String {
        let rest = self.text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {}", self.text)).1;
        rest.split_once(after).unwrap().0.to_owned()
    }

    pub fn assert_says(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(self.text.contains(words), "no {words:?} in {}", self.text);
    }
}

impl Browser {
    pub fn new(howdah: &Howdah) -> Self {
        let client = Client::builder().redirect(Policy::none()).build().unwrap();
        Self { client, url: howdah.url(), cookies: BTreeMap::new(), csrf: String::new(), once: String::new() }
    }

    /// Continues with the server's new address after a restart.
    pub fn moved(&mut self, howdah: &Howdah) {
        self.url = howdah.url();
    }

    /// The browser of the first administrator, who owns the first workspace.
    pub async fn administrator(howdah: &Howdah) -> Self {
        let mut browser = Self::new(howdah);
        let link = set_up_link(howdah).await;
        browser.get(&link).await;
        let account = [("name", "Ada"), ("email", "ada@example.com"), ("password", PASSWORD), ("again", PASSWORD)];
        let page = browser.submit(&link, &account).await;
        assert_eq!(page.location(), "/console");
        browser
    }

    /// Invites a new person to a workspace in this role, and returns their browser.
    pub async fn invite(&mut self, howdah: &Howdah, workspace: &str, name: &str, role: &str) -> Self {
        let email = format!("{name}@example.com");
        let link = self.invitation(workspace, &email, role).await;
        let mut browser = Self::new(howdah);
        browser.get(&link).await;
        let account = [("name", name), ("email", &email), ("password", PASSWORD), ("again", PASSWORD)];
        let page = browser.submit(&format!("{link}/account"), &account).await;
        assert_eq!(page.location(), workspace);
        browser
    }

    /// Invites this address and returns the link's path.
    pub async fn invitation(&mut self, workspace: &str, email: &str, role: &str) -> String {
        self.get(&format!("{workspace}/members")).await;
        let page = self.submit(&format!("{workspace}/members/invitations"), &[("email", email), ("role", role)]).await;
        assert_eq!(page.status, 200, "{}", page.text);
        format!("/console/invitations/{}", page.between("/console/invitations/", "<"))
    }

    /// The address of the account's first workspace.
    pub async fn workspace(&mut self) -> String {
        let page = self.get("/console/workspaces").await;
        format!("/console/workspaces/{}", page.between("<a href=\"/console/workspaces/", "\""))
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.send(self.ask(path)).await
    }

    /// A GET request, to add headers to.
    pub fn ask(&self, path: &str) -> RequestBuilder {
        self.client.request(Method::GET, format!("{}{path}", self.url))
    }

    /// Sends a form with the hidden fields of the last page.
    pub async fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self.post(path, &self.filled(fields));
        self.send(request).await
    }

    /// These fields with the hidden fields of the last page.
    pub fn filled<'a>(&'a self, fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let carried = [("csrf", self.csrf.as_str()), ("once", self.once.as_str())];
        fields.iter().copied().chain(carried).collect()
    }

    /// A form with these fields and no others.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let form = serde_html_form::to_string(fields).unwrap();
        let request = self.client.request(Method::POST, format!("{}{path}", self.url));
        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form)
    }

    /// Sends a request with the cookies and stores new ones.
    pub async fn send(&mut self, request: RequestBuilder) -> Page {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header(COOKIE, cookies.join("; ")).send().await.unwrap();
        for line in answer.headers().get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            match value {
                "" => drop(self.cookies.remove(name)),
                value => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let page = Page { status, headers, text: answer.text().await.unwrap() };
        for (name, kept) in [("csrf", &mut self.csrf), ("once", &mut self.once)] {
            if let Some((_, rest)) = page.text.split_once(&format!("name=\"{name}\" value=\"")) {
                *kept = rest.split_once('"').unwrap().0.to_owned();
            }
        }
        page
    }

    /// Signs in with [`PASSWORD`].
    pub async fn sign_in(&mut self, email: &str) -> Page {
        self.get("/console/sign-in").await;
        self.submit("/console/sign-in", &[("email", email), ("password", PASSWORD)]).await
    }
}

/// The path of the set-up link that the server prints.
pub async fn set_up_link(howdah: &Howdah) -> String {
    eventually("the set-up link", async || {
        let log = howdah.log();
        let (_, rest) = log.rsplit_once("/console/set-up/")?;
        let token: String = rest.chars().take_while(|letter| !letter.is_whitespace()).collect();
        (token.len() == 32).then(|| format!("/console/set-up/{token}"))
    })
    .await
}
