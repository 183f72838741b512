//! What must be found of a request: the tree of spans that the load generator's ids and the lab's topology imply.
//!
//! A request's path is its place in the tree, `/task/17/0/1`: the second call of the first call of request 17. Places,
//! ports and kinds name every expected span and its parent, so no program has to log anything. 14 spans a request, 16
//! with a proxy.

use serde::Serialize;

/// Which side of a call a span tells of; numbers as in OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Server,
    Client,
}

/// What tells one expected span from all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// `17/0/1`.
    pub place: String,
    pub kind: Kind,
    /// The port that was called: tells what is before a proxy from what is behind it.
    pub port: u16,
}

impl Key {
    /// Number of the request that it is part of.
    pub fn request(&self) -> Option<u32> {
        self.place.split('/').next()?.parse().ok()
    }
}

/// An expected span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub key: Key,
    /// Its parent among the request's nodes; before it in the list.
    pub parent: Option<usize>,
}

/// Where everybody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// S1, which calls S2 and S3.
    pub front: u16,
    /// S2, which gives Redis two commands.
    pub cache: u16,
    /// S3, which asks PostgreSQL once and Redis once.
    pub store: u16,
    pub redis: u16,
    pub postgresql: u16,
    /// Between S1 and S2.
    pub proxy: Option<u16>,
}

impl Ports {
    /// Whether only the lab's own HTTP requests go there.
    pub fn speaks_http(&self, port: u16) -> bool {
        [self.front, self.cache, self.store].contains(&port) || self.proxy == Some(port)
    }

    /// What a port is called in results.
    pub fn name(&self, port: u16) -> &'static str {
        let Self { front, cache, store, redis, postgresql, proxy } = *self;
        match port {
            _ if port == front => "s1",
            _ if port == cache => "s2",
            _ if port == store => "s3",
            _ if port == redis => "redis",
            _ if port == postgresql => "postgresql",
            _ if Some(port) == proxy => "proxy",
            _ => "other",
        }
    }
}

/// The spans of one request, parents first; the first is the load generator's own.
pub fn request(id: u32, ports: &Ports) -> Vec<Node> {
    let mut nodes = Vec::new();
    let front = call(&mut nodes, None, &id.to_string(), ports.front);
    let first = format!("{id}/0");
    let caller = match ports.proxy {
        Some(proxy) => call(&mut nodes, Some(front), &first, proxy),
        None => front,
    };
    let cache = call(&mut nodes, Some(caller), &first, ports.cache);
    let store = call(&mut nodes, Some(front), &format!("{id}/1"), ports.store);
    call(&mut nodes, Some(cache), &format!("{id}/0/0"), ports.redis);
    call(&mut nodes, Some(cache), &format!("{id}/0/1"), ports.redis);
    call(&mut nodes, Some(store), &format!("{id}/1/0"), ports.postgresql);
    call(&mut nodes, Some(store), &format!("{id}/1/1"), ports.redis);
    nodes
}

/// Adds both spans of a call; the server's is its answer.
fn call(nodes: &mut Vec<Node>, parent: Option<usize>, place: &str, port: u16) -> usize {
    let key = |kind| Key { place: place.to_owned(), kind, port };
    nodes.push(Node { key: key(Kind::Client), parent });
    nodes.push(Node { key: key(Kind::Server), parent: Some(nodes.len() - 1) });
    nodes.len() - 1
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const PORTS: Ports = Ports { front: 1, cache: 2, store: 3, redis: 4, postgresql: 5, proxy: None };

    #[test]
    fn a_requests_tree_has_one_root_and_every_call_twice() {
        let nodes = request(17, &PORTS);
        assert_eq!(nodes.len(), 14);
        assert_eq!(nodes.iter().filter(|node| node.parent.is_none()).count(), 1);
        for node in &nodes {
            let Some(parent) = node.parent.and_then(|parent| nodes.get(parent)) else { continue };
            if node.key.kind == Kind::Server {
                assert_eq!(parent.key, Key { kind: Kind::Client, ..node.key.clone() });
            } else {
                let (above, _) = node.key.place.rsplit_once('/').unwrap();
                assert_eq!((parent.key.kind, parent.key.place.as_str()), (Kind::Server, above));
            }
        }
    }

    #[test]
    fn a_proxy_serves_and_calls_at_the_same_place() {
        let nodes = request(17, &Ports { proxy: Some(9), ..PORTS });
        assert_eq!(nodes.len(), 16);
        let at = |kind, port| nodes.iter().position(|node| node.key.kind == kind && node.key.port == port).unwrap();
        assert_eq!(nodes[at(Kind::Client, 2)].parent, Some(at(Kind::Server, 9)));
        assert_eq!(nodes[at(Kind::Client, 9)].parent, Some(at(Kind::Server, 1)));
    }
}
