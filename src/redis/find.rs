//! Finds the servers that store data, and connects to them: the one server, the primaries of a cluster, or the master that
//! sentinels name. The *target* (`target.rs`) says which of these the settings name. Nothing may be written to a replica: its next
//! synchronization with its master would overwrite everything.

use crate::failure::Failure;
use crate::node::{Node, Wire};
use crate::slots::Slots;
use crate::target::{Endpoint, Kind, Target};
use redis::Value;

/// The servers, and which server of a cluster has which keys.
pub struct Found {
    /// All primaries.
    pub nodes: Vec<Node>,
    /// `None` without a cluster.
    pub slots: Option<Slots>,
}

/// Connects to all primaries. Fails if one of them cannot be used.
pub fn find(target: &Target) -> Result<Found, Failure> {
    match target.kind() {
        Kind::Single(endpoint) => Ok(Found { nodes: vec![primary(target, endpoint)?], slots: None }),
        Kind::Sentinel { sentinels, service } => {
            let node = first_of(sentinels, |sentinel| primary(target, &master(target, sentinel, service)?))?;
            Ok(Found { nodes: vec![node], slots: None })
        }
        Kind::Cluster(seeds) => {
            let slots = first_of(seeds, |seed| {
                let mut wire = Wire::connect(target, target.server(seed)?)?;
                Slots::parse(&wire.ask(&[b"CLUSTER", b"SLOTS"])?, seed)
            })?;
            if slots.primaries.is_empty() {
                return Err(Failure::new("no server of the cluster has hash slots"));
            }
            let nodes =
                slots.primaries.iter().map(|endpoint| primary(target, endpoint)).collect::<Result<_, _>>()?;
            Ok(Found { nodes, slots: Some(slots) })
        }
    }
}

/// Connects to a server. Fails if `INFO` or `ROLE` says that it is a replica, or if `INFO` says that it is still loading its data.
pub fn primary(target: &Target, endpoint: &Endpoint) -> Result<Node, Failure> {
    let node = Node::connect(target, endpoint)?;
    match &node.info {
        Some(info) if info.is_replica && info.is_read_only => {
            Err(Failure::new("the server is a read-only replica"))
        }
        // A replica that accepts writes is refused, too: its next synchronization would overwrite them.
        Some(info) if info.is_replica => Err(Failure::new("the server is a replica")),
        Some(info) if info.is_loading => Err(Failure::new("the server is loading its data")),
        _ => Ok(node),
    }
}

/// Asks a sentinel for the master of the service.
fn master(target: &Target, sentinel: &Endpoint, service: &str) -> Result<Endpoint, Failure> {
    let mut wire = Wire::connect(target, target.sentinel(sentinel)?)?;
    let answer = wire.ask(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service.as_bytes()])?;
    let unexpected = || Failure::unexpected("SENTINEL GET-MASTER-ADDR-BY-NAME");
    let words = match answer {
        Value::Array(words) => words,
        Value::Nil => return Err(Failure::new(format!("the sentinel knows no service {service:?}"))),
        Value::ServerError(error) => return Err(error.into()),
        _ => return Err(unexpected()),
    };
    let [Value::BulkString(host), Value::BulkString(port)] = words.as_slice() else {
        return Err(unexpected());
    };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Endpoint::Tcp(text(host), text(port).parse().map_err(|_| unexpected())?))
}

/// Fails if the first sentinel that answers says that another server is the master now. A master that is cut off from its sentinels
/// does not notice that itself. If no sentinel answers, the master stays.
pub fn require_master(target: &Target, endpoint: &Endpoint) -> Result<(), Failure> {
    let Kind::Sentinel { sentinels, service } = target.kind() else { return Ok(()) };
    match first_of(sentinels, |sentinel| master(target, sentinel, service)) {
        Ok(now) if now != *endpoint => Err(Failure::new("the sentinels have chosen another master")),
        _ => Ok(()),
    }
}

/// Returns the first success, or the last failure.
fn first_of<T>(
    endpoints: &[Endpoint],
    mut find: impl FnMut(&Endpoint) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut last = Failure::new("the URL names no server");
    for endpoint in endpoints {
        match find(endpoint) {
            Ok(found) => return Ok(found),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}
