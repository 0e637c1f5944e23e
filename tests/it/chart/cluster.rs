//! Releases and examples on a real API server: they come and go, and the links stay.

use super::*;

/// Each example file.
fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let files = std::fs::read_dir(&folder).expect("deploy/examples").map(|file| file.expect("a file").path());
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|ending| ending == "yaml")).collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    files
}

/// All the rest of this file that needs CRDs of its own, or that removes them: one private control plane.
#[tokio::test]
async fn a_release_comes_and_goes_and_the_links_stay() {
    let plane = ControlPlane::start(Options::default()).await;
    let release = Release::install(&plane, "applink", "applink-system", &json!({})).await;
    for crd in ["applicationlinks", "linkproviders", "clusterlinkproviders"] {
        let crd = format!("crd/{crd}.applink-operator.io");
        plane.kubectl(&["wait", &crd, "--for=condition=Established", "--timeout=180s"]).await.ok();
        // The control plane has nothing to say against their schemas.
        let conditions = plane
            .kubectl(&[
                "get",
                &crd,
                "-o=jsonpath={.status.conditions[?(@.type=='NonStructuralSchema')].message}",
            ])
            .await;
        assert_eq!(conditions.ok(), "");
    }
    everybody_may_do_what_their_role_says(&plane).await;
    let applied = apply_examples(&plane).await;

    // The claim is made by the set, and is nobody's when the release goes.
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(plane.client(), release.namespace());
    eventually(SOON, "the provider's claim", async || {
        Some(claims.list(&ListParams::default()).await.ok()?.items.len()).filter(|claims| *claims == 1)
    })
    .await;

    // An upgrade changes whatever may change.
    let mut values = everything();
    values["provider"]["persistence"] = json!({});
    values["serviceMonitor"] = json!({});
    let notes = release.upgrade(&values).await.ok();
    assert!(notes.contains("NetworkPolicies are on") && notes.contains("networkPolicy.adminFrom"), "{notes}");
    release.upgrade(&json!({"watchNamespaces": [applied.namespace]})).await.ok();

    release.uninstall().await.ok();
    let left = plane
        .kubectl(&["get", "applicationlinks,linkproviders", "-n", &applied.namespace, "-o=name"])
        .await
        .ok();
    assert_eq!(left.lines().count(), applied.objects, "{left}");
    assert_eq!(claims.list(&ListParams::default()).await.expect("claims").items.len(), 1);
    let system = plane
        .kubectl(&[
            "get",
            "all,roles,rolebindings,configmaps",
            "-n",
            "applink-system",
            "-l=app.kubernetes.io/managed-by=Helm",
            "-o=name",
        ])
        .await;
    assert_eq!(system.ok(), "");

    // The same release again, over the CRDs that stayed.
    release.try_install(&json!({})).await.ok();
    let again = plane
        .kubectl(&["get", "applicationlinks,linkproviders", "-n", &applied.namespace, "-o=name"])
        .await
        .ok();
    assert_eq!(again, left);
    // A second one leaves the CRDs to the first.
    let second = Release::of(&plane, &chart(), "second", "applink-second");
    let values = json!({"crds": {"enabled": false}, "provider": {"name": "second", "default": false}});
    second.try_install(&values).await.ok();
}

/// What is in a cluster does its work again after the release was gone; meanwhile nobody changed a thing.
#[tokio::test(flavor = "multi_thread")]
async fn uninstall_and_reinstall_lose_no_link_and_no_client() {
    let plane = ControlPlane::start(Options::default()).await;
    let binary = Path::new(env!("CARGO_BIN_EXE_applink"));
    // As the chart is by default: other tests watch namespaces of their own.
    let mut stage = Stage::set(&plane, binary, 1, json!({"watchNamespaces": []})).await;
    helm_test(&stage, true).await;
    let team = stage.team().to_owned();
    let link = json!({
        "apiVersion": "applink-operator.io/v1alpha1",
        "kind": "ApplicationLink",
        "metadata": {"name": "mirror"},
        "spec": {"application": {"name": "Mirror"}, "incoming": {"oauth2": {"scopes": ["REPO_READ"]}}},
    });
    stage.apply_object(&team, &link).await;
    let before = stage.ready(&team, "mirror").await;
    let data = stage.data(&team, "mirror-oauth").await;

    nothing_was_refused(&stage, Mark::default()).await;
    // Without its rights it loses its lease.
    stage.operator.may_exit();
    stage.release.uninstall().await.ok();
    stage.operator.stop().await;
    stage.provider.stop().await;
    helm_test(&stage, false).await;
    assert_eq!(stage.links(&team).get("mirror").await.expect("the link").metadata.uid, before.metadata.uid);

    stage.release.try_install(stage.values()).await.ok();
    let installed = plane.audit_mark().await;
    stage.operator = stage.release.deployment_pod("applink-operator", binary).await;
    stage.provider = stage.release.stateful_set_pod("applink-operator-provider", binary).await;
    stage.start().await;
    helm_test(&stage, true).await;
    let after = stage.ready(&team, "mirror").await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(stage.data(&team, "mirror-oauth").await, data);
    assert_eq!(stage.clients().await, [data["client-id"].clone()]);
    let (status, reply) = stage.token(&data["client-id"], &data["client-secret"], None).await;
    assert_eq!(status, 200, "{reply}");
    stage.delete(&team, "mirror").await;
    nothing_was_refused(&stage, installed).await;
}

