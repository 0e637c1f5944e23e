//! `/admin/clients`: PUT converges, so that it can be repeated whatever became of the answer.
//!
//! What a change does to tokens that are out: a deleted client takes all its tokens and grants
//! along. A lost scope is lost to them at once, and a lost grant type ends the tokens that came of
//! it. `grantTypes: []` so disables a client. A new secret or authentication method counts from the
//! next request on, and doesn't end tokens: where a secret has leaked, `revokeTokens` ends them all with
//! the same PUT. The secret before
//! works on only where the caller says until when (`secrets`).

use super::Problem;
use super::body::{self, ClientView};
use super::client_spec::{ClientBody, ClientSpec};
use super::extract::{Actor, Body, Id, Params};
use super::preconditions::Preconditions;
use super::secrets::{self, Secrets};
use crate::domain::{ClientId, Owner};
use crate::server::random;
use crate::server::state::App;
use crate::server::store::{Client, Deleted, Tokens};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 500;
/// Writers that come between reading and writing; more than this in a row is no accident.
const TRIES: usize = 8;

/// The query of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<u32>,
    cursor: Option<String>,
    installation: Option<String>,
}

/// `GET /admin/clients`: in the order of their identifiers
pub async fn list(
    State(app): State<Arc<App>>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Value>, Problem> {
    let limit = match query.limit {
        Some(0) => return Err(Problem::invalid("limit", "limit must be at least 1")),
        limit => limit.unwrap_or(PAGE).min(LARGEST_PAGE),
    };
    let after = query.cursor.as_deref().map(decoded).transpose()?;
    // One more than asked for says whether there is a next page.
    let mut clients = app.store.clients(limit + 1, after.as_deref(), query.installation.as_deref()).await?;
    let more = clients.len() > limit as usize;
    clients.truncate(limit as usize);
    let next = clients.last().filter(|_| more).map(|c| URL_SAFE_NO_PAD.encode(c.id.as_str()));
    let now = app.now();
    let items: Vec<_> = clients.iter().map(|c| ClientView::of(c, now)).collect();
    Ok(Json(json!({ "items": items, "next": next })))
}

fn decoded(cursor: &str) -> Result<String, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let text = bytes.and_then(|b| String::from_utf8(b).ok());
    text.ok_or_else(|| Problem::invalid("cursor", "cursor must be the next of an earlier page"))
}

/// `GET /admin/clients/{id}`
pub async fn get(State(app): State<Arc<App>>, Id(id): Id) -> Result<Response, Problem> {
    let client = app.store.client(&id).await?.ok_or_else(absent)?;
    Ok(body::one(StatusCode::OK, &client, app.now(), None))
}

/// `DELETE /admin/clients/{id}`: with all its tokens and grants
pub async fn delete(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Actor(actor): Actor,
    preconditions: Preconditions,
) -> Result<StatusCode, Problem> {
    let changed =
        || Problem::precondition_failed("the client isn't the one that If-Match names; read it again");
    // Without a precondition one statement does; with one, the tag that it was checked against is
    // in that statement.
    let mut etag = None;
    if preconditions.has_if_match() {
        let client = app.store.client(&id).await?.ok_or_else(absent)?;
        preconditions.check(Some(&client.etag))?;
        etag = Some(client.etag);
    }
    match app.store.delete(&id, etag.as_deref(), actor.as_deref()).await? {
        Deleted::Gone => {
            tracing::info!(client = id.as_str(), "client deleted with all its tokens");
            Ok(StatusCode::NO_CONTENT)
        }
        Deleted::Absent => Err(absent()),
        Deleted::Changed => Err(changed()),
    }
}

fn absent() -> Problem {
    Problem::not_found("there is no client with this ID")
}

