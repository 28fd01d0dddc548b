//! The console as used by a browser without JavaScript, and by a hostile one.

use base::clock::Clock;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use totp_rs::Builder;

use crate::browser::{Browser, PASSWORD, set_up_link};
use crate::harness::Howdah;
use crate::mail::MailServer;
use crate::sdk::run;

/// Every form's address, below a workspace and elsewhere, with valid fields.
const CHANGES: &[(&str, &[(&str, &str)])] = &[
    ("/console/sign-out", &[]),
    ("/console/workspaces", &[("name", "Forged")]),
    ("/console/account/name", &[("name", "Forged")]),
    (
        "/console/account/password",
        &[("current", PASSWORD), ("password", "forged-forged-1"), ("again", "forged-forged-1")],
    ),
    ("/console/account/theme", &[("theme", "dark")]),
    ("/console/account/authenticator", &[("current", PASSWORD)]),
    ("/console/account/authenticator/confirm", &[("code", "123456")]),
    ("/console/account/authenticator/remove", &[("current", PASSWORD)]),
    ("/console/account/provider/disconnect", &[]),
    ("/console/account/recovery-codes", &[("current", PASSWORD)]),
    ("/console/account/sessions/end-others", &[]),
    ("/console/account/sessions/{session}/end", &[]),
    ("/console/people/{user}/reset", &[]),
    ("/console/people/{user}/disable", &[("confirm", "ada@example.com")]),
    ("/console/people/{user}/enable", &[]),
    ("/console/people/{user}/administrator", &[("administrator", "on")]),
    ("{workspace}/settings", &[("name", "Forged")]),
    ("{workspace}/settings/leave", &[("confirm", "Default")]),
    ("{workspace}/settings/delete", &[("confirm", "Default")]),
    ("{workspace}/members/invitations", &[("email", "forged@example.com"), ("role", "owner")]),
    ("{workspace}/members/invitations/{invitation}/withdraw", &[]),
    ("{workspace}/members/{user}/role", &[("role", "viewer")]),
    ("{workspace}/members/{user}/remove", &[]),
];

/// Every page that requires a sign-in.
const PAGES: &[&str] = &[
    "/console",
    "/console/workspaces",
    "/console/account",
    "/console/people",
    "/console/people/{user}",
    "/console/audit",
    "{workspace}/settings",
    "{workspace}/settings/delete",
    "{workspace}/members",
];

fn fill(template: &str, workspace: &str) -> String {
    let nobody = "00000000000000000000000001";
    let path = template.replace("{workspace}", workspace).replace("{user}", nobody);
    path.replace("{session}", nobody).replace("{invitation}", nobody)
}

#[tokio::test]
async fn forms_of_other_sites_are_rejected() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let before = ada.get("/console/account").await;
    let (csrf, zeros) = (ada.csrf.clone(), "0".repeat(64));
    for (template, fields) in CHANGES {
        let path = fill(template, &workspace);
        let with = |token| fields.iter().copied().chain([("csrf", token)]).collect::<Vec<_>>();
        let (zeros, empty, right) = (with(&zeros), with(""), with(&csrf));
        for (what, request) in [
            ("no token", ada.post(&path, fields)),
            ("another token", ada.post(&path, &zeros)),
            ("an empty token", ada.post(&path, &empty)),
            ("another site", ada.post(&path, &right).header("sec-fetch-site", "cross-site")),
            ("a site beside", ada.post(&path, &right).header("sec-fetch-site", "same-site")),
            ("another origin", ada.post(&path, &right).header("origin", "https://elsewhere.example")),
            ("no origin", ada.post(&path, &right).header("origin", "null")),
        ] {
            let page = ada.send(request).await;
            assert_eq!(page.status, 403, "{path}, {what}: {}", page.text);
            assert!(page.text.contains("Nothing was changed"), "{path}, {what}");
        }
        let json = ada
            .post(&path, &right)
            .headers(HeaderMap::from_iter([(CONTENT_TYPE, "application/json".parse().unwrap())]));
        assert_eq!(ada.send(json).await.status, 415, "{path}");
        let page = ada.get(&path).await;
        assert!([200, 404, 405].contains(&page.status), "GET {path}: {}", page.status);
    }
    assert_eq!(ada.get("/console/account").await.text.len(), before.text.len(), "the account is unchanged");
    let page = ada.get("/console/workspaces").await;
    assert!(!page.text.contains("Forged") && page.text.contains("Default"));

    // The token of another browser does not match.
    let mut other = Browser::new(&howdah);
    other.sign_in("ada@example.com").await;
    other.get("/console/account").await;
    assert_ne!(other.csrf, csrf);
    ada.csrf = other.csrf.clone();
    ada.submit("/console/account/name", &[("name", "Forged")]).await.assert_says(403, "Nothing was changed");
}

