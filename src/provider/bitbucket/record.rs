//! A client as Bitbucket writes it, read with tolerance: that API isn't published, so whatever
//! can be read one way only is read that way, and unknown fields are passed over.

use super::scopes;
use crate::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, RedirectUri, Scope, SecretString,
};
use crate::provider::RegisteredClient;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// The longest name that is written, in bytes.
const MAX_NAME: usize = 255;

/// A client at Bitbucket.
pub(super) struct Record {
    /// Its number there, which its address ends with.
    pub(super) id: String,
    /// Its identifier as an OAuth client.
    pub(super) client_id: ClientId,
    /// Its secret, where it is told.
    pub(super) secret: Option<SecretString>,
    /// Its name, which no other client has.
    pub(super) name: String,
    redirects: Vec<String>,
    scopes: Vec<String>,
}

impl Record {
    /// Reads one; `None` where it lacks what identifies it.
    pub(super) fn read(value: &Value) -> Option<Self> {
        Some(Self {
            id: text(value.get("id")?)?,
            client_id: ClientId::parse(&text(value.get("clientId")?)?).ok()?,
            secret: secret(value),
            name: text(value.get("name")?)?,
            redirects: texts(value.get("redirects")),
            scopes: texts(value.get("scope")),
        })
    }

    /// Its scope, were it to have one of Bitbucket's.
    fn scope(&self) -> Option<&'static str> {
        scopes::top(self.scopes.iter().map(String::as_str))
    }

    /// What it is registered with, seen from one who knows its tag and what was asked for.
    fn metadata(&self, handle: &Handle) -> Option<ClientMetadata> {
        let asked = handle.asked.as_ref();
        let scope = self.scope()?;
        let scopes = asked.map(|a| &a.scopes).filter(|s| top(s) == Some(scope));
        let scopes = match scopes {
            Some(asked) => asked.iter().map(|s| Scope::parse(s)).collect::<Result<_, _>>().ok()?,
            None => Scope::parse(scope).into_iter().collect(),
        };
        let name = match asked.filter(|a| tagged(&a.name, &handle.tag) == self.name) {
            Some(asked) => asked.name.clone(),
            None if handle.tag.is_empty() => self.name.clone(),
            None => untagged(&self.name, &handle.tag)?.to_owned(),
        };
        Some(ClientMetadata {
            name,
            uri: asked.and_then(|a| a.uri.clone()),
            redirect_uris: self
                .redirects
                .iter()
                .map(|u| RedirectUri::parse(u))
                .collect::<Result<_, _>>()
                .ok()?,
            grant_types: asked.map_or_else(grant_types, |a| a.grant_types.clone()),
            scopes,
            auth_method: AuthMethod::ClientSecretPost,
        })
    }

    /// The client as the port tells it.
    pub(super) fn registered(self, handle: &Handle, known: Option<&SecretString>) -> RegisteredClient {
        RegisteredClient {
            metadata: self.metadata(handle),
            id: self.client_id,
            // Every client there has one, told or not.
            has_secret: true,
            secret: self.secret,
            secret_expires_at: None,
            has_previous: false,
            owner: None,
            protected: false,
            version: None,
            handle: handle.if_other_than(known),
        }
    }
}

fn top(scopes: &[String]) -> Option<&'static str> {
    scopes::top(scopes.iter().map(String::as_str))
}

/// The secret in an answer, under the name it has in a client, or the answer itself.
pub(super) fn secret(value: &Value) -> Option<SecretString> {
    let text = value.get("clientSecret").or_else(|| value.get("secret")).unwrap_or(value).as_str()?;
    // What stands for a secret that isn't shown is none.
    let hidden = text.chars().all(|c| matches!(c, '*' | '•' | '.'));
    (!hidden && text.chars().all(|c| (' '..='~').contains(&c))).then(|| text.into())
}

/// A text, or a number as one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A list of texts; one text with spaces is a list too, and nothing an empty one.
fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(all)) => all.iter().filter_map(text).collect(),
        _ => Vec::new(),
    }
}

/// What the grant types of every client are.
pub(super) fn grant_types() -> BTreeSet<GrantType> {
    BTreeSet::from([GrantType::AuthorizationCode, GrantType::RefreshToken])
}

