//! The form. Its fields are named by the paths of the object that they stand for; what the form doesn't know of an
//! object stays in it.

use super::App;
use super::link::{manifest, to_yaml};
use super::review::{Base, Draft};
use super::session::Fields;
use super::view::{self, Problem, Row, Text, crumb, link_of, token};
use crate::api::names;
use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// How a field's text becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As it is.
    Text,
    /// A list, one a line.
    Lines,
    /// A list, with blanks between.
    Words,
    /// A list of the boxes that are ticked.
    Boxes,
    /// A boolean.
    Flag,
}

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";
const IN: &str = "spec.incoming";
const OUT: &str = "spec.outgoing";
const SERVER: &str = "spec.outgoing.oauth2.server";
const GRANT: &str = "spec.outgoing.oauth2.grant";

/// The fields that stand for themselves. What belongs to a server or a grant counts only where that
/// one is chosen, and what belongs to a part only where the link has it.
const FIELDS: &[(&str, Kind)] = &[
    (NAME, Kind::Text),
    (NAMESPACE, Kind::Text),
    ("spec.application.name", Kind::Text),
    ("spec.application.url", Kind::Text),
    ("spec.providerRef.name", Kind::Text),
    ("spec.providerRef.kind", Kind::Text),
    ("spec.deletionPolicy", Kind::Text),
    ("spec.suspend", Kind::Flag),
    ("spec.incoming.oauth2.redirectUris", Kind::Lines),
    ("spec.incoming.oauth2.scopes", Kind::Words),
    ("spec.incoming.oauth2.grantTypes", Kind::Boxes),
    ("spec.incoming.oauth2.tokenEndpointAuthMethod", Kind::Text),
    ("spec.incoming.rotation.every", Kind::Text),
    ("spec.incoming.rotation.overlap", Kind::Text),
    ("spec.incoming.secret.name", Kind::Text),
    ("spec.outgoing.oauth2.server.microsoft.tenant", Kind::Text),
    ("spec.outgoing.oauth2.server.github.url", Kind::Text),
    ("spec.outgoing.oauth2.server.gitlab.url", Kind::Text),
    ("spec.outgoing.oauth2.server.custom.issuer", Kind::Text),
    ("spec.outgoing.oauth2.server.custom.authorizationEndpoint", Kind::Text),
    ("spec.outgoing.oauth2.server.custom.tokenEndpoint", Kind::Text),
    ("spec.outgoing.oauth2.grant.refreshToken.secretRef.name", Kind::Text),
    ("spec.outgoing.oauth2.grant.refreshToken.secretRef.key", Kind::Text),
    ("spec.outgoing.oauth2.grant.jwtBearer.secretRef.name", Kind::Text),
    ("spec.outgoing.oauth2.grant.jwtBearer.secretRef.key", Kind::Text),
    ("spec.outgoing.oauth2.client.clientId", Kind::Text),
    ("spec.outgoing.oauth2.client.secretRef.name", Kind::Text),
    ("spec.outgoing.oauth2.client.authMethod", Kind::Text),
    ("spec.outgoing.oauth2.scopes", Kind::Words),
    ("spec.outgoing.secret.name", Kind::Text),
];

/// Objects that are left out where nothing is in them; the inner ones first.
const OPTIONAL: &[&str] = &[
    "spec.providerRef",
    "spec.incoming.rotation",
    "spec.incoming.secret",
    "spec.outgoing.oauth2.client.secretRef",
    "spec.outgoing.oauth2.client",
    "spec.outgoing.secret",
];

const GRANT_TYPES: [(&str, &str); 3] = [
    ("authorization_code", "People log in with a browser (authorization code)"),
    ("refresh_token", "and stay logged in (refresh token)"),
    ("client_credentials", "The application acts for itself (client credentials)"),
];
const SERVERS: [(&str, &str); 7] = [
    ("google", "Google"),
    ("microsoft", "Microsoft Entra ID"),
    ("github", "GitHub"),
    ("gitlab", "GitLab"),
    ("slack", "Slack"),
    ("atlassian", "Atlassian Cloud"),
    ("custom", "Another server"),
];
const GRANTS: [(&str, &str); 5] = [
    ("authorizationCode", "A person consents in a browser"),
    ("deviceCode", "A person consents by entering a code"),
    ("clientCredentials", "Nobody consents: the client acts for itself"),
    ("refreshToken", "From a refresh token that I bring"),
    ("jwtBearer", "From a signed assertion, as of a Google service account"),
];