#[tokio::test]
async fn csrf_refusal_names_the_addresses_and_the_option_to_set() {
    let howdah = Howdah::start_with(&["--public-url", "http://Howdah.LAN:80/"]).await;
    Browser::administrator(&howdah).await;
    let mut browser = Browser::new(&howdah);
    let fields = [("email", "ada@example.com"), ("password", "wrong wrong wrong")];
    let submit = async |browser: &mut Browser, headers: &[(&str, &str)]| {
        browser.get("/console/sign-in").await;
        let fields = browser.filled(&fields);
        let request = browser.post("/console/sign-in", &fields);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        browser.send(request).await
    };
    let host = howdah.addresses["http"].as_str().unwrap();

    // A proxy that rewrites `Host`, at an address that is not the public one.
    let page = submit(&mut browser, &[("origin", "http://db.lan:8080")]).await;
    page.assert_says(403, "Nothing was changed");
    page.assert_says(403, &format!("submitted from http://db.lan:8080, but the request arrived for {host}, and"));
    page.assert_says(403, "the public URL of this server is http://howdah.lan.");
    page.assert_says(403, "--public-url http://db.lan:8080");
    page.assert_says(403, "proxy_set_header Host $http_host");
    submit(&mut browser, &[("origin", "null")]).await.assert_says(403, "did not say which site");
    submit(&mut browser, &[("sec-fetch-site", "cross-site")]).await.assert_says(403, "from another site");

    // Both the public address, as browsers write it, and the request's host are accepted.
    for origin in ["http://howdah.lan", &format!("http://{host}")] {
        submit(&mut browser, &[("origin", origin)]).await.assert_says(422, "Wrong email address or password.");
    }

    // A browser without cookies.
    browser.get("/console/sign-in").await;
    browser.cookies.clear();
    let page = browser.submit("/console/sign-in", &fields).await;
    page.assert_says(403, "The browser sent no cookie for this console.");
}

#[tokio::test]
async fn unencrypted_page_warns_and_names_the_public_url() {
    let warning = "This connection is not encrypted.";
    let howdah = Howdah::start_with(&["--public-url", "https://howdah.example"]).await;
    Browser::administrator(&howdah).await;
    let mut browser = Browser::new(&howdah);
    let page = browser.get("/console/sign-in").await;
    page.assert_says(200, warning);
    page.assert_says(200, "Open https://howdah.example/console.");
    for header in [("sec-fetch-site", "none"), ("x-forwarded-proto", "https")] {
        let request = browser.ask("/console/sign-in").header(header.0, header.1);
        assert!(!browser.send(request).await.text.contains(warning), "{header:?}");
    }
    // Over http, browsers do not keep this server's cookies, since they are marked as secure.
    browser.cookies.clear();
    let fields = browser.filled(&[("email", "ada@example.com"), ("password", PASSWORD)]);
    let request = browser.post("/console/sign-in", &fields).header("origin", "http://192.0.2.7:8080");
    let page = browser.send(request.header("host", "192.0.2.7:8080")).await;
    page.assert_says(403, "this page is at http://192.0.2.7:8080, but the public URL of this server is https://howdah");
    page.assert_says(403, "Open https://howdah.example/console.");
    page.assert_says(403, "--public-url http://192.0.2.7:8080");
}

