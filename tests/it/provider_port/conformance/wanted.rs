//! What clients are registered with in the suite.

use super::*;

/// Everything that a client may be registered with.
pub(super) fn variations<S: Subject>(port: &Port<'_, S>) -> Vec<ClientMetadata> {
    let base = port.metadata("base");
    let mut all = vec![base.clone()];
    for name in ["CI dashboard", "数据看板", "Übersicht «α» & <b>\"'\\", "לוח 🚀", "a", &"n".repeat(100)]
    {
        all.push(ClientMetadata { name: name.to_owned(), ..base.clone() });
    }
    if port.subject.keeps_uri() {
        for uri in [None, Some("https://example.com/päth?q=1".to_owned())] {
            all.push(ClientMetadata { uri, ..base.clone() });
        }
    }
    let many: Vec<String> = (0..16).map(|i| format!("https://ci.example.com/cb/{i}?a=b%20c&d={i}")).collect();
    let long = format!("{:p<1$}", "https://ci.example.com/", port.subject.longest_uri());
    let mut sets: Vec<Vec<&str>> = vec![
        vec!["https://ci.example.com"],
        vec!["https://ci.example.com:8443/a", "http://localhost:9/b"],
        many.iter().map(String::as_str).collect(),
        vec![&long],
    ];
    if port.subject.takes_loopback_addresses() {
        sets.push(vec!["http://127.0.0.1:9/b", "http://[::1]/c"]);
    }
    if !port.info.redirect_required {
        sets.push(vec![]);
    }
    for set in sets {
        // Without one there is nothing to redirect to.
        let grant_types = if set.is_empty() {
            base.grant_types.iter().copied().filter(|g| *g == GrantType::ClientCredentials).collect()
        } else {
            base.grant_types.clone()
        };
        if !grant_types.is_empty() {
            let redirect_uris = uris(&set);
            all.push(ClientMetadata { redirect_uris, grant_types, ..base.clone() });
        }
    }
    let grants = port.grants();
    for bits in 1..1usize << grants.len() {
        let grant_types: BTreeSet<_> =
            grants.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, g)| *g).collect();
        // It renews what another grant gave.
        if grant_types.len() > 1 || !grant_types.contains(&GrantType::RefreshToken) {
            all.push(ClientMetadata { grant_types, ..base.clone() });
        }
    }
    for scopes in port.subject.scope_sets() {
        let scopes = ScopeSet::parse(scopes).expect("scopes");
        all.push(ClientMetadata { scopes, ..base.clone() });
    }
    for auth_method in port.methods() {
        let mut grant_types = base.grant_types.clone();
        if auth_method.is_public() {
            grant_types.remove(&GrantType::ClientCredentials);
        }
        all.push(ClientMetadata { auth_method, grant_types, ..base.clone() });
    }
    all
}

pub(super) fn metadata_of_another(metadata: &ClientMetadata) -> ClientMetadata {
    let redirect_uris = uris(&["https://evil.example.com/callback"]);
    ClientMetadata { redirect_uris, ..metadata.clone() }
}
