//! Before anything is written: the YAML to commit, what the API server and the operator would refuse, what changes, and
//! who would undo it. The write itself sends what was shown, and only onto the link that it was shown for.

use super::App;
use super::form::overlay;
use super::gitops::keepers;
use super::link::{manifest, to_yaml};
use super::session::Fields;
use super::view::{self, Problem, Text, copy, crumb, href, is_name, link_of, token};
use crate::api::{ApplicationLink, names};
use crate::cli::cluster::{is_forbidden, why};
use crate::cli::lint::{self, yaml};
use crate::cli::plan::manifest::{Change, changes, create, three_way};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use kube::api::{Patch, PatchParams, PostParams, ValidationDirective};
use kube::{Api, ResourceExt as _};
use maud::{Markup, html};
use serde_json::{Value, json};
use std::sync::Arc;

/// Who the API server is told wrote it.
const MANAGER: &str = "applink-ui";
/// The operator writes to a link too; a write that crossed one of its is sent again so many times.
const TRIES: usize = 4;

/// Which link a draft changes, and how it was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    uid: String,
    /// The generation of its spec.
    generation: String,
}

impl Base {
    /// A link as it is.
    pub fn of(link: &ApplicationLink) -> Self {
        let generation = link.metadata.generation.unwrap_or_default().to_string();
        Self { uid: link.uid().unwrap_or_default(), generation }
    }

    /// The fields that carry it through the forms.
    pub fn fields(&self) -> Markup {
        html! {
            input type="hidden" name="uid" value=(self.uid);
            input type="hidden" name="generation" value=(self.generation);
        }
    }
}

/// A link that isn't written yet.
pub struct Draft {
    /// It.
    pub object: Value,
    /// What it changes; `None` where it is new.
    pub base: Option<Base>,
}

fn unreadable(text: impl Into<String>) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "The YAML can't be read",
        format!("{} Go back and mend it.", text.into()),
    )
}