#[tokio::test]
async fn pages_require_membership_or_administrator_rights() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let mut viewer = ada.invite(&howdah, &workspace, "vera", "viewer").await;
    let page = ada.get(&format!("{workspace}/members")).await;
    let vera = page.text.rsplit_once("/members/").map(|_| page.between("/members/", "/role"));
    assert!(vera.is_some());

    // An account with its own workspace.
    viewer.get("/console/workspaces").await;
    let page = viewer.submit("/console/workspaces", &[("name", "Vera's")]).await;
    let own = page.location().to_owned();

    let mut nobody = Browser::new(&howdah);
    for template in PAGES {
        let path = fill(template, &workspace);
        let next = path.replace(':', "%3A");
        assert_eq!(nobody.get(&path).await.location(), format!("/console/sign-in?next={next}"));
    }
    nobody.get("/console/sign-in").await;
    for (template, fields) in CHANGES {
        let path = fill(template, &workspace);
        let page = nobody.submit(&path, fields).await;
        assert_eq!(page.location(), "/console/sign-in", "{path}");
    }

    // Somebody else's workspace, one that does not exist and an invalid id get the same response.
    let unknown = "/console/workspaces/00000000000000000000000009".to_owned();
    let mut answers = Vec::new();
    for elsewhere in [&own, &unknown, &"/console/workspaces/x".to_owned()] {
        for template in PAGES.iter().filter(|path| path.starts_with("{workspace}")) {
            let page = ada.get(&fill(template, elsewhere)).await;
            page.assert_says(404, "Page not found");
            answers.push(page.text.split("Request ").next().unwrap().to_owned());
        }
        ada.get("/console/account").await;
        for (template, fields) in CHANGES.iter().filter(|(path, _)| path.starts_with("{workspace}")) {
            let path = fill(template, elsewhere);
            ada.submit(&path, fields).await.assert_says(404, "Page not found");
        }
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));

    // A viewer can read but not change, and pages show no forms.
    let page = viewer.get(&format!("{workspace}/members")).await;
    page.assert_says(200, "ada@example.com");
    assert!(!page.text.contains("/members/invitations") && !page.text.contains("/role\""), "{}", page.text);
    let page = viewer.get(&format!("{workspace}/settings")).await;
    assert!(!page.text.contains("backupRetentionDays"), "{}", page.text);
    let user = ada.get(&format!("{workspace}/members")).await.between("/members/", "/role");
    for (path, fields) in [
        (format!("{workspace}/settings"), vec![("name", "Forged")]),
        (format!("{workspace}/members/invitations"), vec![("email", "x@example.com"), ("role", "viewer")]),
        (format!("{workspace}/members/{user}/role"), vec![("role", "viewer")]),
        (format!("{workspace}/members/{user}/remove"), vec![]),
    ] {
        let page = viewer.submit(&path, &fields).await;
        page.assert_says(403, "Permission denied");
    }
    ada.get("/console/audit").await.assert_says(200, "<h1>Server audit log</h1>");
    viewer.get("/console/people").await.assert_says(403, "Only administrators");
    viewer.get("/console/audit").await.assert_says(403, "Only administrators");
    for change in ["reset", "enable", "administrator", "disable"] {
        let path = format!("/console/people/{user}/{change}");
        viewer.submit(&path, &[("confirm", "ada@example.com")]).await.assert_says(403, "Only administrators");
    }
    // An administrator of the server is not thereby a member.
    ada.get(&format!("{own}/members")).await.assert_says(404, "Page not found");

    // Members cannot raise their own role, and the last owner cannot leave.
    let mut admin = ada.invite(&howdah, &workspace, "adam", "admin").await;
    admin.get(&format!("{workspace}/members")).await;
    let owners = [("email", "evil@example.com"), ("role", "owner")];
    admin.submit(&format!("{workspace}/members/invitations"), &owners).await.assert_says(403, "owner");
    admin.submit(&format!("{workspace}/members/{user}/remove"), &[]).await.assert_says(403, "owner");
    ada.get(&format!("{workspace}/members")).await;
    let page = ada.submit(&format!("{workspace}/members/{user}/role"), &[("role", "viewer")]).await;
    page.assert_says(422, "last owner");
    ada.submit(&format!("{workspace}/settings/leave"), &[("confirm", "Default")]).await.assert_says(422, "last owner");
    viewer.get(&format!("{workspace}/settings")).await;
    let leave = format!("{workspace}/settings/leave");
    viewer.submit(&leave, &[("confirm", "Defaul")]).await.assert_says(422, "does not match");
    let left = viewer.submit(&leave, &[("confirm", "Default")]).await;
    assert_eq!(left.location(), "/console/workspaces");
    viewer.get(&format!("{workspace}/members")).await.assert_says(404, "Page not found");
}

