//! What every adapter must do, written once against the port and run with each real service.
//!
//! What [`Capabilities`](applink_operator::provider::Capabilities) promises is made use of here, and
//! what it doesn't is shown to be absent, where that can be shown.

use std::collections::BTreeSet;
use std::time::Duration;

use applink_operator::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, Owner, ScopeSet,
};
use applink_operator::provider::{ClientRef, Proof, ProviderError, PutSecret};

mod wanted;

use super::subject::{Give, Port, Subject, http_client, new_secret, owner, uris};
use crate::support::stage::SOON;
use wanted::{metadata_of_another, variations};

/// A test for each case, with one subject.
macro_rules! conformance {
    ($subject:ty) => {
        $crate::provider_port::conformance::conformance! { $subject:
            says_who_it_is, what_is_absent, every_field_reads_back, each_field_changes, a_put_again_changes_nothing,
            a_stale_version_is_refused, credentials_are_proved, a_public_client_has_no_secret,
            a_new_secret_ends_the_old_one, an_overlap_is_kept_or_refused, a_kept_secret_goes_on,
            who_picks_the_secret, the_owner_stands_at_the_client, a_foreign_client_is_left_alone,
            a_client_of_nobody_is_adopted, tokens_end_on_request, deletion_ends_all, every_page_is_read,
            changes_are_told_or_refused, odd_identifiers_reach_no_other_client, nothing_shows_a_secret,
        }
    };
    ($subject:ty: $($case:ident),* $(,)?) => {
        mod conformance {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let subject = <$subject as $crate::provider_port::subject::Subject>::start().await;
                    $crate::provider_port::conformance::$case(&subject).await;
                }
            )*
        }
    };
}
pub(crate) use conformance;

fn is_refused(result: Result<impl Sized, ProviderError>) {
    match result {
        Err(ProviderError::Conflict | ProviderError::ForeignOwner) => {}
        Err(e) => panic!("refused, but so: {e}"),
        Ok(_) => panic!("it wasn't refused"),
    }
}

fn is_unsupported(result: Result<impl Sized, ProviderError>) {
    assert!(matches!(result.err(), Some(ProviderError::Unsupported { .. })), "not said to be unsupported");
}

pub async fn says_who_it_is<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    assert_eq!(port.info.issuer, subject.issuer());
    for address in [Some(&port.info.token_endpoint), port.info.revocation_endpoint.as_ref()] {
        assert!(address.is_none_or(|a| url::Url::parse(a).is_ok()), "{address:?}");
    }
    assert_eq!(port.info, port.provider.info().await.expect("again"), "the same service says the same");
    if let Some(scopes) = &port.info.scopes {
        for set in subject.scope_sets() {
            assert!(ScopeSet::parse(set).expect("scopes").is_subset(scopes), "{set}");
        }
    }
    assert!(port.can.chooses_secret <= port.can.rotates, "a secret that we choose can be another");
    assert!(port.can.overlaps <= port.can.rotates);
}

pub async fn what_is_absent<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let mut client = port.unknown("absent");
    assert!(port.look(&mut client).await.is_none());
    port.provider.delete(&client.at, None).await.expect("what isn't there is deleted");
    let method = port.confidential()[0];
    port.is(&client, &new_secret(), method, Proof::Refused).await;
    // A change of what went in between doesn't make it.
    let (mut gone, metadata) = port.register("gone").await;
    port.provider.delete(&gone.at, None).await.expect("deleted");
    if port.can.chooses_id {
        is_refused(port.try_put(&mut gone, &metadata, Give::New).await);
    } else {
        // Some services answer with trouble of their own.
        assert!(port.try_put(&mut gone, &metadata, Give::Kept).await.is_err());
    }
    assert!(port.look(&mut gone).await.is_none());
}

fn give(method: AuthMethod, otherwise: Give) -> Give {
    if method.is_public() { Give::Public } else { otherwise }
}

