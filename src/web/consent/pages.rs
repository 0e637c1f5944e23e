//! What the pages of a consent look like.

use crate::domain::ExposeSecret as _;
use crate::link::consent::{Done, Invitation, Trouble};
use maud::{DOCTYPE, Markup, html};
use url::Url;

/// The pages' one style sheet.
pub const STYLE: &str = include_str!("style.css");

/// What a page may do: nothing but show itself and send its own form. The last page may hand its
/// code to the tool on the same machine.
pub fn policy(port: Option<u16>) -> String {
    let hand_over = port.map(|p| format!(" http://127.0.0.1:{p}")).unwrap_or_default();
    format!(
        "default-src 'none'; style-src 'self'; form-action 'self'{hand_over}; frame-ancestors 'none'; base-uri 'none'"
    )
}

fn page(title: &str, style: &str, head: Markup, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (title) }
                link rel="stylesheet" href=(style);
                (head)
            }
            body { main { (body) } }
        }
    }
}

fn facts(rows: &[(&str, Markup)]) -> Markup {
    html! { dl { @for (name, value) in rows { dt { (name) } dd { (value) } } } }
}

fn scopes(all: &[String], none: &str) -> Markup {
    html! {
        @if all.is_empty() { (none) } @else {
            ul { @for scope in all { li { code { (scope) } } } }
        }
    }
}

/// The first page: what will be asked for, and of whom.
pub fn invitation(of: &Invitation, ticket: &str, style: &str) -> Markup {
    let title = format!("Connect {}", of.application);
    let rows = [
        ("Application", html! { (of.application) }),
        ("Link", html! { code { (of.namespace) "/" (of.name) } }),
        ("Server", html! { (of.server) }),
        ("Asks for", scopes(&of.scopes, "what the server gives unasked")),
    ];
    let body = html! {
        h1 { (title) }
        p { "You are about to give this link access in your name." }
        (facts(&rows))
        form method="post" {
            input type="hidden" name="ticket" value=(ticket);
            button type="submit" { "Continue to " (of.server) }
        }
        p class="note" {
            "Go on only if you, yourself, ran " code { "kubectl applink authorize" } " a moment ago. "
            "If somebody sent you this address, close the page: nothing has happened."
        }
    };
    page(&title, style, html! {}, body)
}

/// On the way to the server.
pub fn departure(to: &Url, style: &str) -> Markup {
    let host = to.host_str().unwrap_or_default();
    let head = html! { meta http-equiv="refresh" content=(format!("0; url={to}")); };
    let body = html! {
        h1 { "On to " (host) }
        p { a class="button" href=(to) { "Continue to " (host) } }
        p class="note" { "You are taken there by yourself; the button is for browsers that don't." }
    };
    page("One moment", style, head, body)
}

/// The last page: what was granted, and the code that makes it active.
pub fn done(of: &Done, style: &str) -> Markup {
    let title = format!("{} said yes", of.application);
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
        p { (title) ". The link isn't connected before the command that you ran gets this code back." }
        (facts(&rows))
        @if !of.missing.is_empty() {
            p class="warning" { "Less than asked for: without " (of.missing.join(", ")) ", the application may not be able to do all that the link is for." }
        }
        @if let Some(port) = of.port {
            form method="post" action=(format!("http://127.0.0.1:{port}/")) {
                input type="hidden" name="code" value=(code);
                button type="submit" autofocus { "Connect as this account" }
            }
            p class="note" { "Did you run the command on another machine? Type this code there:" }
        } @else {
            p { "Type this code where you ran the command:" }
        }
        p class="code" { code { (code) } }
        p class="note" {
            "If you ran no command, close this page: what you granted is given back within ten minutes. "
            "Give the code to nobody."
        }
    };
    page(&title, style, html! {}, body)
}

/// What went wrong, and what to do.
pub fn trouble(of: &Trouble, style: &str) -> Markup {
    let text = of.to_string();
    let mut first = text.chars();
    let text =
        first.next().map(|c| c.to_uppercase().collect::<String>() + first.as_str()).unwrap_or_default();
    let body = html! {
        h1 { "Not connected" }
        p class="warning" role="alert" { (text) }
        p class="note" { "Reason: " code { (of.reason()) } }
    };
    page("Not connected", style, html! {}, body)
}