#[tokio::test]
async fn every_response_has_security_headers() {
    let howdah = Howdah::start().await;
    let mut browser = Browser::new(&howdah);
    let link = set_up_link(&howdah).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                  form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let mut pages = vec![
        browser.get("/console/sign-in").await,
        browser.get("/console").await,
        browser.get("/console/nothing").await,
        browser.get("/console/static/nothing.css").await,
        browser.get(&link).await,
        browser.submit("/console/sign-in", &[("email", "ada@example.com"), ("password", "wrong")]).await,
        browser.submit("/console/sign-in", &[("email", "ada@example.com")]).await,
    ];
    for template in PAGES {
        pages.push(ada.get(&fill(template, &workspace)).await);
    }
    for page in &pages {
        let header = |name: &str| page.headers[name].to_str().unwrap();
        assert_eq!(header("content-security-policy"), policy);
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("x-frame-options"), "DENY");
        // Under `no-referrer` browsers send forms with `Origin: null`.
        assert!(["same-origin", "strict-origin"].contains(&header("referrer-policy")));
        assert!(!page.headers.contains_key("access-control-allow-origin"));
        if page.status != 303 {
            assert_eq!(header("content-type"), "text/html; charset=utf-8");
            for inline in ["<style", " style=", "<script>", " onclick=", "javascript:"] {
                assert!(!page.text.contains(inline), "{inline}: {}", page.text);
            }
        }
    }
    assert_eq!(pages[4].headers["referrer-policy"], "strict-origin", "there is a secret in the address");

    // Static files are cached forever, under names with a hash.
    for (start, media_type) in [("href=\"", "text/css"), ("src=\"", "text/javascript")] {
        let extension = if media_type == "text/css" { ".css\"" } else { ".js\"" };
        let (head, _) = pages[0].text.split_once(extension).unwrap();
        let path = format!("{}{}", head.rsplit_once(start).unwrap().1, extension.trim_matches('"'));
        let file = browser.get(&path).await;
        assert_eq!(file.status, 200, "{path}");
        assert!(file.headers["content-type"].to_str().unwrap().starts_with(media_type));
        assert!(file.headers["cache-control"].to_str().unwrap().contains("immutable"));
        assert!(!file.headers.contains_key("set-cookie"));
    }

    // Names are escaped.
    ada.get("/console/account").await;
    ada.submit("/console/account/name", &[("name", "<img src=x onerror=alert(1)>\"'&")]).await;
    let page = ada.get("/console/account").await;
    assert!(!page.text.contains("<img src=x") && page.text.contains("&#60;img src=x"), "{}", page.text);

    // The secrets of links are logged only in the line that announces the set-up link.
    let log = howdah.log();
    let token = link.rsplit('/').next().unwrap();
    assert_eq!(log.matches(token).count(), 1, "{log}");
    assert!(log.contains("GET /console/set-up/ answered"), "{log}");
}

