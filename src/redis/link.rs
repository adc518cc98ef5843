//! The connections to all servers that store data: one server, or all primaries of a cluster. In a cluster, each key belongs to a
//! hash *slot*, and each slot to a server (`slots.rs`). This file sends each command to the server that has its key. If the cluster
//! has moved the slot, the server answers with a redirection, and the command is sent again. A scan fails if slots have moved since
//! it began, because it could miss keys.

use crate::commands::Commands;
use crate::failure::{Failure, words};
use crate::find::{Found, find, primary, require_master};
use crate::info::facts;
use crate::jobs::Facts;
use crate::node::{Node, Past};
use crate::slots::{Slots, complete};
use crate::target::{Endpoint, Target};
use redis::{ServerError, Value};

/// How often a command is sent at most, if a cluster moves the slot of its key again and again.
const ROUNDS: usize = 4;

/// The connections to all primaries. The first failure makes the value useless: answers may be outstanding.
pub struct Link {
    /// Where Redis is and how to reach it.
    target: Target,
    /// A scan counts the nodes, so new ones are added at the end, and none is removed.
    nodes: Vec<Node>,
    /// The keys of each server of a cluster. None if Redis is no cluster.
    slots: Option<Slots>,
    /// Whether the cluster has moved a slot since the present scan began.
    has_moved: bool,
}

impl Link {
    /// Connects to all primaries, and ends the connections in `past`. If `is_first`, because this process has not connected yet, it
    /// also ends all other connections with the name of the target.
    pub fn open(target: &Target, past: &[Past], is_first: bool) -> Result<Self, Failure> {
        let Found { nodes, slots } = find(target)?;
        let mut link = Self { target: target.clone(), nodes, slots, has_moved: false };
        for node in &mut link.nodes {
            for past in past {
                node.kill(past)?;
            }
            if is_first && let Some(name) = target.name() {
                node.kill_named(name)?;
            }
        }
        Ok(link)
    }

    /// Returns what identifies the connections after they were given up.
    pub fn past(&self) -> impl Iterator<Item = Past> {
        self.nodes.iter().filter_map(Node::past)
    }

    /// Asks all servers about themselves.
    pub fn check(&mut self) -> Result<Facts, Failure> {
        self.nodes.iter_mut().try_for_each(Node::update_info)?;
        require_master(&self.target, &self.nodes[0].endpoint)?;
        Ok(self.facts())
    }

    /// Returns what the servers have said about themselves.
    pub fn facts(&self) -> Facts {
        facts(self.nodes.iter().map(|node| node.info.as_ref()))
    }

    /// Publishes messages: pairs of a channel and a text. A cluster passes them on to all its servers.
    pub fn publish(&mut self, messages: &[(&str, String)]) -> Result<(), Failure> {
        let mut commands = Commands::default();
        for (channel, text) in messages {
            commands.push("PUBLISH", channel.as_bytes(), &[text.as_bytes()])?;
        }
        for answer in exchange(&mut self.nodes[0], &commands)? {
            number(answer)?;
        }
        Ok(())
    }

    /// Executes commands and returns their answers in order. A server's error is an answer. In a cluster, a command whose key is on
    /// another server is sent there.
    pub fn run(&mut self, commands: &Commands) -> Result<Vec<Value>, Failure> {
        if self.slots.is_none() {
            let answers = exchange(&mut self.nodes[0], commands)?;
            if answers.iter().any(|answer| redirection(answer).is_some()) {
                return Err(Failure::new(
                    "the server belongs to a cluster: the URL must begin with redis+cluster://",
                ));
            }
            return Ok(answers);
        }
        let mut answers = vec![Value::Nil; commands.len()];
        let mut todo: Vec<usize> = (0..commands.len()).collect();
        for _ in 0..ROUNDS {
            let asked = self.exchange_with_all(commands, &todo, &mut answers)?;
            let mut moved_to = None;
            for (&command, &node) in todo.iter().zip(&asked) {
                let Some((kind, endpoint)) = redirection(&answers[command]) else { continue };
                let endpoint = complete(endpoint, &self.nodes[node].endpoint);
                match kind {
                    Redirection::Moved => moved_to = Some(endpoint),
                    Redirection::Ask => {
                        answers[command] = self.ask_other(commands.one(command), &endpoint)?
                    }
                }
            }
            if let Some(endpoint) = moved_to {
                self.refresh(&endpoint)?;
            }
            todo.retain(|command| redirection(&answers[*command]).is_some());
            if todo.is_empty() {
                return Ok(answers);
            }
        }
        match &answers[todo[0]] {
            Value::ServerError(error) => Err(error.clone().into()),
            _ => Err(Failure::unexpected("a command")),
        }
    }

    /// Sends each command to the server of its key, and receives the answers. Returns which node was asked for each command.
    fn exchange_with_all(
        &mut self,
        commands: &Commands,
        todo: &[usize],
        answers: &mut [Value],
    ) -> Result<Vec<usize>, Failure> {
        let slots = self.slots.as_ref().ok_or(Failure::new("there is no cluster"))?;
        let mut bytes: Vec<Vec<u8>> = vec![Vec::new(); self.nodes.len()];
        let mut asked = Vec::with_capacity(todo.len());
        for &command in todo {
            let endpoint = slots.primary(commands.key(command));
            let node = self
                .nodes
                .iter()
                .position(|node| Some(&node.endpoint) == endpoint)
                .ok_or(Failure::new("a hash slot of the cluster has no server"))?;
            let command_bytes = commands.one(command);
            bytes[node].try_reserve(command_bytes.len())?;
            bytes[node].extend_from_slice(command_bytes);
            asked.push(node);
        }
        for (node, bytes) in self.nodes.iter_mut().zip(&bytes).filter(|(_, bytes)| !bytes.is_empty()) {
            node.send(bytes)?;
        }
        for (&command, &node) in todo.iter().zip(&asked) {
            answers[command] = self.nodes[node].receive()?;
        }
        Ok(asked)
    }