fn at<'v>(object: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(object, |value, part| &value[part])
}

/// Puts a value at a path, and the objects on the way; `None` takes it away.
fn put(object: &mut Value, path: &str, value: Option<Value>) {
    let Some((way, last)) = path.rsplit_once('.') else { return };
    let mut here = object;
    for part in way.split('.') {
        if !here[part].is_object() {
            if value.is_none() {
                return;
            }
            here[part] = json!({});
        }
        here = &mut here[part];
    }
    match (here.as_object_mut(), value) {
        (Some(map), Some(value)) => {
            map.insert(last.to_owned(), value);
        }
        (Some(map), None) => {
            map.remove(last);
        }
        (None, _) => {}
    }
}

/// Makes one key of an object the only one.
fn choose(object: &mut Value, path: &str, key: &str) {
    let kept = at(object, path)[key].clone();
    put(object, path, Some(json!({key: if kept.is_object() { kept } else { json!({}) }})));
}

/// Puts what a form says over an object.
pub fn overlay(object: &mut Value, fields: &Fields) {
    let (server, grant) = (fields.get(SERVER).to_owned(), fields.get(GRANT).to_owned());
    for (part, chosen) in [(IN, fields.is_on(IN)), (OUT, fields.is_on(OUT))] {
        match (chosen, at(object, part).is_object()) {
            (true, false) => put(object, part, Some(json!({"oauth2": {}}))),
            (false, true) => put(object, part, None),
            _ => {}
        }
    }
    if fields.is_on(OUT) {
        for (path, key, known) in [
            (SERVER, &server, SERVERS.iter().any(|s| s.0 == server)),
            (GRANT, &grant, GRANTS.iter().any(|g| g.0 == grant)),
        ] {
            if known {
                choose(object, path, key);
            }
        }
    }
    for (path, kind) in FIELDS {
        let of = |whole: &str| path.strip_prefix(whole).is_some_and(|rest| rest.starts_with('.'));
        let chosen = |whole: &str, key: &str| !of(whole) || of(&format!("{whole}.{key}"));
        if (of(IN) && !fields.is_on(IN)) || (of(OUT) && !fields.is_on(OUT)) {
            continue;
        }
        if !chosen(SERVER, &server) || !chosen(GRANT, &grant) {
            continue;
        }
        let text = fields.get(path).trim();
        let list = |items: Vec<&str>| (!items.is_empty()).then(|| json!(items));
        let value = match kind {
            Kind::Text => (!text.is_empty()).then(|| json!(text)),
            Kind::Lines => list(text.lines().map(str::trim).filter(|l| !l.is_empty()).collect()),
            Kind::Words => list(text.split_whitespace().collect()),
            Kind::Boxes => list(fields.all(path).collect()),
            Kind::Flag => fields.is_on(path).then_some(Value::Bool(true)),
        };
        put(object, path, value);
    }
    // A kind alone names no provider.
    if !at(object, "spec.providerRef.name").is_string() {
        put(object, "spec.providerRef", None);
    }
    for path in OPTIONAL {
        if at(object, path).as_object().is_some_and(Map::is_empty) {
            put(object, path, None);
        }
    }
}

/// An empty form.
pub async fn new(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let object = json!({
        "apiVersion": format!("{}/v1alpha1", names::GROUP),
        "kind": "ApplicationLink",
        "metadata": {"name": "", "namespace": app.cluster.namespace},
        "spec": {"application": {"name": ""}, "incoming": {"oauth2": {"grantTypes": ["authorization_code", "refresh_token"]}}},
    });
    show(&app, &object, None)
}

/// The form of a link that is there.
pub async fn edit(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    let base = Base::of(&link);
    let main = html! {
        (super::review::warnings(&link))
        (form(&app, &manifest(&link), Some(&base), &Row::of(&link).application)?)
    };
    Ok(view::page(&app, &format!("Edit {namespace}/{name}"), main))
}

