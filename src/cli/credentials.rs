//! `applink credentials`: what stands in a link's Secret, for who may read it.

use super::cluster::{Cluster, ClusterArgs, failed, is_forbidden};
use super::links::{self, Readiness, owns};
use super::output::{Format, clean, complain, say};
use super::{Answer, ToolError};
use crate::api::ApplicationLink;
use crate::link::content::{INCOMING, OUTGOING, SecretGoal, Slot};
use crate::link::validate::validate;
use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _};
use serde_json::{Map, Value};

/// Flags of `applink credentials`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 printed, 1 the link has none yet, 2 wrong usage, no such link, or you may not read its Secret.
Fields of -o json and yaml: namespace, link, secret, ready, and of the incoming Secret clientId, clientSecret, issuerUri,
authorizationEndpoint, tokenEndpoint, tokenEndpointAuthMethod, type, provider; of the outgoing one accessToken, tokenType,
expiresAt, scope, type, provider. -o env has the same in capitals (CLIENT_ID), quoted for a shell.")]
pub struct CredentialsArgs {
    /// The link
    name: String,
    /// The access token of the outgoing part, where the link has an incoming part too
    #[arg(long)]
    outgoing: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// For programs
    Yaml,
    /// For shells: NAME='value'
    Env,
}

/// A link's own Secret.
pub struct Found {
    /// What the link wants it to be.
    pub goal: SecretGoal,
    /// It.
    pub secret: Secret,
}

impl Found {
    /// A value by what it is.
    pub fn value(&self, slot: Slot) -> Option<String> {
        let key = self.goal.keys.get(&slot).map_or_else(|| slot.default_key(), String::as_str);
        let bytes = self.secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok()
    }

    /// All values of one of the parts that are text, in the order that people read them.
    pub fn values(&self, outgoing: bool) -> Vec<(Slot, String)> {
        let slots = if outgoing { OUTGOING } else { INCOMING };
        slots.iter().filter_map(|slot| Some((*slot, self.value(*slot)?))).collect()
    }
}

/// Why there is no Secret of a link's to read.
#[derive(Debug)]
pub enum Missing {
    /// The link has no such part, or a spec that can't be acted on.
    NoPart(String),
    /// It isn't there.
    Absent(String),
    /// It is somebody else's.
    Foreign(String),
    /// We may not read it.
    Forbidden(String),
    /// The API server has another answer.
    Failed(ToolError),
}

/// Finds the Secret of one of a link's parts.
///
/// # Errors
/// [`Missing`].
pub async fn find(cluster: &Cluster, link: &ApplicationLink, outgoing: bool) -> Result<Found, Missing> {
    let namespace = link.namespace().unwrap_or_default();
    let part = if outgoing { "outgoing" } else { "incoming" };
    let valid =
        validate(link).map_err(|e| Missing::NoPart(format!("the link's spec can't be acted on: {e}")))?;
    let goal = if outgoing { valid.outgoing.map(|o| o.secret) } else { valid.incoming.map(|i| i.secret) };
    let goal = goal.ok_or_else(|| Missing::NoPart(format!("the link has no {part} part (spec.{part})")))?;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &namespace);
    let what = format!("Secret {namespace}/{}", goal.name);
    match secrets.get_opt(&goal.name).await {
        Ok(Some(secret)) if owns(link, &secret) => Ok(Found { goal, secret }),
        Ok(Some(_)) => {
            Err(Missing::Foreign(format!("{what} isn't this link's; its conditions say what to do")))
        }
        Ok(None) => Err(Missing::Absent(format!("{what} isn't there"))),
        Err(e) if is_forbidden(&e) => Err(Missing::Forbidden(format!(
            "{what}: you may not read it; ask for the verb get on secrets in namespace {namespace}"
        ))),
        Err(e) => Err(Missing::Failed(failed(what)(e))),
    }
}

/// Prints the credentials.
///
/// # Errors
/// [`ToolError`] where they can't be had.
pub async fn run(args: CredentialsArgs) -> Result<Answer, ToolError> {
    let cluster = args.cluster.connect().await?;
    let link = links::get(&cluster, &args.name).await?;
    let readiness = Readiness::of_link(&link);
    // A link of one part alone has one Secret.
    let outgoing = args.outgoing || (link.spec.incoming.is_none() && link.spec.outgoing.is_some());
    let found = match find(&cluster, &link, outgoing).await {
        Ok(found) => found,
        Err(Missing::Absent(what)) => {
            complain(&format!(
                "{what} yet; Ready is {} ({}): {}",
                readiness.ready, readiness.reason, readiness.message
            ));
            return Ok(Answer::No);
        }
        Err(Missing::Failed(e)) => return Err(e),
        Err(Missing::NoPart(why) | Missing::Foreign(why) | Missing::Forbidden(why)) => {
            return Err(ToolError::Precondition(why));
        }
    };
    let values = found.values(outgoing);
    match args.output {
        Output::Table => {
            let width = values.iter().map(|(s, _)| s.default_key().len()).max().unwrap_or_default();
            let lines = values.iter().map(|(s, v)| format!("{:<width$}   {}\n", s.default_key(), clean(v)));
            say(&lines.collect::<String>())?;
        }
        Output::Env => say(&values.iter().map(|(s, v)| env_line(*s, v)).collect::<String>())?,
        Output::Json | Output::Yaml => {
            let mut object = Map::new();
            object.insert("namespace".into(), link.namespace().into());
            object.insert("link".into(), link.name_any().into());
            object.insert("secret".into(), found.goal.name.clone().into());
            object.insert("ready".into(), readiness.is_ready().into());
            object.extend(values.iter().map(|(s, v)| (s.variable().to_owned(), Value::from(v.as_str()))));
            let format = if matches!(args.output, Output::Json) { Format::Json } else { Format::Yaml };
            format.print(&object)?;
        }
    }
    if !readiness.is_ready() {
        complain(&format!("warning: the link isn't ready ({}): {}", readiness.reason, readiness.message));
    }
    Ok(Answer::Yes)
}

fn env_line(slot: Slot, value: &str) -> String {
    let name = slot.default_key().to_uppercase().replace('-', "_");
    format!("{name}='{}'\n", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_can_t_leave_its_quotes() {
        assert_eq!(env_line(Slot::ClientSecret, "a'$(id)"), "CLIENT_SECRET='a'\\''$(id)'\n");
    }
}
