//! What is counted, under the names that controllers use. Of each link there are only the two series
//! that people alert on, when its token ends and when its refresh is due, and they can be turned off:
//! ten thousand links are ten thousand series of each. All else has a bounded set of labels.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};

/// Which controller.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByController {
    /// `applicationlink` or `linkprovider`.
    pub controller: &'static str,
}

/// Which controller, and how a pass ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByResult {
    /// `applicationlink` or `linkprovider`.
    pub controller: &'static str,
    /// `success`, `error` or `requeue_after`.
    pub result: &'static str,
}

/// Why.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByReason {
    /// A condition's reason.
    pub reason: &'static str,
}

/// Which effect.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByEffect {
    /// The effect's name.
    pub effect: &'static str,
}

/// What a token endpoint answered: `success`, or the reason that a condition shows.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByAnswer {
    /// The answer.
    pub result: &'static str,
}

/// A link.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByLink {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Where, and why.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByNamespace {
    /// The namespace.
    pub namespace: String,
    /// The reason of the links' Ready condition.
    pub reason: String,
}

/// Which provider.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByProvider {
    /// `ClusterLinkProvider` or `LinkProvider`.
    pub kind: &'static str,
    /// Its namespace; empty for a `ClusterLinkProvider`.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// All that is counted.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// Passes by result.
    pub reconciles: Family<ByResult, Counter>,
    /// Passes that found a problem.
    pub errors: Family<ByController, Counter>,
    /// How long passes take, in seconds.
    pub seconds: Family<ByController, Histogram>,
    /// Keys that are due and wait.
    pub depth: Family<ByController, Gauge>,
    /// Links whose token request waits for its turn at the host.
    pub in_line: Family<ByController, Gauge>,
    /// Keys that are being worked on.
    pub active: Family<ByController, Gauge>,
    /// Links that are Ready.
    pub ready: Gauge,
    /// Links that there are.
    pub links: Gauge,
    /// Passes that ended with a problem, by its reason.
    pub problems: Family<ByReason, Counter>,
    /// Effects that were done.
    pub effects: Family<ByEffect, Counter>,
    /// Whether this instance is the one at work.
    pub leading: Gauge,
    /// Links that aren't Ready.
    pub not_ready: Family<ByNamespace, Gauge>,
    /// Token requests by what came of them.
    pub token_requests: Family<ByAnswer, Counter>,
    /// How long after it was due a token was refreshed, in seconds.
    pub lateness: Histogram,
    /// Clients whose link is gone, at the last look.
    pub orphans: Family<ByProvider, Gauge>,
    /// Those of them that were unregistered without a person.
    pub orphans_unregistered: Counter,
    /// When the tokens in the Secrets end, in seconds since 1970.
    pub expiration: Family<ByLink, Gauge>,
    /// When their refreshes are due, in seconds since 1970.
    pub refresh_due: Family<ByLink, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.005, 2.0, 13));
        let m = Self {
            registry: Arc::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            depth: Family::default(),
            in_line: Family::default(),
            active: Family::default(),
            ready: Gauge::default(),
            links: Gauge::default(),
            problems: Family::default(),
            effects: Family::default(),
            leading: Gauge::default(),
            not_ready: Family::default(),
            token_requests: Family::default(),
            lateness: Histogram::new(exponential_buckets(0.1, 3.0, 10)),
            orphans: Family::default(),
            orphans_unregistered: Counter::default(),
            expiration: Family::default(),
            refresh_due: Family::default(),
        };
        {
            let mut r = m.registry.lock().unwrap_or_else(PoisonError::into_inner);
            r.register(
                "controller_runtime_reconcile",
                "Passes by controller and result",
                m.reconciles.clone(),
            );
            r.register(
                "controller_runtime_reconcile_errors",
                "Passes that found a problem",
                m.errors.clone(),
            );
            r.register(
                "controller_runtime_reconcile_time_seconds",
                "How long passes take",
                m.seconds.clone(),
            );
            r.register("workqueue_depth", "Objects that are due and wait", m.depth.clone());
            r.register(
                "controller_runtime_active_workers",
                "Objects that are being worked on",
                m.active.clone(),
            );
            r.register("applink_links_ready", "Links that are Ready", m.ready.clone());
            r.register("applink_links", "Links that there are", m.links.clone());
            r.register("applink_problems", "Passes that ended with a problem, by reason", m.problems.clone());
            r.register("applink_effects", "Effects that were done", m.effects.clone());
            r.register("applink_leading", "Whether this instance is the one at work", m.leading.clone());
            r.register(
                "applink_links_not_ready",
                "Links that aren't Ready, by namespace and reason",
                m.not_ready.clone(),
            );
            r.register(
                "applink_token_requests",
                "Token requests by what came of them: success, or the condition's reason",
                m.token_requests.clone(),
            );
            r.register(
                "applink_token_requests_waiting",
                "Links whose token request waits for its turn at the host",
                m.in_line.clone(),
            );
            r.register(
                "applink_token_refresh_lateness_seconds",
                "How long after it was due a token was refreshed",
                m.lateness.clone(),
            );
            r.register(
                "applink_orphans",
                "Clients whose link is gone without unregistering them, by provider",
                m.orphans.clone(),
            );
            r.register(
                "applink_orphans_unregistered",
                "Such clients that were unregistered after a while",
                m.orphans_unregistered.clone(),
            );
            r.register(
                "applink_token_expiration_timestamp_seconds",
                "When the token in a link's Secret ends, in seconds since 1970",
                m.expiration.clone(),
            );
            r.register(
                "applink_token_refresh_timestamp_seconds",
                "When the refresh of a link's token is due, in seconds since 1970",
                m.refresh_due.clone(),
            );
        }
        m
    }
}

impl Metrics {
    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a String can't fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &registry);
        out
    }
}
