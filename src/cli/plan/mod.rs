//! `applink plan`: what manifests would change, in the cluster and at the provider, without a write.
//!
//! The API server says what would be stored (a dry run); then the operator's own `observe` and
//! `decide` say what would be done about it, with the user's rights. Nothing is executed.
//!
//! | file | what lives there |
//! |---|---|
//! | [`manifest`] | what the API server would store |
//! | [`words`] | a plan's effects as a person reads them |

pub(in crate::cli) mod manifest;
mod words;

use super::cluster::{Cluster, ClusterArgs, failed, list};
use super::house::{self, HouseArgs};
use super::links::Readiness;
use super::lint::files;
use super::output::{Colour, Format, Paint, clean, complain, say};
use super::{Answer, ToolError};
use crate::api::link::DeletionPolicy;
use crate::api::{ApplicationLink, names};
use crate::domain::Reason;
use crate::link::context::Context;
use crate::link::decide::{Goal, decide};
use crate::link::observe::{connection, observe};
use crate::link::problem::Problem;
use crate::link::validate::validate;
use clap::Args;
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use manifest::{Change, Manifest, Wanted};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use url::Url;

/// Flags of `applink plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is written: the API server is asked by a dry run, and the provider is only read from. What the operator would do at
the provider needs the platform team's rights (the Secrets of the operator's namespace); without them that part is left out,
and a link that stays as it is has what the operator last said of it.
Providers of other manifests are taken as they are in the cluster now.
Exit codes: 0 no difference, 1 an error, or a link that would not become Ready, 2 a difference.
Fields of -o json and yaml: differs, failed, links (namespace, name, file, action, checked, spec (path, from, to), looked,
notLooked, effects (effect, text), problems (reason, message)), unreadable.")]
pub struct PlanArgs {
    /// Files, folders, or - for standard input
    #[arg(required_unless_present = "all")]
    files: Vec<PathBuf>,
    /// Also the links of the namespace that stand in no file
    #[arg(long)]
    all: bool,
    /// Who applies the manifests, where that isn't kubectl apply
    #[arg(long, value_name = "NAME", default_value = "kubectl")]
    field_manager: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    house: HouseArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What would become of the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Action {
    Create,
    Change,
    None,
}

/// One thing that the operator would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    effect: &'static str,
    text: String,
}

/// What stands in the way.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trouble {
    reason: String,
    message: String,
}

