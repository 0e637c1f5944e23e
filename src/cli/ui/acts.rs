//! What can be done with a link beside editing: authorise, rotate, view credentials, delete. Each begins with a page
//! that says what will happen, and does nothing before its button is pressed.

use super::App;
use super::session::Fields;
use super::view::{self, Mood, Problem, Row, Text, badge, copy, crumb, href, link_of, token};
use crate::api::ApplicationLink;
use crate::api::link::DeletionPolicy;
use crate::cli::cluster::Cluster;
use crate::cli::credentials::{self, Missing};
use crate::cli::rotate;
use crate::link::content::Slot;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt as _};
use maud::{Markup, html};
use std::sync::Arc;

type Place = Path<(String, String)>;

fn head(row: &Row, what: &str) -> Markup {
    html! {
        (crumb(&row.href(""), &row.application))
        div.title { div { h1 { (what) } p.muted { (row.full_name()) } } }
    }
}

/// How a person connects a link. The page shows the command; a later one may start it from here.
fn authorise_command(row: &Row) -> String {
    format!("kubectl applink authorize {} -n {}", row.name, row.namespace)
}

/// How to authorise.
pub async fn authorise(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Place,
) -> Result<Response, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    let row = Row::of(&link);
    let connected = link.status.as_ref().and_then(|s| s.outgoing.as_ref()).and_then(|o| o.connected.as_ref());
    let main = html! {
        div.narrow {
            (head(&row, "Authorise"))
            div.card {
                @if row.consents {
                    p { "A person gives consent once; from then on the access token is kept fresh. Run this command, and log in with the account that is to be connected:" }
                    div.command {
                        pre #command tabindex="0" aria-label="Command" { (authorise_command(&row)) }
                        (copy("command", "the command"))
                    }
                    p.hint {
                        @match connected {
                            Some(who) => { "Connected " (view::time(&who.at)) ". Running it again connects the link anew." }
                            None => { "Nobody connected this link yet." }
                        }
                    }
                } @else {
                    p { "This link needs nobody's consent: its grant gives tokens without a person." }
                }
                p { a.button href=(row.href("")) { "Back to the link" } }
            }
        }
    };
    Ok(view::page(&app, "Authorise", main))
}

/// What a rotation will do.
pub async fn rotate_page(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Place,
) -> Result<Response, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    let row = Row::of(&link);
    let main = html! {
        div.narrow {
            (head(&row, "Rotate the client secret"))
            @if let Some(why) = rotate::refuse(&link) {
                div.note.bad role="alert" { p { (Text(&why)) } }
            } @else {
                form.card method="post" action=(row.href("rotate")) {
                    (token(&app))
                    p { "The client gets a new secret, and the Secret changes with it." }
                    fieldset {
                        legend.hidden { "The old secret" }
                        label.choice { input type="radio" name="now" value="" checked; span { strong { "With an overlap. " } "The old secret works on for the time that the link or its provider says, where the provider can hold two." } }
                        label.choice { input type="radio" name="now" value="on"; span { strong { "At once. " } "The old secret ends, and its tokens where the provider can. For a secret that leaked." } }
                    }
                    div.buttons {
                        button.primary type="submit" { "Rotate" }
                        a.button href=(row.href("")) { "Cancel" }
                    }
                }
            }
        }
    };
    Ok(view::page(&app, "Rotate the client secret", main))
}

/// Asks for a new client secret.
pub async fn rotate(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Place,
    fields: Fields,
) -> Result<Redirect, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    let asked = rotate::ask(app.cluster.client.clone(), &link, fields.get("now") == "on").await;
    let (_, link) = asked.map_err(|e| Problem::tool("The secret wasn't rotated", &e))?;
    app.live.learn(link);
    Ok(Redirect::to(&format!("{}?done=rotate", href(&namespace, &name, ""))))
}

/// Parts of a link that have a Secret.
fn parts(link: &ApplicationLink) -> Vec<(&'static str, &'static str)> {
    let incoming = link.spec.incoming.is_some().then_some(("incoming", "Show the client's credentials"));
    let outgoing = link.spec.outgoing.is_some().then_some(("outgoing", "Show the access token"));
    incoming.into_iter().chain(outgoing).collect()
}

/// Buttons; nothing is read yet.
pub async fn credentials_page(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Place,
) -> Result<Response, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    let row = Row::of(&link);
    let main = html! {
        div.narrow {
            (head(&row, "View credentials"))
            div.card {
                p { "They are read from the link's Secret with your own rights, when you press the button, and are kept nowhere. The API server's audit log may note that you read it." }
                (credential_buttons(&app, &link, &row))
            }
        }
    };
    Ok(view::page(&app, "View credentials", main))
}

fn credential_buttons(app: &App, link: &ApplicationLink, row: &Row) -> Markup {
    html! {
        div.buttons {
            @for (part, words) in parts(link) {
                form method="post" action=(row.href("credentials")) {
                    (token(app))
                    input type="hidden" name="part" value=(part);
                    button type="submit" { (words) }
                }
            }
            a.button href=(row.href("")) { "Back to the link" }
        }
    }
}

