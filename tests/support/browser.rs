//! A real Chromium without a window, driven over WebDriver: Debian's packages `chromium` and `chromium-driver`, which
//! `hack/test.sh` installs.
//!
//! ```ignore
//! let browser = Browser::start().await;
//! browser.page.goto(&url).await.expect("a page");
//! browser.find("main h1").await;
//! browser.shot("list").await;
//! ```

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::ports;
use super::process::{Process, Program, RunDir};
use super::stage::http;
use super::wait::{SOON, eventually};

/// One takes some 300 MiB: more of them at a time would crowd out the control plane.
static PLACES: Semaphore = Semaphore::const_new(2);

/// How a browser differs from the usual one: 1280 × 800, light, with JavaScript.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether pages may run scripts. The driver's own still run.
    pub javascript: bool,
    /// Width and height of what shows a page, in CSS pixels.
    pub size: (u32, u32),
    /// Whether the person likes it dark (`prefers-color-scheme`).
    pub dark: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { javascript: true, size: (1280, 800), dark: false }
    }
}

/// A phone that is held upright.
pub const PHONE: (u32, u32) = (390, 844);

/// A browser with an empty profile. Dropping it ends it and removes the profile.
pub struct Browser {
    /// WebDriver's own commands.
    pub page: Client,
    base: String,
    session: String,
    driver: Process,
    // Dropped last: the profile is in it.
    run: RunDir,
    _place: SemaphorePermit<'static>,
}

impl Browser {
    /// The usual one.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// # Panics
    /// When there is no Chromium or it doesn't start: with the end of the driver's log.
    pub async fn with(options: Options) -> Self {
        let place = PLACES.acquire().await.expect("the semaphore is never closed");
        let (driver, chromium) = (program("chromedriver"), program("chromium"));
        let run = RunDir::new("applink-browser-");
        let port = ports::free();
        let driver = Program::new(driver, run.path().join("chromedriver.log"))
            .args([format!("--port={port}")])
            // The profile goes where TMPDIR says; HOME is where else it would write.
            .env("TMPDIR", run.folder("tmp"))
            .env("HOME", run.folder("home"))
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .start();
        let base = format!("http://127.0.0.1:{port}");
        eventually(SOON, "chromedriver to be ready", async || {
            driver.must_run();
            let answer = http().get(format!("{base}/status")).send().await.map_err(|e| e.to_string())?;
            let status: Value = answer.json().await.map_err(|e| e.to_string())?;
            if status["value"]["ready"] == true { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {
                "binary": chromium,
                "args": [
                    "--headless=new",
                    // A container's root has no user namespaces to build the sandbox of, and little /dev/shm.
                    "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                    // Nothing leaves the machine but what a page asks for.
                    "--no-first-run", "--disable-background-networking", "--disable-component-update",
                    "--disable-sync", "--no-proxy-server", "--hide-scrollbars",
                ],
            },
        });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().expect("an object").clone());
        let page = builder.connect(&base).await.unwrap_or_else(|e| {
            panic!("Chromium doesn't start: {e}\n{}", driver.log());
        });
        let session = page.session_id().await.expect("an answer").expect("a session");
        let browser = Self { page, base, session, driver, run, _place: place };
        browser.resize(options.size).await;
        if options.dark {
            browser.dark(true).await;
        }
        if !options.javascript {
            browser.devtools("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
        }
        browser
    }

    /// Gives what shows pages another size, in CSS pixels. A window can't be as narrow as a phone.
    pub async fn resize(&self, (width, height): (u32, u32)) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Says whether the person likes it dark.
    pub async fn dark(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// A command of Chromium's own protocol, for what WebDriver has no word for.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        let url = format!("{}/session/{}/goog/cdp/execute", self.base, self.session);
        let request = http().post(url).json(&json!({"cmd": command, "params": params}));
        let answer = request.send().await.unwrap_or_else(|e| panic!("{command}: {e}\n{}", self.driver.log()));
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        assert!(status.is_success(), "{command}: {body}");
        body["value"].clone()
    }

    /// Goes to an address and waits until the page has loaded.
    pub async fn goto(&self, url: &str) {
        self.page.goto(url).await.unwrap_or_else(|e| panic!("{url}: {e}"));
    }

    /// The first element that a CSS selector fits, as soon as it is there.
    #[track_caller]
    pub fn find(&self, css: &str) -> impl Future<Output = Element> {
        let what = format!("{css} on the page");
        eventually(SOON, what, async move || self.page.find(Locator::Css(css)).await)
    }

    /// Whether a CSS selector fits anything now.
    pub async fn has(&self, css: &str) -> bool {
        !self.page.find_all(Locator::Css(css)).await.expect("an answer").is_empty()
    }

    /// The text of what a CSS selector fits first, as it is shown.
    pub async fn text(&self, css: &str) -> String {
        self.find(css).await.text().await.expect("text")
    }

    /// Waits until that text contains `part`, and gives it back whole. Also over a change of page.
    #[track_caller]
    pub fn shows(&self, css: &str, part: &str) -> impl Future<Output = String> {
        let what = format!("“{part}” in {css}");
        eventually(SOON, what, async move || {
            let element = self.page.find(Locator::Css(css)).await.map_err(|e| e.to_string())?;
            let text = element.text().await.map_err(|e| e.to_string())?;
            if text.contains(part) { Ok(text) } else { Err(text) }
        })
    }

    /// Clicks what a CSS selector fits first. A click that leads to another page waits for it.
    pub async fn click(&self, css: &str) {
        let element = self.find(css).await;
        element.click().await.unwrap_or_else(|e| panic!("a click on {css}: {e}"));
    }

    /// Puts a text in a field in place of what is there, key by key.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.expect("a field can be emptied");
        field.send_keys(text).await.unwrap_or_else(|e| panic!("keys for {css}: {e}"));
    }

    /// Presses keys wherever the focus is; `fantoccini::key::Key` has those without a letter.
    pub async fn press(&self, keys: &str) {
        let focused = self.page.active_element().await.expect("something has the focus");
        focused.send_keys(keys).await.expect("keys");
    }

    /// Runs a script in the page and gives back what it returns.
    pub async fn script(&self, body: &str) -> Value {
        self.page.execute(body, Vec::new()).await.unwrap_or_else(|e| panic!("{body}: {e}"))
    }

    /// The path and the query of the address.
    pub async fn place(&self) -> String {
        let url = self.page.current_url().await.expect("an address");
        url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
    }

    /// By how many CSS pixels the page is wider than what shows it.
    pub async fn overflow(&self) -> i64 {
        let script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth;";
        self.script(script).await.as_i64().expect("a number")
    }

    /// Writes a picture of the whole page to `target/screenshots/NAME.png`.
    pub async fn shot(&self, name: &str) -> PathBuf {
        let wanted = json!({"format": "png", "captureBeyondViewport": true});
        let answer = self.devtools("Page.captureScreenshot", wanted).await;
        let picture = STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, picture).expect("the picture can be written");
        path
    }

    /// The folder of its profile, which stands in its processes' command lines.
    pub fn profile(&self) -> &str {
        self.run.path().to_str().expect("a path of text")
    }

    /// Ends it in an orderly way; dropping it is enough.
    pub async fn close(self) {
        self.page.clone().close().await.expect("the session ends");
    }
}

/// Where a program is.
///
/// # Panics
/// When it isn't anywhere.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap_or_else(
        || panic!("there is no {name}; hack/test.sh installs Debian's packages chromium and chromium-driver"),
    )
}