impl Trouble {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

impl From<&Problem> for Trouble {
    fn from(p: &Problem) -> Self {
        Self::new(p.reason, p.message.clone())
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkPlan {
    namespace: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    action: Action,
    /// `server` or `locally`.
    checked: &'static str,
    spec: Vec<Change>,
    /// Whether it was looked at what the operator would do.
    looked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_looked: Option<String>,
    effects: Vec<Step>,
    problems: Vec<Trouble>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    differs: bool,
    failed: bool,
    links: Vec<LinkPlan>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<files::NotRead>,
}

/// Plans.
///
/// # Errors
/// [`ToolError`] where the cluster can't be asked.
pub async fn run(args: PlanArgs) -> Result<Answer, ToolError> {
    let cluster = args.cluster.connect().await?;
    let (mut manifests, unreadable) = manifest::read(&args.files, &cluster.namespace);
    if args.all {
        let api: Api<ApplicationLink> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let links =
            list(&api, &ListParams::default()).await.map_err(failed("the namespace's ApplicationLinks"))?;
        let known: BTreeSet<(String, String)> =
            manifests.iter().map(|m| (m.namespace.clone(), m.name.clone())).collect();
        let rest =
            links.into_iter().filter(|l| !known.contains(&(l.namespace().unwrap_or_default(), l.name_any())));
        manifests.extend(rest.map(Manifest::of_live));
    }
    let namespaces: BTreeSet<String> = manifests.iter().map(|m| m.namespace.clone()).collect();
    let mut eyes = eyes(&args, &cluster, &namespaces).await;
    let mut report = Report { unreadable, ..Report::default() };
    for manifest in &manifests {
        report.links.push(one(&args, &cluster, &mut eyes, manifest).await?);
    }
    report.failed = !report.unreadable.is_empty() || report.links.iter().any(|l| !l.problems.is_empty());
    report.differs = report.links.iter().any(|l| l.action != Action::None || !l.effects.is_empty());
    if !args.output.print(&report)? {
        say(&people(&report, Paint::detect()))?;
        for file in &report.unreadable {
            complain(&format!("error: {}: {}", file.file, file.why));
        }
    }
    Ok(match (report.failed, report.differs) {
        (true, _) => Answer::No,
        (false, true) => Answer::Differs,
        (false, false) => Answer::Yes,
    })
}

/// A context to look with; `Err` says why there is none.
async fn eyes(args: &PlanArgs, cluster: &Cluster, namespaces: &BTreeSet<String>) -> Result<Context, String> {
    let ctx = args.house.context(cluster).await.map_err(|e| e.to_string())?;
    house::keys(&ctx).await.map_err(|e| e.to_string())?;
    let said = |what: &'static str| move |e: kube::Error| format!("{what}: {}", super::cluster::why(&e));
    house::fill_providers(&ctx, namespaces).await.map_err(said("the providers"))?;
    let mut places = namespaces.clone();
    places.insert(ctx.namespace.clone());
    house::fill_own(&ctx, &places).await.map_err(said("the operator's Secrets"))?;
    Ok(ctx)
}

async fn one(
    args: &PlanArgs,
    cluster: &Cluster,
    eyes: &mut Result<Context, String>,
    manifest: &Manifest,
) -> Result<LinkPlan, ToolError> {
    let mut plan = LinkPlan {
        namespace: manifest.namespace.clone(),
        name: manifest.name.clone(),
        file: manifest.file.clone(),
        action: Action::None,
        checked: "server",
        spec: Vec::new(),
        looked: false,
        not_looked: None,
        effects: Vec::new(),
        problems: Vec::new(),
    };
    let Wanted { link, live, locally } = match manifest.wanted(cluster, &args.field_manager).await? {
        Ok(wanted) => wanted,
        Err(why) => {
            plan.problems.push(Trouble::new("Refused", why));
            return Ok(plan);
        }
    };
    if locally {
        plan.checked = "locally";
    }
    plan.spec = manifest::changes(live.as_ref(), &link);
    plan.action = match &live {
        None => Action::Create,
        Some(_) if plan.spec.is_empty() => Action::None,
        Some(_) => Action::Change,
    };
    let goal = match (link.metadata.deletion_timestamp.is_some(), validate(&link)) {
        (true, _) => Goal::Absent {
            retain: link.spec.deletion_policy == DeletionPolicy::Retain,
            force: link.annotations().get(names::FORCE_DELETE).is_some_and(|v| v == "true"),
        },
        (false, Ok(valid)) => Goal::Present(Box::new(valid)),
        (false, Err(e)) => {
            plan.problems.push(Trouble::new("InvalidSpec", e.to_string()));
            return Ok(plan);
        }
    };
    match eyes {
        Err(why) => plan.not_looked = Some(why.clone()),
        Ok(ctx) => {
            ctx.consent_url = live.as_ref().and_then(consent_url);
            look(ctx, &link, &goal, &mut plan).await?;
            // Only the operator knows its address; it says in the link's conditions that it has none.
            if !live.as_ref().is_some_and(has_no_consent) {
                plan.problems.retain(|p| p.reason != NO_CONSENT);
            }
        }
    }
    // What the operator said of a link that stays as it is holds for who may not look, too.
    if let (false, Action::None, Some(live)) = (plan.looked, plan.action, &live) {
        let said = Readiness::of_link(live);
        if !said.is_ready() {
            plan.problems.push(Trouble { reason: said.reason, message: said.message });
        }
    }
    Ok(plan)
}

const NO_CONSENT: &str = Reason::ConsentUnavailable.as_str();

/// Whether the operator said that nobody can consent to the link.
fn has_no_consent(live: &ApplicationLink) -> bool {
    live.status.iter().flat_map(|s| &s.conditions).any(|c| c.reason == NO_CONSENT)
}

/// The operator's public address, as the status of a link shows it: its page of consent stands below.
fn consent_url(live: &ApplicationLink) -> Option<Url> {
    let page = live.status.as_ref()?.outgoing.as_ref()?.consent_uri.as_deref()?;
    let below = format!("/authorize/{}/{}", live.namespace()?, live.name_any());
    Url::parse(page.strip_suffix(&below)?).ok()
}

/// Looks and decides as the operator does.
async fn look(
    ctx: &Context,
    link: &ApplicationLink,
    goal: &Goal,
    plan: &mut LinkPlan,
) -> Result<(), ToolError> {
    if let Some(why) = spent_by_looking(ctx, link).await? {
        plan.not_looked = Some(why);
        return Ok(());
    }
    let (seen, _) = observe(ctx, link, goal).await;
    let decision = decide(goal, &seen, Timestamp::now());
    plan.looked = true;
    plan.effects = words::steps(&decision.plan, &seen);
    let parts = decision.plan.incoming.iter().chain(&decision.plan.outgoing);
    let problems: Vec<&Problem> =
        parts.filter_map(|p| p.verdict.as_ref().err()).chain(&decision.plan.pending).collect();
    if problems.iter().any(|p| p.why == Reason::Forbidden) {
        // Our rights, not the operator's: nothing can be said of what it would do.
        plan.looked = false;
        plan.not_looked =
            Some("you may not read all that the operator reads; it needs the platform team's rights".into());
        plan.effects.clear();
        return Ok(());
    }
    plan.problems.extend(problems.into_iter().map(Trouble::from));
    Ok(())
}

/// At some services a look at a client makes the credential that we keep for it worthless, and its
/// successor would have to be written.
async fn spent_by_looking(ctx: &Context, link: &ApplicationLink) -> Result<Option<String>, ToolError> {
    let kept = ctx
        .kept_clients_of(link)
        .await
        .map_err(|p| house::refusal("the operator's record of the link", &p))?;
    let Some((kept, _)) = kept else { return Ok(None) };
    for (identity, client) in &kept.at {
        if client.handle.is_none() {
            continue;
        }
        let mut harmless = false;
        for view in ctx.providers() {
            let is = view.identity(false, "", &[]);
            if is.is_none_or(|is| is.own != *identity && (client.bound || is.service != *identity)) {
                continue;
            }
            // Asking who it is changes nothing there.
            if let Ok(connected) = connection(ctx, &view).await {
                harmless = connected.provider.capabilities().chooses_id;
            }
        }
        if !harmless {
            return Ok(Some(
                "not asked: at this kind of provider a look at the client renews the token that the operator keeps for it"
                    .into(),
            ));
        }
    }
    Ok(None)
}

fn people(report: &Report, paint: Paint) -> String {
    let mut out = String::new();
    for l in &report.links {
        let (sign, colour, what) = match (&l.action, l.effects.is_empty()) {
            (Action::Create, _) => ("+", Colour::Green, "is new"),
            (Action::Change, _) => ("~", Colour::Yellow, "changes"),
            (Action::None, false) => {
                ("~", Colour::Yellow, "is as it stands; what the operator would put right:")
            }
            (Action::None, true) if l.looked => ("=", Colour::Dim, "no difference"),
            (Action::None, true) => ("=", Colour::Dim, "is as it stands"),
        };
        let what =
            if l.problems.is_empty() || l.action != Action::None { what } else { "can't be as it should" };
        out.push_str(&format!(
            "{} ApplicationLink {}/{}  {what}\n",
            paint.paint(colour, sign),
            clean(&l.namespace),
            clean(&l.name)
        ));
        if l.checked == "locally" {
            out.push_str("    checked here alone: you may not ask the API server for a dry run\n");
        }
        // Of a new object the manifest itself says it all.
        if l.action == Action::Change {
            for c in &l.spec {
                out.push_str(&format!("    {}\n", clean(&c.text())));
            }
        }
        for s in &l.effects {
            out.push_str(&format!("    {} {}\n", paint.paint(Colour::Bold, "→"), clean(&s.text)));
        }
        if let Some(why) = &l.not_looked {
            out.push_str(&format!("    what the operator would do isn't known: {}\n", clean(why)));
        }
        for p in &l.problems {
            out.push_str(&format!(
                "    {} {}: {}\n",
                paint.paint(Colour::Red, "!"),
                clean(&p.reason),
                clean(&p.message)
            ));
        }
    }
    let count = |f: &dyn Fn(&LinkPlan) -> bool| report.links.iter().filter(|l| f(l)).count();
    out.push_str(&format!(
        "{} new, {} changed, {} to be put right, {} as they should be, {} not looked at, {} in trouble\n",
        count(&|l| l.action == Action::Create),
        count(&|l| l.action == Action::Change),
        count(&|l| l.action == Action::None && !l.effects.is_empty()),
        count(&|l| l.action == Action::None && l.looked && l.effects.is_empty() && l.problems.is_empty()),
        count(&|l| l.action == Action::None && !l.looked && l.problems.is_empty()),
        count(&|l| !l.problems.is_empty()),
    ));
    out
}
