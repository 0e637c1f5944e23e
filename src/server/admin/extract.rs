//! axum's extractors, with their rejections as problems.

use super::Problem;
use crate::domain::ClientId;
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
