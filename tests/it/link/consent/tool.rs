//! `applink authorize` where nothing comes of it: it says so at once, rather than when its time is over.

use serde_json::json;

use super::{authorize, link, redirect_uri, stage};
use crate::cli::{json_of, with};
use crate::support::stage::{Stage, unique};
use crate::support::wait::{SOON, eventually};

/// Nobody is there; no test here gets so far.
const SERVER: &str = "http://127.0.0.1:9";

fn server() -> serde_json::Value {
    json!({
        "authorizationEndpoint": format!("{SERVER}/authorize"), "tokenEndpoint": format!("{SERVER}/token"),
    })
}

async fn annotation(stage: &Stage<'_>, name: &str) -> Option<String> {
    let link = stage.links(stage.team()).get(name).await.expect("the link");
    link.metadata.annotations.and_then(|a| a.get("applink-operator.io/authorize").cloned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consent_can_t_mend_is_said_before_anybody_is_asked() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    stage.apply_object(&team, &link("bare", server(), json!({}))).await;
    stage.condition(&team, "bare", "Ready", "False", "ClientSecretMissing").await;
    let (code, said) = authorize(&stage, "bare", &[]).end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("(ClientSecretMissing): ") && said.contains("Secret bare-client"), "{said}");
    assert!(!said.contains("?ticket="), "{said}");
    assert_eq!(annotation(&stage, "bare").await, None, "nothing was begun");
    let (code, said) = authorize(&stage, "bare", &["-o", "json"]).end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("\"connected\": false"), "{said}");

    let more = json!({"grant": {"authorizationCode": null, "deviceCode": {}}});
    stage.put_secret(&team, "late-client", &[("client-id", "a"), ("client-secret", "b")]).await;
    stage.apply_object(&team, &link("late", json!({"tokenEndpoint": format!("{SERVER}/token")}), more)).await;
    stage.condition(&team, "late", "Ready", "False", "InvalidSpec").await;
    let (code, said) = authorize(&stage, "late", &[]).end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("custom.deviceAuthorizationEndpoint"), "{said}");

    for (flags, why) in [
        (["--timeout", "11m"], "more than 10m"),
        (["--certificate-authority", "/nonexistent/ca.pem"], "/nonexistent/ca.pem"),
    ] {
        let (code, said) = authorize(&stage, "bare", &flags).end().await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_type_what_it_waits_for_it_stops_at_once() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    let mut with_device = server();
    with_device["deviceAuthorizationEndpoint"] = json!(format!("{SERVER}/device"));
    let device = json!({"grant": {"authorizationCode": null, "deviceCode": {}}});
    for (name, more) in [("typed", json!({})), ("device", device)] {
        stage
            .put_secret(&team, &format!("{name}-client"), &[("client-id", "a"), ("client-secret", "b")])
            .await;
        stage.apply_object(&team, &link(name, with_device.clone(), more)).await;
        open_for_consent(&stage, name).await;
    }
    for (name, flags, says) in [
        ("typed", &["--no-browser"][..], "without --no-browser"),
        ("device", &[], "pass --yes"),
        ("device", &["--no-browser"], "pass --yes"),
    ] {
        // Without a terminal, and with nothing that could write to it.
        let args = [&["authorize", name, "-n", team.as_str()], flags].concat();
        let said = with(stage.plane.kubeconfig(), &args).await;
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
        assert!(said.stderr.contains(says) && !said.stderr.contains("?ticket="), "{said:?}");
        assert_eq!(annotation(&stage, name).await, None, "nothing was begun");
    }
    // Another program could have written a code, and ended without.
    let (code, said) = authorize(&stage, "typed", &["--no-browser"]).end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("standard input ended before a code was typed"), "{said}");
    assert_eq!(annotation(&stage, "typed").await, None, "its ticket is taken back");
}

