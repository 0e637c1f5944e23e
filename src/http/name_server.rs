//! A double of a name server, which says of each name what a test tells it to, also another thing each
//! time: no real one would. It speaks DNS over UDP on loopback.

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;

/// What is said of each name, in lower case without the last dot: the first time, the second, …;
/// the last goes on. Addresses, and names that end in a dot; none is "no such name".
pub(crate) type Zone = HashMap<String, Vec<Vec<String>>>;

pub(crate) struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
}

impl NameServer {
    pub(crate) async fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let address = socket.local_addr().expect("address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..n]).expect("a DNS message");
                let reply = answer(&query, &zone, &seen).to_vec().expect("a DNS message");
                let _ = socket.send_to(&reply, from).await;
            }
        });
        Self { address, asked }
    }

    /// A resolver that asks this server, and every time anew.
    pub(crate) fn resolver(&self) -> TokioResolver {
        let mut udp = ConnectionConfig::udp();
        udp.port = self.address.port();
        let server = NameServerConfig::new(self.address.ip(), true, vec![udp]);
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().cache_size = 0;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build().expect("resolver")
    }

    /// The questions so far.
    pub(crate) fn asked(&self) -> Vec<(String, RecordType)> {
        self.asked.lock().expect("lock").clone()
    }

    /// Forgets them.
    pub(crate) fn forget(&self) {
        self.asked.lock().expect("lock").clear();
    }
}

fn answer(query: &Message, zone: &Zone, seen: &Mutex<Vec<(String, RecordType)>>) -> Message {
    let question = query.queries.first().expect("a question").clone();
    let host = question.name().to_string().trim_end_matches('.').to_ascii_lowercase();
    let kind = question.query_type();
    let before = {
        let mut seen = seen.lock().expect("lock");
        let before = seen.iter().filter(|(h, k)| *h == host && *k == kind).count();
        seen.push((host.clone(), kind));
        before
    };
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    let name = question.name().clone();
    reply.add_query(question);
    let said = zone.get(&host).and_then(|turns| turns.get(before).or(turns.last()));
    let Some(said) = said.filter(|s| !s.is_empty()) else {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return reply;
    };
    for text in said {
        let data = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => RData::A(A(ip)),
            Ok(IpAddr::V6(ip)) => RData::AAAA(AAAA(ip)),
            Err(_) => RData::CNAME(CNAME(Name::from_ascii(text).expect("a name"))),
        };
        if data.record_type() == kind || data.record_type() == RecordType::CNAME {
            reply.add_answer(Record::from_rdata(name.clone(), 0, data));
        }
    }
    reply
}
