//! What a client may be registered with, whoever registers it: the same rules for the admin API and for the
//! registration endpoint, each with its own names for the fields.

use crate::domain::text::Shown;
use crate::domain::{AuthMethod, ClientMetadata, GrantType, RedirectUri, Scope, ScopeSet};
use std::collections::BTreeSet;
use url::Url;

const MAX_NAME: usize = 255;
const MAX_URI: usize = 2048;
const MAX_REDIRECT_URIS: usize = 100;

/// What a client is to be registered with, as text.
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Where the application is.
    pub uri: Option<String>,
    /// Where users may be sent back to.
    pub redirect_uris: Vec<String>,
    /// What it may ask for.
    pub grant_types: Vec<String>,
    /// What it may get.
    pub scopes: Vec<String>,
    /// How it authenticates.
    pub auth_method: String,
}

/// What the fields are called where the client comes from.
pub struct Words {
    /// The name's.
    pub name: &'static str,
    /// The URI's.
    pub uri: &'static str,
    /// The redirect URIs'.
    pub redirect_uris: &'static str,
    /// The grant types'.
    pub grant_types: &'static str,
    /// The scopes'.
    pub scopes: &'static str,
    /// The authentication method's.
    pub auth_method: &'static str,
}

/// A rule that has an error code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// About redirect URIs.
    RedirectUri,
    /// About grant types.
    GrantTypes,
    /// About scopes.
    Scope,
    /// About anything else.
    Other,
}

/// A rule was broken.
#[derive(Debug)]
pub struct Broken {
    /// Which.
    pub rule: Rule,
    /// By which field.
    pub field: &'static str,
    /// What is wrong, and the way out.
    pub text: String,
}

impl Broken {
    fn by(rule: Rule, field: &'static str, text: impl Into<String>) -> Self {
        Self { rule, field, text: text.into() }
    }
}

impl Wanted {
    /// Checks it against what this service has.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn check(self, words: &Words, most: &ScopeSet) -> Result<ClientMetadata, Broken> {
        let auth_method = auth_method(words, &self.auth_method)?;
        let redirect_uris = redirect_uris(words, &self.redirect_uris)?;
        let grant_types = grant_types(words, &self.grant_types, auth_method)?;
        if grant_types.contains(&GrantType::AuthorizationCode) && redirect_uris.is_empty() {
            let field = words.redirect_uris;
            let text =
                format!("grant type authorization_code needs at least one redirect URI; add one to {field}");
            return Err(Broken::by(Rule::RedirectUri, field, text));
        }
        Ok(ClientMetadata {
            name: name(words, self.name)?,
            uri: self.uri.map(|u| uri(words, u)).transpose()?,
            redirect_uris,
            grant_types,
            scopes: scopes(words.scopes, &self.scopes, most)?,
            auth_method,
        })
    }
}

fn name(words: &Words, name: String) -> Result<String, Broken> {
    if name.trim().is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        let field = words.name;
        let text = format!("{field} must have 1 to {MAX_NAME} characters, none of them a control character");
        return Err(Broken::by(Rule::Other, field, text));
    }
    Ok(name)
}

fn uri(words: &Words, uri: String) -> Result<String, Broken> {
    let web = Url::parse(&uri).is_ok_and(|u| matches!(u.scheme(), "https" | "http") && u.has_host());
    if !web || uri.len() > MAX_URI || uri.chars().any(char::is_control) {
        let field = words.uri;
        let text = format!("{field} must be an http or https URL of at most {MAX_URI} bytes");
        return Err(Broken::by(Rule::Other, field, text));
    }
    Ok(uri)
}

fn redirect_uris(words: &Words, all: &[String]) -> Result<BTreeSet<RedirectUri>, Broken> {
    let field = words.redirect_uris;
    let bad = |text: String| Broken::by(Rule::RedirectUri, field, text);
    if all.len() > MAX_REDIRECT_URIS {
        return Err(bad(format!("{field} has more than {MAX_REDIRECT_URIS} entries")));
    }
    let parse =
        |uri: &String| RedirectUri::parse(uri).map_err(|e| bad(format!("redirect URI {} {e}", Shown(uri))));
    all.iter().map(parse).collect()
}

fn auth_method(words: &Words, word: &str) -> Result<AuthMethod, Broken> {
    let all = [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None];
    all.into_iter().find(|m| m.as_str() == word).ok_or_else(|| {
        let field = words.auth_method;
        let text =
            format!("{field} {} isn't one of client_secret_basic, client_secret_post and none", Shown(word));
        Broken::by(Rule::Other, field, text)
    })
}

fn grant_types(words: &Words, all: &[String], method: AuthMethod) -> Result<BTreeSet<GrantType>, Broken> {
    let bad = |text: String| Broken::by(Rule::GrantTypes, words.grant_types, text);
    let known = [GrantType::AuthorizationCode, GrantType::ClientCredentials, GrantType::RefreshToken];
    let parse = |word: &String| {
        known.into_iter().find(|g| g.as_str() == word).ok_or_else(|| {
            let text = "isn't one of authorization_code, client_credentials and refresh_token";
            bad(format!("grant type {} {text}", Shown(word)))
        })
    };
    let grants = all.iter().map(parse).collect::<Result<BTreeSet<_>, _>>()?;
    if method.is_public() && grants.contains(&GrantType::ClientCredentials) {
        return Err(bad(format!(
            "a public client ({} none) can't have grant type client_credentials, since it can't prove who it \
             is; leave one of them out",
            words.auth_method
        )));
    }
    Ok(grants)
}

/// Checks scopes against those that there are to have.
///
/// # Errors
/// [`Broken`].
pub fn scopes(field: &'static str, all: &[String], most: &ScopeSet) -> Result<ScopeSet, Broken> {
    let bad =
        |word: &String, why: String| Broken::by(Rule::Scope, field, format!("scope {} {why}", Shown(word)));
    let parse = |word: &String| {
        let scope = Scope::parse(word).map_err(|e| bad(word, e.to_string()))?;
        if most.contains(&scope) {
            Ok(scope)
        } else {
            Err(bad(word, format!("isn't one of those there are to have here: {most}")))
        }
    };
    all.iter().map(parse).collect()
}