#[tokio::test]
async fn sign_in_starts_a_new_session_and_redirects_to_local_pages_only() {
    let howdah = Howdah::start().await;
    let mut first = Browser::administrator(&howdah).await;

    // Session fixation: a session id that somebody else has set is not used.
    let mut browser = Browser::new(&howdah);
    browser.cookies.insert("howdah_session".into(), "chosen-by-somebody-else".into());
    let page = browser.sign_in("ADA@example.com").await;
    assert_eq!(page.location(), "/console");
    let cookie = page.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
    let cookie = cookie.filter(|line| line.starts_with("howdah_session=")).collect::<Vec<_>>();
    assert!(
        cookie.len() == 1 && cookie[0].contains("; HttpOnly") && cookie[0].contains("; SameSite=Lax"),
        "{cookie:?}"
    );
    let session = browser.cookies["howdah_session"].clone();
    assert_ne!(session, "chosen-by-somebody-else");
    let mut attacker = Browser::new(&howdah);
    attacker.cookies.insert("howdah_session".into(), "chosen-by-somebody-else".into());
    assert!(attacker.get("/console/account").await.location().starts_with("/console/sign-in"));

    // Signing in again in the same browser ends the previous session.
    browser.get("/console/account").await;
    let page = browser.submit("/console/sign-in", &[("email", "ada@example.com"), ("password", PASSWORD)]).await;
    assert_eq!(page.location(), "/console");
    attacker.cookies.insert("howdah_session".into(), session);
    assert!(attacker.get("/console/account").await.location().starts_with("/console/sign-in"));

    // Signing out ends the session on the server, too.
    browser.get("/console/account").await.assert_says(200, "ada@example.com");
    attacker.cookies = browser.cookies.clone();
    assert_eq!(browser.submit("/console/sign-out", &[]).await.location(), "/console/sign-in");
    assert!(!browser.cookies.contains_key("howdah_session"));
    assert!(attacker.get("/console/account").await.location().starts_with("/console/sign-in"));
    browser.get("/console/sign-in").await.assert_says(200, "Signed out.");
    assert!(!browser.get("/console/sign-in").await.text.contains("Signed out."), "the notice is shown once");
    browser.sign_in("ada@example.com").await;
    browser.get("/console/account").await;
    browser.submit("/console/account/theme", &[("theme", "dark")]).await;
    let part = browser.ask("/console/account").header("x-howdah-part", "1");
    browser.send(part).await;
    browser.get("/console/account").await.assert_says(200, "role=\"status\"");
    browser.submit("/console/sign-out", &[]).await;

    // Other sessions can be ended from the list.
    browser.sign_in("ada@example.com").await;
    let page = first.get("/console/account").await;
    let ends = page.text.split("/console/account/sessions/").filter_map(|rest| rest.split_once("/end\"")).next();
    let id = ends.unwrap().0;
    assert_eq!(first.submit(&format!("/console/account/sessions/{id}/end"), &[]).await.location(), "/console/account");
    assert!(browser.get("/console/account").await.location().starts_with("/console/sign-in"));

    for next in [
        "https://elsewhere.example/console",
        "//elsewhere.example",
        "/\\elsewhere.example",
        "/console/../..//elsewhere.example/\\",
        "javascript:alert(1)",
        "/console\r\nset-cookie: a=b",
    ] {
        browser.get("/console/sign-in").await;
        let form = [("email", "ada@example.com"), ("password", PASSWORD), ("next", next)];
        assert_eq!(browser.submit("/console/sign-in", &form).await.location(), "/console", "{next}");
        browser.get("/console/account").await;
        browser.submit("/console/sign-out", &[]).await;
    }
    browser.get("/console/sign-in").await;
    let form = [("email", "ada@example.com"), ("password", PASSWORD), ("next", "/console/people?cursor=")];
    assert_eq!(browser.submit("/console/sign-in", &form).await.location(), "/console/people?cursor=");
}