/// Waits until somebody can consent to a link.
async fn open_for_consent(stage: &Stage<'_>, name: &str) {
    let links = stage.links(stage.team());
    eventually(SOON, "an address for the consent", async || {
        let link = links.get(name).await.map_err(|e| e.to_string())?;
        let uri = link.status.and_then(|s| s.outgoing?.consent_uri);
        uri.map(drop).ok_or_else(|| "none yet".to_owned())
    })
    .await;
    stage.condition(stage.team(), name, "Ready", "False", "AuthorizationRequired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_ticket_is_gone_ends() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    stage.put_secret(&team, "shared-client", &[("client-id", "a"), ("client-secret", "b")]).await;
    stage.apply_object(&team, &link("shared", server(), json!({}))).await;
    redirect_uri(&stage, "shared").await;
    stage.condition(&team, "shared", "Ready", "False", "AuthorizationRequired").await;
    let first = authorize(&stage, "shared", &[]);
    first.address().await;
    let second = authorize(&stage, "shared", &[]);
    second.address().await;
    let (code, said) = first.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another run of this command took over"), "{said}");
    assert!(annotation(&stage, "shared").await.is_some(), "the other one's ticket stays");
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    let at = |part: &str| lines.iter().position(|l| l.contains(part)).expect("a line");
    assert!(at("?ticket=") < at("Waiting for the consent"), "the address comes first: {said}");

    let gone = json!({"metadata": {"annotations": {"applink-operator.io/authorize": null}}});
    stage
        .links(&team)
        .patch("shared", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(gone))
        .await
        .expect("taken off");
    let (code, said) = second.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("came to nothing; the page says why"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_tools_know_a_link_that_nobody_connected() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    let admin = stage.plane.kubeconfig();
    stage.put_secret(&team, "notes-client", &[("client-id", "a"), ("client-secret", "b")]).await;
    let there = link("notes", server(), json!({}));
    stage.apply_object(&team, &there).await;
    stage.condition(&team, "notes", "Ready", "False", "AuthorizationRequired").await;
    redirect_uri(&stage, "notes").await;
    stage.put_secret(&team, "fresh-client", &[("client-id", "a"), ("client-secret", "b")]).await;
    let fresh = link("fresh", server(), json!({}));

    // Its address is the operator's to know: by the status of the link, and not at all of one that is new.
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [there, fresh]});
    let file = stage.plane.run_dir().write(format!("plan-{}.json", unique()), list.to_string());
    let file = file.to_str().expect("a path");
    let system = ["-n", team.as_str(), "--operator-namespace", &stage.system, "-o", "json"];
    let allow = ["plan", file, "--outbound-allow", "http://127.0.0.1"];
    let plan = with(admin, &[allow.as_slice(), system.as_slice()].concat()).await;
    let report = json_of(&plan);
    let reasons = |link: &serde_json::Value| -> Vec<String> {
        let problems = link["problems"].as_array().expect("problems");
        problems.iter().map(|p| p["reason"].as_str().expect("a reason").to_owned()).collect()
    };
    assert_eq!(reasons(&report["links"][0]), ["AuthorizationRequired"], "{report}");
    assert_eq!(reasons(&report["links"][1]), [""; 0], "{report}");

    let doctor = with(admin, &[&["doctor", "notes"], system.as_slice()].concat()).await;
    let checks = json_of(&doctor)["checks"].as_array().expect("checks").clone();
    let of_link = |c: &&serde_json::Value| c["subject"] == format!("{team}/notes");
    let failed: Vec<_> = checks.iter().filter(of_link).map(|c| (&c["check"], &c["result"])).collect();
    assert_eq!(failed, [(&json!("link"), &json!("fail"))], "once, and not for its Secret too: {doctor:?}");

    let credentials = with(admin, &["credentials", "notes", "-n", &team]).await;
    assert_eq!(credentials.code, Some(1), "{credentials:?}");
    assert!(credentials.stderr.contains("notes-token isn't there yet"), "{credentials:?}");
}
