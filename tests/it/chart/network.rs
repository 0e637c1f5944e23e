//! Who may connect to which port.

use super::*;

/// Who may reach a port of a policy's Pods: `None` for nobody, an empty list for all.
fn allowed(policy: &Value, port: &str) -> Option<Vec<Value>> {
    let rules = policy["spec"]["ingress"].as_array().expect("rules").iter();
    let mut found = None;
    for rule in
        rules.filter(|rule| rule["ports"].as_array().expect("ports").iter().any(|p| p["port"] == port))
    {
        assert!(found.is_none(), "one rule for {port}");
        found = Some(rule["from"].as_array().cloned().unwrap_or_default());
    }
    found
}

fn selects(selector: &Value, labels: &Value) -> bool {
    selector["matchLabels"].as_object().expect("labels").iter().all(|(key, value)| labels[key] == *value)
}

fn labels(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["labels"]
}

/// The only policy that selects a workload's Pods.
fn policy<'o>(objects: &'o [Value], workload: &Value) -> &'o Value {
    let mut own = of_kind(objects, "NetworkPolicy");
    own.retain(|policy| selects(&policy["spec"]["podSelector"], labels(workload)));
    assert_eq!(own.len(), 1, "one policy for {}", name(workload));
    // What the Pods connect to is nobody's business but theirs: links call servers anywhere.
    assert_eq!(own[0]["spec"]["policyTypes"], json!(["Ingress"]));
    assert!(own[0]["spec"].get("egress").is_none());
    own[0]
}

fn port_names(workload: &Value) -> Vec<String> {
    let ports = container(workload)["ports"].as_array().expect("ports").iter();
    ports.map(|port| port["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn each_port_is_open_to_those_whom_it_is_for() {
    let plane = ControlPlane::shared().await;
    let consent = json!({"url": "https://links.example.com"});
    let objects = template(plane, &json!({"consent": consent})).await;
    let (operator, provider) = (one(&objects, "Deployment"), one(&objects, "StatefulSet"));
    let all = Some(Vec::new());
    for workload in [operator, provider] {
        let policy = policy(&objects, workload);
        for probe in ["livenessProbe", "readinessProbe"] {
            let port = container(workload)[probe]["httpGet"]["port"].as_str().expect("a port's name");
            assert_eq!(allowed(policy, port), all, "{probe} of {}", name(workload));
            assert_ne!(port, "admin");
        }
        assert_eq!(allowed(policy, "http"), all);
        assert_eq!(allowed(policy, "metrics"), all);
        for port in port_names(workload) {
            assert!(allowed(policy, &port).is_some(), "nobody reaches {port} of {}", name(workload));
        }
    }
    assert_eq!(allowed(policy(&objects, operator), "consent"), all);
    let admin = allowed(policy(&objects, provider), "admin").expect("a rule");
    let [only] = admin.as_slice() else { panic!("one peer: {admin:?}") };
    assert_eq!(only.as_object().expect("a peer").len(), 1, "Pods of this namespace: {only}");
    assert!(selects(&only["podSelector"], labels(operator)));
    assert!(!selects(&only["podSelector"], labels(provider)));
    for test in of_kind(&objects, "Pod") {
        assert!(!selects(&only["podSelector"], &test["metadata"]["labels"]));
    }
}

#[tokio::test]
async fn who_reads_metrics_and_reaches_the_admin_port_can_be_said() {
    let plane = ControlPlane::shared().await;
    let peer =
        |name: &str| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    let (monitoring, platform) = (peer("monitoring"), peer("platform"));
    let values = json!({"networkPolicy": {"metricsFrom": [monitoring], "adminFrom": [platform]}});
    let objects = template(plane, &values).await;
    let (operator, provider) = (one(&objects, "Deployment"), one(&objects, "StatefulSet"));
    for workload in [operator, provider] {
        assert_eq!(allowed(policy(&objects, workload), "metrics"), Some(vec![monitoring.clone()]));
        assert_eq!(allowed(policy(&objects, workload), "http"), Some(Vec::new()));
    }
    let admin = allowed(policy(&objects, provider), "admin").expect("a rule");
    assert_eq!((admin.len(), &admin[1]), (2, &platform));
    // The port of the operator's probes is open to all, so the metrics must not be there too.
    let alone = |objects: &[Value]| {
        let args = container(one(objects, "Deployment"))["args"].as_array().expect("arguments").clone();
        args.contains(&json!("--health-alone"))
    };
    assert!(alone(&objects));
    for values in [
        json!({}),
        json!({"networkPolicy": {"enabled": false, "metricsFrom": [monitoring]}}),
        json!({"networkPolicy": {"adminFrom": [platform]}}),
    ] {
        assert!(!alone(&template(plane, &values).await), "{values}");
    }
    assert!(
        of_kind(&template(plane, &json!({"networkPolicy": {"enabled": false}})).await, "NetworkPolicy")
            .is_empty()
    );
    let without = template(plane, &json!({"provider": {"enabled": false}})).await;
    assert_eq!(of_kind(&without, "NetworkPolicy").len(), 1);
}

#[tokio::test]
async fn monitors_and_tests_ask_where_they_may() {
    let plane = ControlPlane::shared().await;
    let objects = template(plane, &json!({"serviceMonitor": {"enabled": true}})).await;
    let services = of_kind(&objects, "Service");
    for monitor in of_kind(&objects, "ServiceMonitor") {
        let own = services.iter().find(|s| selects(&monitor["spec"]["selector"], &s["metadata"]["labels"]));
        let ports = own.expect("a Service")["spec"]["ports"].as_array().expect("ports").clone();
        let wanted = &monitor["spec"]["endpoints"][0]["port"];
        assert_eq!(wanted, "metrics");
        assert!(ports.iter().any(|port| port["name"] == *wanted), "{wanted} in {ports:?}");
    }
    for test in of_kind(&objects, "Pod") {
        let url = test["spec"]["containers"][0]["args"][2].as_str().expect("an address");
        let url = url::Url::parse(url).expect("an address");
        let host = url.host_str().and_then(|host| host.split('.').next()).expect("a Service");
        let service = services.iter().find(|service| name(service) == host).expect("a Service");
        let ports = service["spec"]["ports"].as_array().expect("ports").iter();
        let port = ports.clone().find(|port| port["port"] == json!(url.port())).expect("a port of it");
        assert!(["http", "health"].contains(&port["name"].as_str().expect("a name")), "{url}");
    }
}

#[tokio::test]
async fn proxies_are_those_of_each_listener() {
    let plane = ControlPlane::shared().await;
    let values = json!({
        "consent": {"url": "https://links.example.com", "trustedProxies": ["10.244.0.0/16", "fd00::/8"]},
        "provider": {"trustedProxies": ["none"]},
    });
    let objects = template(plane, &values).await;
    let args = container(one(&objects, "Deployment"))["args"].as_array().expect("arguments").clone();
    assert!(args.contains(&json!("--trusted-proxies=10.244.0.0/16,fd00::/8")), "{args:?}");
    assert_eq!(one(&objects, "ConfigMap")["data"]["APPLINK_PROVIDER_TRUSTED_PROXIES"], "none");
    for bad in ["proxy", "10.0.0.0/8,fd00::/8", ""] {
        for component in ["consent", "provider"] {
            let output = try_template(plane, &json!({component: {"trustedProxies": [bad]}})).await;
            assert!(
                !output.is_ok() && output.stderr.contains("trustedProxies"),
                "{bad:?}: {}",
                output.stderr
            );
        }
    }
}