pub async fn every_field_reads_back<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    for mut metadata in variations(&port) {
        let mut client = port.unknown("fields");
        if !port.can.chooses_id {
            // It is found again by its name.
            metadata.name = format!("{} {}", metadata.name, client.at.id);
        }
        port.put(&mut client, &metadata, give(metadata.auth_method, Give::New)).await;
        if let Some(secret) = &client.secret {
            port.is(&client, secret, metadata.auth_method, Proof::Authenticated).await;
        }
        port.provider.delete(&client.at, client.version.as_deref()).await.expect("deleted");
        assert!(port.look(&mut client).await.is_none());
    }
}

pub async fn each_field_changes<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, base) = port.register("change").await;
    for (i, mut metadata) in variations(&port).into_iter().enumerate() {
        if !port.can.chooses_id {
            metadata.name = format!("{} {}", metadata.name, client.at.id);
        }
        // Its secret stays where it had one and is to have one.
        let has = client.secret.is_some();
        let secret = if has { [Give::Same, Give::Kept][i % 2] } else { Give::New };
        port.put(&mut client, &metadata, give(metadata.auth_method, secret)).await;
        if let Some(secret) = &client.secret {
            port.is(&client, secret, metadata.auth_method, Proof::Authenticated).await;
        }
        let secret = if client.secret.is_some() { Give::Same } else { Give::New };
        port.put(&mut client, &base, secret).await;
    }
    port.provider.delete(&client.at, None).await.expect("deleted");
}

pub async fn a_put_again_changes_nothing<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, metadata) = port.register("again").await;
    let secret = client.secret.clone().expect("a secret");
    for _ in 0..2 {
        port.put(&mut client, &metadata, Give::Same).await;
        port.is(&client, &secret, metadata.auth_method, Proof::Authenticated).await;
    }
    if port.can.chooses_id {
        // Made once more, as when its answer was lost: there is one, and it is as it was.
        let mut blind = client.clone();
        (blind.exists, blind.version) = (false, None);
        is_refused(port.try_put(&mut blind, &metadata, Give::New).await);
        let seen = port.look(&mut client).await.expect("it is there");
        port.stands(&client, &metadata, &seen, "after a second creation");
        port.is(&client, &secret, metadata.auth_method, Proof::Authenticated).await;
    }
    port.provider.delete(&client.at, client.version.as_deref()).await.expect("deleted");
}

pub async fn a_stale_version_is_refused<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, metadata) = port.register("stale").await;
    let Some(old) = client.version.clone() else { return };
    let mut other = metadata.clone();
    other.redirect_uris = uris(&["https://ci.example.com/other"]);
    port.put(&mut client, &other, Give::Same).await;
    assert_ne!(client.version.as_ref(), Some(&old), "a change is another version");
    let mut stale = client.clone();
    stale.version = Some(old.clone());
    let late = port.try_put(&mut stale, &metadata, Give::New).await;
    assert_eq!(late.err(), Some(ProviderError::Conflict));
    let late = port.provider.delete(&client.at, Some(&old)).await;
    assert_eq!(late, Err(ProviderError::Conflict));
    let seen = port.look(&mut client).await.expect("it is there");
    port.stands(&client, &other, &seen, "after stale writes");
    let secret = client.secret.clone().expect("a secret");
    port.is(&client, &secret, other.auth_method, Proof::Authenticated).await;
    port.provider.delete(&client.at, client.version.as_deref()).await.expect("deleted");
}

pub async fn credentials_are_proved<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (other, _) = port.register("prove-other").await;
    for method in port.confidential() {
        let mut client = port.unknown("prove");
        let mut metadata = port.metadata(client.at.id.as_str());
        metadata.auth_method = method;
        // Whatever its grants.
        for grant_types in [port.grants(), vec![port.grants()[0]]] {
            metadata.grant_types = grant_types.into_iter().collect();
            let secret = if client.exists { Give::Same } else { Give::New };
            port.put(&mut client, &metadata, secret).await;
            let right = client.secret.clone().expect("a secret");
            port.is(&client, &right, method, Proof::Authenticated).await;
            for wrong in [new_secret(), other.secret.clone().expect("a secret"), "x".into()] {
                port.is(&client, &wrong, method, Proof::Refused).await;
            }
            port.is(&port.unknown("nobody"), &right, method, Proof::Refused).await;
        }
        port.provider.delete(&client.at, None).await.expect("deleted");
    }
    port.provider.delete(&other.at, None).await.expect("deleted");
}

