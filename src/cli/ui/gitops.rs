//! Who else keeps a link: what its labels, annotations and field managers say. Pure.

use crate::api::ApplicationLink;
use crate::cli::plan::manifest::LAST_APPLIED;
use kube::ResourceExt as _;

/// Somebody who keeps a link by a file elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    /// The tool.
    pub tool: &'static str,
    /// What it calls its part, where that is known.
    pub part: Option<String>,
    /// Whether it undoes by itself what is changed in the cluster.
    pub undoes: bool,
}

/// Field managers by the beginning of their names.
const MANAGERS: &[(&str, &str)] = &[
    ("argocd", "Argo CD"),
    ("kustomize-controller", "Flux"),
    ("helm-controller", "Flux"),
    ("flux", "Flux"),
    ("helm", "Helm"),
    ("fleet", "Fleet"),
    ("configsync", "Config Sync"),
    ("config-sync", "Config Sync"),
    ("terraform", "Terraform"),
    ("pulumi", "Pulumi"),
];

/// Tools that look at the cluster again and again.
const LOOPS: &[&str] = &["Argo CD", "Flux", "Fleet", "Config Sync"];

/// Everybody who keeps this link, each tool once.
pub fn keepers(link: &ApplicationLink) -> Vec<Keeper> {
    let mut found: Vec<Keeper> = Vec::new();
    let mut add = |tool: &'static str, part: Option<String>| match found.iter_mut().find(|k| k.tool == tool) {
        Some(known) => known.part = known.part.take().or(part),
        None => found.push(Keeper { tool, part, undoes: LOOPS.contains(&tool) }),
    };
    let label = |key: &str| link.labels().get(key).filter(|v| !v.is_empty());
    let annotation = |key: &str| link.annotations().get(key).filter(|v| !v.is_empty());
    let full = |namespace: Option<&String>, name: &String| match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.clone(),
    };
    if let Some(id) = annotation("argocd.argoproj.io/tracking-id") {
        // APPLICATION:GROUP/KIND:NAMESPACE/NAME
        add("Argo CD", id.split(':').next().map(str::to_owned));
    }
    if let Some(name) = label("argocd.argoproj.io/instance") {
        add("Argo CD", Some(name.clone()));
    }
    for kind in ["kustomize", "helm"] {
        if let Some(name) = label(&format!("{kind}.toolkit.fluxcd.io/name")) {
            add("Flux", Some(full(label(&format!("{kind}.toolkit.fluxcd.io/namespace")), name)));
        }
    }
    if label("app.kubernetes.io/managed-by").is_some_and(|v| v == "Helm") {
        let release = annotation("meta.helm.sh/release-name");
        add("Helm", release.map(|name| full(annotation("meta.helm.sh/release-namespace"), name)));
    }
    for entry in link.metadata.managed_fields.iter().flatten() {
        let manager = entry.manager.as_deref().unwrap_or_default().to_lowercase();
        if let Some((_, tool)) = MANAGERS.iter().find(|(begin, _)| manager.starts_with(begin)) {
            add(tool, None);
        }
    }
    // Whoever applies anew puts back what is changed here, but only then.
    if annotation(LAST_APPLIED).is_some() && found.is_empty() {
        found.push(Keeper { tool: "kubectl apply", part: None, undoes: false });
    }
    found
}

impl Keeper {
    /// What that means for who changes the link here.
    pub fn warning(&self) -> String {
        let part = self.part.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
        let Self { tool, undoes, .. } = self;
        if *undoes {
            format!(
                "{tool}{part} keeps this link and will undo a change that is made here. Commit the YAML to its repository instead."
            )
        } else if *tool == "kubectl apply" {
            "This link was applied from a file. The next kubectl apply of that file undoes a change that is made here; change the file too.".to_owned()
        } else {
            format!(
                "{tool}{part} made this link, and its next run undoes a change that is made here. Change it there too."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(metadata: serde_json::Value) -> Vec<(&'static str, Option<String>, bool)> {
        let mut object = json!({"apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
            "metadata": {"name": "a"}, "spec": {"application": {"name": "A"}}});
        object["metadata"] = metadata;
        let link = serde_json::from_value(object).expect("a link");
        keepers(&link).into_iter().map(|k| (k.tool, k.part, k.undoes)).collect()
    }

    #[test]
    fn marks_name_the_keeper_and_its_part() {
        let some = |part: &str| Some(part.to_owned());
        let tracking = json!({"annotations": {"argocd.argoproj.io/tracking-id": "shop:applink-operator.io/ApplicationLink:team/a"}});
        assert_eq!(found(tracking), [("Argo CD", some("shop"), true)]);
        let flux = json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"},
            "managedFields": [{"manager": "kustomize-controller"}]});
        assert_eq!(found(flux), [("Flux", some("flux-system/apps"), true)]);
        let helm = json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": {"meta.helm.sh/release-name": "ci"}});
        assert_eq!(found(helm), [("Helm", some("ci"), false)]);
        let managers = json!({"managedFields": [{"manager": "argocd-controller"}, {"manager": "argocd-application-controller"},
            {"manager": "applink-operator"}, {"manager": "kubectl-edit"}]});
        assert_eq!(found(managers), [("Argo CD", None, true)]);
        let applied = json!({"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}});
        assert_eq!(found(applied), [("kubectl apply", None, false)]);
        assert_eq!(found(json!({"labels": {"app.kubernetes.io/managed-by": "someone"}})), []);
    }
}
