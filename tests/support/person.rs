//! A person with a browser, played by a few HTTP requests: opens the address of `applink authorize`, signs in at
//! [`super::consent_app`], agrees to all, and reads the code of the last page. A real browser has tests of its own.

use std::collections::HashMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Method, Response};
use url::Url;

use super::stage::browser;

/// What a browser keeps. All that it meets here is on one host.
struct Person {
    client: Client,
    cookies: HashMap<String, String>,
}

/// Goes the whole way as `name`, and gives back the code.
///
/// # Panics
/// With the page on which it doesn't go on.
pub async fn consents(address: &str, name: &str) -> String {
    let mut person = Person { client: browser(), cookies: HashMap::new() };
    let address = Url::parse(address).expect("an address");
    let page = person.goes(Method::GET, address.clone(), None).await;
    let ticket = between(&page, "name=\"ticket\" value=\"", "\"");
    let page = person.goes(Method::POST, address, Some(vec![("ticket".into(), ticket)])).await;
    let to = between(&page, "class=\"button primary whole\" href=\"", "\"").replace("&amp;", "&");
    let (login, at) = person.goes_to(Method::GET, Url::parse(&to).expect("an address"), None).await;
    let challenge = between(&login, "value=\"", "\"");
    let form = vec![("challenge".into(), challenge), ("name".into(), name.to_owned())];
    let (consent, at) = person.goes_to(Method::POST, at, Some(form)).await;
    let mut form = vec![("challenge".to_owned(), between(&consent, "value=\"", "\""))];
    let scopes = consent.match_indices("name=\"scope-").map(|(i, _)| between(&consent[i..], "\"", "\""));
    form.extend(scopes.map(|scope| (scope, "1".to_owned())));
    let page = person.goes_to(Method::POST, at, Some(form)).await.0;
    between(&page, "class=\"code\"><code>", "<")
}

/// Goes the whole way at a server that takes whoever a cookie names for signed in, and for agreeing
/// ([`super::auth_servers`]); gives back the code.
///
/// # Panics
/// With the page on which it doesn't go on.
pub async fn agrees(address: &str, name: &str) -> String {
    let mut person = Person { client: browser(), cookies: HashMap::new() };
    person.cookies.insert("person".to_owned(), name.to_owned());
    let address = Url::parse(address).expect("an address");
    let page = person.goes(Method::GET, address.clone(), None).await;
    let ticket = between(&page, "name=\"ticket\" value=\"", "\"");
    let page = person.goes(Method::POST, address, Some(vec![("ticket".into(), ticket)])).await;
    let to = between(&page, "class=\"button primary whole\" href=\"", "\"").replace("&amp;", "&");
    let page = person.goes(Method::GET, Url::parse(&to).expect("an address"), None).await;
    between(&page, "class=\"code\"><code>", "<")
}

fn between(page: &str, before: &str, after: &str) -> String {
    let rest = page.split_once(before).unwrap_or_else(|| panic!("no {before} in {page}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {rest}")).0.to_owned()
}

impl Person {
    async fn goes(&mut self, method: Method, to: Url, form: Option<Vec<(String, String)>>) -> String {
        self.goes_to(method, to, form).await.0
    }

    /// Follows redirects, to a page and its address.
    async fn goes_to(
        &mut self,
        mut method: Method,
        mut to: Url,
        mut form: Option<Vec<(String, String)>>,
    ) -> (String, Url) {
        for _ in 0..10 {
            let cookies: Vec<_> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let mut request = self.client.request(method, to.clone()).header(COOKIE, cookies.join("; "));
            if let Some(form) = &form {
                request = request.form(form);
            }
            let answer = request.send().await.expect("an answer");
            self.keep(&answer);
            match answer.headers().get(LOCATION) {
                Some(next) => to = to.join(next.to_str().expect("text")).expect("an address"),
                None => return (answer.text().await.expect("text"), to),
            }
            (method, form) = (Method::GET, None);
        }
        panic!("redirected without end, last to {to}");
    }

    fn keep(&mut self, answer: &Response) {
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str().expect("text").split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}
