//! axum's extractors, with their rejections as problems.

use super::Problem;
use crate::domain::ClientId;
use crate::domain::text::Shown;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// A JSON body.
pub struct Body<T>(pub T);

/// The query.
pub struct Params<T>(pub T);

/// The client's identifier in the path, percent-decoded.
pub struct Id(pub ClientId);

/// Who writes, as they say themselves in the header `Applink-Actor`.
pub struct Actor(pub Option<String>);

const ACTOR: &str = "Applink-Actor";
const MAX_ACTOR: usize = 64;

/// Checks the name of an actor.
///
/// # Errors
/// 400, with this field.
pub fn checked_actor(field: &'static str, name: String) -> Result<String, Problem> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !(1..=MAX_ACTOR).contains(&name.len()) || !name.bytes().all(fits) {
        let text = format!(
            "{field} {} isn't 1 to {MAX_ACTOR} letters, digits, dots, underscores and hyphens; use those",
            Shown(&name)
        );
        return Err(Problem::invalid(field, text));
    }
    Ok(name)
}

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut all = parts.headers.get_all(ACTOR).iter();
        let (Some(value), more) = (all.next(), all.next()) else { return Ok(Self(None)) };
        // What isn't text isn't a name, and several are none either.
        let name = value.to_str().ok().filter(|_| more.is_none()).unwrap_or_default();
        checked_actor(ACTOR, name.to_owned()).map(|name| Self(Some(name)))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Json::from_request(request, state).await;
        body.map(|Json(value)| Self(value)).map_err(|rejection: JsonRejection| {
            let status = rejection.status();
            let code = match status {
                StatusCode::PAYLOAD_TOO_LARGE => "too-large",
                StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported-media-type",
                _ => "invalid-request",
            };
            Problem::new(status, code, rejection.body_text())
        })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|rejection: QueryRejection| {
            Problem::new(rejection.status(), "invalid-request", rejection.body_text())
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|rejection: PathRejection| {
            Problem::new(rejection.status(), "invalid-request", rejection.body_text())
        })?;
        ClientId::parse(&text).map(Self).map_err(|e| Problem::invalid("id", format!("the client ID {e}")))
    }
}
