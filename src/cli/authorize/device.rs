//! The device grant: the code is shown to who runs the command, and to nobody else.

use super::{AuthorizeArgs, Begun, Ended, aside, typed};
use crate::cli::ToolError;
use crate::cli::output::{clean, complain};
use crate::http::{AllowList, CaBundle, Guard, GuardOptions, HttpClient, Request, Trust};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    interval: u64,
}

#[derive(Deserialize)]
struct Polled {
    pending: Option<f64>,
    account: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    missing: Vec<String>,
    ends: Option<String>,
    unrenewed: Option<String>,
    code: Option<String>,
}

#[derive(Deserialize)]
struct Refused {
    reason: String,
    message: String,
}

/// Shows the code, waits until it was entered, and hands over what ends the consent.
pub(super) async fn ask(begun: &Begun, http: &HttpClient, yes: bool, codes: &mpsc::Sender<String>) -> Ended {
    let going = async {
        if yes {
            return go(begun, http, yes, codes).await;
        }
        tokio::select! {
            gone = go(begun, http, yes, codes) => gone,
            () = typed::ended() => Err(Ended::Not(
                "standard input ended before anybody said whether the account is the right one; nothing was changed".into(),
            )),
        }
    };
    match going.await {
        Err(ended) => ended,
        // The link's status says the rest.
        Ok(()) => std::future::pending().await,
    }
}

async fn go(begun: &Begun, http: &HttpClient, yes: bool, codes: &mpsc::Sender<String>) -> Result<(), Ended> {
    let shown: Shown = post(http, begun, "device").await?;
    complain("Open this address on any device, enter the code, sign in and agree:");
    aside(&[&shown.verification_uri, &shown.user_code]);
    if let Some(whole) = &shown.verification_uri_complete {
        complain("or this one, with the code in it:");
        aside(&[whole]);
    }
    begun.set_quiet(false);
    let mut pause = Duration::from_secs(shown.interval.clamp(1, 60));
    loop {
        sleep(pause).await;
        let asking = begun.asking.lock().await;
        let polled: Polled = post(http, begun, "poll").await?;
        drop(asking);
        if let Some(secs) = polled.pending {
            pause = Duration::try_from_secs_f64(secs)
                .unwrap_or(pause)
                .clamp(Duration::from_millis(200), Duration::from_secs(90));
            continue;
        }
        let Some(code) = polled.code.clone() else {
            return Err(ToolError::Precondition(
                "the operator's answer has no code; are both of one version?".into(),
            )
            .into());
        };
        if !yes {
            begun.set_quiet(true);
            if !confirmed(polled).await {
                return Err(Ended::Not("not confirmed; what was granted is given back".into()));
            }
            begun.set_quiet(false);
        }
        // Nobody listens any more where waiting ended, and then nothing is to be said.
        let _ = codes.send(code).await;
        return Ok(());
    }
}

/// Asks the person whether it is the right account.
async fn confirmed(polled: Polled) -> bool {
    let account = polled.account.as_deref().unwrap_or("an account that the server doesn't name");
    let scopes = if polled.scopes.is_empty() {
        "scopes that the server doesn't name".into()
    } else {
        polled.scopes.join(" ")
    };
    let mut text = format!("Granted by {account}: {scopes}");
    if !polled.missing.is_empty() {
        text.push_str(&format!("; less than asked for, without {}", polled.missing.join(" ")));
    }
    if let (Some(ends), Some(why)) = (&polled.ends, &polled.unrenewed) {
        text.push_str(&format!("; the access token ends at {ends} and can't be renewed: {why}"));
    }
    // A terminal shows the Enter after the answer; elsewhere the question ends its line itself.
    let end = if std::io::stdin().is_terminal() { " " } else { "\n" };
    let question = format!("\n{}\nConnect the link with it? [y/N]{end}", clean(&text));
    let answer = tokio::task::spawn_blocking(move || {
        let _ = write!(std::io::stderr().lock(), "{question}");
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
    });
    answer.await.unwrap_or(false)
}

/// A client for the operator's address.
///
/// # Errors
/// [`ToolError`] where the flags don't fit.
pub(super) fn client(args: &AuthorizeArgs) -> Result<HttpClient, ToolError> {
    let guard = Guard::new(AllowList::default(), GuardOptions::default())
        .map_err(|e| ToolError::Precondition(e.to_string()))?;
    let ca = match &args.certificate_authority {
        None => None,
        Some(path) => {
            let wrong = |why: String| {
                ToolError::Precondition(format!("--certificate-authority {}: {why}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
            Some(CaBundle::parse(&pem).map_err(|e| wrong(e.to_string()))?)
        }
    };
    Ok(guard.client(Trust::Trusted, ca).with_timeout(Duration::from_secs(60)))
}

/// How long to wait, at least and at most, where the operator has too much to do.
const AGAIN: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(30);

async fn post<T: DeserializeOwned>(http: &HttpClient, begun: &Begun, what: &str) -> Result<T, Ended> {
    let mut url = begun.consent_uri.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.push(what);
    }
    let answer = loop {
        let answer = http.send(Request::post(url.clone()).json(&json!({ "ticket": begun.ticket }))).await;
        let answer = answer.map_err(|e| {
            ToolError::Precondition(format!(
                "the operator's address {} doesn't answer: {e}; check that it is reachable from here",
                begun.consent_uri
            ))
        })?;
        if answer.status != 429 {
            break answer;
        }
        // Nothing was done yet. The ticket's end ends this.
        sleep(answer.retry_after.unwrap_or(AGAIN).clamp(AGAIN, LONGEST)).await;
    };
    let strange = || {
        Ended::from(ToolError::Precondition(format!(
            "what answers at {} isn't the operator (status {})",
            begun.consent_uri, answer.status
        )))
    };
    if answer.is_success() {
        return serde_json::from_slice(&answer.body).map_err(|_| strange());
    }
    let Ok(Refused { reason, message }) = serde_json::from_slice(&answer.body) else { return Err(strange()) };
    Err(Ended::Not(format!("{message} ({reason})")))
}
