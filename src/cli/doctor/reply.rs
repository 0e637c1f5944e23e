//! `applink doctor NAME --reply`: the token reply that couldn't be read, for who may read the operator's
//! Secrets. A successor of the refresh token may stand in it.

use crate::api::ApplicationLink;
use crate::cli::cluster::Cluster;
use crate::cli::house::{self, HouseArgs};
use crate::cli::output::{Format, clean, complain};
use crate::cli::{Answer, ToolError};
use crate::link::unread::UnreadReply;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    namespace: String,
    link: String,
    at: String,
    #[serde(flatten)]
    reply: UnreadReply,
}

/// Shows it: what it is on standard error, its body as it came on standard output.
///
/// # Errors
/// [`ToolError`] where it can't be had.
pub async fn show(
    at: &Cluster,
    link: &ApplicationLink,
    args: &HouseArgs,
    output: Format,
) -> Result<Answer, ToolError> {
    let (namespace, name) = (link.namespace().unwrap_or_default(), link.name_any());
    let uid = link.uid().unwrap_or_default();
    let ctx = args.context(at).await?;
    let grant = ctx.store.grant(&uid).await;
    let grant = grant.map_err(|p| house::refusal(&format!("the grant of {namespace}/{name}"), &p))?;
    let unread = grant.and_then(|(grant, _)| grant.unread).filter(|u| u.is_kept(Timestamp::now()));
    let Some(unread) = unread else {
        complain(&format!("ApplicationLink {namespace}/{name}: no reply is kept that couldn't be read"));
        return Ok(Answer::No);
    };
    let keys = house::keys(&ctx).await?;
    let reply = unread.open(&keys, &uid).ok_or_else(|| {
        ToolError::Precondition(format!(
            "the reply of {namespace}/{name} can't be opened: the master key that sealed it isn't in Secret {} any more; \
             restore that key from the backup",
            args.secret()
        ))
    })?;
    let shown = Shown { namespace, link: name, at: unread.at.to_string(), reply };
    if !output.print(&shown)? {
        let Shown { namespace, link, at, reply } = &shown;
        complain(&clean(&format!(
            "ApplicationLink {namespace}/{link}: the reply of {at}, status {}, Content-Type {}, Content-Encoding {}{}; it may \
             hold tokens",
            reply.status,
            reply.content_type.as_deref().unwrap_or("none"),
            reply.content_encoding.as_deref().unwrap_or("none"),
            if reply.complete { "" } else { ", cut off" },
        )));
        body(&reply.bytes())?;
    }
    Ok(Answer::Yes)
}

/// Writes a body as it came; to a terminal only where it is plain text.
fn body(bytes: &[u8]) -> Result<(), ToolError> {
    let mut out = std::io::stdout().lock();
    if out.is_terminal() && !is_plain(bytes) {
        return Err(ToolError::Precondition(
            "the body isn't plain text, so it isn't written to a terminal; send it to a file or a decoder: \
             applink doctor NAME --reply | brotli -d"
                .into(),
        ));
    }
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|e| ToolError::Config(format!("standard output: {e}")))
}

fn is_plain(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|t| t.chars().all(|c| !c.is_control() || "\t\r\n".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_terminal_is_not_plain() {
        assert!(is_plain(b"{\"a\":\r\n\t1}") && is_plain("ü".as_bytes()) && is_plain(b""));
        for other in [&b"\x1b[2J"[..], b"\x8b\x03", b"\x1f\x8b", "\u{9b}2J".as_bytes()] {
            assert!(!is_plain(other), "{other:?}");
        }
    }
}