/// The form once more, as it was sent on.
pub async fn again(State(app): State<Arc<App>>, fields: Fields) -> Result<Response, Problem> {
    let draft = Draft::read(&fields)?;
    show(&app, &draft.object, draft.base.as_ref())
}

fn show(app: &App, object: &Value, base: Option<&Base>) -> Result<Response, Problem> {
    let title = if base.is_some() { "Edit link" } else { "Create link" };
    let called = at(object, "spec.application.name").as_str().unwrap_or_default();
    Ok(view::page(app, title, form(app, object, base, called)?))
}

/// A field of text. The hint says what may stand there.
fn text(object: &Value, path: &str, label: &str, hint: &str) -> Markup {
    let value = match at(object, path) {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let about = (!hint.is_empty()).then(|| format!("{path}-hint"));
    html! {
        div.field {
            label for=(path) { (label) }
            input #(path) type="text" name=(path) value=(value) autocomplete="off" spellcheck="false" autocapitalize="none" aria-describedby=[about.as_deref()];
            @if let Some(about) = &about { p.hint #(about) { (hint) } }
        }
    }
}

fn select(name: &str, id: &str, label: &str, now: &str, options: &[(&str, &str)]) -> Markup {
    html! {
        div.field {
            label for=(id) { (label) }
            select #(id) name=(name) {
                @for (value, words) in options { option value=(value) selected[*value == now] { (words) } }
            }
        }
    }
}

/// The one key of an object.
fn key<'v>(object: &'v Value, path: &str, otherwise: &'v str) -> &'v str {
    at(object, path).as_object().and_then(|o| o.keys().next()).map_or(otherwise, String::as_str)
}

fn form(app: &App, object: &Value, base: Option<&Base>, called: &str) -> Result<Markup, Problem> {
    let is_edit = base.is_some();
    let (name, namespace) =
        (at(object, NAME).as_str().unwrap_or_default(), at(object, NAMESPACE).as_str().unwrap_or_default());
    let (incoming, outgoing) = (at(object, IN).is_object(), at(object, OUT).is_object());
    let cancel = if is_edit { view::href(namespace, name, "") } else { "/".to_owned() };
    Ok(html! {
        div.narrow {
            @if is_edit { (crumb(&cancel, called)) } @else { (crumb("/", "All links")) }
            div.title { div {
                h1 { @if is_edit { "Edit link" } @else { "Create link" } }
                p.muted { "Nothing is written yet: the next page shows the YAML" @if is_edit { " and the difference" } "." }
            } }
            form method="post" action="/review" {
                (token(app))
                @if let Some(base) = base { (base.fields()) }
                // What the form doesn't ask for is carried along.
                textarea name="base" hidden aria-label="The link as it was" { (to_yaml(object)?) }
                input type="hidden" name="form" value="yes";
                fieldset.card {
                    legend { "The application" }
                    (text(object, "spec.application.name", "Application", "As people call it."))
                    (text(object, "spec.application.url", "Its address (optional)", "Such as https://ci.example.com."))
                    @if is_edit {
                        input type="hidden" name=(NAME) value=(name);
                        input type="hidden" name=(NAMESPACE) value=(namespace);
                        p.hint { "The link is " code { (namespace) "/" (name) } "; name and namespace can't change." }
                    } @else {
                        div.pair {
                            (text(object, NAME, "Name of the link", "Lower case letters, digits and -."))
                            (text(object, NAMESPACE, "Namespace", ""))
                        }
                    }
                }
                fieldset.card {
                    legend { "Direction" }
                    label.choice { input #incoming type="checkbox" name=(IN) checked[incoming]; span { strong { "Incoming: " } "the application calls us. A client is registered for it." } }
                    label.choice { input #outgoing type="checkbox" name=(OUT) checked[outgoing]; span { strong { "Outgoing: " } "we call the application. An access token is kept fresh." } }
                }
                (incoming_fields(object))
                (outgoing_fields(object))
                fieldset.card {
                    legend { "Life" }
                    (select("spec.deletionPolicy", "deletion-policy", "When the link is deleted", at(object, "spec.deletionPolicy").as_str().unwrap_or("Delete"),
                        &[("Delete", "Unregister, revoke, and delete the Secrets"), ("Retain", "Leave everything as it is")]))
                    label.choice { input type="checkbox" name="spec.suspend" checked[at(object, "spec.suspend") == &Value::Bool(true)]; span { strong { "Suspend: " } "no refresh and no repair until this is taken off." } }
                }
                div.buttons {
                    button.primary type="submit" { "Review" }
                    a.button href=(cancel) { "Cancel" }
                }
            }
        }
    })
}

fn incoming_fields(object: &Value) -> Markup {
    let grants = "spec.incoming.oauth2.grantTypes";
    let lines = at(object, "spec.incoming.oauth2.redirectUris").as_array().cloned().unwrap_or_default();
    let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
    let uris = "spec.incoming.oauth2.redirectUris";
    html! {
        fieldset.card.if-incoming {
            legend { "Incoming" }
            fieldset {
                legend { "What the client may do" }
                @for (value, words) in GRANT_TYPES {
                    label.choice {
                        input type="checkbox" name=(grants) value=(value)
                            checked[at(object, grants).as_array().is_some_and(|a| a.iter().any(|g| g == value))];
                        span { (words) }
                    }
                }
            }
            div.field {
                label for=(uris) { "Redirect URIs" }
                textarea #(uris) name=(uris) rows="2" spellcheck="false" aria-describedby="uris-hint" { (lines.join("\n")) }
                p.hint #uris-hint { "One a line: where users are sent back to. Needed for the authorization code." }
            }
            (text(object, "spec.incoming.oauth2.scopes", "Scopes", "With blanks between, such as REPO_READ REPO_WRITE. Left out: none."))
            (select("spec.incoming.oauth2.tokenEndpointAuthMethod", "auth-method", "How the client authenticates",
                at(object, "spec.incoming.oauth2.tokenEndpointAuthMethod").as_str().unwrap_or("client_secret_basic"),
                &[("client_secret_basic", "Secret in the header (client_secret_basic)"), ("client_secret_post", "Secret in the body (client_secret_post)"), ("none", "No secret: a public client (none)")]))
            div.pair {
                (text(object, "spec.providerRef.name", "Provider", "Left out: the default one."))
                (select("spec.providerRef.kind", "provider-kind", "Kind of provider", at(object, "spec.providerRef.kind").as_str().unwrap_or("ClusterLinkProvider"),
                    &[("ClusterLinkProvider", "ClusterLinkProvider"), ("LinkProvider", "LinkProvider, of the namespace")]))
                (text(object, "spec.incoming.rotation.every", "New secret every", "Such as 30d. Left out: when it is asked for."))
                (text(object, "spec.incoming.rotation.overlap", "Old secret works on for", "Such as 24h."))
            }
            (text(object, "spec.incoming.secret.name", "Secret for the credentials", "Left out: NAME-oauth."))
        }
    }
}

fn outgoing_fields(object: &Value) -> Markup {
    let of = |rest: &str| format!("spec.outgoing.oauth2.{rest}");
    html! {
        fieldset.card.if-outgoing {
            legend { "Outgoing" }
            (select(SERVER, "server", "Authorization server", key(object, SERVER, "custom"), &SERVERS))
            div.if-server.microsoft { (text(object, &of("server.microsoft.tenant"), "Tenant", "Its ID or domain, or common, organizations or consumers.")) }
            div.if-server.github { (text(object, &of("server.github.url"), "GitHub's address", "Left out: github.com.")) }
            div.if-server.gitlab { (text(object, &of("server.gitlab.url"), "GitLab's address", "Left out: gitlab.com.")) }
            div.if-server.custom {
                (text(object, &of("server.custom.issuer"), "Issuer", "Its endpoints are discovered. Or leave it out and give the endpoints."))
                div.pair {
                    (text(object, &of("server.custom.tokenEndpoint"), "Token endpoint", ""))
                    (text(object, &of("server.custom.authorizationEndpoint"), "Authorization endpoint", ""))
                }
            }
            (select(GRANT, "grant", "Grant", key(object, GRANT, "authorizationCode"), &GRANTS))
            @for grant in ["refreshToken", "jwtBearer"] {
                @let what = if grant == "refreshToken" { "the refresh token" } else { "the key" };
                div.pair.if-grant.{ (grant) } {
                    (text(object, &of(&format!("grant.{grant}.secretRef.name")), &format!("Secret with {what}"), ""))
                    (text(object, &of(&format!("grant.{grant}.secretRef.key")), "Key in it", ""))
                }
            }
            div.pair {
                (text(object, &of("client.clientId"), "Client ID", "Left out: it stands in the Secret."))
                (text(object, &of("client.secretRef.name"), "Secret with our client", "Its keys client-id and client-secret."))
            }
            (select(&of("client.authMethod"), "client-auth", "How our client authenticates", at(object, &of("client.authMethod")).as_str().unwrap_or_default(),
                &[("", "As the server wants it"), ("client_secret_basic", "client_secret_basic"), ("client_secret_post", "client_secret_post"), ("private_key_jwt", "private_key_jwt"), ("none", "none: a public client")]))
            (text(object, &of("scopes"), "Scopes", "With blanks between. Left out: what the server gives unasked."))
            (text(object, "spec.outgoing.secret.name", "Secret for the access token", "Left out: NAME-token."))
            p.hint { (Text("Secrets are of the link's own namespace. This form never asks for a secret itself: put it into one with kubectl create secret.")) }
            p {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        Fields::of(pairs)
    }

    #[test]
    fn a_form_becomes_an_object_and_what_it_doesn_t_know_stays() {
        let mut object = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"application": {"name": "A"},
            "incoming": {"adopt": {"clientId": "c"}, "oauth2": {"scopes": ["OLD"], "redirectUris": ["https://a/"]},
                "secret": {"template": {".env": "x"}}, "rotation": {"every": "1h"}}}});
        overlay(
            &mut object,
            &fields(&[
                ("metadata.name", "a"),
                ("spec.application.name", " B "),
                ("spec.incoming", "on"),
                ("spec.incoming.oauth2.scopes", "READ  WRITE"),
                ("spec.incoming.oauth2.redirectUris", "https://b/\r\n\r\nhttps://c/\r\n"),
                ("spec.incoming.oauth2.grantTypes", "authorization_code"),
                ("spec.incoming.oauth2.grantTypes", "refresh_token"),
                ("spec.providerRef.kind", "ClusterLinkProvider"),
                ("spec.outgoing.secret.name", "not-chosen"),
            ]),
        );
        assert_eq!(
            object,
            json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"application": {"name": "B"}, "incoming": {
                "adopt": {"clientId": "c"}, "secret": {"template": {".env": "x"}},
                "oauth2": {"scopes": ["READ", "WRITE"], "redirectUris": ["https://b/", "https://c/"],
                    "grantTypes": ["authorization_code", "refresh_token"]}}}})
        );
    }

    #[test]
    fn a_server_and_a_grant_are_one_key_each() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"application": {"name": "A"}, "outgoing": {"oauth2": {
            "server": {"custom": {"issuer": "https://i"}}, "grant": {"authorizationCode": {"parameters": {"a": "b"}}}}}}});
        let mut sent = vec![
            ("metadata.name", "a"),
            ("spec.application.name", "A"),
            ("spec.outgoing", "on"),
            (SERVER, "gitlab"),
            ("spec.outgoing.oauth2.server.custom.issuer", "https://i"),
            ("spec.outgoing.oauth2.server.gitlab.url", "https://git.example.com"),
            (GRANT, "authorizationCode"),
            ("spec.outgoing.oauth2.client.secretRef.name", "client"),
        ];
        overlay(&mut object, &fields(&sent));
        assert_eq!(
            object["spec"]["outgoing"]["oauth2"],
            json!({"server": {"gitlab": {"url": "https://git.example.com"}}, "grant": {"authorizationCode": {"parameters": {"a": "b"}}},
                "client": {"secretRef": {"name": "client"}}})
        );
        // A part that is taken off goes whole.
        sent.retain(|(path, _)| *path != "spec.outgoing");
        overlay(&mut object, &fields(&sent));
        assert_eq!(object["spec"], json!({"application": {"name": "A"}}));
    }
}
