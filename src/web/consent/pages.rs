//! What the pages of a consent look like.

use crate::domain::ExposeSecret as _;
use crate::link::consent::{Done, Invitation, Trouble, place};
use crate::web::page::Page;
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use url::Url;

/// A page in the frame that all of ours have.
fn page(status: StatusCode, title: &str, base: &str, main: Markup) -> Response {
    let main = html! { div.narrow { div.card { (main) } } };
    Page { title, base, head: html! {}, main, script: None }.answer(status)
}

fn facts(rows: &[(&str, Markup)]) -> Markup {
    html! { dl.facts { @for (name, value) in rows { dt { (name) } dd { (value) } } } }
}

fn scopes(all: &[String], none: &str) -> Markup {
    html! {
        @if all.is_empty() { (none) } @else {
            ul.bare { @for scope in all { li { code { (scope) } } } }
        }
    }
}

/// The first page: what will be asked for, and of whom.
pub fn invitation(of: &Invitation, ticket: &str, base: &str) -> Response {
    let title = format!("Connect {}", of.application);
    let rows = [
        ("Application", html! { (of.application) }),
        ("Link", html! { code { (of.namespace) "/" (of.name) } }),
        (
            "Server",
            html! { (of.server) @if let Some(taker) = &of.taker { "; what you agree to goes to " strong { (taker) } } },
        ),
        ("Asks for", scopes(&of.scopes, "what the server gives unasked")),
    ];
    let others = html! {
        @if of.others.is_empty() { "nobody else" } @else {
            ul.bare { @for place in &of.others { li { strong { (place) } } } }
        }
    };
    let rows = rows.into_iter().chain([("Also told of it", others)]).collect::<Vec<_>>();
    let body = html! {
        h1 { (title) }
        p { "You are about to give this link access in your name." }
        (facts(&rows))
        form method="post" {
            input type="hidden" name="ticket" value=(ticket);
            button.primary.whole type="submit" { "Continue to " (of.server) }
        }
        p.hint {
            "Go on only if you, yourself, ran " code { "kubectl applink authorize" } " a moment ago. "
            "If somebody sent you this address, close the page: nothing has happened."
        }
    };
    page(StatusCode::OK, &title, base, body)
}

/// On the way to the server.
pub fn departure(to: &Url, base: &str) -> Response {
    let host = place(to);
    let body = html! {
        h1 { "On to " (host) }
        p { a.button.primary.whole href=(to) { "Continue to " (host) } }
        p.hint { "You are taken there by yourself; the button is for browsers that don't." }
    };
    page(StatusCode::OK, "One moment", base, body)
}

/// The last page: what was granted, and the code that makes it active.
pub fn done(of: &Done, base: &str) -> Response {
    let title = format!("One step is left to connect {}", of.application);
    let account = of.owner.as_ref().map_or_else(
        || html! { "the server doesn't say" },
        |o| html! {
            @if let Some(label) = &o.label { (label) " (" code { (o.account.subject()) } ")" } @else { code { (o.account.subject()) } }
        },
    );
    let rows = [
        ("Link", html! { code { (of.namespace) "/" (of.name) } }),
        ("Account", account),
        ("Granted", scopes(&of.scopes, "the server doesn't say")),
    ];
    let code = of.code.expose_secret();
    let body = html! {
        h1 { "One step is left" }
        p { "The server said yes for " (of.application) ". The link isn't connected before the command that you ran gets this code back." }
        (facts(&rows))
        @if !of.missing.is_empty() {
            div.note.wait { "Less than asked for: without " (of.missing.join(", ")) ", the application may not be able to do all that the link is for." }
        }
        @if let Some((at, why)) = &of.ends {
            div.note.wait { "The access token ends at " (at) " and can't be renewed: " (why) ", and run the command again." }
        }
        @if let Some(port) = of.port {
            form method="post" action=(format!("http://127.0.0.1:{port}/")) {
                input type="hidden" name="code" value=(code);
                button.primary.whole type="submit" autofocus { "Connect as this account" }
            }
            p.hint { "Did you run the command on another machine? Type this code there:" }
        } @else {
            p { "Type this code where you ran the command:" }
        }
        p class="code" { code { (code) } }
        p.hint {
            "If you ran no command, close this page: what you granted is given back within ten minutes. "
            "Give the code to nobody."
        }
    };
    page(StatusCode::OK, &title, base, body)
}

/// What went wrong, and what to do.
pub fn trouble(of: &Trouble, base: &str) -> Response {
    let text = of.to_string();
    let mut first = text.chars();
    let text =
        first.next().map(|c| c.to_uppercase().collect::<String>() + first.as_str()).unwrap_or_default();
    let body = html! {
        h1 { "Not connected" }
        div.note.bad role="alert" { (text) }
        p.hint { "Reason: " code { (of.reason()) } }
    };
    let status = StatusCode::from_u16(of.status()).unwrap_or(StatusCode::BAD_REQUEST);
    page(status, "Not connected", base, body)
}
