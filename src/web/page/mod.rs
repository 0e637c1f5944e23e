//! What the pages of this project share: their frame, their style, and the headers that keep them safe.
//!
//! The links page (`cli::ui`) and the pages of a consent use this module; it knows nothing of links.
//! Everything is rendered on the server with `maud`, which escapes what it is given. No page needs a script, loads
//! anything from another host, or has a style or a script in its HTML.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use policy::Policy;

pub mod policy;

/// The one stylesheet.
pub const STYLE: &str = include_str!("style.css");

/// A page before it is put into its frame.
pub struct Page<'a> {
    /// What the tab says.
    pub title: &'a str,
    /// What the path of this site's own files begins with: empty, or `/` and a name.
    pub base: &'a str,
    /// What stands in the head of the page beside the product's name.
    pub head: Markup,
    /// What the page is about.
    pub main: Markup,
    /// Path of a script that makes the page nicer, if it has one.
    pub script: Option<&'a str>,
}

impl Page<'_> {
    /// The whole document.
    pub fn render(self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Application links" }
                    // Without it browsers ask for /favicon.ico.
                    link rel="icon" href="data:,";
                    link rel="stylesheet" href={ (self.base) "/style.css" };
                    @if let Some(script) = self.script {
                        script src={ (self.base) (script) } defer {}
                    }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        div.inside {
                            span.brand { span.mark aria-hidden="true" {} "Application links" }
                            (self.head)
                        }
                    }
                    main #main tabindex="-1" { (self.main) }
                }
            }
        }
    }

    /// The answer to a request.
    pub fn answer(self, status: StatusCode) -> Response {
        (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], self.render().into_string())
            .into_response()
    }
}

/// Serves [`STYLE`].
pub async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

/// Puts the headers on an answer that every page has.
pub fn protect(response: &mut Response, policy: &Policy) {
    const FIXED: &[(HeaderName, &str)] = &[
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not `no-referrer`: browsers then say `Origin: null` where a form is sent, and it couldn't be checked.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let headers = response.headers_mut();
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers
        .insert("permissions-policy", HeaderValue::from_static("camera=(), geolocation=(), microphone=()"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.header());
}