/// Reads the Secret and shows what stands in it.
pub async fn credentials(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Place,
    fields: Fields,
) -> Result<Response, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    let row = Row::of(&link);
    let outgoing = fields.get("part") == "outgoing";
    let cluster = Cluster { namespace, ..app.cluster.clone() };
    let found = match credentials::find(&cluster, &link, outgoing).await {
        Ok(found) => found,
        Err(missing) => {
            let (status, text) = match missing {
                Missing::Absent(what) => (StatusCode::NOT_FOUND, format!("{what} yet. {}", row.message)),
                Missing::Forbidden(why) => (StatusCode::FORBIDDEN, format!("{why}.")),
                Missing::NoPart(why) | Missing::Foreign(why) => (StatusCode::CONFLICT, format!("{why}.")),
                Missing::Failed(e) => (StatusCode::BAD_GATEWAY, format!("{e}.")),
            };
            return Err(Problem::new(status, "The credentials can't be shown", text));
        }
    };
    let values = found.values(outgoing);
    let secret = |slot: Slot| matches!(slot, Slot::ClientSecret | Slot::AccessToken);
    let main = html! {
        div.narrow {
            (head(&row, if outgoing { "Access token" } else { "The client's credentials" }))
            @if row.mood != Mood::Good {
                div.note.wait { p { "The link isn't ready (" (view::words(&row.status)) "): " (Text(&row.message)) } }
            }
            div.card {
                p.muted { "Secret " code { (found.goal.name) } }
                dl.facts {
                    @for (slot, value) in &values {
                        dt { (slot.default_key()) @if secret(*slot) { " " (badge(Mood::Wait, "Secret")) } }
                        dd {
                            // As it is: it is there to be copied.
                            code #{ "value-" (slot.default_key()) } { (value) }
                            " " (copy(&format!("value-{}", slot.default_key()), slot.default_key()))
                        }
                    }
                }
            }
            (credential_buttons(&app, &link, &row))
        }
    };
    Ok(view::page(&app, "Credentials", main))
}

/// What a deletion will do.
pub async fn delete_page(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Place,
) -> Result<Response, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    Ok(ask_to_delete(&app, &link, None))
}

fn ask_to_delete(app: &App, link: &ApplicationLink, wrong: Option<&str>) -> Response {
    let row = Row::of(link);
    let main = html! {
        div.narrow {
            (head(&row, "Delete this link"))
            @for keeper in super::gitops::keepers(link).iter().filter(|k| k.undoes) {
                div.note.wait role="alert" { p { (keeper.tool) " keeps this link and will make it anew. Remove it from its repository instead." } }
            }
            form.card method="post" action=(row.href("delete")) {
                (token(app))
                // Another link of the same name isn't the one that was looked at.
                input type="hidden" name="uid" value=(link.uid().unwrap_or_default());
                @if link.spec.deletion_policy == DeletionPolicy::Retain {
                    p { "The link says " code { "deletionPolicy: Retain" } ": client, grant and Secrets stay and work on, and nobody keeps them any more." }
                } @else {
                    p { "The client is unregistered at the provider, the grant is revoked, and the Secrets go. What uses their credentials stops working. This can't be undone." }
                }
                div.field {
                    label for="confirm" { "Type the link's name, " code { (row.name) } }
                    input #confirm type="text" name="confirm" autocomplete="off" spellcheck="false" autocapitalize="none" required
                        aria-invalid=[wrong.map(|_| "true")] aria-describedby=[wrong.map(|_| "confirm-error")];
                    @if let Some(wrong) = wrong { p.hint #confirm-error role="alert" { (wrong) } }
                }
                div.buttons {
                    button.danger type="submit" { "Delete the link" }
                    a.button href=(row.href("")) { "Cancel" }
                }
            }
        }
    };
    view::page(app, "Delete this link", main)
}

/// Deletes.
pub async fn delete(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Place,
    fields: Fields,
) -> Result<Response, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    if fields.get("confirm").trim() != name {
        return Ok(ask_to_delete(&app, &link, Some("That isn't the link's name. Nothing was deleted.")));
    }
    let api: Api<ApplicationLink> = Api::namespaced(app.cluster.client.clone(), &namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(fields.get("uid").to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let what = format!("ApplicationLink {namespace}/{name}");
    api.delete(&name, &params).await.map_err(|e| Problem::kube("The link wasn't deleted", &what, &e))?;
    let (space, of) = (namespace.clone(), name.clone());
    app.live
        .until(|live| {
            let gone = |l: &Arc<ApplicationLink>| {
                l.namespace().as_deref() == Some(&space)
                    && l.name_any() == of
                    && l.metadata.deletion_timestamp.is_none()
            };
            !live.all().iter().any(gone)
        })
        .await;
    Ok(Redirect::to("/?done=deleted").into_response())
}
