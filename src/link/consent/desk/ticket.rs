//! Whether a link has a ticket. Who makes one up learns nothing by it: the answer is the same whether there is such a
//! link or not, and costs the same, since nothing but metadata is read before the ticket is the right one.

use super::Trouble;
use crate::api::{ApplicationLink, names};
use crate::domain::{ExposeSecret as _, SecretString};
use crate::link::consent::record::{Purpose, Ticket, digest};
use crate::link::problem::Problem;
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};

/// Checks that the link `name` has this ticket.
///
/// # Errors
/// [`Trouble::NoTicket`]; another where the API server doesn't answer.
pub(super) async fn check(
    links: &Api<ApplicationLink>,
    name: &str,
    ticket: &SecretString,
) -> Result<(), Trouble> {
    let presented = digest(Purpose::Ticket, ticket.expose_secret());
    let found = links.get_metadata_opt(name).await;
    let found = found.map_err(|e| Trouble::of(&Problem::kube("the link", &e)))?;
    let held = found.as_ref().and_then(|link| link.annotations().get(names::AUTHORIZE));
    let held = held.and_then(|text| Ticket::read(text, Timestamp::now()));
    held.filter(|t| t.ticket == presented).map(|_| ()).ok_or(Trouble::NoTicket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Request, Response, header};
    use jiff::SignedDuration;
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn a_made_up_ticket_costs_the_same_whether_there_is_such_a_link() {
        let expires_at = Timestamp::now() + SignedDuration::from_mins(5);
        let of = |ticket: &str| {
            let ticket = Ticket { ticket: digest(Purpose::Ticket, ticket), expires_at, port: None };
            json!({names::AUTHORIZE: serde_json::to_string(&ticket).expect("JSON")})
        };
        let link = |annotations: Value| {
            let metadata = json!({"name": "ci", "annotations": annotations});
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
        };
        let absent = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
        let mut costs = Vec::new();
        // What the API server answers, and whether the ticket is the right one.
        for (status, answer, wanted) in [
            (404, absent, Err(Trouble::NoTicket)),
            (200, link(json!({})), Err(Trouble::NoTicket)),
            (200, link(of("another")), Err(Trouble::NoTicket)),
            (200, link(of("mine")), Ok(())),
        ] {
            let asked = Arc::new(Mutex::new(Vec::new()));
            let heard = asked.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let accept = request.headers().get(header::ACCEPT).cloned();
                heard.lock().expect("a lock").push((request.uri().path().to_owned(), accept));
                let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
                *response.status_mut() = status.try_into().expect("a status");
                async { Ok::<_, Infallible>(response) }
            });
            let links: Api<ApplicationLink> = Api::namespaced(Client::new(service, "team"), "team");
            assert_eq!(check(&links, "ci", &"mine".to_owned().into()).await, wanted);
            costs.push(asked.lock().expect("a lock").clone());
        }
        costs.dedup();
        let [asked] = &costs[..] else { panic!("not alike: {costs:?}") };
        assert!(
            matches!(&asked[..], [(_, Some(accept))] if accept.to_str().is_ok_and(|a| a.contains("PartialObjectMetadata")))
        );
    }
}
