//! The browser of the tests: is it a real one, does it do what its options say, and does nothing of it survive?

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::support::browser::{Browser, Options, PHONE};
use crate::support::wait::{SOON, eventually};

const PAGE: &str = "<!doctype html><meta name=viewport content='width=device-width'><title>t</title>
<style>@media (prefers-color-scheme: dark) { h1 { color: rgb(1, 2, 3) } }</style>
<h1>as served</h1><form><input name=q><button>Go</button></form>
<script>document.querySelector('h1').textContent = 'as scripted'</script>";

async fn site() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let router = Router::new().route("/", get(async || Html(PAGE)));
    tokio::spawn(async { axum::serve(listener, router).await });
    url
}

/// The processes whose command line names this.
fn processes_with(word: &str) -> usize {
    let folders = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = folders.filter_map(|f| std::fs::read(f.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_shows_a_page_and_leaves_nothing_behind() {
    let url = site().await;
    let browser = Browser::start().await;
    browser.goto(&url).await;
    browser.shows("h1", "as scripted").await;
    assert_eq!(browser.script("return [innerWidth, innerHeight];").await, serde_json::json!([1280, 800]));
    browser.resize(PHONE).await;
    assert_eq!(browser.script("return innerWidth;").await, 390);
    assert_eq!(browser.overflow().await, 0);
    assert_ne!(
        browser.script("return getComputedStyle(document.querySelector('h1')).color;").await,
        "rgb(1, 2, 3)"
    );
    browser.dark(true).await;
    assert_eq!(
        browser.script("return getComputedStyle(document.querySelector('h1')).color;").await,
        "rgb(1, 2, 3)"
    );
    browser.fill("input", "x y").await;
    browser.click("button").await;
    assert_eq!(browser.place().await, "/?q=x+y");
    let picture = browser.shot("browser").await;
    assert!(std::fs::read(&picture).expect("a picture").starts_with(b"\x89PNG"));

    let profile = browser.profile().to_owned();
    assert!(processes_with(&profile) > 0);
    drop(browser);
    eventually(SOON, "no process of the browser", async || processes_with(&profile) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_javascript_is_as_it_was_served() {
    let url = site().await;
    let browser = Browser::with(Options { javascript: false, ..Options::default() }).await;
    browser.goto(&url).await;
    assert_eq!(browser.text("h1").await, "as served");
    browser.fill("input", "a").await;
    browser.click("button").await;
    assert_eq!((browser.place().await.as_str(), browser.text("h1").await.as_str()), ("/?q=a", "as served"));
}