pub async fn a_public_client_has_no_secret<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    if !port.methods().contains(&AuthMethod::None) {
        return;
    }
    let mut client = port.unknown("public");
    let confidential = port.metadata(client.at.id.as_str());
    let mut public = confidential.clone();
    public.auth_method = AuthMethod::None;
    public.grant_types.remove(&GrantType::ClientCredentials);
    let seen = port.put(&mut client, &public, Give::Public).await;
    assert!(!seen.has_secret && seen.secret.is_none());
    port.is(&client, &new_secret(), confidential.auth_method, Proof::Refused).await;
    port.put(&mut client, &confidential, Give::New).await;
    let secret = client.secret.clone().expect("a secret");
    port.is(&client, &secret, confidential.auth_method, Proof::Authenticated).await;
    port.put(&mut client, &public, Give::Public).await;
    port.is(&client, &secret, confidential.auth_method, Proof::Refused).await;
    port.provider.delete(&client.at, None).await.expect("deleted");
}

pub async fn a_new_secret_ends_the_old_one<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, metadata) = port.register("rotate").await;
    assert!(port.can.rotates || !port.can.chooses_secret);
    for _ in 0..2 {
        let old = client.secret.clone().expect("a secret");
        if !port.can.rotates {
            is_unsupported(port.try_put(&mut client, &metadata, Give::New).await);
            port.is(&client, &old, metadata.auth_method, Proof::Authenticated).await;
            break;
        }
        port.put(&mut client, &metadata, Give::New).await;
        let new = client.secret.clone().expect("a secret");
        port.is(&client, &new, metadata.auth_method, Proof::Authenticated).await;
        port.is(&client, &old, metadata.auth_method, Proof::Refused).await;
    }
    port.provider.delete(&client.at, None).await.expect("deleted");
}

pub async fn an_overlap_is_kept_or_refused<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    if !port.can.chooses_secret {
        assert!(!port.can.overlaps, "the port has no way to ask for it");
        return;
    }
    let (mut client, metadata) = port.register("overlap").await;
    let old = client.secret.clone().expect("a secret");
    if port.can.overlaps {
        // Asked for twice, as after a crash: the one before stays the one before.
        let mut put = port.request(&client, &metadata, Give::NewBeside);
        for _ in 0..2 {
            let got = port.provider.put(&put).await.expect("an overlap");
            port.note(&mut client, &put, &got);
            let seen = port.look(&mut client).await.expect("it is there");
            assert!(seen.has_previous);
            let new = client.secret.clone().expect("a secret");
            for good in [&old, &new] {
                port.is(&client, good, metadata.auth_method, Proof::Authenticated).await;
            }
            port.is(&client, &new_secret(), metadata.auth_method, Proof::Refused).await;
            (put.exists, put.version) = (true, client.version.clone());
        }
        let new = client.secret.clone().expect("a secret");
        let seen = port.put(&mut client, &metadata, Give::Same).await;
        assert!(!seen.has_previous, "it is withdrawn");
        port.is(&client, &new, metadata.auth_method, Proof::Authenticated).await;
        port.is(&client, &old, metadata.auth_method, Proof::Refused).await;
    } else {
        is_unsupported(port.try_put(&mut client, &metadata, Give::NewBeside).await);
        port.is(&client, &old, metadata.auth_method, Proof::Authenticated).await;
    }
    port.provider.delete(&client.at, None).await.expect("deleted");
}

pub async fn a_kept_secret_goes_on<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, mut metadata) = port.register("kept").await;
    let secret = client.secret.clone().expect("a secret");
    for callback in ["https://ci.example.com/1", "https://ci.example.com/2"] {
        metadata.redirect_uris = uris(&[callback]);
        port.put(&mut client, &metadata, Give::Kept).await;
        port.is(&client, &secret, metadata.auth_method, Proof::Authenticated).await;
    }
    port.provider.delete(&client.at, None).await.expect("deleted");
}