#[tokio::test]
async fn sign_in_attempts_are_limited() {
    let howdah = Howdah::start().await;
    Browser::administrator(&howdah).await;
    let mut browser = Browser::new(&howdah);
    let mut attempt = async |email: &str, password: &str| {
        browser.get("/console/sign-in").await;
        browser.submit("/console/sign-in", &[("email", email), ("password", password)]).await
    };
    let unknown = attempt("nobody@example.com", "wrong wrong wrong").await;
    for count in 0..10 {
        let email = if count % 2 == 0 { "ada@example.com" } else { " ADA@example.com" };
        let page = attempt(email, "wrong wrong wrong").await;
        page.assert_says(422, "Wrong email address or password.");
    }
    let page = attempt("ada@example.com", PASSWORD).await;
    page.assert_says(429, "Too many attempts");
    let seconds: u64 = page.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    // Accounts that do not exist cannot be told apart.
    unknown.assert_says(422, "Wrong email address or password.");
    for _ in 0..9 {
        attempt("nobody@example.com", "wrong wrong wrong").await.assert_says(422, "Wrong email address");
    }
    attempt("nobody@example.com", "wrong wrong wrong").await.assert_says(429, "Too many attempts");
}

#[tokio::test]
async fn set_up_invitation_and_reset_links_work_once() {
    let howdah = Howdah::start().await;
    let link = set_up_link(&howdah).await;
    let mut early = Browser::new(&howdah);
    early.get("/console/sign-in").await.assert_says(200, "There is no account yet");
    early
        .get("/console/set-up/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
        .await
        .assert_says(404, "expired or has already been used");
    early.get(&link).await.assert_says(200, "Create the first account");
    let form =
        |password, again| [("name", "Ada"), ("email", "ada@example.com"), ("password", password), ("again", again)];
    early.submit(&link, &form("password1234", "password1234")).await.assert_says(422, "Too easy to guess");
    early
        .submit(&link, &form("short", "short"))
        .await
        .assert_says(422, "Too short: 5 characters, at least 10 are required.");
    let page = early.submit(&link, &form(PASSWORD, "something-else-9")).await;
    page.assert_says(422, "The passwords don&#39;t match.");
    assert!(!page.text.contains(PASSWORD), "passwords are not echoed");

    // Two requests at the same time create one account.
    let mut late = Browser::new(&howdah);
    late.get(&link).await;
    let grace = [("name", "Grace"), ("email", "grace@example.com"), ("password", PASSWORD), ("again", PASSWORD)];
    let ada = form(PASSWORD, PASSWORD);
    let (one, two) = tokio::join!(early.submit(&link, &ada), late.submit(&link, &grace));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 404]);
    let (mut owner, mut other) = if one.status == 303 { (early, late) } else { (late, early) };
    other.get(&link).await.assert_says(404, "expired or has already been used");
    let page = owner.get("/console/people").await;
    assert_eq!(page.text.matches("<tr>").count(), 2, "the head and one person: {}", page.text);

    // An invitation works for one account, of the invited address.
    let workspace = owner.workspace().await;
    let link = owner.invitation(&workspace, "carol@example.com", "developer").await;
    let mut carol = Browser::new(&howdah);
    carol.get(&link).await.assert_says(200, "carol@example.com");
    let forged = [("name", "Carol"), ("email", "boss@example.com"), ("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(carol.submit(&format!("{link}/account"), &forged).await.location(), workspace);
    carol.get("/console/account").await.assert_says(200, "carol@example.com");
    other.get(&link).await.assert_says(404, "expired or has already been used");
    owner.submit(&link, &[]).await.assert_says(404, "Page not found");
    // Someone with an account signs in first and returns to the invitation.
    let link = owner.invitation(&workspace, "dan@example.com", "viewer").await;
    let page = other.get(&link).await;
    page.assert_says(200, &format!("/console/sign-in?next={link}"));
    carol.get(&link).await.assert_says(200, "Join as carol@example.com");
    assert_eq!(carol.submit(&link, &[]).await.location(), workspace);
    let page = owner.get(&format!("{workspace}/members")).await;
    assert!(page.text.contains("developer") && !page.text.contains("dan@example.com"), "a higher role is kept");
    let link = owner.invitation(&workspace, "eve@example.com", "viewer").await;
    let page = owner.get(&format!("{workspace}/members")).await;
    let id = page.between("/members/invitations/", "/withdraw");
    owner.submit(&format!("{workspace}/members/invitations/{id}/withdraw"), &[]).await;
    other.get(&link).await.assert_says(404, "expired or has already been used");

    // A reset link works once and ends sessions of the old password.
    let page = owner.get("/console/people").await;
    let id = page.text.rsplit_once("href=\"/console/people/").unwrap().1.split('"').next().unwrap().to_owned();
    owner.get(&format!("/console/people/{id}")).await.assert_says(200, "carol@example.com");
    let page = owner.submit(&format!("/console/people/{id}/reset"), &[]).await;
    let link = format!("/console/reset/{}", page.between("/console/reset/", "<"));
    other.get(&link).await.assert_says(200, "carol@example.com");
    let new = [("password", "another-fine-tusk-7"), ("again", "another-fine-tusk-7")];
    assert_eq!(other.submit(&link, &new).await.location(), "/console/sign-in");
    other.get(&link).await.assert_says(404, "expired or has already been used");
    assert!(carol.get("/console/account").await.location().starts_with("/console/sign-in"));
    carol.sign_in("carol@example.com").await.assert_says(422, "Wrong email address");
    let signed_in = [("email", "carol@example.com"), ("password", "another-fine-tusk-7")];
    assert_eq!(carol.submit("/console/sign-in", &signed_in).await.location(), "/console");

    // Disabling takes effect immediately and can be undone; the last administrator cannot be removed.
    owner.get(&format!("/console/people/{id}")).await;
    let keep_out = format!("/console/people/{id}/disable");
    owner.submit(&keep_out, &[("confirm", "someone else")]).await.assert_says(422, "does not match");
    owner.submit(&keep_out, &[("confirm", "carol@example.com")]).await.location();
    assert!(carol.get("/console/account").await.location().starts_with("/console/sign-in"));
    carol.get("/console/sign-in").await;
    carol.submit("/console/sign-in", &signed_in).await.assert_says(422, "Wrong email address");
    owner.submit(&format!("/console/people/{id}/enable"), &[]).await.location();
    assert_eq!(carol.submit("/console/sign-in", &signed_in).await.location(), "/console");
    let own = page_of_self(&mut owner).await;
    owner.submit(&format!("{own}/administrator"), &[]).await.assert_says(422, "last administrator");
}

/// The page of the first account in the list.
async fn page_of_self(owner: &mut Browser) -> String {
    let page = owner.get("/console/people").await;
    format!("/console/people/{}", page.between("href=\"/console/people/", "\""))
}

#[tokio::test]
async fn sign_in_requires_the_second_factor() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    ada.get("/console/account").await;
    ada.submit("/console/account/authenticator", &[("current", "wrong")]).await.assert_says(422, "Wrong password");
    let page = ada.submit("/console/account/authenticator", &[("current", PASSWORD)]).await;
    page.assert_says(200, "<svg");
    let secret = page.between("aria-label=\"Key for the authenticator app\">", "<").replace(' ', "");
    let code = |steps: i64| {
        let secret = totp_rs::Secret::try_from_base32(&secret).unwrap();
        let totp = Builder::new().with_secret(secret).build().unwrap();
        totp.generate((Clock::system().now().as_second() + 30 * steps) as u64).to_string()
    };
    ada.submit("/console/account/authenticator/confirm", &[("code", "12345")]).await.assert_says(422, "Wrong code");
    let page = ada.submit("/console/account/authenticator/confirm", &[("code", &code(0))]).await;
    page.assert_says(200, "Recovery codes");
    let recovery = page.between("<pre id=\"recovery-codes\" tabindex=\"0\" aria-label=\"Recovery codes\">", "</pre>");
    let recovery: Vec<&str> = recovery.lines().collect();
    assert_eq!(recovery.len(), 10, "{recovery:?}");

    let mut browser = Browser::new(&howdah);
    let page = browser.sign_in("ada@example.com").await;
    page.assert_says(200, "Two-factor authentication");
    assert!(!browser.cookies.contains_key("howdah_session"), "a password alone does not start a session");
    let ticket = page.between("name=\"ticket\" value=\"", "\"");
    let mut other = Browser::new(&howdah);
    other.get("/console/sign-in").await;
    let right = code(1);
    let page = other.submit("/console/sign-in/code", &[("ticket", &ticket), ("code", &right)]).await;
    assert_eq!(page.location(), "/console/sign-in", "the ticket belongs to another browser");
    assert!(!other.cookies.contains_key("howdah_session"));
    let page = browser.submit("/console/sign-in/code", &[("ticket", &ticket), ("code", "000000")]).await;
    page.assert_says(422, "Wrong or already used code.");
    let page = browser.submit("/console/sign-in/code", &[("ticket", &ticket), ("code", &right), ("next", "//x")]).await;
    assert_eq!(page.location(), "/console");
    browser.get("/console/account").await.assert_says(200, "10 unused recovery codes left");

    // A code works once, so that it is useless to an observer.
    let page = other.sign_in("ada@example.com").await;
    let ticket = page.between("name=\"ticket\" value=\"", "\"");
    other
        .submit("/console/sign-in/code", &[("ticket", &ticket), ("code", &right)])
        .await
        .assert_says(422, "Wrong or already used code.");
    let page = other.submit("/console/sign-in/code", &[("ticket", &ticket), ("code", recovery[3])]).await;
    assert_eq!(page.location(), "/console");
    other.get("/console/account").await.assert_says(200, "9 unused recovery codes left");
    let mut third = Browser::new(&howdah);
    let page = third.sign_in("ada@example.com").await;
    let ticket = page.between("name=\"ticket\" value=\"", "\"");
    third
        .submit("/console/sign-in/code", &[("ticket", &ticket), ("code", recovery[3])])
        .await
        .assert_says(422, "Wrong or already used code.");

    // It can be turned off with the password.
    other.submit("/console/account/authenticator/remove", &[("current", PASSWORD)]).await.location();
    assert_eq!(third.sign_in("ada@example.com").await.location(), "/console");
}

