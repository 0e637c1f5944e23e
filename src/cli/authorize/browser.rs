//! The consent in a browser: the address is opened, and the last page's code comes back over
//! loopback, or is typed.

use super::{Begun, Ended, aside};
use crate::cli::ToolError;
use crate::cli::output::complain;
use crate::link::consent::is_code;
use axum::Router;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use std::io::{BufRead as _, IsTerminal as _};
use std::process::{Command, Stdio};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// The loopback listener.
pub(super) struct Listener {
    listener: TcpListener,
    pub(super) port: u16,
}

impl Listener {
    pub(super) async fn bind() -> Result<Self, ToolError> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }
}

/// Shows the address and takes codes; it ends only where it fails.
pub(super) async fn ask(begun: &Begun, listener: Option<Listener>, codes: &mpsc::Sender<String>) -> Ended {
    let mut url = begun.consent_uri.clone();
    url.query_pairs_mut().append_pair("ticket", &begun.ticket);
    complain("Open this address, sign in and agree. It is for you alone, works once, and for ten minutes:");
    aside(&[url.as_str()]);
    let unanswered = type_in(codes.clone());
    let Some(Listener { listener, port }) = listener else {
        complain("At the end, type the code that the last page shows, and press Enter.");
        begun.set_quiet(false);
        return match unanswered.await {
            Ok(()) => Ended::Not("standard input ended before a code was typed; nothing was changed".into()),
            Err(_) => std::future::pending().await,
        };
    };
    begun.set_quiet(false);
    if std::io::stderr().is_terminal() {
        open(url.as_str());
    }
    let app = Router::new()
        .route("/", post(take))
        .layer(tower_http::limit::RequestBodyLimitLayer::new(1024))
        .with_state((codes.clone(), port));
    match axum::serve(listener, app).await {
        Ok(()) => std::future::pending().await,
        Err(e) => Ended::Error(ToolError::Io(e)),
    }
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

/// The form of the last page. Any page may send something here; only a code that the operator knows
/// does anything.
async fn take(
    State((codes, port)): State<(mpsc::Sender<String>, u16)>,
    headers: HeaderMap,
    Form(Code { code }): Form<Code>,
) -> Response {
    // A name that was made to point at loopback isn't ours.
    let host = format!("127.0.0.1:{port}");
    let ours = headers.get(header::HOST).is_some_and(|h| h.as_bytes() == host.as_bytes());
    if !ours || !is_code(&code) || codes.send(code).await.is_err() {
        return (StatusCode::BAD_REQUEST, "not a code of a consent\n").into_response();
    }
    let policy =
        [(header::CONTENT_SECURITY_POLICY, "default-src 'none'"), (header::CACHE_CONTROL, "no-store")];
    (policy, Html(RECEIVED)).into_response()
}

const RECEIVED: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
    content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\"><title>Received</title>\
    <h1>Received</h1><p>Go back to your terminal: it says when the link is connected. You can close this page.</p>";

/// Takes codes from the terminal, and tells when its end comes before any. The thread ends with the program: a
/// read can't be called off.
fn type_in(codes: mpsc::Sender<String>) -> oneshot::Receiver<()> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut any = false;
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if line.trim().is_empty() {
                continue;
            }
            if !is_code(&line) {
                complain("That isn't a code of the last page, or a letter of it is wrong; type it again.");
                continue;
            }
            if codes.blocking_send(line.trim().to_owned()).is_err() {
                return;
            }
            any = true;
        }
        if !any {
            // Nobody listens any more where waiting ended.
            let _ = tell.send(());
        }
    });
    told
}

/// Opens an address in the person's browser, if there is a way; it stands on the terminal anyway.
fn open(url: &str) {
    let (program, args): (&str, &[&str]) = match std::env::consts::OS {
        "macos" => ("open", &[]),
        "windows" => ("rundll32", &["url.dll,FileProtocolHandler"]),
        _ => ("xdg-open", &[]),
    };
    let quiet = Stdio::null;
    let _ = Command::new(program).args(args).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
}
