//! What is put to the test: a provider service and the adapter for it.

use std::sync::atomic::{AtomicU64, Ordering};

use applink_operator::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, Owner, RedirectUri, ScopeSet,
    SecretString,
};
use applink_operator::http::{AllowList, Guard, GuardOptions, HttpClient, Trust};
use applink_operator::provider::{
    Capabilities, ClientRef, Proof, Provider, ProviderError, ProviderInfo, PutClient, PutSecret, Registered,
    RegisteredClient,
};

/// Tokens of a client.
pub struct Tokens {
    /// An access token.
    pub access: String,
    /// A refresh token.
    pub refresh: String,
}

/// A real provider service, and how to reach it past its adapter.
///
/// A suite of cases is run against each; what a service can't do it says by `Capabilities` and
/// `ProviderInfo`, and not here.
pub trait Subject: Sized + Send + Sync {
    /// A running service. It may be shared: every case keeps to clients of its own.
    async fn start() -> Self;

    /// The base addresses that its adapter calls.
    fn bases(&self) -> Vec<String>;

    /// Its adapter, as the operator makes it, for a service at these bases.
    fn adapter(&self, http: HttpClient, bases: &[String]) -> Box<dyn Provider>;

    /// Its issuer.
    fn issuer(&self) -> String;

    /// Sets of scopes that a client may have there, the empty one among them where that may be.
    fn scope_sets(&self) -> Vec<&'static str>;

    /// Whether its registration keeps the address of the application itself.
    fn keeps_uri(&self) -> bool {
        true
    }

    /// The longest redirect URI that it has room for.
    fn longest_uri(&self) -> usize {
        450
    }

    /// Whether users may be sent back to http://127.0.0.1, and not to http://localhost alone.
    fn takes_loopback_addresses(&self) -> bool {
        true
    }

    /// Whether a request that is answered so may be made up for by another one.
    fn makes_up_for(&self, _status: u16) -> bool {
        false
    }

    /// Whether another endpoint proves credentials where one doesn't.
    fn proves_in_two_ways(&self) -> bool {
        false
    }

    /// More clients than there are on a page; 0 where it lists none.
    fn many(&self) -> usize {
        0
    }

    /// Whether its adapter logs in anew where its token isn't taken, so that one 401 is got over.
    fn logs_in_anew(&self) -> bool {
        false
    }

    /// How many calls it stands at once.
    fn at_once(&self) -> usize {
        4
    }

    /// A confidential client that nobody owns, with the scopes of the first set and this secret where
    /// it may be chosen, made past the adapter. `None` where the service has no way.
    async fn make_by_hand(&self, _id: &str, _secret: &str) -> Option<()> {
        None
    }

    /// Edits a client past the adapter so that its name is another. `None` where there is no way.
    async fn rename_by_hand(&self, _id: &ClientId, _name: &str) -> Option<()> {
        None
    }

    /// Tokens of a client that has all grant types and a redirect URI [`CALLBACK`]. `None` where the
    /// service has no way to them without a person.
    async fn tokens(&self, _id: &ClientId, _secret: &SecretString) -> Option<Tokens> {
        None
    }

    /// Whether a token of a client, with the secret that this has now, is good.
    async fn is_active(&self, _id: &ClientId, _secret: &SecretString, _token: &str) -> bool {
        false
    }
}

/// The redirect URI of clients that get tokens.
pub const CALLBACK: &str = "http://localhost/callback";

/// A client that may call this machine.
pub fn http_client() -> HttpClient {
    let guard = Guard::new(AllowList::default(), GuardOptions::default()).expect("a resolver");
    guard.client(Trust::Trusted, None)
}

/// A name that no other case has.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A secret that no other has, with the length of a derived one.
pub fn new_secret() -> SecretString {
    let text = unique("canary-secret");
    format!("{text}{}", "x".repeat(43usize.saturating_sub(text.len()))).into()
}

/// What a client is registered with that people log in to, with these scopes.
pub fn for_people(scopes: &str, auth_method: AuthMethod) -> ClientMetadata {
    ClientMetadata {
        name: "CI dashboard".into(),
        uri: Some("https://ci.example.com".into()),
        redirect_uris: uris(&["https://ci.example.com/callback"]),
        grant_types: [GrantType::AuthorizationCode, GrantType::RefreshToken].into(),
        scopes: ScopeSet::parse(scopes).expect("scopes"),
        auth_method,
    }
}

