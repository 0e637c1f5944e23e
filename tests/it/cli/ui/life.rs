//! A link's whole life on the page, and what somebody sees who may only read.

use serde_json::json;

use super::{Ui, apply, desk, named, stored_name};
use crate::cli::{binary, user};
use crate::support::browser::{Browser, PHONE};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage};
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_made_changed_rotated_shown_and_deleted() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let team = stage.team();
    let ui = Ui::start(plane, plane.kubeconfig(), &["-n", team]).await;
    let browser = Browser::start().await;
    ui.open(&browser).await;

    // Create: the form, what is wrong with it, the YAML, the write.
    browser.click("a[href='/new']").await;
    browser.fill("[id='spec.application.name']", "CI dashboard").await;
    browser.fill("[id='metadata.name']", "ci").await;
    browser.fill("[id='spec.incoming.oauth2.redirectUris']", "http://ci.example.com/callback").await;
    browser.fill("[id='spec.incoming.oauth2.scopes']", "REPO_READ").await;
    browser.shot("form").await;
    browser.resize(PHONE).await;
    assert_eq!(browser.overflow().await, 0);
    browser.shot("form-phone").await;
    browser.resize((1280, 800)).await;
    browser.click("button[type=submit]").await;
    browser.shows("#trouble", "spec.incoming.oauth2.redirectUris").await;
    assert!(!browser.has("#apply").await);
    browser.shot("review-refused").await;
    browser.click("form[action='/form'] button").await;
    assert_eq!(
        browser.find("[id='metadata.name']").await.prop("value").await.expect("a value").as_deref(),
        Some("ci"),
        "the form keeps what was typed"
    );
    browser.fill("[id='spec.incoming.oauth2.redirectUris']", "https://ci.example.com/callback").await;
    browser.click("button.primary").await;
    let yaml = browser.shows("#yaml", "https://ci.example.com/callback").await;
    assert!(yaml.starts_with("apiVersion: applink-operator.io/v1alpha1\nkind: ApplicationLink\n"), "{yaml}");
    assert!(stage.links(team).get_opt("ci").await.expect("an answer").is_none(), "nothing is written yet");
    browser.shot("review-new").await;
    browser.click("#apply").await;
    browser.shows("[role=status]", "The link was created").await;
    // People can't sign in at the bundled provider yet, and that is said.
    browser.shows("#facts", "doesn't serve authorization_code").await;
    browser.shot("link").await;
    let made = stage.registered(team, "ci").await;
    // What is committed is what was applied.
    let file = plane.run_dir().write("ui-committed.yaml", &yaml);
    plane.kubectl(&["diff", "-f", &file.to_string_lossy()]).await.ok();

    // Edit: the difference first, and a warning where GitOps keeps the link.
    let mark = json!({"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}}});
    plane
        .kubectl(&["patch", "applicationlink", "ci", "-n", team, "--type", "merge", "-p", &mark.to_string()])
        .await
        .ok();
    browser.goto(&ui.at(&format!("/links/{team}/ci/edit"))).await;
    browser.shows("[data-keeper=Flux]", "flux-system/apps").await;
    browser.fill("[id='spec.incoming.oauth2.scopes']", "REPO_READ REPO_WRITE").await;
    browser.fill("[id='spec.incoming.oauth2.redirectUris']", "https://ci.example.com/new").await;
    browser.click("button.primary").await;
    let difference = browser.shows("#difference", "spec.incoming.oauth2.scopes").await;
    for part in ["REPO_WRITE", "https://ci.example.com/callback", "https://ci.example.com/new"] {
        assert!(difference.contains(part), "{part}: {difference}");
    }
    assert!(!difference.contains("REPO_READ"), "what stays is no difference: {difference}");
    browser.shows("[data-keeper=Flux]", "will undo a change").await;
    browser.shot("difference").await;
    browser.dark(true).await;
    browser.resize(PHONE).await;
    assert_eq!(browser.overflow().await, 0);
    browser.shot("difference-phone-dark").await;
    browser.resize((1280, 800)).await;
    browser.shot("difference-dark").await;
    browser.dark(false).await;
    assert_eq!(
        stage.links(team).get("ci").await.expect("the link").metadata.generation,
        made.metadata.generation
    );

    // Somebody else is faster: what was looked at isn't what would be overwritten.
    let other = json!({"spec": {"application": {"name": "CI, renamed"}}});
    plane
        .kubectl(&["patch", "applicationlink", "ci", "-n", team, "--type", "merge", "-p", &other.to_string()])
        .await
        .ok();
    browser.click("#apply").await;
    browser.shows("[role=alert]", "Somebody else changed the link").await;
    browser.shows("#difference", "CI, renamed").await;
    browser.click("#apply").await;
    browser.shows("[role=status]", "The link was changed").await;
    let changed = stage.links(team).get("ci").await.expect("the link");
    let spec = serde_json::to_value(&changed.spec).expect("json");
    assert_eq!(spec["incoming"]["oauth2"]["scopes"], json!(["REPO_READ", "REPO_WRITE"]));
    assert_eq!(spec["application"]["name"], "CI dashboard");
    assert!(changed.metadata.labels.is_some_and(|l| l.contains_key("kustomize.toolkit.fluxcd.io/name")));
    stage.registered(team, "ci").await;

    // Rotate.
    let before = stage.data(team, "ci-oauth").await;
    browser.click("a[href$='/rotate']").await;
    browser.shot("rotate").await;
    browser.click("button.primary").await;
    browser.shows("[role=status]", "A new client secret was asked for").await;
    browser.shows("#facts", "Number 2").await;
    stage.registered(team, "ci").await;
    let after = stage.data(team, "ci-oauth").await;
    assert_ne!(before["client-secret"], after["client-secret"]);

    // View credentials: not before the click.
    let secret = &after["client-secret"];
    browser.click("a[href$='/credentials']").await;
    browser.shows("h1", "View credentials").await;
    assert!(!browser.page.source().await.expect("a source").contains(secret.as_str()));
    browser.click("form[action$='/credentials'] button").await;
    assert_eq!(browser.text("#value-client-secret").await, *secret);
    assert_eq!(browser.text("#value-client-id").await, after["client-id"]);
    assert!(!browser.place().await.contains(secret.as_str()));

    // YAML, and deletion by name.
    browser.goto(&ui.at(&format!("/links/{team}/ci/yaml"))).await;
    let shown = browser.text("#yaml").await;
    assert!(shown.contains("REPO_WRITE") && !shown.contains("status") && !shown.contains("uid"), "{shown}");
    browser.goto(&ui.at(&format!("/links/{team}/ci/delete"))).await;
    browser.shows("[role=alert]", "Flux").await;
    browser.shot("delete").await;
    browser.fill("#confirm", "CI").await;
    browser.click(".danger").await;
    browser.shows("#confirm-error", "isn't the link's name").await;
    browser.fill("#confirm", "ci").await;
    browser.click("button.danger").await;
    browser.shows("[role=status]", "deletion was asked for").await;
    stage.gone(team, "ci").await;
    eventually(SOON, "the row to go", async || !browser.has(&format!("[id='row-{team}.ci']")).await).await;
    let log = ui.process.log();
    assert!(!log.contains(secret.as_str()), "no secret in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_is_told_what_fails() {
    let (plane, namespace) = desk().await;
    apply(plane, &namespace, &named("ci", "CI dashboard")).await;
    let rules = json!([{"apiGroups": ["applink-operator.io"], "resources": ["applicationlinks"], "verbs": ["get", "list", "watch"]}]);
    let reader = user(plane, &namespace, rules).await;
    let ui = Ui::start(plane, &reader, &[]).await;
    let browser = Browser::start().await;
    ui.open(&browser).await;
    let page = |action: &str| ui.at(&format!("/links/{namespace}/ci/{action}"));

    browser.goto(&page("rotate")).await;
    browser.click("button.primary").await;
    let said = browser.shows("[role=alert]", "you aren't allowed to").await;
    assert!(said.contains("The secret wasn't rotated") && said.contains("patch"), "{said}");
    browser.shot("forbidden").await;

    browser.goto(&page("credentials")).await;
    browser.click("form button").await;
    browser.shows("[role=alert]", &format!("ask for the verb get on secrets in namespace {namespace}")).await;

    browser.goto(&page("delete")).await;
    browser.fill("#confirm", "ci").await;
    browser.click("button.danger").await;
    browser.shows("[role=alert]", "you aren't allowed to").await;

    // The YAML to commit is there all the same.
    browser.goto(&page("edit")).await;
    browser.fill("[id='spec.application.name']", "Another name").await;
    browser.click("button.primary").await;
    let said = browser.shows("#trouble", "you aren't allowed to").await;
    assert!(said.contains("commit it"), "{said}");
    browser.shows("#yaml", "Another name").await;
    assert!(!browser.has("#apply").await);
    let name = stored_name(plane, &namespace).await;
    assert_eq!(name, "CI dashboard");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outgoing_link_says_how_to_connect_it() {
    let (plane, namespace) = desk().await;
    let link = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": "builds"},
        "spec": {"application": {"name": "Builds"}, "outgoing": {"oauth2": {
            "server": {"github": {}}, "grant": {"authorizationCode": {}}, "client": {"secretRef": {"name": "client"}},
        }}},
    });
    apply(plane, &namespace, &link).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "client"}, "stringData": {"client-secret": "canary-of-the-client"}});
    apply(plane, &namespace, &secret).await;
    let ui = Ui::start(plane, plane.kubeconfig(), &["-n", &namespace]).await;
    let browser = Browser::start().await;
    ui.open(&browser).await;
    browser.goto(&ui.at(&format!("/?namespace={namespace}"))).await;
    browser.click(".menu summary").await;
    browser.shot("menu").await;
    assert!(
        !browser.has(&format!("[id='rotate-{namespace}.builds']")).await,
        "there is no secret of ours to rotate"
    );
    browser.click(&format!("[id='authorise-{namespace}.builds']")).await;
    assert_eq!(browser.text("#command").await, format!("kubectl applink authorize builds -n {namespace}"));
    browser.shot("authorise").await;

    // What the form doesn't know of the server and the grant stays, and another one takes its place whole.
    browser.goto(&ui.at(&format!("/links/{namespace}/builds/edit"))).await;
    browser.find("#server").await.select_by_value("gitlab").await.expect("a choice");
    browser.fill("[id='spec.outgoing.oauth2.server.gitlab.url']", "https://git.example.com").await;
    browser.click("button.primary").await;
    let yaml = browser.shows("#yaml", "url: https://git.example.com").await;
    assert!(yaml.contains("gitlab:") && !yaml.contains("github"), "{yaml}");
    assert!(yaml.contains("authorizationCode: {}") && yaml.contains("name: client"), "{yaml}");
    // No page shows a Secret that isn't the link's own.
    for page in ["", "/yaml", "/credentials", "/edit"] {
        browser.goto(&ui.at(&format!("/links/{namespace}/builds{page}"))).await;
        assert!(!browser.page.source().await.expect("a source").contains("canary"), "{page}");
    }
}
