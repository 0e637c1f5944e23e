//! What pages have in common: their frame, messages, badges, times, and a link as people read it.

use super::App;
use crate::api::{ApplicationLink, ConditionStatus};
use crate::cli::ToolError;
use crate::cli::cluster::why;
use crate::cli::links::Readiness;
use crate::cli::output::{clean, relative};
use crate::web::page::Page;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use maud::{Markup, Render, html};
use std::borrow::Cow;

/// Where the recommended label of an application's version stands.
const VERSION: &str = "app.kubernetes.io/version";

/// Foreign text: characters that turn the direction of what follows or can't be seen are written as
/// escapes, and its own direction stays its own. `maud` escapes the rest.
pub struct Text<'a>(pub &'a str);

impl Render for Text<'_> {
    fn render(&self) -> Markup {
        html! { bdi { (clean(self.0)) } }
    }
}

/// Why there is no page, in its place.
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    title: Cow<'static, str>,
    text: String,
}

impl Problem {
    /// What is wrong in a few words, and in sentences with the way out.
    pub fn new(status: StatusCode, title: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self { status, title: title.into(), text: text.into() }
    }

    /// The API server didn't do it.
    pub fn kube(title: &'static str, what: &str, e: &kube::Error) -> Self {
        let status = match e {
            kube::Error::Api(s) => StatusCode::from_u16(s.code).ok().filter(|s| s.as_u16() >= 400),
            _ => None,
        };
        let text = format!("{what}: {}. Nothing was changed.", why(e).trim_end_matches('.'));
        Self::new(status.unwrap_or(StatusCode::BAD_GATEWAY), title, text)
    }

    /// A tool has no answer.
    pub fn tool(title: &'static str, e: &ToolError) -> Self {
        let status = match e {
            ToolError::Precondition(_) => StatusCode::CONFLICT,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, title, format!("{}.", e.to_string().trim_end_matches('.')))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let main = html! {
            div.narrow {
                div.card role="alert" {
                    h1 { (self.title) }
                    p.muted { (clean(&self.text)) }
                    @if self.status != StatusCode::UNAUTHORIZED && self.status != StatusCode::MISDIRECTED_REQUEST {
                        p { a.button href="/" { "Back to the list" } }
                    }
                }
            }
        };
        let page = Page { title: &self.title, base: "", head: html! {}, main, script: None };
        page.answer(self.status)
    }
}

/// Somebody opened the address of a step that only a form leads to.
pub async fn back() -> Redirect {
    Redirect::to("/")
}

/// No such page.
pub async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "There is no such page", "The address leads nowhere.")
}

/// A page in its frame.
pub fn page(app: &App, title: &str, main: Markup) -> Response {
    let head = html! {
        nav aria-label="Application links" {
            span.cluster title="The cluster that your kubeconfig names" { (clean(&app.cluster.address)) }
            a href="/" { "Links" }
        }
    };
    Page { title, base: "", head, main, script: Some("/script.js") }.answer(StatusCode::OK)
}

/// The field that every form of this page carries.
pub fn token(app: &App) -> Markup {
    html! { input type="hidden" name=(super::session::TOKEN_FIELD) value=(app.session.token()); }
}

/// The way back to the list.
pub fn crumb(href: &str, text: &str) -> Markup {
    html! { a.crumb href=(href) { "← " (Text(text)) } }
}

/// The address of a link's page, or of one of its actions.
pub fn href(namespace: &str, name: &str, action: &str) -> String {
    let slash = if action.is_empty() { "" } else { "/" };
    format!("/links/{namespace}/{name}{slash}{action}")
}

/// The link of a page's address, as it is now.
///
/// # Errors
/// [`Problem`] where it can't be had.
pub async fn link_of(app: &App, namespace: &str, name: &str) -> Result<ApplicationLink, Problem> {
    // What can't be a name would be another path at the API server.
    if !is_name(namespace) || !is_name(name) {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "There is no such link",
            "That can't be a link's name.",
        ));
    }
    let api: Api<ApplicationLink> = Api::namespaced(app.cluster.client.clone(), namespace);
    let what = format!("ApplicationLink {namespace}/{name}");
    match api.get_opt(name).await {
        Ok(Some(link)) => Ok(link),
        Ok(None) => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "This link is gone",
            format!("{what} doesn't exist. It was deleted, or never there."),
        )),
        Err(e) => Err(Problem::kube("The link can't be read", &what, &e)),
    }
}

/// Whether a text can be the name of an object.
pub fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    text.bytes().all(fits) && text.bytes().any(|b| b != b'.') && text.len() <= 253
}

/// How a link is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    /// A person must do something.
    Bad,
    /// It is being worked on.
    Wait,
    /// It is asked to do nothing.
    Idle,
    /// All is well.
    Good,
}