impl Draft {
    /// Of a form, or of YAML that was changed by hand.
    pub fn read(fields: &Fields) -> Result<Self, Problem> {
        let is_form = fields.is_on("form");
        // Browsers send the lines of a field with carriage returns.
        let text = fields.get(if is_form { "base" } else { "yaml" }).replace("\r\n", "\n");
        let mut documents = yaml::read(&text).into_iter();
        let (Some(document), None) = (documents.next(), documents.next()) else {
            return Err(unreadable("It must be one document."));
        };
        let content = document.content.map_err(|e| unreadable(format!("Line {}: {}.", e.line, e.why)))?;
        let mut object = content.value;
        if !object.is_object() || !object["spec"].is_object() || !object["metadata"].is_object() {
            return Err(unreadable("It must be an ApplicationLink with metadata and spec."));
        }
        if is_form {
            overlay(&mut object, fields);
        }
        if object["kind"] != "ApplicationLink" || object["apiVersion"] != format!("{}/v1alpha1", names::GROUP)
        {
            return Err(unreadable(format!(
                "It must be of apiVersion {}/v1alpha1 and kind ApplicationLink.",
                names::GROUP
            )));
        }
        let base = (!fields.get("uid").is_empty()).then(|| Base {
            uid: fields.get("uid").to_owned(),
            generation: fields.get("generation").to_owned(),
        });
        Ok(Self { object, base })
    }

    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.object["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    /// The link that it changes, as it is now; `None` where it is new.
    async fn live(&self, app: &App) -> Result<Option<ApplicationLink>, Problem> {
        let Some(base) = &self.base else { return Ok(None) };
        let link = link_of(app, self.namespace(), self.name()).await?;
        if link.uid().as_ref() == Some(&base.uid) {
            return Ok(Some(link));
        }
        Err(Problem::new(
            StatusCode::CONFLICT,
            "That is another link now",
            "The link was deleted and made anew since you opened it. Nothing was changed.",
        ))
    }

    /// Sends it, or asks what would come of it.
    async fn send(
        &self,
        app: &App,
        live: Option<&ApplicationLink>,
        dry_run: bool,
    ) -> Result<ApplicationLink, kube::Error> {
        let client = app.cluster.client.clone();
        let Some(live) = live else {
            let params = PostParams { dry_run, field_manager: Some(MANAGER.into()) };
            return create(client, self.object.clone(), &params).await;
        };
        let api: Api<ApplicationLink> = Api::namespaced(client, self.namespace());
        // As kubectl edit does it: what went from the YAML is taken away, what isn't in it stays.
        let mut patch = three_way(&manifest(live), &self.object);
        patch["metadata"]["uid"] = json!(live.uid());
        patch["metadata"]["resourceVersion"] = json!(live.resource_version());
        let params = PatchParams {
            dry_run,
            field_manager: Some(MANAGER.into()),
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::default()
        };
        api.patch(self.name(), &params, &Patch::Merge(&patch)).await
    }
}

/// What is to be known before a link is changed here.
pub fn warnings(link: &ApplicationLink) -> Markup {
    html! {
        @for keeper in keepers(link) {
            div.note.wait.narrow role="alert" data-keeper=(keeper.tool) { p { (Text(&keeper.warning())) } }
        }
    }
}

/// What stands in the way.
struct Hindrance {
    field: String,
    text: String,
    way_out: Option<String>,
}

/// What the schema and the operator say of it.
fn faults(draft: &Draft) -> Result<Vec<Hindrance>, Problem> {
    let faults = lint::object(&draft.object).map_err(|e| Problem::tool("The link can't be checked", &e))?;
    let mut found: Vec<Hindrance> = faults
        .into_iter()
        .map(|f| Hindrance {
            text: f.value.map_or_else(|| f.message.clone(), |value| format!("{value}: {}", f.message)),
            field: f.field,
            way_out: f.way_out,
        })
        .collect();
    if draft.namespace().is_empty() {
        found.push(Hindrance {
            field: "metadata.namespace".into(),
            text: "must be given".into(),
            way_out: None,
        });
    }
    Ok(found)
}

/// The page before the write.
pub async fn page(State(app): State<Arc<App>>, fields: Fields) -> Result<Response, Problem> {
    let draft = Draft::read(&fields)?;
    show(&app, &draft, None).await
}

async fn show(app: &App, draft: &Draft, news: Option<&str>) -> Result<Response, Problem> {
    let mut hindrances = faults(draft)?;
    let nameable = is_name(draft.namespace()) && is_name(draft.name()) && !draft.name().is_empty();
    let live = if nameable { draft.live(app).await? } else { None };
    let sound = hindrances.is_empty();
    let mut differences = Vec::new();
    if hindrances.is_empty() {
        match draft.send(app, live.as_ref(), true).await {
            Ok(wanted) => differences = changes(live.as_ref(), &wanted),
            Err(e) => hindrances.push(hindrance(&e)),
        }
    }
    let is_edit = draft.base.is_some();
    let same = is_edit && hindrances.is_empty() && differences.is_empty();
    let text = to_yaml(&draft.object)?;
    // The next step speaks of the link as it was looked at now.
    let base = live.as_ref().map(Base::of).or_else(|| draft.base.clone());
    let carried = html! {
        (token(app))
        @if let Some(base) = &base { (base.fields()) }
    };
    let full = format!("{}/{}", draft.namespace(), draft.name());
    let main = html! {
        @if is_edit { (crumb(&href(draft.namespace(), draft.name(), ""), &full)) } @else { (crumb("/", "All links")) }
        div.title { div { h1 { @if is_edit { "Review the change" } @else { "Review the new link" } } p.muted { (Text(&full)) } } }
        @if let Some(news) = news { div.note.wait role="alert" { p { (news) } } }
        @if let Some(link) = &live { (warnings(link)) }
        @if !hindrances.is_empty() { (trouble(&hindrances)) }
        @if same { div.note role="status" { p { "Nothing would change." } } }
        @if is_edit && !differences.is_empty() { (difference(&differences)) }
        section.card aria-labelledby="yaml-title" {
            div.withcopy { h2 #yaml-title { @if sound { "The YAML to commit" } @else { "The YAML so far" } } (copy("yaml", "the YAML")) }
            pre #yaml tabindex="0" aria-label="YAML" { (text) }
        }
        div.card {
            div.buttons {
                @if hindrances.is_empty() && !same {
                    form method="post" action="/apply" {
                        (carried) textarea name="yaml" hidden aria-label="The YAML" { (text) }
                        button.primary #apply type="submit" { @if is_edit { "Apply the change" } @else { "Create the link" } }
                    }
                }
                form method="post" action="/form" {
                    (carried) textarea name="yaml" hidden aria-label="The YAML" { (text) }
                    button type="submit" { "Back to the form" }
                }
                a.button href="/" { "Cancel" }
            }
            @if hindrances.is_empty() && !same {
                p.hint { "Applied here it is written with your own rights. In a repository, Argo CD or Flux apply it." }
            }
        }
        details.card {
            summary { "Change the YAML by hand" }
            form method="post" action="/review" {
                (carried)
                div.field {
                    label for="by-hand" { "YAML" }
                    textarea #by-hand name="yaml" rows="16" spellcheck="false" { (text) }
                }
                button type="submit" { "Review again" }
            }
        }
    };
    Ok(view::page(app, "Review", main))
}

fn hindrance(e: &kube::Error) -> Hindrance {
    let text = match e {
        kube::Error::Api(s) if s.code == 409 && s.reason == "AlreadyExists" => {
            "a link of this name is there already; edit it, or choose another name".to_owned()
        }
        e => why(e),
    };
    let way_out = is_forbidden(e).then(|| {
        "The YAML below is right as far as can be seen from here: commit it, or give it to somebody who may apply it.".to_owned()
    });
    Hindrance { field: String::new(), text, way_out }
}

fn trouble(found: &[Hindrance]) -> Markup {
    html! {
        div.note.bad #trouble role="alert" {
            h2 { "This can't be applied" }
            ul {
                @for h in found {
                    li {
                        @if !h.field.is_empty() { code { (Text(&h.field)) } ": " }
                        (Text(&h.text))
                        @if let Some(way_out) = &h.way_out { br; span.muted { (Text(way_out)) } }
                    }
                }
            }
        }
    }
}

/// What goes and what comes: of lists the items, else the whole value.
fn gone_and_new(change: &Change) -> (Vec<String>, Vec<String>) {
    let items = |value: &Option<Value>| match value {
        Some(Value::Array(items)) => items.clone(),
        Some(value) => vec![value.clone()],
        None => Vec::new(),
    };
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (from, to) = (items(&change.from), items(&change.to));
    let gone: Vec<String> = from.iter().filter(|v| !to.contains(v)).map(shown).collect();
    let new: Vec<String> = to.iter().filter(|v| !from.contains(v)).map(shown).collect();
    if gone.is_empty() && new.is_empty() {
        // The same items in another order.
        return (from.iter().map(shown).collect(), to.iter().map(shown).collect());
    }
    (gone, new)
}

fn difference(found: &[Change]) -> Markup {
    html! {
        section.card #difference aria-labelledby="difference-title" {
            h2 #difference-title { "What changes" }
            div.frame {
                table.difference.cards {
                    caption.hidden { "What changes" }
                    thead { tr { th scope="col" { "Field" } th scope="col" { "From and to" } } }
                    tbody {
                        @for change in found {
                            @let (gone, new) = gone_and_new(change);
                            tr {
                                td.first { strong { (Text(&change.path)) } }
                                td data-label="Change" { div {
                                    @for value in &gone { del { span.hidden { "from " } (Text(value)) } }
                                    @for value in &new { ins { span.hidden { "to " } (Text(value)) } }
                                } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Writes what was shown.
pub async fn apply(State(app): State<Arc<App>>, fields: Fields) -> Result<Response, Problem> {
    let draft = Draft::read(&fields)?;
    let (namespace, name) = (draft.namespace().to_owned(), draft.name().to_owned());
    if !is_name(&namespace) || !is_name(&name) {
        return show(&app, &draft, None).await;
    }
    for _ in 0..TRIES {
        let live = draft.live(&app).await?;
        if live.as_ref().is_some_and(|link| Some(Base::of(link)) != draft.base) {
            let news = "Somebody else changed the link since you looked. Nothing was written; this is the difference as it is now.";
            return show(&app, &draft, Some(news)).await;
        }
        match draft.send(&app, live.as_ref(), false).await {
            Ok(link) => {
                let done = if draft.base.is_some() { "changed" } else { "created" };
                app.live.learn(link);
                app.live.until(|live| live.knows(&namespace, &name)).await;
                return Ok(
                    Redirect::to(&format!("{}?done={done}", href(&namespace, &name, ""))).into_response()
                );
            }
            Err(kube::Error::Api(s)) if s.code == 409 && draft.base.is_some() => {}
            Err(_) => return show(&app, &draft, Some("It wasn't written.")).await,
        }
    }
    show(&app, &draft, Some("The link is being written to by others; nothing was changed. Try again.")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_sends_is_what_was_shown() {
        let object = json!({"apiVersion": format!("{}/v1alpha1", names::GROUP), "kind": "ApplicationLink",
            "metadata": {"name": "on", "namespace": "t"}, "spec": {"application": {"name": "1e3"}, "incoming": {
                "secret": {"template": {".env": "A={{ clientId }}\nB=\"x\"\n", "cr": "a\r\nb"}}}}});
        let sent = to_yaml(&object).expect("YAML").replace('\n', "\r\n");
        let draft = Draft::read(&Fields::of(&[("yaml", &sent)])).expect("a draft");
        assert_eq!((draft.object, draft.base), (object, None));
        for bad in ["", "a: 1\n---\nb: 2\n", "kind: Secret\nmetadata: {}\nspec: {}\n", "a: [", "- a"] {
            assert!(Draft::read(&Fields::of(&[("yaml", bad)])).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_a_list_only_what_goes_and_comes_is_shown() {
        let of =
            |from: Option<Value>, to: Option<Value>| gone_and_new(&Change { path: "p".into(), from, to });
        let texts = |items: &[&str]| items.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(of(Some(json!(["a", "b"])), Some(json!(["b", "c"]))), (texts(&["a"]), texts(&["c"])));
        assert_eq!(of(None, Some(json!(true))), (texts(&[]), texts(&["true"])));
        assert_eq!(
            of(Some(json!(["a", "b"])), Some(json!(["b", "a"]))),
            (texts(&["a", "b"]), texts(&["b", "a"]))
        );
    }
}