pub async fn who_picks_the_secret<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, metadata) = port.register("fresh").await;
    let old = client.secret.clone().expect("a secret");
    let mut put = port.request(&client, &metadata, Give::Kept);
    if port.can.chooses_secret {
        put.secret = PutSecret::Fresh;
        is_unsupported(port.provider.put(&put).await);
    } else {
        put.secret = PutSecret::Chosen { secret: new_secret(), derived: true, previous: None };
        is_unsupported(port.provider.put(&put).await);
    }
    let seen = port.look(&mut client).await.expect("it is there");
    port.stands(&client, &metadata, &seen, "after a put that was refused");
    port.is(&client, &old, metadata.auth_method, Proof::Authenticated).await;
    port.provider.delete(&client.at, None).await.expect("deleted");
}

pub async fn the_owner_stands_at_the_client<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, metadata) = port.register("owner").await;
    let before = client.owner.clone();
    for change in [
        Owner { serial: i64::from(u32::MAX) + 5, ..before.clone() },
        Owner { since: 0, previous_until: 1_800_000_000, ..before.clone() },
        Owner { request: "2026-11-22T10:00:00Z/\"x\"".into(), ..before.clone() },
        Owner { mark: "another".into(), ..before.clone() },
    ] {
        client.owner = change;
        // `put` compares it, where the service tells it.
        port.put(&mut client, &metadata, Give::Same).await;
    }
    port.provider.delete(&client.at, None).await.expect("deleted");
}

pub async fn a_foreign_client_is_left_alone<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    if !port.can.tells_owner || !port.can.chooses_id {
        return;
    }
    let (mut theirs, metadata) = port.register("foreign").await;
    let secret = theirs.secret.clone().expect("a secret");
    let link = theirs.owner.name.clone();
    let other = metadata_of_another(&metadata);
    for mine in [
        owner("another-link"),
        Owner { installation: "another".into(), ..owner(&link) },
        Owner { namespace: "team-b".into(), ..owner(&link) },
    ] {
        for (exists, version) in [(false, None), (true, None), (true, theirs.version.clone())] {
            let mut attempt = theirs.clone();
            (attempt.owner, attempt.exists, attempt.version) = (mine.clone(), exists, version);
            is_refused(port.try_put(&mut attempt, &other, Give::New).await);
        }
    }
    // The same link made anew takes it over only when it saw it.
    let heir = Owner { uid: "new-uid".into(), ..owner(&link) };
    let mut attempt = theirs.clone();
    (attempt.owner, attempt.exists, attempt.version) = (heir.clone(), false, None);
    is_refused(port.try_put(&mut attempt, &other, Give::New).await);
    let seen = port.look(&mut theirs).await.expect("it is there");
    port.stands(&theirs, &metadata, &seen, "after attempts of others");
    port.is(&theirs, &secret, metadata.auth_method, Proof::Authenticated).await;
    if theirs.version.is_some() {
        theirs.owner = heir;
        port.put(&mut theirs, &other, Give::New).await;
    }
    port.provider.delete(&theirs.at, None).await.expect("deleted");
}

pub async fn a_client_of_nobody_is_adopted<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let mut client = port.unknown("by-hand");
    let secret = new_secret();
    let made = subject.make_by_hand(client.at.id.as_str(), secret.expose_secret()).await;
    if made.is_none() {
        return;
    }
    let seen = port.look(&mut client).await.expect("it is there");
    assert_eq!((seen.owner, seen.protected), (None, false));
    let metadata = port.metadata(client.at.id.as_str());
    if port.can.chooses_id {
        let mut blind = client.clone();
        (blind.exists, blind.version) = (false, None);
        is_refused(port.try_put(&mut blind, &metadata, Give::New).await);
    }
    client.secret = Some(secret.clone());
    port.put(&mut client, &metadata, Give::Kept).await;
    if port.can.chooses_secret {
        port.is(&client, &secret, metadata.auth_method, Proof::Authenticated).await;
    }
    port.provider.delete(&client.at, client.version.as_deref()).await.expect("deleted");
}

