//! What is counted, under the names that controllers use. No label has a link's name in it: ten
//! thousand links would be ten thousand series.

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
            active: Family::default(),
            ready: Gauge::default(),
            links: Gauge::default(),
            problems: Family::default(),
            effects: Family::default(),
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
