//! The chart: what Helm makes of it, and what a real API server says to that. What becomes of releases and examples in a
//! cluster is in [`cluster`].

mod cluster;
mod network;

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::support::audit::Mark;
use crate::support::chart::{Release, chart};
use crate::support::pki::authority_pem;
use crate::support::plane::{ControlPlane, Options};
use crate::support::programs::{Output, run};
use crate::support::stage::Stage;
use crate::support::wait::{SOON, eventually};

/// `helm template` with these values; the release is called `r`, its namespace `ns`.
async fn try_template(plane: &ControlPlane, values: &Value) -> Output {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let file = format!("chart-values-{}.json", NEXT.fetch_add(1, Ordering::Relaxed));
    let file = plane.run_dir().write(file, values.to_string());
    let (chart, file) = (chart(), file.to_string_lossy().into_owned());
    plane.helm(&["template", "r", &chart.to_string_lossy(), "--namespace", "ns", "--values", &file]).await
}

/// The objects that `helm template` prints.
async fn template(plane: &ControlPlane, values: &Value) -> Vec<Value> {
    documents(&try_template(plane, values).await.ok())
}

fn documents(yaml: &str) -> Vec<Value> {
    use serde::Deserialize as _;
    let documents = serde_yaml::Deserializer::from_str(yaml);
    let documents = documents.map(|document| Value::deserialize(document).expect("YAML"));
    documents.filter(|document| !document.is_null()).collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn of_kind<'o>(objects: &'o [Value], wanted: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| kind(object) == wanted).collect()
}

/// The only object of a kind.
fn one<'o>(objects: &'o [Value], wanted: &str) -> &'o Value {
    let found = of_kind(objects, wanted);
    assert_eq!(found.len(), 1, "one {wanted}");
    found[0]
}

fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

/// Values that turn on all there is.
fn everything() -> Value {
    let component = json!({
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {},
        }],
        "priorityClassName": "system-cluster-critical",
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"example.com/pod": "label", "app.kubernetes.io/name": "mine"},
        "extraEnv": [{"name": "EXTRA", "value": "1"}],
        "extraArgs": ["--extra=1"],
        "service": {"annotations": {"example.com/c": "d"}},
    });
    let with = |more: Value| {
        let mut values = component.clone();
        for (key, value) in more.as_object().expect("values") {
            values[key] = value.clone();
        }
        values
    };
    json!({
        "commonLabels": {"example.com/team": "platform", "app.kubernetes.io/instance": "mine"},
        "imagePullSecrets": [{"name": "registry"}],
        "image": {"digest": format!("sha256:{}", "0".repeat(64))},
        "bindAddress": "::",
        "outbound": {"allow": ["127.0.0.0/8", "http://*.internal:8080"], "requireAllowedHosts": true, "caBundle": authority_pem()},
        "operator": with(json!({"replicas": 2, "podDisruptionBudget": {"enabled": true}})),
        "provider": with(json!({
            "url": "https://oauth.example.com/sub",
            "scopes": ["A", "B:c/d"],
            "allow": {"namespaces": {"matchLabels": {"a": "b"}}, "scopes": ["A"], "redirectHosts": ["*.example.com"]},
            "persistence": {"storageClassName": "fast"},
            "registration": {"enabled": true},
            "trustedProxies": ["10.244.0.0/16"],
        })),
        "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "adminFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "metricsFrom": [{"ipBlock": {"cidr": "10.1.0.0/16"}}],
        },
    })
}

#[tokio::test]
async fn helm_lint_has_nothing_to_say() {
    let plane = ControlPlane::shared().await;
    let chart = chart();
    let said = plane.helm(&["lint", "--strict", "--quiet", &chart.to_string_lossy()]).await.ok();
    assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
}