#[tokio::test]
async fn cookies_over_https_have_the_host_prefix() {
    let howdah = Howdah::start_with(&["--public-url", "https://howdah.example"]).await;
    let mut browser = Browser::new(&howdah);
    let page = browser.get("/console/sign-in").await;
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-howdah_guest=") && cookie.contains("; Secure"), "{cookie}");
    assert!(cookie.contains("; Path=/;") && !cookie.contains("Domain"), "{cookie}");
    let bare = browser.ask("/").header("accept", "text/html,*/*;q=0.8");
    assert_eq!(browser.send(bare).await.location(), "/console");
    let page = browser.get("/console/account").await;
    assert!(page.location().starts_with('/'), "redirects are relative");
}

/// Only the browser resolves the name, so that it does not treat the address as localhost.
#[tokio::test]
async fn console_works_in_a_browser_over_plain_http() {
    let howdah = Howdah::start().await;
    let port = howdah.addresses["http"].as_str().unwrap().rsplit(':').next().unwrap();
    let link = set_up_link(&howdah).await;
    run("plain_http.js", &format!("http://howdah.lan:{port}"), &howdah.token(), &[("HOWDAH_SET_UP", &link)]).await;
}

#[tokio::test]
async fn console_works_in_a_browser() {
    let server = MailServer::start().await;
    let howdah = server.howdah().await;
    let link = format!("{}{}", howdah.url(), set_up_link(&howdah).await);
    run("console.js", &howdah.url(), &howdah.token(), &[("HOWDAH_SET_UP", &link)]).await;
}