/// `PUT /admin/clients/{id}`: 201 made, 200 it is so now; nothing is written when it was so before
pub async fn put(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Actor(actor): Actor,
    preconditions: Preconditions,
    Body(body): Body<ClientBody>,
) -> Result<Response, Problem> {
    let spec = body.check(&app.scopes, app.now())?;
    for _ in 0..TRIES {
        let current = app.store.client(&id).await?;
        preconditions.check(current.as_ref().map(|c| c.etag.as_str()))?;
        if let Some(current) = &current {
            owned(current, &spec, &preconditions)?;
        }
        if let Some(response) = converge(&app, &id, current, &spec, actor.as_deref()).await? {
            return Ok(response);
        }
    }
    let text = "others write to this client all the time; try again";
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text))
}

/// Whether the caller may write over `current`.
fn owned(current: &Client, spec: &ClientSpec, preconditions: &Preconditions) -> Result<(), Problem> {
    let conflict = |code, text: &'static str| Err(Problem::new(StatusCode::CONFLICT, code, text));
    let knows = preconditions.names(&current.etag);
    match (&current.owner, &spec.owner) {
        (None, None) => Ok(()),
        // Nobody's client becomes somebody's only when they say which state of it they mean.
        (None, Some(_)) if knows => Ok(()),
        (None, Some(_)) => conflict(
            "foreign-owner",
            "the client is there already and has no owner; to take it over, send its ETag as If-Match",
        ),
        (Some(has), Some(wants)) if same_link(has, wants) => {
            let same = has.uid == wants.uid && has.namespace_uid == wants.namespace_uid;
            if same || knows {
                return Ok(());
            }
            conflict(
                "owner-changed",
                "the client was made for a link of this name with another UID; to bind it to this one, send its ETag as If-Match",
            )
        }
        _ => conflict("foreign-owner", "the client belongs to another link or installation"),
    }
}

fn same_link(a: &Owner, b: &Owner) -> bool {
    (&a.installation, &a.namespace, &a.name) == (&b.installation, &b.namespace, &b.name)
}

/// One try: `None` when somebody else wrote in between.
async fn converge(
    app: &App,
    id: &ClientId,
    current: Option<Client>,
    spec: &ClientSpec,
    actor: Option<&str>,
) -> Result<Option<Response>, Problem> {
    let now = app.now();
    let Secrets { current: secret, previous, made_up } =
        secrets::after(app, id, spec, current.as_ref(), now).await?;
    let client = Client {
        id: id.clone(),
        metadata: spec.metadata.clone(),
        secret,
        previous,
        owner: spec.owner.clone(),
        etag: random::name()?,
        token_epoch: 0,
        created_at: current.as_ref().map_or(now, |c| c.created_at),
        updated_at: now,
    };
    let (written, status) = match &current {
        Some(current) if same(current, &client, now) => {
            if spec.tokens == Tokens::End {
                if !app.store.end_tokens(id, &current.etag).await? {
                    return Ok(None);
                }
                tracing::info!(client = id.as_str(), "all tokens revoked");
            }
            return Ok(Some(body::one(StatusCode::OK, current, now, None)));
        }
        Some(current) => {
            (app.store.replace(&client, &current.etag, spec.tokens, actor).await?, StatusCode::OK)
        }
        None => (app.store.insert(&client, actor).await?, StatusCode::CREATED),
    };
    if !written {
        return Ok(None);
    }
    let revoked = current.is_some() && spec.tokens == Tokens::End;
    tracing::info!(client = id.as_str(), created = current.is_none(), revoked, "client registered");
    // What is shown is what is stored, which has whole milliseconds.
    let shown = app.store.client(id).await?.filter(|c| c.etag == client.etag).unwrap_or(client);
    Ok(Some(body::one(status, &shown, now, made_up.as_ref())))
}

/// A previous secret that is dead is as good as none: nothing is written to drop it.
fn same(a: &Client, b: &Client, now: Timestamp) -> bool {
    (&a.metadata, &a.secret, a.live_previous(now), &a.owner)
        == (&b.metadata, &b.secret, b.live_previous(now), &b.owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_of_our_own_making() {
        assert_eq!(decoded(&URL_SAFE_NO_PAD.encode("team a/ci")).ok().as_deref(), Some("team a/ci"));
        assert!(decoded("not base64!").is_err());
    }
}