/// A list of clients, whole or a page of it.
pub(super) struct Records {
    pub(super) records: Vec<Record>,
    /// Where the next page starts.
    pub(super) next: Option<String>,
}

impl Records {
    /// Reads an array, or the pages that Bitbucket's other resources have.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let (all, next) = match value {
            Value::Array(all) => (all, None),
            Value::Object(page) => {
                let last = page.get("isLastPage").and_then(Value::as_bool).unwrap_or(true);
                let next = page.get("nextPageStart").filter(|_| !last).and_then(text);
                (page.get("values")?.as_array()?, next)
            }
            _ => return None,
        };
        let records = all.iter().map(Record::read).collect::<Option<_>>()?;
        Some(Self { records, next })
    }
}

/// What stands before a tag, so that a name in brackets that people wrote isn't taken for one.
const MARK: &str = " (applink ";

/// The name of a client: what people read, and the tag that it is found again by.
pub(super) fn tagged(name: &str, tag: &str) -> String {
    let room = MAX_NAME.saturating_sub(tag.len() + MARK.len() + 1);
    let cut = (0..=room.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{MARK}{tag})", name.get(..cut).unwrap_or_default().trim_end())
}

/// The name without its tag; `None` where it has none, or another one.
pub(super) fn untagged<'a>(name: &'a str, tag: &str) -> Option<&'a str> {
    name.strip_suffix(')')?.strip_suffix(tag)?.strip_suffix(MARK)
}

/// The tag at the end of a name, if there is one: a list doesn't say whose clients they are.
pub(super) fn tag_of(name: &str) -> Option<&str> {
    Some(name.strip_suffix(')')?.rsplit_once(MARK)?.1)
}

/// What the adapter remembers of a client from one call to the next.
#[derive(Serialize, Deserialize, PartialEq, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Handle {
    /// Its number.
    pub(super) id: String,
    /// Its identifier as an OAuth client.
    pub(super) client_id: String,
    /// The tag of its name.
    pub(super) tag: String,
    /// What was asked for and can't be read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<Asked>,
}

/// What was asked for and can't be read back: Bitbucket has one scope where more were named, no
/// address of the application, and all grant types that it knows.
#[derive(Serialize, Deserialize, PartialEq, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    scopes: Vec<String>,
    grant_types: BTreeSet<GrantType>,
}

impl From<&ClientMetadata> for Asked {
    fn from(m: &ClientMetadata) -> Self {
        Self {
            name: m.name.clone(),
            uri: m.uri.clone(),
            scopes: m.scopes.iter().map(|s| s.as_str().to_owned()).collect(),
            grant_types: m.grant_types.clone(),
        }
    }
}

impl Handle {
    /// The handle of a client that was found by its tag.
    pub(super) fn of(record: &Record, tag: &str, asked: Option<Asked>) -> Self {
        Self { id: record.id.clone(), client_id: record.client_id.to_string(), tag: tag.to_owned(), asked }
    }

    /// Reads what [`Self::write`] wrote; anything else is as if there were none, since the client
    /// can be found without.
    pub(super) fn read(handle: Option<&SecretString>) -> Option<Self> {
        serde_json::from_str(handle?.expose_secret()).ok()
    }

    pub(super) fn write(&self) -> Option<SecretString> {
        serde_json::to_string(self).ok().map(SecretString::from)
    }

