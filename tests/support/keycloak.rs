//! Keycloak: one for all tests of this process, since its start takes half a minute; and a realm of one's own for each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::pki::{self, file_flag};
use super::ports;
use super::process::{Process, Program, RunDir};
use super::programs;
use super::stage::http;
use super::wait::eventually;

/// How long it may take to start on a machine that is busy building.
const START: Duration = Duration::from_secs(300);

/// What realms call the cluster that they trust.
const CLUSTER: &str = "cluster";

const ADMINISTRATOR: &str = "rig-administrator";
const ADMINISTRATOR_SECRET: &str = "only-for-tests-0123456789abcdef";

/// A running Keycloak.
pub struct Keycloak {
    // Dropped from the top, and the folder last.
    process: Process,
    url: String,
    run: RunDir,
}

impl Keycloak {
    /// The Keycloak of this test process; the first call starts it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Keycloak> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A Keycloak of one's own, for tests that stop it. It forgets all when it ends.
    pub async fn start() -> Self {
        let bin = programs::folder_of(&["keycloak"]).await;
        let run = RunDir::new("applink-keycloak-");
        let url = format!("http://127.0.0.1:{}", ports::free());
        let port = url.rsplit(':').next().expect("a port");
        // All of Java's options: less memory and a quicker start than with those that it has for a long life.
        let java = format!(
            "-Xms64m -Xmx512m -XX:MaxMetaspaceSize=256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
             -XX:-UsePerfData -Dfile.encoding=UTF-8 -Djava.io.tmpdir={}",
            run.folder("tmp").display()
        );
        let mut program = Program::new(bin.join("kc.sh"), run.path().join("keycloak.log"))
            .args(["start", "--optimized", "--cache=local", "--http-enabled=true", "--http-host=127.0.0.1"])
            .args([format!("--http-port={port}"), format!("--hostname={url}")])
            // It fetches the keys of the control planes' ServiceAccount tokens.
            .args([file_flag("truststore-paths", &run.write("authority.pem", pki::authority_pem()))])
            // As in a Pod: without these its identity provider for Kubernetes finds no keys at all, also none
            // where it was told to look (seen in 26.4.5).
            .env("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
            .env("KUBERNETES_SERVICE_PORT_HTTPS", "443")
            .env("JAVA_OPTS", java)
            .env("KC_BOOTSTRAP_ADMIN_CLIENT_ID", ADMINISTRATOR)
            .env("KC_BOOTSTRAP_ADMIN_CLIENT_SECRET", ADMINISTRATOR_SECRET);
        for name in ["PATH", "JAVA_HOME"] {
            if let Some(value) = std::env::var_os(name) {
                program = program.env(name, value);
            }
        }
        let keycloak = Self { process: program.start(), url, run };
        eventually(START, "Keycloak to be ready", async || {
            keycloak.process.must_run();
            http().get(format!("{}/realms/master", keycloak.url)).send().await?.error_for_status()
        })
        .await;
        keycloak
    }

    /// The base of its addresses.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All it has written to its log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The folder of its log.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// Calls its admin API as the administrator of the whole.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let token = token(&self.url, "master", ADMINISTRATOR, ADMINISTRATOR_SECRET).await;
        let mut request = http().request(method, format!("{}{path}", self.url)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("Keycloak's admin API answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }
}

/// An access token by client credentials.
async fn token(url: &str, realm: &str, id: &str, secret: &str) -> String {
    let answer = http()
        .post(format!("{url}/realms/{realm}/protocol/openid-connect/token"))
        .basic_auth(id, Some(secret))
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await
        .expect("Keycloak's token endpoint answers");
    let status = answer.status();
    let body: Value = answer.json().await.expect("JSON");
    body["access_token"].as_str().unwrap_or_else(|| panic!("no token for {id}: {status} {body}")).to_owned()
}

/// A realm with a client for the operator, whose service account has the role `manage-clients` and no other.
pub struct Realm {
    keycloak: &'static Keycloak,
    pub name: String,
    pub operator_id: String,
    pub operator_secret: String,
}

impl Realm {
    /// A realm as Keycloak makes them: a client has one secret.
    pub async fn new() -> Self {
        Self::with(json!({})).await
    }

    /// A realm whose confidential clients have two secrets while one takes over from the other: a client policy
    /// rotates them. A new secret lasts a year, and the one before for two days more.
    pub async fn rotating() -> Self {
        let rotation = json!({
            "executor": "secret-rotation",
            "configuration": {
                "expiration-period": 365 * 86_400,
                "rotated-expiration-period": 2 * 86_400,
                "remaining-rotation-period": 10 * 86_400,
            },
        });
        let confidential =
            json!({"condition": "client-access-type", "configuration": {"type": ["confidential"]}});
        Self::with(json!({
            "clientProfiles": {"profiles": [{"name": "rotation", "executors": [rotation]}]},
            "clientPolicies": {"policies": [{
                "name": "rotation", "enabled": true, "conditions": [confidential], "profiles": ["rotation"],
            }]},
        }))
        .await
    }

    /// A realm with more fields of its representation.
    ///
    /// # Panics
    /// When it can't be made.
    pub async fn with(fields: Value) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let keycloak = Keycloak::shared().await;
        let name = format!("realm-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (id, secret) = ("applink-operator", "only-for-tests-operator-0123456789");
        let mut realm = json!({
            "realm": name,
            "enabled": true,
            "sslRequired": "none",
            "clients": [{
                "clientId": id,
                "secret": secret,
                "standardFlowEnabled": false,
                "serviceAccountsEnabled": true,
            }],
            "users": [{
                "username": format!("service-account-{id}"),
                "enabled": true,
                "serviceAccountClientId": id,
                "clientRoles": {"realm-management": ["manage-clients"]},
            }],
        });
        let all = realm.as_object_mut().expect("an object");
        all.extend(fields.as_object().expect("an object").clone());
        let (status, body) = keycloak.admin(Method::POST, "/admin/realms", Some(realm)).await;
        assert_eq!(status, 201, "{body}");
        Self { keycloak, name, operator_id: id.to_owned(), operator_secret: secret.to_owned() }
    }

    /// The Keycloak that it is in.
    pub fn keycloak(&self) -> &'static Keycloak {
        self.keycloak
    }

    /// Its issuer; the addresses of its endpoints begin so.
    pub fn issuer(&self) -> String {
        format!("{}/realms/{}", self.keycloak.url(), self.name)
    }

    /// An access token of the operator's service account.
    pub async fn operator_token(&self) -> String {
        token(self.keycloak.url(), &self.name, &self.operator_id, &self.operator_secret).await
    }

    /// Calls the admin API of this realm as the administrator of the whole; `path` comes after the realm's.
    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        self.keycloak.admin(method, &format!("/admin/realms/{}{path}", self.name), body).await
    }

    /// Has it take the ServiceAccount tokens of a cluster as clients' assertions; `issuer` is the cluster's.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn trust_cluster(&self, issuer: &str) {
        let provider = json!({
            "alias": CLUSTER, "providerId": "kubernetes", "enabled": true,
            "config": {
                "issuer": issuer, "useJwksUrl": "true", "jwksUrl": format!("{issuer}/openid/v1/jwks"),
                "validateSignature": "true",
                // A token serves until it is a few minutes from its end, not once.
                "supportsClientAssertions": "true", "supportsClientAssertionReuse": "true",
            },
        });
        let (status, body) = self.admin(Method::POST, "/identity-provider/instances", Some(provider)).await;
        assert_eq!(status, 201, "{body}");
    }

    /// A client without a secret, which is who has a token of this ServiceAccount (`NAMESPACE:NAME`) of the
    /// trusted cluster.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn federated_client(&self, id: &str, account: &str) {
        let client = json!({
            "clientId": id, "serviceAccountsEnabled": true, "standardFlowEnabled": false,
            "clientAuthenticatorType": "federated-jwt",
            "attributes": {
                "jwt.credential.issuer": CLUSTER,
                "jwt.credential.sub": format!("system:serviceaccount:{account}"),
            },
        });
        let (status, body) = self.admin(Method::POST, "/clients", Some(client)).await;
        assert_eq!(status, 201, "{body}");
    }

    /// The client with this client ID as Keycloak knows it.
    pub async fn client(&self, id: &str) -> Option<Value> {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("clientId", id).finish();
        let (status, body) = self.admin(Method::GET, &format!("/clients?{query}"), None).await;
        assert_eq!(status, 200, "{body}");
        body.as_array().expect("a list").first().cloned()
    }
}
