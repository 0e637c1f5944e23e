//! The page is for its user alone: other hosts' names, other origins, forms without the token, text that would be HTML.

use reqwest::header::{COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Ui, apply, desk, named, stored_name};
use crate::support::browser::Browser;
use crate::support::stage::browser as http;

#[tokio::test(flavor = "multi_thread")]
async fn only_its_user_gets_in_and_only_by_its_own_forms() {
    let (plane, namespace) = desk().await;
    apply(plane, &namespace, &named("ci", "CI dashboard")).await;
    let ui = Ui::start(plane, plane.kubeconfig(), &["-n", &namespace]).await;
    let client = http();
    let get = |path: &str| client.get(ui.at(path));

    // Without the secret, with a wrong one, and by another name of this machine.
    for path in ["/", "/new", "/events", &format!("/links/{namespace}/ci"), "/?key=wrong"] {
        let answer = get(path).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        let body = answer.text().await.expect("text");
        assert!(
            !body.contains("CI dashboard") && body.contains("kubectl applink ui printed"),
            "{path}: {body}"
        );
    }
    let entered = client.get(&ui.address).send().await.expect("an answer");
    assert_eq!(
        (entered.status(), &entered.headers()[LOCATION]),
        (StatusCode::SEE_OTHER, &"/".parse().expect("a value"))
    );
    let set = entered.headers()[SET_COOKIE].to_str().expect("text").to_owned();
    assert!(set.contains("; HttpOnly; SameSite=Strict") && set.contains("; Path=/"), "{set}");
    let cookie = set.split(';').next().expect("a pair").to_owned();
    assert!(
        !ui.address.contains(cookie.split_once('=').expect("a pair").1),
        "the cookie isn't the printed secret"
    );

    let list = get("/").header(COOKIE, &cookie).send().await.expect("an answer");
    assert_eq!(list.status(), StatusCode::OK);
    let header = |name: &str| list.headers()[name].to_str().expect("text").to_owned();
    let policy = header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert_eq!(
        (header("cache-control"), header("x-content-type-options")),
        ("no-store".into(), "nosniff".into())
    );
    let html = list.text().await.expect("text");
    assert!(
        !html.contains("style=\"") && !html.contains("<script>") && !html.contains(" onclick"),
        "nothing inline"
    );

    // DNS rebinding: the cookie and all, but another host's name.
    for host in ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example"] {
        let answer = get("/").header(COOKIE, &cookie).header(HOST, host).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::MISDIRECTED_REQUEST, "{host}");
    }

    // A form of another site, or of nobody; and one without the token, or with another run's.
    let token = async {
        let page = get(&format!("/links/{namespace}/ci/delete"))
            .header(COOKIE, &cookie)
            .send()
            .await
            .expect("an answer");
        let html = page.text().await.expect("text");
        let value = |name: &str| {
            let rest = html.split(&format!("name=\"{name}\" value=\"")).nth(1).expect("the field");
            rest.split('"').next().expect("a value").to_owned()
        };
        (value("token"), value("uid"))
    };
    let (token, uid) = token.await;
    let delete = |origin: Option<&str>, token: Option<&str>, cookie: Option<&str>| {
        let mut form = vec![("confirm", "ci"), ("uid", &uid)];
        form.extend(token.map(|t| ("token", t)));
        let mut request =
            client.request(Method::POST, ui.at(&format!("/links/{namespace}/ci/delete"))).form(&form);
        for (name, value) in [(ORIGIN, origin), (COOKIE, cookie)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        async { request.send().await.expect("an answer").status() }
    };
    let own = Some(ui.origin.as_str());
    let (good, known) = (Some(token.as_str()), Some(cookie.as_str()));
    for (origin, token, cookie, wanted) in [
        (None, good, known, StatusCode::FORBIDDEN),
        (Some("null"), good, known, StatusCode::FORBIDDEN),
        (Some("http://evil.example"), good, known, StatusCode::FORBIDDEN),
        (Some("http://127.0.0.1:1"), good, known, StatusCode::FORBIDDEN),
        (own, None, known, StatusCode::FORBIDDEN),
        (own, Some("wrong"), known, StatusCode::FORBIDDEN),
        (own, good, None, StatusCode::UNAUTHORIZED),
        (own, good, Some("applink-ui-1=x"), StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(delete(origin, token, cookie).await, wanted, "{origin:?} {cookie:?}");
    }
    let left = plane.kubectl(&["get", "applicationlinks", "-n", &namespace, "-o", "name"]).await.ok();
    assert_eq!(left.trim(), "applicationlink.applink-operator.io/ci");
    assert_eq!(delete(own, good, known).await, StatusCode::SEE_OTHER, "its own form does it");
    // A way out of the API's path is no name.
    let outside =
        get("/links/x/..%2f..%2fsecrets%2fx").header(COOKIE, &cookie).send().await.expect("an answer");
    assert_eq!(outside.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_can_neither_act_nor_frame_nor_read() {
    let (plane, namespace) = desk().await;
    apply(plane, &namespace, &named("ci", "CI dashboard")).await;
    let ui = Ui::start(plane, plane.kubeconfig(), &["-n", &namespace]).await;
    let browser = Browser::start().await;
    ui.open(&browser).await;
    // A page of another origin, in the browser that has the cookie.
    let evil = format!(
        "<!doctype html><title>evil</title><form id=f method=post action='{}/links/{namespace}/ci/delete'>
         <input name=confirm value=ci><input name=token value=x></form><iframe id=i src='{}/'></iframe>",
        ui.origin, ui.origin
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.expect("a port");
    let place = format!("http://{}/", listener.local_addr().expect("an address"));
    let router = axum::Router::new().route("/", axum::routing::get(async move || axum::response::Html(evil)));
    tokio::spawn(async { axum::serve(listener, router).await });
    browser.goto(&place).await;
    let read = format!(
        "return await fetch('{}/', {{credentials: 'include'}}).then(a => a.text(), () => 'blocked');",
        ui.origin
    );
    assert_eq!(browser.script(&read).await, "blocked");
    let framed = "try { return document.getElementById('i').contentDocument.body.textContent } catch { return 'blocked' }";
    let framed = browser.script(framed).await;
    assert!(!framed.to_string().contains("CI dashboard"), "{framed}");
    browser.script("document.getElementById('f').submit(); return 0;").await;
    browser.shows("[role=alert]", "didn't come from this page").await;
    let left = plane.kubectl(&["get", "applicationlinks", "-n", &namespace, "-o", "name"]).await.ok();
    assert_eq!(left.trim(), "applicationlink.applink-operator.io/ci");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_would_be_html_stays_text() {
    let (plane, namespace) = desk().await;
    let name =
        "<img src=x onerror=\"document.title='owned'\"></textarea><script>document.title='owned'</script>";
    let mut link = named("ci", name);
    link["metadata"]["labels"] = json!({"app.kubernetes.io/version": "1"});
    link["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": "<b>x</b>:y"});
    link["spec"]["application"]["url"] = json!("https://ci.example.com/?'\"<script>");
    apply(plane, &namespace, &link).await;
    let ui = Ui::start(plane, plane.kubeconfig(), &["-n", &namespace]).await;
    let browser = Browser::start().await;
    ui.open(&browser).await;
    for page in [
        format!("/?namespace={namespace}"),
        format!("/links/{namespace}/ci"),
        format!("/links/{namespace}/ci/edit"),
        format!("/links/{namespace}/ci/yaml"),
        format!("/links/{namespace}/ci/delete"),
        "/?q=%22%3E%3Cimg%20src=x%3E&namespace=%3Cimg%3E".to_owned(),
    ] {
        browser.goto(&ui.at(&page)).await;
        assert!(!browser.has("main img, main script, main b").await, "{page}");
        assert_ne!(browser.page.title().await.expect("a title"), "owned", "{page}");
    }
    browser.goto(&ui.at(&format!("/?namespace={namespace}"))).await;
    let shown = browser.text("#rows .name").await;
    assert!(shown.starts_with("<img src=x"), "{shown}");
    // What came through the form and the review is the same text.
    browser.goto(&ui.at(&format!("/links/{namespace}/ci/edit"))).await;
    browser.fill("[id='spec.incoming.oauth2.scopes']", "READ").await;
    browser.click("button.primary").await;
    browser.shows("#difference", "READ").await;
    assert!(!browser.has("main img, main script, main b").await);
    browser.click("#apply").await;
    browser.shows("[role=status]", "The link was changed").await;
    let stored = stored_name(plane, &namespace).await;
    assert_eq!(stored, name);
}