pub async fn tokens_end_on_request<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, metadata) = port.register("tokens").await;
    let secret = client.secret.clone().expect("a secret");
    let Some(tokens) = subject.tokens(&client.id, &secret).await else { return };
    for token in [&tokens.access, &tokens.refresh] {
        assert!(port.is_active(&client, token).await, "before");
    }
    // A new secret alone ends no token.
    if port.can.rotates {
        port.put(&mut client, &metadata, Give::New).await;
        assert!(
            port.is_active(&client, &tokens.refresh).await,
            "a new secret ends tokens, which nobody asked for"
        );
    }
    let mut put = port.request(&client, &metadata, Give::New);
    put.revoke_tokens = true;
    if port.can.revokes_tokens {
        let got = port.provider.put(&put).await.expect("tokens are revoked");
        port.note(&mut client, &put, &got);
        for token in [&tokens.access, &tokens.refresh] {
            assert!(!port.is_active(&client, token).await, "a token outlives its end");
        }
        let seen = port.look(&mut client).await.expect("it is there");
        port.stands(&client, &metadata, &seen, "after its tokens were revoked");
        let secret = client.secret.clone().expect("a secret");
        port.is(&client, &secret, metadata.auth_method, Proof::Authenticated).await;
    } else {
        is_unsupported(port.provider.put(&put).await);
        assert!(port.is_active(&client, &tokens.refresh).await);
    }
    port.provider.delete(&client.at, None).await.expect("deleted");
}

pub async fn deletion_ends_all<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, metadata) = port.register("delete").await;
    let secret = client.secret.clone().expect("a secret");
    let tokens = subject.tokens(&client.id, &secret).await;
    port.look(&mut client).await.expect("it is there");
    port.provider.delete(&client.at, client.version.as_deref()).await.expect("deleted");
    for version in [client.version.clone(), None] {
        port.provider.delete(&client.at, version.as_deref()).await.expect("deleted again");
    }
    port.is(&client, &secret, metadata.auth_method, Proof::Refused).await;
    for token in tokens.iter().flat_map(|t| [&t.access, &t.refresh]) {
        assert!(!port.is_active(&client, token).await, "a token outlives its client");
    }
    assert!(port.look(&mut client).await.is_none());
    if port.can.chooses_id {
        // The identifier is free, and what comes after has nothing of what was before.
        client.secret = None;
        port.put(&mut client, &metadata, Give::New).await;
        port.is(&client, &secret, metadata.auth_method, Proof::Refused).await;
        for token in tokens.iter().flat_map(|t| [&t.access, &t.refresh]) {
            assert!(
                !port.is_active(&client, token).await,
                "a token of an earlier client is good for a later one"
            );
        }
        port.provider.delete(&client.at, None).await.expect("deleted");
    }
}