    /// Sends a command to the server to which the cluster is moving the slot of its key.
    fn ask_other(&mut self, command: &[u8], endpoint: &Endpoint) -> Result<Value, Failure> {
        let node = self.node(endpoint)?;
        node.ask(&[b"ASKING"])?;
        node.send(command)?;
        node.receive()
    }

    /// Asks a server which server has which slots, and connects to those that are new.
    fn refresh(&mut self, endpoint: &Endpoint) -> Result<(), Failure> {
        let answer = self.node(endpoint)?.ask(&[b"CLUSTER", b"SLOTS"])?;
        let slots = Slots::parse(&answer, endpoint)?;
        for endpoint in &slots.primaries {
            self.node(endpoint)?;
        }
        self.slots = Some(slots);
        self.has_moved = true;
        Ok(())
    }

    /// Returns the connection to a server, which is made if there is none.
    fn node(&mut self, endpoint: &Endpoint) -> Result<&mut Node, Failure> {
        let index = match self.nodes.iter().position(|node| node.endpoint == *endpoint) {
            Some(index) => index,
            None => {
                self.nodes.push(primary(&self.target, endpoint)?);
                self.nodes.len() - 1
            }
        };
        Ok(&mut self.nodes[index])
    }

    /// Executes one step of a scan. Returns the next step and the keys.
    pub fn scan(&mut self, node: usize, cursor: u64, pattern: &[u8]) -> Result<Step, Failure> {
        if (node, cursor) == (0, 0) {
            self.has_moved = false;
        }
        let (next, keys) = match self.nodes.get_mut(node) {
            Some(node) => {
                let cursor = cursor.to_string();
                cursor_and_words(node.ask(&[
                    b"SCAN",
                    cursor.as_bytes(),
                    b"MATCH",
                    pattern,
                    b"COUNT",
                    b"1000",
                ])?)?
            }
            None => (0, Vec::new()),
        };
        let next = match next {
            0 if node + 1 < self.nodes.len() => Some((node + 1, 0)),
            0 => None,
            cursor => Some((node, cursor)),
        };
        if next.is_none() {
            self.require_same_slots()?;
        }
        Ok((next, keys))
    }

    /// Fails if a cluster has moved slots since a scan began: a key could have moved from a server that the scan had not reached to
    /// one that it had.
    fn require_same_slots(&mut self) -> Result<(), Failure> {
        let Some(slots) = &self.slots else { return Ok(()) };
        let node = &mut self.nodes[0];
        let now = Slots::parse(&node.ask(&[b"CLUSTER", b"SLOTS"])?, &node.endpoint)?;
        if self.has_moved || now != *slots {
            return Err(Failure::new("the cluster has moved hash slots during a scan"));
        }
        Ok(())
    }
}

/// The next step of a scan, and the keys of this one.
type Step = (Option<(usize, u64)>, Vec<Vec<u8>>);

/// Sends commands to one server and receives the answers. Stops at the first answer that does not come.
fn exchange(node: &mut Node, commands: &Commands) -> Result<Vec<Value>, Failure> {
    if commands.len() == 0 {
        return Ok(Vec::new());
    }
    node.send(commands.all())?;
    (0..commands.len()).map(|_| node.receive()).collect()
}

/// Returns the number that a server has answered.
pub fn number(answer: Value) -> Result<i64, Failure> {
    match answer {
        Value::Int(number) => Ok(number),
        Value::ServerError(error) => Err(error.into()),
        _ => Err(Failure::unexpected("a command")),
    }
}

/// Reads an answer to `SCAN` or `SSCAN`.
pub fn cursor_and_words(answer: Value) -> Result<(u64, Vec<Vec<u8>>), Failure> {
    let unexpected = || Failure::unexpected("SCAN");
    let parts = match answer {
        Value::Array(parts) => parts,
        Value::ServerError(error) => return Err(error.into()),
        _ => return Err(unexpected()),
    };
    let [Value::BulkString(cursor), Value::Array(words)] =
        <[Value; 2]>::try_from(parts).map_err(|_| unexpected())?
    else {
        return Err(unexpected());
    };
    let cursor =
        std::str::from_utf8(&cursor).ok().and_then(|cursor| cursor.parse().ok()).ok_or_else(unexpected)?;
    let words = words.into_iter().map(|word| match word {
        Value::BulkString(word) => Some(word),
        _ => None,
    });
    Ok((cursor, words.collect::<Option<_>>().ok_or_else(unexpected)?))
}

/// Why a server of a cluster does not execute a command.
enum Redirection {
    /// The slot belongs to another server. The client's list of slots is outdated.
    Moved,
    /// The slot is being moved, and the other server may already have the key. Only this command must be sent there, after
    /// `ASKING`.
    Ask,
}

/// Returns where a key is, if the answer says that it is on another server.
fn redirection(answer: &Value) -> Option<(Redirection, Endpoint)> {
    let Value::ServerError(error) = answer else { return None };
    let kind = match error.code() {
        "MOVED" => Redirection::Moved,
        "ASK" => Redirection::Ask,
        _ => return None,
    };
    let place = error.details()?.split_ascii_whitespace().nth(1)?;
    Some((kind, Endpoint::of_server(place)?))
}

/// Returns the server's words if it refuses a write because it is full.
pub fn is_full(error: &ServerError) -> Option<String> {
    (error.code() == "OOM").then(|| words(error))
}