#[tokio::test]
async fn the_same_values_give_the_same_bytes() {
    let plane = ControlPlane::shared().await;
    for values in [json!({}), everything(), json!({"watchNamespaces": ["b", "a"]})] {
        let first = try_template(plane, &values).await.ok();
        assert_eq!(first, try_template(plane, &values).await.ok());
        // What is random or remembered is made by the operator, never here.
        let objects = documents(&first);
        assert!(of_kind(&objects, "Secret").is_empty());
        assert!(of_kind(&objects, "ClusterLinkProvider").is_empty());
    }
}

#[tokio::test]
async fn values_that_do_nothing_are_refused() {
    let plane = ControlPlane::shared().await;
    let cases = [
        (json!({"replicas": 2}), "replicas"),
        (json!({"operator": {"replicaCount": 2}}), "replicaCount"),
        (json!({"operator": {"service": {"type": "NodePort"}}}), "type"),
        (json!({"operator": {"resources": {"request": {}}}}), "request"),
        (json!({"provider": {"persistence": {"enabled": false}}}), "enabled"),
        (json!({"provider": {"registration": {"enabled": "yes"}}}), "enabled"),
        (json!({"provider": {"allow": {"namespace": {}}}}), "namespace"),
        (json!({"provider": {"allow": {"namespaces": {"all": {}, "names": ["a"]}}}}), "namespaces"),
        (json!({"provider": {"url": "https://oauth.example.com/"}}), "url"),
        (json!({"provider": {"scopes": ["A,B"]}}), "scopes"),
        (json!({"provider": {"scopes": ["A", "A"]}}), "scopes"),
        (json!({"provider": {"accessTokenLifetime": "1 hour"}}), "accessTokenLifetime"),
        (json!({"provider": {"name": "Bundled"}}), "name"),
        (json!({"operator": {"port": 80}}), "port"),
        (json!({"operator": {"port": "8080"}}), "port"),
        (json!({"operator": {"resync": "10"}}), "resync"),
        (json!({"orphans": {"unregisterAfter": "soon"}}), "unregisterAfter"),
        (json!({"watchNamespaces": ["A"]}), "watchNamespaces"),
        (json!({"watchNamespaces": "team-a"}), "watchNamespaces"),
        (json!({"log": {"format": "text"}}), "format"),
        (json!({"bindAddress": "localhost"}), "bindAddress"),
        (json!({"outbound": {"allow": [""]}}), "allow"),
        (json!({"outbound": {"requireAllowedHosts": "yes"}}), "requireAllowedHosts"),
        (json!({"outbound": {"caBundle": "/etc/ssl/ca.pem"}}), "caBundle"),
        (json!({"consent": {"url": "http://links.example.com"}}), "url"),
        (json!({"consent": {"url": "http://127.0.0.1.example.com"}}), "url"),
        (json!({"consent": {"url": "https://me@links.example.com"}}), "url"),
        (json!({"consent": {"ingress": {"enabled": true}}}), "consent.ingress.enabled needs consent.url"),
        (json!({"commonLabels": {"on": true}}), "commonLabels"),
    ];
    for (values, named) in cases {
        let output = try_template(plane, &values).await;
        assert!(!output.is_ok(), "{values} was taken");
        assert!(output.stderr.contains(named), "{values}: {}", output.stderr);
    }
}

#[tokio::test]
async fn addresses_for_consent_are_https_or_on_loopback() {
    let plane = ControlPlane::shared().await;
    for url in [
        "https://links.example.com",
        "https://links.example.com:8443/applink",
        "http://localhost:8082/",
        "http://127.0.0.1:1",
        "http://[::1]:8082",
    ] {
        let objects = template(plane, &json!({"consent": {"url": url, "ingress": {"enabled": true}}})).await;
        assert_eq!(of_kind(&objects, "Ingress").len(), 1, "{url}");
    }
}