    /// The handle as it is to be kept; `None` where the caller has it already.
    fn if_other_than(&self, known: Option<&SecretString>) -> Option<SecretString> {
        if Self::read(known).as_ref() == Some(self) { None } else { self.write() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TAG: &str = "team-a.ci.0123456789abcdef0123";

    fn client(more: &[(&str, Value)]) -> Value {
        let mut all = json!({"id": 7, "clientId": "abc", "name": format!("CI (applink {TAG})"),
                             "redirects": ["https://ci.example/cb"], "scope": "REPO_READ"});
        for (key, value) in more {
            all[*key] = value.clone();
        }
        all
    }

    fn handle(asked: Option<ClientMetadata>) -> Handle {
        Handle {
            id: "7".into(),
            client_id: "abc".into(),
            tag: TAG.into(),
            asked: asked.as_ref().map(Asked::from),
        }
    }

    fn metadata(scopes: &str) -> ClientMetadata {
        ClientMetadata {
            name: "CI".into(),
            uri: Some("https://ci.example".into()),
            redirect_uris: [RedirectUri::parse("https://ci.example/cb").expect("uri")].into(),
            grant_types: [GrantType::AuthorizationCode].into(),
            scopes: crate::domain::ScopeSet::parse(scopes).expect("scopes"),
            auth_method: AuthMethod::ClientSecretPost,
        }
    }

    #[test]
    fn what_was_asked_for_reads_back_while_it_still_stands() {
        let asked = metadata("REPO_READ PUBLIC_REPOS");
        let handle = handle(Some(asked.clone()));
        let read = |more: &[(&str, Value)]| Record::read(&client(more)).expect("a client").metadata(&handle);
        for same in [json!("REPO_READ"), json!(["REPO_READ"]), json!(["REPO_READ", "PUBLIC_REPOS"])] {
            assert_eq!(read(&[("scope", same)]), Some(asked.clone()));
        }
        assert_eq!(read(&[("unknown", json!({})), ("id", json!("7"))]), Some(asked.clone()));
        let changed = read(&[("scope", json!("REPO_WRITE"))]).expect("readable");
        assert_eq!(changed.scopes.to_string(), "REPO_WRITE");
        assert_eq!(read(&[("scope", json!("OTHER"))]), None);
        assert_eq!(read(&[("redirects", json!(["ftp://x"]))]), None);
        assert_eq!(
            read(&[("name", json!(format!("Other (applink {TAG})")))]).expect("readable").name,
            "Other"
        );
        // Without its tag it couldn't be found again: not what we would write.
        assert_eq!(read(&[("name", json!("CI"))]), None);
    }

    #[test]
    fn without_a_memory_a_client_is_read_as_it_stands() {
        let read = Record::read(&client(&[])).expect("a client").metadata(&handle(None)).expect("readable");
        assert_eq!((read.name.as_str(), read.uri.as_deref()), ("CI", None));
        assert_eq!(read.scopes.to_string(), "REPO_READ");
        assert_eq!(read.grant_types, grant_types());
    }

    #[test]
    fn names_are_cut_and_keep_their_tag() {
        assert_eq!(tagged("CI", TAG), format!("CI (applink {TAG})"));
        let long = tagged(&"ä".repeat(200), TAG);
        assert!(long.len() <= MAX_NAME && long.ends_with(&format!("ä (applink {TAG})")), "{long}");
        assert_eq!(tag_of(&long), Some(TAG));
        assert_eq!(untagged(&tagged("a (b)", TAG), TAG), Some("a (b)"));
        for other in ["CI", "CI (x)", "CI (team-a.ci.0123456789abcdef0123)", "(applink x)"] {
            assert_eq!(tag_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_secret_is_found_where_it_stands() {
        use crate::domain::ExposeSecret as _;
        for shown in [json!({"clientSecret": "s"}), json!({"secret": "s"}), json!("s")] {
            assert_eq!(secret(&shown).expect("told").expose_secret(), "s");
        }
        for hidden in [json!({}), json!({"clientSecret": null}), json!({"clientSecret": "****"}), json!("")] {
            assert!(secret(&hidden).is_none(), "{hidden}");
        }
    }

    #[test]
    fn lists_come_whole_or_in_pages() {
        let read = |v: Value| Records::read(&v).map(|r| (r.records.len(), r.next));
        assert_eq!(read(json!([client(&[])])), Some((1, None)));
        assert_eq!(read(json!({"values": [client(&[])]})), Some((1, None)));
        let page = json!({"values": [], "isLastPage": false, "nextPageStart": 25});
        assert_eq!(read(page), Some((0, Some("25".into()))));
        assert_eq!(read(json!({"values": [], "isLastPage": true, "nextPageStart": null})), Some((0, None)));
        for odd in [json!({}), json!("x"), json!([{"name": "no id"}])] {
            assert_eq!(read(odd), None);
        }
    }
}
