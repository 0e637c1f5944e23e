//! How many requests are worked on at once: so many of all, and fewer of one address.

use crate::link::consent::{Share, Shares, Trouble};
use crate::runtime::peer::Origin;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Of all: each asks the API server.
const AT_ONCE: usize = 32;
/// Of one address.
const OF_ADDRESS: usize = 12;
/// How long one waits for its place.
const WAIT: Duration = Duration::from_secs(5);

/// The places.
pub struct Gate {
    all: Semaphore,
    of_address: Shares<IpAddr>,
    wait: Duration,
}

/// What a request holds while it is worked on.
pub struct Place<'a> {
    _one: SemaphorePermit<'a>,
    _of_address: Option<Share<IpAddr>>,
}

impl Gate {
    /// All places are free.
    pub fn new() -> Self {
        Self { all: Semaphore::new(AT_ONCE), of_address: Shares::of(OF_ADDRESS), wait: WAIT }
    }

    /// A place for a request that comes from there, once there is one. Where it isn't known who asks, all who come that
    /// way would share the places of one address: then only those of all count.
    ///
    /// # Errors
    /// [`Trouble::Crowded`].
    pub async fn enter(&self, origin: Origin) -> Result<Place<'_>, Trouble> {
        let of_address = match origin.client() {
            Some(address) => Some(self.of_address.take(address).ok_or(Trouble::Crowded)?),
            None => None,
        };
        match timeout(self.wait, self.all.acquire()).await {
            Ok(Ok(one)) => Ok(Place { _one: one, _of_address: of_address }),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Trouble::Crowded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(gate: &Gate, origin: Origin) -> Vec<Place<'_>> {
        let mut places = Vec::new();
        while let Ok(place) = gate.enter(origin).await {
            places.push(place);
        }
        places
    }

    #[tokio::test]
    async fn one_address_takes_a_part_of_the_places_and_who_isnt_known_shares_all() {
        let gate = Gate { wait: Duration::from_millis(1), ..Gate::new() };
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let greedy = taken(&gate, Origin::Client(address("203.0.113.7"))).await;
        assert_eq!(greedy.len(), OF_ADDRESS);
        let proxy = Origin::Peer(address("10.0.0.1"));
        let shared = taken(&gate, proxy).await;
        assert_eq!(shared.len(), AT_ONCE - OF_ADDRESS);
        assert!(gate.enter(Origin::Client(address("203.0.113.8"))).await.is_err());
        drop(greedy);
        let other = gate.enter(Origin::Client(address("203.0.113.8"))).await;
        assert!(other.is_ok() && gate.enter(proxy).await.is_ok());
    }
}
