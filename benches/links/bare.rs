//! The bare client: writes what the operator writes, one link after another in each of its lanes, and decides nothing,
//! watches nothing and reads nothing.

use std::time::Instant;

use applink_operator::api::ApplicationLink;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::service::{BARE, Service};
use crate::support::plane::ControlPlane;
use crate::support::stage::unique;

/// A link of the operator's, and all that it wrote for it.
#[derive(Clone)]
pub struct Sample {
    pub spec: Value,
    pub finalizers: Value,
    pub annotations: Value,
    pub status: Value,
    pub secret: Value,
    pub event: Value,
    pub client_id: String,
}

/// Which writes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// The user's, which makes the link, and all of the operator's: finalizer and annotation, the client at the
    /// provider and its proof, the Secret, the status, the event.
    All,
    /// The least that a script could do: the link, the client without a proof, the Secret.
    Least,
}

pub struct Bare {
    client: kube::Client,
    namespace: String,
    sample: Sample,
    /// What registers a client like the sample's.
    like: Value,
}

impl Bare {
    pub async fn new(plane: &ControlPlane, namespace: String, sample: Sample, service: &Service) -> Self {
        let like = service.like(&sample.client_id).await;
        Self { client: plane.client(), namespace, sample, like }
    }

    /// Makes so many links; says how many a second.
    pub async fn run(&self, service: &Service, links: usize, concurrency: usize, writes: Writes) -> f64 {
        let started = Instant::now();
        futures::stream::iter(0..links)
            .for_each_concurrent(concurrency, |_| {
                self.link(service, format!("{BARE}{:06}", unique()), writes)
            })
            .await;
        links as f64 / started.elapsed().as_secs_f64()
    }

    async fn link(&self, service: &Service, name: String, writes: Writes) {
        let Self { sample, namespace, .. } = self;
        let links: Api<ApplicationLink> = Api::namespaced(self.client.clone(), namespace);
        let object = json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
            "metadata": {"name": name}, "spec": sample.spec,
        });
        let object = serde_json::from_value(object).expect("a link");
        let made = links.create(&PostParams::default(), &object).await.expect("the link");
        let uid = made.metadata.uid.unwrap_or_default();
        if writes == Writes::All {
            let metadata = json!({
                "finalizers": sample.finalizers, "annotations": sample.annotations,
                "resourceVersion": made.metadata.resource_version,
            });
            let patch = Patch::Merge(json!({ "metadata": metadata }));
            links.patch_metadata(&name, &PatchParams::default(), &patch).await.expect("the finalizer");
        }

        // As long as a derived one.
        let secret = format!("{name}-{:0>32}", unique());
        service.register(&self.like, &name, &secret).await;
        if writes == Writes::All {
            service.prove(&name, &secret).await;
        }

        let mut object = sample.secret.clone();
        object["metadata"]["name"] = json!(format!("{name}-oauth"));
        object["metadata"]["ownerReferences"][0]["name"] = json!(name);
        object["metadata"]["ownerReferences"][0]["uid"] = json!(uid);
        let object: Secret = serde_json::from_value(object).expect("a Secret");
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        secrets.create(&PostParams::default(), &object).await.expect("the Secret");

        if writes == Writes::All {
            let patch = Patch::Merge(json!({ "status": sample.status }));
            links.patch_status(&name, &PatchParams::default(), &patch).await.expect("the status");
            let mut event = sample.event.clone();
            event["metadata"] = json!({"name": format!("{name}.{:x}", unique()), "namespace": namespace});
            event["regarding"]["name"] = json!(name);
            event["regarding"]["namespace"] = json!(namespace);
            event["regarding"]["uid"] = json!(uid);
            let event: Event = serde_json::from_value(event).expect("an event");
            let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
            events.create(&PostParams::default(), &event).await.expect("the event");
        }
    }
}