/// An owner's record.
pub fn owner(link: &str) -> Owner {
    Owner {
        installation: "conformance".into(),
        namespace: "team-a".into(),
        namespace_uid: "ns-uid".into(),
        name: link.into(),
        uid: format!("uid-{link}"),
        serial: 1,
        since: 1_700_000_000,
        previous_until: 0,
        request: String::new(),
        mark: "bWFyay1tYXJrLW1hcmstbWFyay1tYXJrLW1hcmstbWE".into(),
        deletion: None,
    }
}

/// A set of redirect URIs.
pub fn uris(texts: &[&str]) -> std::collections::BTreeSet<RedirectUri> {
    texts.iter().map(|u| RedirectUri::parse(u).expect("a redirect URI")).collect()
}

/// What is known of a client.
#[derive(Clone)]
pub struct Known {
    /// How it is asked for.
    pub at: ClientRef,
    /// Its identifier at the service, once it is registered.
    pub id: ClientId,
    /// The secret that it should have.
    pub secret: Option<SecretString>,
    /// As it was seen last.
    pub exists: bool,
    pub version: Option<String>,
    pub owner: Owner,
}

/// Which secret a put asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Give {
    /// A new one, by whoever picks it.
    New,
    /// A new one beside the one before, for an hour.
    NewBeside,
    /// The one that it was given.
    Same,
    /// Whatever is there.
    Kept,
    /// None.
    Public,
}

/// A service seen through its adapter.
pub struct Port<'s, S> {
    pub subject: &'s S,
    pub provider: Box<dyn Provider>,
    pub info: ProviderInfo,
    pub can: Capabilities,
}

impl<'s, S: Subject> Port<'s, S> {
    pub async fn of(subject: &'s S) -> Self {
        Self::at(subject, http_client(), &subject.bases()).await
    }

    /// The service at these addresses, which are those of proxies before it.
    pub async fn at(subject: &'s S, http: HttpClient, bases: &[String]) -> Self {
        let provider = subject.adapter(http, bases);
        let info = provider.info().await.expect("the service says who it is");
        let can = provider.capabilities();
        Self { subject, provider, info, can }
    }

    /// A client that isn't there yet.
    pub fn unknown(&self, what: &str) -> Known {
        let name = unique(what);
        let id = ClientId::parse(&name).expect("an identifier");
        Known {
            at: ClientRef { id: id.clone(), handle: None },
            id,
            secret: None,
            exists: false,
            version: None,
            owner: owner(&name),
        }
    }

    /// The authentication methods that clients may have.
    pub fn methods(&self) -> Vec<AuthMethod> {
        [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None]
            .into_iter()
            .filter(|m| self.info.auth_methods.as_ref().is_none_or(|all| all.contains(m)))
            .collect()
    }

    /// Those with a secret.
    pub fn confidential(&self) -> Vec<AuthMethod> {
        self.methods().into_iter().filter(|m| !m.is_public()).collect()
    }

    /// The grant types that clients may have.
    pub fn grants(&self) -> Vec<GrantType> {
        [GrantType::AuthorizationCode, GrantType::ClientCredentials, GrantType::RefreshToken]
            .into_iter()
            .filter(|g| self.info.grant_types.as_ref().is_none_or(|all| all.contains(g)))
            .collect()
    }

    /// What most clients are registered with.
    pub fn metadata(&self, name: &str) -> ClientMetadata {
        let scopes = self.subject.scope_sets();
        ClientMetadata {
            name: name.to_owned(),
            uri: self.subject.keeps_uri().then(|| "https://ci.example.com/".to_owned()),
            redirect_uris: uris(&["https://ci.example.com/callback", CALLBACK]),
            grant_types: self.grants().into_iter().collect(),
            scopes: ScopeSet::parse(scopes[0]).expect("scopes"),
            auth_method: self.confidential()[0],
        }
    }

    /// Looks at a client, and remembers what it is asked for by.
    pub async fn look(&self, client: &mut Known) -> Option<RegisteredClient> {
        self.try_look(client).await.expect("the client is looked at")
    }

    pub async fn try_look(&self, client: &mut Known) -> Result<Option<RegisteredClient>, ProviderError> {
        let seen = self.provider.get(&client.at).await?;
        client.exists = seen.is_some();
        client.version = seen.as_ref().and_then(|c| c.version.clone());
        if let Some(seen) = &seen {
            client.id = seen.id.clone();
            client.at.handle = seen.handle.clone().or(client.at.handle.take());
        }
        Ok(seen)
    }

