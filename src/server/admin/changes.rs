//! `GET /admin/changes`: what became of the clients, told when it happens.
//!
//! A caller first asks without `after`, then reads all clients, then asks `after` that number again and again: so it
//! misses nothing. What it did itself it leaves out by `except`, having named itself as `Applink-Actor`.

use super::Problem;
use super::extract::{Params, checked_actor};
use crate::domain::Owner;
use crate::server::changes::Batch;
use crate::server::state::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const LONGEST_WAIT: u64 = 60;

/// The query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesQuery {
    after: Option<u64>,
    #[serde(default)]
    wait: u64,
    except: Option<String>,
}

/// The answer.
#[derive(Serialize)]
pub struct Answer {
    instance: String,
    next: u64,
    reset: bool,
    changes: Vec<ChangeView>,
}

#[derive(Serialize)]
struct ChangeView {
    id: String,
    owner: Option<Owner>,
    deleted: bool,
}

/// `GET /admin/changes`
pub async fn get(
    State(app): State<Arc<App>>,
    Params(query): Params<ChangesQuery>,
) -> Result<Json<Answer>, Problem> {
    if query.wait > LONGEST_WAIT {
        let text =
            format!("wait {} is more than {LONGEST_WAIT} seconds; write 0 to {LONGEST_WAIT}", query.wait);
        return Err(Problem::invalid("wait", text));
    }
    let except = query.except.map(|name| checked_actor("except", name)).transpose()?;
    let changes = app.store.changes();
    let Some(mut after) = query.after else {
        let batch = Batch { next: changes.newest(), reset: false, changes: Vec::new() };
        return Ok(answer(&app, batch));
    };
    let (mut newer, mut stopping) = (changes.watch(), app.stopping());
    let end = Instant::now() + Duration::from_secs(query.wait);
    let mut place = None;
    loop {
        newer.borrow_and_update();
        let batch = changes.after(after, except.as_deref());
        if query.wait == 0 || batch.reset || !batch.changes.is_empty() {
            return Ok(answer(&app, batch));
        }
        after = batch.next;
        if place.is_none() {
            place = Some(app.waiters.try_acquire().map_err(|_| too_many())?);
        }
        tokio::select! {
            // The sender is as old as the service.
            _ = newer.changed() => {}
            () = sleep_until(end) => return Ok(answer(&app, batch)),
            _ = stopping.wait_for(|stop| *stop) => return Ok(answer(&app, batch)),
        }
    }
}

fn too_many() -> Problem {
    let text = "too many callers wait for changes; wait with fewer, or ask without wait";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-waiters", text)
}

fn answer(app: &App, batch: Batch) -> Json<Answer> {
    let view = |change: &Arc<crate::server::changes::Change>| ChangeView {
        id: change.id.to_string(),
        owner: change.owner.clone(),
        deleted: change.deleted,
    };
    Json(Answer {
        instance: app.instance.clone(),
        next: batch.next,
        reset: batch.reset,
        changes: batch.changes.iter().map(view).collect(),
    })
}