#[tokio::test]
async fn each_default_value_is_in_the_schema_and_each_key_of_the_schema_has_a_default() {
    fn compare(at: &str, schema: &Value, values: &Value) {
        let (Some(properties), Some(values)) = (schema["properties"].as_object(), values.as_object()) else {
            return;
        };
        for key in values.keys() {
            assert!(properties.contains_key(key), "{at}.{key} is not in the schema");
        }
        // Where the default is empty, the schema says what may be there.
        if values.is_empty() {
            return;
        }
        assert_eq!(schema["additionalProperties"], json!(false), "{at}");
        for (key, property) in properties {
            let Some(value) = values.get(key) else {
                assert!(key == "global" || key == "claims", "{at}.{key} has no default");
                continue;
            };
            compare(&format!("{at}.{key}"), property, value);
        }
    }
    let read = |file: &str| std::fs::read_to_string(chart().join(file)).expect("a file of the chart");
    let schema: Value = serde_json::from_str(&read("values.schema.json")).expect("JSON");
    compare("", &schema, &serde_yaml::from_str(&read("values.yaml")).expect("YAML"));
}

#[tokio::test]
async fn arguments_say_what_the_values_say() {
    let plane = ControlPlane::shared().await;
    let args = |workload: &Value| {
        let args = container(workload)["args"].as_array().expect("arguments").iter();
        args.map(|arg| arg.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let objects = template(plane, &json!({})).await;
    let expected = [
        "operator",
        "--listen=0.0.0.0:8080",
        "--metrics-listen=0.0.0.0:8083",
        "--concurrency=64",
        "--resync=10m",
        "--unregister-orphans-after=24h",
        "--min-refresh-interval=10s",
        "--token-requests-per-second=20",
        "--token-requests-in-flight=16",
        "--token-requests-per-namespace=10",
        "--api-writes-per-second=50",
        "--metrics-per-link=true",
        "--lease=r-applink-operator",
        "--master-key-secret=r-applink-operator-master-key",
        "--bundled-provider-name=bundled",
        "--bundled-provider-url=http://r-applink-operator-provider.ns.svc:8080",
        "--bundled-provider-admin-url=http://r-applink-operator-provider.ns.svc:8081",
        "--bundled-provider-admin-token-secret=r-applink-operator-admin-token",
        r#"--bundled-provider-allow={"namespaces":{"all":{}}}"#,
        "--bundled-provider-default=true",
        "--log-format=json",
        "--log-level=info",
    ];
    assert_eq!(args(one(&objects, "Deployment")), expected);
    let expected = [
        "provider",
        "--issuer=http://r-applink-operator-provider.ns.svc:8080",
        "--listen=0.0.0.0:8080",
        "--admin-listen=0.0.0.0:8081",
        "--metrics-listen=0.0.0.0:8084",
        "--health-listen=0.0.0.0:8085",
        "--admin-token-file=/etc/applink/admin/token",
        "--database=/var/lib/applink/provider.db",
        "--log-format=json",
        "--log-level=info",
    ];
    assert_eq!(args(one(&objects, "StatefulSet")), expected);

    let mut values = everything();
    values["watchNamespaces"] = json!(["team-a", "team-b"]);
    let objects = template(plane, &values).await;
    let operator = args(one(&objects, "Deployment"));
    for expected in [
        "--listen=[::]:8080",
        "--watch-namespaces=team-a,team-b",
        "--outbound-require-allowed-hosts",
        "--outbound-allow=127.0.0.0/8",
        "--outbound-allow=http://*.internal:8080",
        "--bundled-provider-url=https://oauth.example.com/sub",
        "--extra=1",
        r#"--bundled-provider-allow={"namespaces":{"matchLabels":{"a":"b"}},"redirectHosts":["*.example.com"],"scopes":["A"]}"#,
    ] {
        assert!(operator.iter().any(|arg| arg == expected), "{expected} in {operator:?}");
    }
    assert_eq!(one(&objects, "ConfigMap")["data"]["APPLINK_PROVIDER_SCOPES"], "A,B:c/d");

    // Without the provider nothing speaks of it.
    let objects = template(plane, &json!({"provider": {"enabled": false}})).await;
    assert!(args(one(&objects, "Deployment")).iter().all(|arg| !arg.contains("provider")));
    assert!(of_kind(&objects, "StatefulSet").is_empty() && of_kind(&objects, "ConfigMap").is_empty());
}

/// A setting that the program doesn't know would do nothing, and nobody would hear of it.
#[tokio::test]
async fn the_program_knows_each_setting_of_the_config_map() {
    let plane = ControlPlane::shared().await;
    let objects = template(plane, &everything()).await;
    let settings = one(&objects, "ConfigMap")["data"].as_object().expect("settings");
    assert_eq!(settings.len(), 8);
    assert_eq!(settings["APPLINK_PROVIDER_REGISTRATION"], "true");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_applink"));
    command.args(["provider", "--help"]);
    let help = run(command).await.ok();
    for name in settings.keys() {
        assert!(help.contains(&format!("[env: {name}=")), "{name} in {help}");
    }
}

#[tokio::test]
async fn labels_of_the_user_never_break_a_selector() {
    let plane = ControlPlane::shared().await;
    let objects = template(plane, &everything()).await;
    let mut services = 0;
    for workload in objects.iter().filter(|object| ["Deployment", "StatefulSet"].contains(&kind(object))) {
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert_eq!(
            (&labels["example.com/pod"], &labels["example.com/team"]),
            (&json!("label"), &json!("platform"))
        );
        let selects = |selector: &Value| {
            let selector = selector.as_object().expect("a selector");
            selector.iter().all(|(key, value)| labels[key] == *value)
        };
        assert!(selects(&workload["spec"]["selector"]["matchLabels"]), "{}", name(workload));
        services += of_kind(&objects, "Service")
            .iter()
            .filter(|service| selects(&service["spec"]["selector"]))
            .count();
    }
    assert_eq!(services, 2, "each Service selects the Pods of one workload");
    let claim = &one(&objects, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["metadata"]["labels"];
    let changing = ["helm.sh/chart", "app.kubernetes.io/version", "example.com/team"];
    assert!(
        changing.iter().all(|label| claim.get(label).is_none()),
        "a claim template can't change: {claim}"
    );
}

#[tokio::test]
async fn two_releases_share_no_name() {
    let plane = ControlPlane::shared().await;
    let chart = chart();
    let long = "a".repeat(44);
    let mut seen = std::collections::BTreeSet::new();
    let releases = [
        ("r", "a"),
        ("r", "b"),
        ("s", "a"),
        ("r-a", "b"),
        ("r", "a-b"),
        (&format!("{long}-1"), "a"),
        (&format!("{long}-2"), "a"),
    ];
    for (release, namespace) in releases {
        let values =
            ["--set", "crds.enabled=false,watchNamespaces={team-a,team-b},serviceMonitor.enabled=true"];
        let mut args = vec!["template", release, chart.to_str().expect("a path"), "--namespace", namespace];
        args.extend(values);
        for object in documents(&plane.helm(&args).await.ok()) {
            // With the hash of a revision behind it, a set's name is a label of its Pods.
            let limit = if kind(&object) == "StatefulSet" { 63 - 11 } else { 63 };
            let limit = if name(&object).contains(':') { 253 } else { limit };
            assert!(name(&object).len() <= limit, "{}", name(&object));
            let key =
                [kind(&object), object["metadata"]["namespace"].as_str().unwrap_or_default(), name(&object)]
                    .join("/");
            assert!(seen.insert(key.clone()), "{key} is there twice");
        }
    }
}

fn rules(role: &Value) -> impl Iterator<Item = &Value> {
    role["rules"].as_array().into_iter().flatten()
}

fn has(rule: &Value, field: &str, wanted: &str) -> bool {
    rule[field].as_array().is_some_and(|list| list.iter().any(|item| item == wanted))
}

#[tokio::test]
async fn with_watched_namespaces_no_cluster_role_reaches_a_secret() {
    let plane = ControlPlane::shared().await;
    let objects = template(plane, &json!({})).await;
    let bound = |objects: &[Value]| {
        let binding = one(objects, "ClusterRoleBinding").clone();
        let roles = of_kind(objects, "ClusterRole");
        (*roles.iter().find(|role| name(role) == binding["roleRef"]["name"]).expect("the role that is bound"))
            .clone()
    };
    assert!(
        rules(&bound(&objects)).any(|rule| has(rule, "resources", "secrets")),
        "all namespaces are watched"
    );

    let objects = template(plane, &json!({"watchNamespaces": ["team-a", "team-b"]})).await;
    let resources: Vec<_> = rules(&bound(&objects))
        .flat_map(|rule| rule["resources"].as_array().expect("resources").clone())
        .collect();
    // Our own kinds, and which labels a namespace has; nothing else.
    let own = |r: &Value| {
        r.as_str().is_some_and(|r| {
            r.starts_with("clusterlink")
                || r.starts_with("link")
                || r.starts_with("applicationlink")
                || r == "namespaces"
        })
    };
    assert!(resources.iter().all(own), "{resources:?}");
    for role in of_kind(&objects, "ClusterRole") {
        assert!(
            !rules(role).any(|rule| has(rule, "resources", "secrets") || has(rule, "resources", "*")),
            "{}",
            name(role)
        );
    }
    let mut namespaces: Vec<_> = of_kind(&objects, "Role")
        .into_iter()
        .filter(|role| rules(role).any(|rule| has(rule, "resources", "secrets")))
        .map(|role| role["metadata"]["namespace"].as_str().unwrap_or_default())
        .collect();
    namespaces.sort_unstable();
    assert_eq!(namespaces, ["ns", "team-a", "team-b"]);
    // A role that nobody has, or a binding to a role that isn't there, is a mistake.
    let mut roles: Vec<_> = of_kind(&objects, "Role")
        .into_iter()
        .map(|role| (&role["metadata"]["namespace"], name(role)))
        .collect();
    let mut bound: Vec<_> = of_kind(&objects, "RoleBinding")
        .into_iter()
        .map(|binding| {
            (&binding["metadata"]["namespace"], binding["roleRef"]["name"].as_str().unwrap_or_default())
        })
        .collect();
    roles.sort_by_key(|(namespace, name)| (namespace.to_string(), *name));
    bound.sort_by_key(|(namespace, name)| (namespace.to_string(), *name));
    assert_eq!(roles, bound);
}

#[tokio::test]
async fn pods_are_as_restricted_as_they_can_be() {
    let plane = ControlPlane::shared().await;
    let restricted = [("pod-security.kubernetes.io/enforce", "restricted")];
    let namespace = plane.namespace_with("restricted", &restricted).await;
    for values in [json!({}), everything()] {
        let objects = template(plane, &values).await;
        let templates =
            ["Deployment", "StatefulSet"].map(|kind| one(&objects, kind)["spec"]["template"]["spec"].clone());
        let tests = of_kind(&objects, "Pod").into_iter().map(|pod| pod["spec"].clone());
        for (index, mut spec) in templates.into_iter().chain(tests).enumerate() {
            assert_eq!(
                spec["automountServiceAccountToken"],
                json!(index == 0),
                "only the operator has a token"
            );
            assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], json!(true));
            assert!(spec["containers"][0].get("command").is_none(), "the image says what is run");
            // Its ServiceAccount isn't in this namespace, and a Pod alone has no claim template.
            spec["serviceAccountName"] = json!("default");
            for mount in spec["containers"][0]["volumeMounts"]
                .as_array()
                .into_iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
            {
                let volumes =
                    spec.as_object_mut().expect("a spec").entry("volumes").or_insert_with(|| json!([]));
                let volumes = volumes.as_array_mut().expect("volumes");
                if !volumes.iter().any(|volume| volume["name"] == mount["name"]) {
                    volumes
                        .push(json!({"name": mount["name"], "persistentVolumeClaim": {"claimName": "data"}}));
                }
            }
            let metadata = json!({"name": format!("pod-{index}"), "namespace": namespace});
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
            let file = plane.run_dir().write(format!("{namespace}-{index}.json"), pod.to_string());
            let file = file.to_string_lossy();
            plane.kubectl(&["create", "--dry-run=server", "--validate=strict", "-f", &file]).await.ok();
        }
    }
}
