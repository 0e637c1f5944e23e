//! What the API server was asked, by whom, and what it answered: its audit log.

use std::io::{Read, Seek, SeekFrom};

use serde::Deserialize;

use super::process::RunDir;

/// One request. A request that stays open (a watch) is told when its answer began, any other when it was answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    pub stage: String,
    pub verb: String,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub user: User,
    #[serde(default)]
    pub user_agent: String,
    #[serde(default)]
    pub object_ref: ObjectRef,
    #[serde(default)]
    pub response_status: ResponseStatus,
    pub request_received_timestamp: String,
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct User {
    #[serde(default)]
    pub username: String,
}

/// What was asked for; empty where it wasn't an object (`/version`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    pub api_group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResponseStatus {
    pub code: u16,
    pub reason: String,
    pub message: String,
}

impl AuditEvent {
    /// Whether it may have changed something.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// A lease that was renewed is no news.
    pub fn is_lease(&self) -> bool {
        self.object_ref.resource == "leases"
    }

    pub fn is_in(&self, namespace: &str) -> bool {
        self.object_ref.namespace == namespace
    }

    /// Whether a ServiceAccount asked.
    pub fn is_by(&self, namespace: &str, service_account: &str) -> bool {
        self.user.username == format!("system:serviceaccount:{namespace}:{service_account}")
    }

    /// 403: whoever asked lacks a permission.
    pub fn is_forbidden(&self) -> bool {
        self.response_status.code == 403
    }
}

/// A point of the log, to count from: what was answered before it is not seen again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark(u64);

pub(super) const LOG: &str = "audit.log";

/// Every request, without its content. A request is told once: a watch when it starts, the rest when they are answered.
/// The reads of the control plane's own parts are most of the traffic, and nobody asks for them.
pub(super) const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:apiserver"]}
- level: None
  users: ["system:kube-controller-manager"]
  verbs: [get, list, watch]
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
  verbs: [get, list, watch]
- {level: Metadata, verbs: [watch], omitStages: [ResponseComplete]}
- {level: None, nonResourceURLs: ["/readyz*", "/healthz*", "/livez*"]}
- {level: Metadata, omitStages: [ResponseStarted]}
"#;

/// The end of the log now.
pub(super) fn end(run: &RunDir) -> Mark {
    Mark(run.open(LOG).and_then(|log| log.metadata().ok()).map_or(0, |metadata| metadata.len()))
}

/// The whole lines after a mark.
pub(super) fn read(run: &RunDir, from: Mark) -> Vec<AuditEvent> {
    let mut text = String::new();
    if let Some(mut log) = run.open(LOG) {
        log.seek(SeekFrom::Start(from.0)).expect("the audit log can be read from the middle");
        log.read_to_string(&mut text).expect("the audit log is text");
    }
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("audit log: {error} in {line}")))
        .collect()
}