    /// What is asked for by a put.
    pub fn request(&self, client: &Known, metadata: &ClientMetadata, give: Give) -> PutClient {
        let chosen = |secret, previous| PutSecret::Chosen { secret, derived: true, previous };
        let secret = match give {
            Give::Public => PutSecret::Public,
            Give::Kept => PutSecret::Kept,
            Give::Same if self.can.chooses_secret => {
                chosen(client.secret.clone().expect("it has a secret"), None)
            }
            Give::Same => PutSecret::Kept,
            Give::New | Give::NewBeside if !self.can.chooses_secret => PutSecret::Fresh,
            Give::New => chosen(new_secret(), None),
            Give::NewBeside => {
                let until = jiff::Timestamp::now().as_second() + 3600;
                let secret = client.secret.clone().expect("it has a secret");
                chosen(new_secret(), Some(applink_operator::provider::Previous { secret, until }))
            }
        };
        PutClient {
            at: client.at.clone(),
            metadata: metadata.clone(),
            secret,
            owner: client.owner.clone(),
            exists: client.exists,
            version: client.version.clone(),
            revoke_tokens: false,
        }
    }

    /// Takes over what a put gave.
    pub fn note(&self, client: &mut Known, put: &PutClient, got: &Registered) {
        client.exists = true;
        client.id = got.id.clone();
        client.at.handle = got.handle.clone().or(client.at.handle.take());
        match &put.secret {
            PutSecret::Chosen { secret, .. } => client.secret = Some(secret.clone()),
            PutSecret::Public => client.secret = None,
            PutSecret::Fresh => client.secret = got.secret.clone(),
            PutSecret::Kept => {}
        }
    }

    pub async fn try_put(
        &self,
        client: &mut Known,
        metadata: &ClientMetadata,
        give: Give,
    ) -> Result<Registered, ProviderError> {
        let put = self.request(client, metadata, give);
        let got = self.provider.put(&put).await?;
        self.note(client, &put, &got);
        Ok(got)
    }

    /// Puts a client and checks that it stands there in every field.
    #[track_caller]
    pub fn put<'a>(
        &'a self,
        client: &'a mut Known,
        metadata: &'a ClientMetadata,
        give: Give,
    ) -> impl Future<Output = RegisteredClient> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let got = self.try_put(client, metadata, give).await;
            got.unwrap_or_else(|e| panic!("{caller}: {give:?} {metadata:?}: {e}"));
            let seen = self.look(client).await.unwrap_or_else(|| panic!("{caller}: it isn't there"));
            if client.secret.is_none() && !metadata.auth_method.is_public() {
                client.secret = seen.secret.clone();
            }
            self.stands(client, metadata, &seen, &caller.to_string());
            seen
        }
    }

    /// That a client is as it was put.
    pub fn stands(&self, client: &Known, metadata: &ClientMetadata, seen: &RegisteredClient, at: &str) {
        assert_eq!(seen.metadata.as_ref(), Some(metadata), "{at}: it reads back otherwise");
        assert_eq!(seen.has_secret, !metadata.auth_method.is_public(), "{at}: has_secret");
        assert_eq!(seen.owner.as_ref(), self.can.tells_owner.then_some(&client.owner), "{at}: the owner");
        let readable = seen.secret.as_ref().map(|s| s.expose_secret());
        let expected = client.secret.as_ref().filter(|_| self.can.reads_secret).map(|s| s.expose_secret());
        assert_eq!(readable, expected, "{at}: a secret is read where it can be, and only there");
        assert!(self.can.overlaps || !seen.has_previous, "{at}: an overlap that isn't promised");
        assert!(
            self.can.expires_secret || seen.secret_expires_at.is_none(),
            "{at}: an end that isn't promised"
        );
        assert!(!seen.protected, "{at}: it is ours to change");
    }

    /// Registers a client.
    pub async fn register(&self, what: &str) -> (Known, ClientMetadata) {
        let mut client = self.unknown(what);
        let metadata = self.metadata(client.at.id.as_str());
        self.put(&mut client, &metadata, Give::New).await;
        (client, metadata)
    }

    pub async fn prove(&self, client: &Known, secret: &SecretString, method: AuthMethod) -> Proof {
        self.provider.prove(&self.info, &client.id, secret, method).await
    }

    /// Whether a token of a client is good.
    pub async fn is_active(&self, client: &Known, token: &str) -> bool {
        let secret = client.secret.as_ref().expect("a secret");
        self.subject.is_active(&client.id, secret, token).await
    }

    /// That a client's secret is good, or isn't, where that can be told.
    #[track_caller]
    pub fn is<'a>(
        &'a self,
        client: &'a Known,
        secret: &'a SecretString,
        method: AuthMethod,
        proof: Proof,
    ) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let expected = if self.can.proves { proof } else { Proof::Unproved };
            assert_eq!(self.prove(client, secret, method).await, expected, "{caller}: {method}");
        }
    }
}