pub async fn every_page_is_read<S: Subject>(subject: &S) {
    use futures::StreamExt as _;
    let port = Port::of(subject).await;
    if !port.can.lists {
        is_unsupported(port.provider.list(None).await);
        return;
    }
    let made: Vec<_> = futures::stream::iter(0..subject.many())
        .map(|_| async {
            let mut client = port.unknown("listed");
            let mut metadata = port.metadata(client.at.id.as_str());
            // Long ones, so that a page is large too.
            metadata.redirect_uris = (0..3)
                .flat_map(|i| uris(&[&format!("https://ci.example.com/{i}{}", "l".repeat(200))]))
                .collect();
            port.try_put(&mut client, &metadata, Give::New).await.expect("registered");
            (client, metadata)
        })
        .buffer_unordered(subject.at_once())
        .collect()
        .await;
    let mut seen = std::collections::BTreeMap::new();
    let (mut after, mut pages) = (None, 0);
    loop {
        let page = port.provider.list(after.as_deref()).await.expect("a page");
        pages += 1;
        for client in page.clients {
            // Others come and go meanwhile, and may be seen twice; these stay.
            seen.insert(client.id.clone(), client);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
        assert!(pages < 100, "the pages don't end");
    }
    assert!(pages > 1, "{} clients are more than a page", subject.many());
    for (client, metadata) in &made {
        let found = seen.get(&client.id).unwrap_or_else(|| panic!("{} isn't listed", client.id));
        assert_eq!(found.metadata.as_ref(), Some(metadata));
        assert_eq!(found.owner.as_ref(), port.can.tells_owner.then_some(&client.owner));
    }
    futures::stream::iter(&made)
        .for_each_concurrent(subject.at_once(), |(client, _)| async {
            port.provider.delete(&client.at, None).await.expect("deleted");
        })
        .await;
}

pub async fn changes_are_told_or_refused<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    if !port.can.tells_changes {
        is_unsupported(port.provider.changes(None).await);
        return;
    }
    let (mut client, metadata) = port.register("watched").await;
    let begin = port.provider.changes(None).await.expect("a place to begin");
    assert!(begin.clients.is_empty());
    // Its own changes aren't told.
    port.put(&mut client, &metadata, Give::New).await;
    subject.rename_by_hand(&client.id, "renamed").await.expect("a way to edit it by hand");
    let mut after = begin.next;
    let told = tokio::time::timeout(SOON, async {
        loop {
            let changes = port.provider.changes(Some(&after)).await.expect("changes");
            if changes.clients.contains(&client.id) {
                return changes;
            }
            assert!(!changes.reset, "the service is the same");
            after = changes.next;
        }
    });
    let told = told.await.expect("it is told of the change");
    assert!(!told.reset);
    let seen = port.look(&mut client).await.expect("it is there");
    assert_eq!(seen.metadata.map(|m| m.name).as_deref(), Some("renamed"));
    port.provider.delete(&client.at, None).await.expect("deleted");
    // What was said at another start says nothing now.
    let lost = tokio::time::timeout(Duration::from_secs(30), port.provider.changes(Some("another-start 7")));
    let lost = lost.await.expect("at once").expect("changes");
    assert!(lost.reset);
}

pub async fn odd_identifiers_reach_no_other_client<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, metadata) = port.register("odd").await;
    let id = client.at.id.as_str().to_owned();
    for odd in [
        ".".to_owned(),
        "..".to_owned(),
        format!("./{id}"),
        format!("x/../{id}"),
        format!("{id}/"),
        format!("{id}?x"),
        format!("{id}#x"),
        format!("{id}%20"),
        format!("%2e%2e/clients/{id}"),
        format!("{id} "),
        id.to_uppercase(),
        "*".to_owned(),
        "a&client_id=b".to_owned(),
    ] {
        let at = ClientRef { id: ClientId::parse(&odd).expect("an identifier"), handle: None };
        match port.provider.get(&at).await {
            Ok(None) | Err(ProviderError::Rejected { .. } | ProviderError::Unexpected { .. }) => {}
            Ok(Some(found)) => panic!("{odd:?} is taken for {}", found.id),
            Err(e) => panic!("{odd:?}: {e}"),
        }
        let _refused_or_nothing = port.provider.delete(&at, None).await;
    }
    let seen = port.look(&mut client).await.expect("it is still there");
    port.stands(&client, &metadata, &seen, "after calls for others");
    port.provider.delete(&client.at, None).await.expect("deleted");
}

pub async fn nothing_shows_a_secret<S: Subject>(subject: &S) {
    let port = Port::of(subject).await;
    let (mut client, metadata) = port.register("shown").await;
    let secret = client.secret.clone().expect("a secret");
    let put = port.request(&client, &metadata, Give::Same);
    let got = port.provider.put(&put).await;
    let seen = port.look(&mut client).await;
    let shown = format!("{put:?} {got:?} {seen:?} {:?} {:?}", client.at, http_client());
    assert!(!shown.contains(secret.expose_secret()), "{shown}");
    port.provider.delete(&client.at, None).await.expect("deleted");
}