/// A link as people read it.
#[derive(Debug, Clone)]
pub struct Row {
    pub namespace: String,
    pub name: String,
    pub application: String,
    pub version: Option<String>,
    pub direction: &'static str,
    pub mood: Mood,
    /// The machine reason, or what stands in its place.
    pub status: String,
    /// What is wrong and what to do; empty where all is well.
    pub message: String,
    /// When the access token ends (RFC 3339).
    pub expires: Option<String>,
    /// Changes with the object.
    pub revision: String,
    /// Whether a person has to consent, ever.
    pub consents: bool,
    /// Whether there is a client secret.
    pub rotates: bool,
}

impl Row {
    /// Of a link.
    pub fn of(link: &ApplicationLink) -> Self {
        let status = link.status.as_ref();
        let is = |name: &str| {
            let all = status.map_or(&[][..], |s| &s.conditions);
            all.iter().any(|c| c.type_ == name && c.status == ConditionStatus::True)
        };
        let ready = Readiness::of_link(link);
        let (mood, status_word) = if link.metadata.deletion_timestamp.is_some() {
            (Mood::Wait, "Deleting".to_owned())
        } else if link.spec.suspend {
            (Mood::Idle, "Suspended".to_owned())
        } else if ready.is_ready() {
            (Mood::Good, ready.reason.clone())
        } else if ready.ready == "Unknown" || (is("Reconciling") && !is("Stalled")) {
            (Mood::Wait, ready.reason.clone())
        } else {
            (Mood::Bad, ready.reason.clone())
        };
        let grant = link.spec.outgoing.as_ref().map(|o| &o.oauth2.grant);
        Self {
            namespace: link.namespace().unwrap_or_default(),
            name: link.name_any(),
            application: link.spec.application.name.clone(),
            version: link.labels().get(VERSION).filter(|v| !v.is_empty()).cloned(),
            direction: match (&link.spec.incoming, &link.spec.outgoing) {
                (Some(_), Some(_)) => "Two-way",
                (None, Some(_)) => "Outgoing",
                _ => "Incoming",
            },
            mood,
            status: status_word,
            message: if mood == Mood::Good { String::new() } else { ready.message },
            expires: status.and_then(|s| s.outgoing.as_ref()).and_then(|o| o.expires_at.clone()),
            revision: link.resource_version().unwrap_or_default(),
            consents: grant.is_some_and(|g| g.authorization_code.is_some() || g.device_code.is_some()),
            rotates: crate::cli::rotate::refuse(link).is_none(),
        }
    }

    /// What stands in the version's place.
    pub fn version(&self) -> Cow<'_, str> {
        self.version.as_ref().map_or(Cow::Borrowed("Generic application"), |v| format!("Version {v}").into())
    }

    /// The address of its page, or of one of its actions.
    pub fn href(&self, action: &str) -> String {
        href(&self.namespace, &self.name, action)
    }

    /// Namespace and name.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its status as a badge.
    pub fn badge(&self) -> Markup {
        badge(self.mood, &self.status)
    }

    /// What can be done, in the order that people look for it: address and words.
    pub fn actions(&self) -> Vec<(&'static str, &'static str)> {
        let all = [
            (true, "edit", "Edit"),
            (self.consents, "authorise", "Authorise"),
            (self.rotates, "rotate", "Rotate the secret"),
            (true, "credentials", "View credentials"),
            (true, "yaml", "YAML"),
            (true, "delete", "Delete"),
        ];
        all.into_iter().filter(|(there, ..)| *there).map(|(_, action, words)| (action, words)).collect()
    }
}

/// A word with a colour that isn't needed to understand it.
pub fn badge(mood: Mood, word: &str) -> Markup {
    let class = match mood {
        Mood::Good => "good",
        Mood::Bad => "bad",
        Mood::Wait => "wait",
        Mood::Idle => "idle",
    };
    html! { span class={ "badge " (class) } { (clean(&words(word))) } }
}

/// A machine reason as words: `ProviderNotFound`, “Provider not found”.
pub fn words(reason: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for c in reason.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            out.push(' ');
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(c);
        }
        before = c;
    }
    out
}

/// A time (RFC 3339) as people read it, with the exact one at hand.
pub fn time(at: &str) -> Markup {
    match relative(at, Timestamp::now()) {
        Some(said) => html! { time datetime=(at) title=(at) { (said) } },
        None => html! { (Text(at)) },
    }
}

/// A text to copy. The button shows itself where a script can serve it.
pub fn copy(id: &str, what: &str) -> Markup {
    html! { button.plain type="button" hidden data-copy=(id) aria-label={ "Copy " (what) } { "Copy" } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_words() {
        for (reason, said) in [
            ("ProviderNotFound", "Provider not found"),
            ("Connected", "Connected"),
            ("HTTPError", "HTTPError"),
        ] {
            assert_eq!(words(reason), said);
        }
    }

    #[test]
    fn foreign_text_stays_text() {
        let said = Text("<b>\u{202e}evil\"").render().into_string();
        assert_eq!(said, "<bdi>&lt;b&gt;\\u{202e}evil&quot;</bdi>");
    }
}
