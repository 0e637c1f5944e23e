//! A release of the chart: installed by the real Helm, and the Pods that its workloads lead to, ready to be run.

use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt};
use serde_json::Value;

use super::plane::ControlPlane;
use super::pod::Pod;
use super::programs::Output;
use super::wait::{SOON, eventually};

const REVISION: &str = "deployment.kubernetes.io/revision";

pub struct Release<'p> {
    plane: &'p ControlPlane,
    chart: PathBuf,
    name: String,
    namespace: String,
}

impl<'p> Release<'p> {
    /// Installs this project's chart into a namespace (which is made if need be).
    ///
    /// # Panics
    /// When Helm refuses: with what it said.
    pub async fn install(plane: &'p ControlPlane, name: &str, namespace: &str, values: &Value) -> Self {
        let release = Self::of(plane, &chart(), name, namespace);
        release.try_install(values).await.ok();
        release
    }

    /// A release that isn't installed yet, of any chart.
    pub fn of(plane: &'p ControlPlane, chart: &Path, name: &str, namespace: &str) -> Self {
        Self { plane, chart: chart.to_owned(), name: name.to_owned(), namespace: namespace.to_owned() }
    }

    /// `helm install`, whatever comes of it.
    pub async fn try_install(&self, values: &Value) -> Output {
        self.helm(&["install", "--create-namespace"], Some(values)).await
    }

    /// `helm upgrade` with these values and no others.
    pub async fn upgrade(&self, values: &Value) -> Output {
        self.helm(&["upgrade", "--reset-values"], Some(values)).await
    }

    pub async fn uninstall(&self) -> Output {
        self.helm(&["uninstall"], None).await
    }

    async fn helm(&self, verb: &[&str], values: Option<&Value>) -> Output {
        let chart = self.chart.to_string_lossy();
        let file = format!("values-{}-{}.json", self.namespace, self.name);
        let file = values.map(|values| self.plane.run_dir().write(file, values.to_string()));
        let file = file.as_ref().map(|file| file.to_string_lossy());
        let mut args = verb.to_vec();
        args.extend([self.name.as_str(), "--namespace", &self.namespace]);
        if let Some(file) = &file {
            args.extend([chart.as_ref(), "--values", file.as_ref()]);
        }
        self.plane.helm(&args).await
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Pods of a Deployment, not started yet, with `binary` in the place of the image. Waits until the control
    /// plane has made them.
    ///
    /// # Panics
    /// When there is no such Deployment, or its Pods don't come (they may be forbidden).
    pub async fn deployment_pods(&self, name: &str, binary: &Path) -> Vec<Pod<'p>> {
        let deployments: Api<Deployment> = self.api();
        let replica_sets: Api<ReplicaSet> = self.api();
        let what = format!("the Pods of Deployment {}/{name}", self.namespace);
        let pods = eventually(SOON, what, async || {
            let deployment = deployments.get(name).await.map_err(|error| error.to_string())?;
            let all = replica_sets.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            let revision_of = |set: &ReplicaSet| {
                let revision =
                    set.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
                revision.and_then(|revision| revision.parse::<u64>().ok()).unwrap_or_default()
            };
            let own = all.items.into_iter().filter(|set| is_owned(set, deployment.metadata.uid.as_deref()));
            let newest = own.max_by_key(revision_of).ok_or("no ReplicaSet yet")?;
            let generation = deployment.status.and_then(|status| status.observed_generation);
            if generation < deployment.metadata.generation {
                return Err("the Deployment's controller hasn't seen its last change".to_owned());
            }
            let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let why = newest.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let why = why.filter_map(|condition| condition.message.clone()).collect::<Vec<_>>().join("; ");
            self.owned_pods(newest.metadata.uid.as_deref(), wanted)
                .await
                .map_err(|error| format!("{error} {why}"))
        })
        .await;
        pods.into_iter().map(|pod| Pod::new(self.plane, pod, binary)).collect()
    }

    /// The only Pod of a Deployment.
    ///
    /// # Panics
    /// As [`Self::deployment_pods`], or when it has several.
    pub async fn deployment_pod(&self, name: &str, binary: &Path) -> Pod<'p> {
        only(self.deployment_pods(name, binary).await)
    }

    /// The Pods of a StatefulSet, as [`Self::deployment_pods`].
    ///
    /// # Panics
    /// When there is no such StatefulSet, or its Pods don't come.
    pub async fn stateful_set_pods(&self, name: &str, binary: &Path) -> Vec<Pod<'p>> {
        let sets: Api<StatefulSet> = self.api();
        let what = format!("the Pods of StatefulSet {}/{name}", self.namespace);
        let pods = eventually(SOON, what, async || {
            let set = sets.get(name).await.map_err(|error| error.to_string())?;
            let wanted = set.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let status = set.status.ok_or("no status yet")?;
            if status.observed_generation < set.metadata.generation {
                return Err("the StatefulSet's controller hasn't seen its last change".to_owned());
            }
            let pods = self.owned_pods(set.metadata.uid.as_deref(), wanted).await?;
            let revision = status.update_revision;
            let is_new = |pod: &PodObject| {
                let labels = pod.metadata.labels.as_ref();
                labels.and_then(|labels| labels.get("controller-revision-hash")) == revision.as_ref()
            };
            if pods.iter().all(is_new) {
                Ok(pods)
            } else {
                Err("a Pod is still of an older revision".to_owned())
            }
        })
        .await;
        pods.into_iter().map(|pod| Pod::new(self.plane, pod, binary)).collect()
    }

    /// The only Pod of a StatefulSet.
    ///
    /// # Panics
    /// As [`Self::stateful_set_pods`], or when it has several.
    pub async fn stateful_set_pod(&self, name: &str, binary: &Path) -> Pod<'p> {
        only(self.stateful_set_pods(name, binary).await)
    }

    async fn owned_pods(&self, owner: Option<&str>, wanted: i32) -> Result<Vec<PodObject>, String> {
        let pods: Api<PodObject> = self.api();
        let mut pods = pods.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && is_owned(pod, owner));
        pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        if usize::try_from(wanted) == Ok(pods.len()) {
            Ok(pods)
        } else {
            Err(format!("there are {} of {wanted} Pods.", pods.len()))
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.plane.client(), &self.namespace)
    }
}

/// This project's chart.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/applink-operator")
}

fn is_owned<K: Resource>(object: &K, owner: Option<&str>) -> bool {
    object.owner_references().iter().any(|reference| Some(reference.uid.as_str()) == owner)
}

fn only(mut pods: Vec<Pod<'_>>) -> Pod<'_> {
    assert_eq!(pods.len(), 1, "one Pod");
    pods.remove(0)
}
