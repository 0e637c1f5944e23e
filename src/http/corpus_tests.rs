//! The corpus of `tests/corpus/outbound`, on the client; see its README. The name server is a double.

#[path = "../../tests/corpus/outbound/cases.rs"]
mod cases;

use super::name_server::{NameServer, Zone};
use super::testing::{OPTIONS, Server, allowed, closed_port};
use super::*;
use cases::{Case, Why, corpus};
use url::Url;

fn reason(why: Why) -> Option<RefusedReason> {
    Some(match why {
        Why::NotPublic => RefusedReason::NotPublic,
        Why::PlainHttp => RefusedReason::PlainHttp,
        Why::Port => RefusedReason::Port,
        Why::Scheme => RefusedReason::Scheme,
        Why::UserInfo => RefusedReason::UserInfo,
        Why::NoHost => RefusedReason::NoHost,
        Why::NotUrl => return None,
    })
}

/// What the name server says: of every case's host what the case says, and of inner names what it
/// would say to somebody inside.
fn zone(cases: &[Case]) -> Zone {
    let inside = [("localhost", "127.0.0.1"), ("kubernetes.default.svc.cluster.local", "10.96.0.1")];
    let mut zone: Zone =
        inside.map(|(name, ip)| (name.to_owned(), vec![vec![ip.to_owned()]])).into_iter().collect();
    for case in cases {
        let url = case.url.replace("$PORT", "443");
        let Some(said) = &case.dns else { continue };
        let url = Url::parse(&url).unwrap_or_else(|e| panic!("{}: {e}", case.case));
        let host = url.host_str().expect("a host").trim_end_matches('.').to_ascii_lowercase();
        assert!(zone.insert(host, vec![said.clone()]).is_none(), "{}: the host stands twice", case.case);
    }
    zone
}

#[tokio::test]
async fn every_attempt_is_refused_without_a_connection_and_in_the_same_words() {
    let cases = corpus();
    assert!(cases.len() >= 80, "{}", cases.len());
    let names = NameServer::start(zone(&cases)).await;
    let listener = Server::deaf().await;
    let ports = [listener.port(), closed_port().await];
    // With the ports open, so that it isn't the port that keeps an attempt away, and without.
    let open = ports.map(|p| format!(":{p}"));
    let open = allowed(&[&open[0], &open[1]]);
    let mut wrong = Vec::new();
    for allow in [open, AllowList::default()] {
        let guard = Guard::with_resolver(allow.clone(), OPTIONS, names.resolver());
        let client = guard.client(Trust::Guarded, None);
        for asks_dns in [false, true] {
            for case in cases.iter().filter(|c| c.dns.is_some() == asks_dns) {
                for port in ports {
                    let Ok(url) = Url::parse(&case.url.replace("$PORT", &port.to_string())) else {
                        if case.why != Why::NotUrl {
                            wrong.push(format!("{}: isn't a URL", case.case));
                        }
                        continue;
                    };
                    let mut why = reason(case.why);
                    if asks_dns && url.port().is_some() && allow == AllowList::default() {
                        why = Some(RefusedReason::Port);
                    }
                    let error = client.send(Request::get(url.clone())).await.err();
                    if error != why.map(SendError::Refused) || error.is_none() {
                        wrong.push(format!("{}: {url}: {error:?}", case.case));
                    }
                }
            }
            // What is plain to see is refused before anything could take time that depends on it.
            if !asks_dns {
                assert_eq!((guard.built_clients(), names.asked().len()), (0, 0));
            }
        }
        assert!(!names.asked().is_empty());
        assert_eq!(listener.connections(), 0, "nobody is called, not even for a handshake");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // The second round asks for the hosts without a port alone; its first half asks for none.
        names.forget();
    }
    // With a range allowed, every name may turn out to be in it; what isn't is refused all the same.
    let guard = Guard::with_resolver(allowed(&["10.9.0.0/16"]), OPTIONS, names.resolver());
    let client = guard.client(Trust::Guarded, None);
    for (case, port) in cases.iter().flat_map(|c| ports.map(|p| (c, p))) {
        let Ok(url) = Url::parse(&case.url.replace("$PORT", &port.to_string())) else { continue };
        let error = client.send(Request::get(url.clone())).await.err();
        if !matches!(error, Some(SendError::Refused(_))) {
            wrong.push(format!("{}: {url}: {error:?}", case.case));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(listener.connections(), 0);
}

/// Names that say something else each time: what was checked is what is called.
#[tokio::test]
async fn a_name_that_changes_its_mind_is_called_where_it_was_checked() {
    // Two hosts on one port; only the first is allowed, so that it can stand for a public one.
    let (here, there) = Server::pair().await;
    let turn = |ips: &[&str]| ips.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>();
    let zone = Zone::from([
        ("rebind.attacker.example".to_owned(), vec![turn(&["127.0.0.1"]), turn(&["127.0.0.2"])]),
        ("back.attacker.example".to_owned(), vec![turn(&["127.0.0.2"]), turn(&["127.0.0.1"])]),
    ]);
    let names = NameServer::start(zone).await;
    let allow = allowed(&[&format!("http://127.0.0.1/32:{}", here.port())]);
    let client = Guard::with_resolver(allow, OPTIONS, names.resolver()).client(Trust::Guarded, None);
    let send = async |name: &str| {
        let url = Url::parse(&format!("http://{name}.attacker.example:{}/", here.port())).expect("url");
        client.send(Request::get(url)).await.map(|r| r.status)
    };
    let refused = Err(SendError::Refused(RefusedReason::NotPublic));
    assert_eq!(send("rebind").await, Ok(200));
    // One look-up a call: one question a family, and none between the check and the connection.
    assert_eq!(names.asked().len(), 2);
    assert_eq!(send("rebind").await, refused);
    assert_eq!(names.asked().len(), 4);
    assert_eq!(send("back").await, refused);
    assert_eq!(send("back").await, Ok(200));
    assert_eq!((here.requests().len(), there.connections()), (2, 0));
}