/// Whether the operator has all the rights that it used.
async fn nothing_was_refused(stage: &Stage<'_>, since: Mark) {
    let (namespace, name) = (stage.release.namespace(), stage.release.name());
    let refused =
        stage.plane.audit_since(since, |event| event.is_forbidden() && event.is_by(namespace, name)).await;
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Runs the Pods of `helm test`: each must end well, or each badly.
async fn helm_test(stage: &Stage<'_>, well: bool) {
    let (name, namespace) = (stage.release.name(), stage.release.namespace());
    let file = stage.plane.run_dir().write(format!("helm-test-{namespace}.json"), stage.values().to_string());
    let (chart, file) = (chart(), file.to_string_lossy().into_owned());
    let args = ["template", name, &chart.to_string_lossy(), "--namespace", namespace, "--values", &file];
    let objects = documents(&stage.plane.helm(&args).await.ok());
    let pods = of_kind(&objects, "Pod");
    assert_eq!(pods.len(), 2);
    for pod in pods {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_applink"));
        for arg in pod["spec"]["containers"][0]["args"].as_array().expect("arguments") {
            // There is neither DNS nor a Service's address here: the Pod behind it listens on the loopback address.
            let arg = arg.as_str().expect("an argument");
            command.arg(arg.replace(&format!("http://{name}.{namespace}.svc:"), "http://127.0.0.1:"));
        }
        let output = run(command).await;
        assert_eq!(output.is_ok(), well, "{output:?}");
    }
}

struct Applied {
    namespace: String,
    /// Links and namespaced providers.
    objects: usize,
}

/// Applies every example, as its own comment says: into a namespace of the user's choice.
async fn apply_examples(plane: &ControlPlane) -> Applied {
    let namespace = plane.namespace("examples").await;
    let mut objects = 0;
    for file in examples() {
        let text = std::fs::read_to_string(&file).expect("an example");
        for object in documents(&text) {
            assert!(object["metadata"].get("namespace").is_none(), "{}: {}", file.display(), name(&object));
            objects += usize::from(["ApplicationLink", "LinkProvider"].contains(&kind(&object)));
            if kind(&object) == "Secret" {
                let placeholders = object["stringData"].as_object().expect("stringData").values();
                assert!(placeholders.into_iter().all(|value| value == "REPLACE-ME"), "{}", file.display());
            }
        }
        let file = file.to_string_lossy();
        let apply = ["apply", "--server-side", "--validate=strict", "-n", &namespace, "-f", &file];
        plane.kubectl(&[&apply[..], &["--dry-run=server"]].concat()).await.ok();
        plane.kubectl(&apply).await.ok();
    }
    Applied { namespace, objects }
}

/// What somebody with one of the cluster's own roles may do with links, once Kubernetes has joined our rules to it.
async fn everybody_may_do_what_their_role_says(plane: &ControlPlane) {
    let namespace = plane.namespace("people").await;
    for role in ["view", "edit", "admin"] {
        let (role_flag, user) = (format!("--clusterrole={role}"), format!("--user={role}-user"));
        plane.kubectl(&["create", "rolebinding", role, &role_flag, &user, "-n", &namespace]).await.ok();
    }
    let can = async |user: &str, verb: &str, what: &str| {
        let user = format!("--as={user}-user");
        let (what, part) = what.split_once('/').unwrap_or((what, ""));
        let part = format!("--subresource={part}");
        plane.kubectl(&["auth", "can-i", verb, what, &part, &user, "-n", &namespace]).await.is_ok()
    };
    eventually(SOON, "the rules to reach the cluster's roles", async || {
        can("view", "list", "applicationlinks").await && can("edit", "create", "linkproviders").await
    })
    .await;
    for (user, verb, what, may) in [
        ("view", "create", "applicationlinks", false),
        ("view", "get", "linkproviders", true),
        ("edit", "delete", "applicationlinks", true),
        ("edit", "patch", "applicationlinks/status", false),
        ("edit", "create", "clusterlinkproviders", false),
        ("admin", "update", "linkproviders", true),
        ("admin", "patch", "applicationlinks/status", false),
    ] {
        assert_eq!(can(user, verb, what).await, may, "{user} {verb} {what}");
    }
}
