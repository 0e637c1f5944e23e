//! The list: what stands in it, how it follows the cluster, filter, order, keyboard, phone, no script.

use serde_json::json;

use super::{Ui, applications, apply, desk, named, tab_to};
use crate::cli::{binary, machine, user};
use crate::support::browser::{Browser, Options, PHONE};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage};
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn the_list_shows_and_follows_what_there_is() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let team = stage.team();
    stage.apply_object(team, &named("build-farm", "Build farm")).await;
    let mut versioned = named("ci-dashboard", "CI dashboard");
    versioned["metadata"]["labels"] = json!({"app.kubernetes.io/version": "4.2"});
    stage.apply_object(team, &versioned).await;
    stage
        .apply_object(
            team,
            &machine("wiki", json!({"application": {"name": "Wiki"}, "providerRef": {"name": "nowhere"}})),
        )
        .await;
    for name in ["build-farm", "ci-dashboard"] {
        stage.ready(team, name).await;
    }
    stage.condition(team, "wiki", "Ready", "False", "ProviderNotFound").await;

    let ui = Ui::start(plane, plane.kubeconfig(), &["-n", team]).await;
    let browser = Browser::start().await;
    ui.open(&browser).await;
    browser.goto(&ui.at(&format!("/?namespace={team}"))).await;
    assert_eq!(applications(&browser).await, ["Build farm", "CI dashboard", "Wiki"]);
    let farm = browser.text(&format!("[id='row-{team}.build-farm']")).await;
    for part in ["Build farm", "Generic application", "Incoming", "Connected", "—", "Actions"] {
        assert!(farm.contains(part), "{part}: {farm}");
    }
    assert!(browser.text(&format!("[id='row-{team}.ci-dashboard']")).await.contains("Version 4.2"));
    let wiki = browser.text(&format!("[id='row-{team}.wiki']")).await;
    assert!(wiki.contains("Provider not found") && wiki.contains("nowhere"), "{wiki}");
    browser.shows("#live", "Live").await;

    // A link that comes, changes and goes, without the page being loaded again.
    browser.script("window.loaded = 'once'; return 0;").await;
    browser.click(&format!("[id='menu-{team}.wiki']")).await;
    stage.apply_object(team, &named("arrival", "An arrival")).await;
    browser.shows(&format!("[id='row-{team}.arrival']"), "Connected").await;
    assert!(browser.has(&format!("[id='row-{team}.wiki'] details[open]")).await, "the open menu stays open");
    assert_eq!(applications(&browser).await, ["An arrival", "Build farm", "CI dashboard", "Wiki"]);
    browser.shot("list").await;
    stage.delete(team, "arrival").await;
    eventually(SOON, "the row to go", async || !browser.has(&format!("[id='row-{team}.arrival']")).await)
        .await;
    assert_eq!(browser.script("return window.loaded;").await, "once");

    // Filter and order, by hand and while typing.
    browser.fill("#filter-q", "ci dash").await;
    eventually(SOON, "the filter", async || applications(&browser).await == ["CI dashboard"]).await;
    browser.shows("#count", "1 of ").await;
    browser.goto(&ui.at(&format!("/?namespace={team}&status=progress"))).await;
    assert_eq!(applications(&browser).await, ["Wiki"], "a provider that is missing may come");
    browser.goto(&ui.at(&format!("/?namespace={team}"))).await;
    browser.click("thead a[href*='sort=-application']").await;
    eventually(SOON, "the order", async || {
        applications(&browser).await == ["Wiki", "CI dashboard", "Build farm"]
    })
    .await;
    assert!(browser.has("th[aria-sort='descending']").await);
    browser.click("thead a[href*='sort=status']").await;
    eventually(SOON, "the order", async || {
        applications(&browser).await == ["Wiki", "Build farm", "CI dashboard"]
    })
    .await;

    browser.dark(true).await;
    browser.shot("list-dark").await;
    browser.resize(PHONE).await;
    assert_eq!(browser.overflow().await, 0, "no scrolling sideways");
    browser.shot("list-phone-dark").await;
    browser.dark(false).await;
    browser.shot("list-phone").await;

    // The command ends: the page says so.
    ui.process.terminate();
    assert!(ui.process.wait(SOON).await.success());
    browser.shows("#live", "Not connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_can_be_reached_with_the_keyboard() {
    let (plane, namespace) = desk().await;
    apply(plane, &namespace, &named("ci", "CI dashboard")).await;
    let ui = Ui::start(plane, plane.kubeconfig(), &["-n", &namespace]).await;
    let browser = Browser::start().await;
    ui.open(&browser).await;
    browser.goto(&ui.at(&format!("/?namespace={namespace}"))).await;
    tab_to(&browser, &format!("menu-{namespace}.ci")).await;
    let ring = "return getComputedStyle(document.activeElement).outlineStyle;";
    assert_eq!(browser.script(ring).await, "solid", "the focus can be seen");
    browser.press("\u{e007}").await;
    assert!(browser.has(".menu[open]").await);
    browser.press("\u{e00c}").await;
    assert!(!browser.has(".menu[open]").await, "Escape closes the menu");
    browser.press("\u{e007}").await;
    tab_to(&browser, &format!("delete-{namespace}.ci")).await;
    browser.press("\u{e007}").await;
    browser.shows("h1", "Delete this link").await;
    tab_to(&browser, "confirm").await;
    browser.press("ci\u{e007}").await;
    browser.shows("[role=status]", "deletion was asked for").await;
    assert_eq!(browser.place().await, "/?done=deleted");
    let links = plane.kubectl(&["get", "applicationlinks", "-n", &namespace, "-o", "name"]).await.ok();
    assert_eq!(links, "");

    // The first Tab of a page offers to skip its head.
    browser.goto(&ui.at("/")).await;
    browser.press("\u{e004}").await;
    assert_eq!(browser.script("return document.activeElement.className;").await, "skip");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_without_javascript() {
    let (plane, namespace) = desk().await;
    apply(plane, &namespace, &named("ci", "CI dashboard")).await;
    apply(plane, &namespace, &named("wiki", "Wiki")).await;
    let ui = Ui::start(plane, plane.kubeconfig(), &["-n", &namespace]).await;
    let browser = Browser::with(Options { javascript: false, ..Options::default() }).await;
    ui.open(&browser).await;
    browser.goto(&ui.at(&format!("/?namespace={namespace}"))).await;
    browser.fill("#filter-q", "wiki").await;
    browser.click(".filter button").await;
    browser.shows("#count", "1 of ").await;
    assert_eq!(browser.text("#rows .name").await, "Wiki");
    assert_eq!(browser.text("#live").await, "As of now");
    browser.click(".menu summary").await;
    browser.click(&format!("[id='delete-{namespace}.wiki']")).await;
    browser.fill("#confirm", "wik").await;
    browser.click("form button").await;
    browser.shows("#confirm-error", "isn't the link's name").await;
    browser.fill("#confirm", "wiki").await;
    browser.click("form button").await;
    browser.shows("[role=status]", "deletion was asked for").await;
    assert!(!browser.has(&format!("[id='row-{namespace}.wiki']")).await);

    // The form hides what isn't asked for, by style alone.
    browser.goto(&ui.at("/new")).await;
    let shown = async |css: &str| browser.find(css).await.is_displayed().await.expect("an answer");
    assert!(shown(".if-incoming").await && !shown(".if-outgoing").await);
    browser.click("#outgoing").await;
    assert!(
        shown(".if-outgoing").await && shown(".if-server.custom").await && !shown(".if-server.gitlab").await
    );
    browser.find("#server").await.select_by_value("gitlab").await.expect("a choice");
    assert!(!shown(".if-server.custom").await && shown(".if-server.gitlab").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_some_namespaces_sees_those() {
    let (plane, mine) = desk().await;
    let theirs = plane.namespace("ui").await;
    apply(plane, &mine, &named("ci", "Mine")).await;
    apply(plane, &theirs, &named("ci", "Theirs")).await;
    let rules = json!([{"apiGroups": ["applink-operator.io"], "resources": ["applicationlinks"], "verbs": ["get", "list", "watch"]}]);
    let reader = user(plane, &mine, rules).await;
    let ui = Ui::start(plane, &reader, &[]).await;
    let browser = Browser::start().await;
    ui.open(&browser).await;
    assert_eq!(applications(&browser).await, ["Mine"]);
    browser.shows(".title", &format!("In namespace {mine}; you may not list links in others")).await;
    apply(plane, &mine, &named("wiki", "Mine too")).await;
    browser.shows("#rows", "Mine too").await;

    let nobody = user(plane, &mine, json!([])).await;
    let said = crate::cli::with(&nobody, &["ui"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
    assert!(said.stderr.contains("you may list ApplicationLinks neither"), "{}", said.stderr);
}
