//! A proxy in front of a server. It can hold commands back, and deliver them after their client has closed the connection, like a
//! slow network. A test calls [`hold`](Proxy::hold), lets the client send and give up, calls [`pass`](Proxy::pass), lets a newer
//! connection write, and then calls [`deliver`](Proxy::deliver).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, spawn};

/// The proxy of a server at 127.0.0.1.
pub struct Proxy {
    /// The port on which the proxy listens.
    port: u16,
    /// Whether commands are held back.
    holds: Arc<AtomicBool>,
    /// The commands that were held back.
    held: Receiver<Held>,
}

/// Commands that were held back, and the connection to the server that they belong to.
struct Held {
    /// The connection to the server.
    server: TcpStream,
    /// The commands.
    commands: Vec<u8>,
    /// The thread that passes answers of the server on.
    answers: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy. Its threads end with the test program.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let holds = Arc::new(AtomicBool::new(false));
        let (sender, held) = channel();
        let proxy = Self { port, holds: Arc::clone(&holds), held };
        spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a connection");
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server))
                    .expect("the server accepts connections");
                let (holds, sender) = (Arc::clone(&holds), sender.clone());
                spawn(move || forward(client, server, &holds, &sender));
            }
        });
        proxy
    }

    /// Returns the port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on, holds the commands of all connections back.
    pub fn hold(&mut self) {
        self.holds.store(true, Ordering::SeqCst);
    }

    /// Passes commands on again. Commands that were held back stay until their client sends more, or until
    /// [`deliver`](Self::deliver).
    pub fn pass(&mut self) {
        self.holds.store(false, Ordering::SeqCst);
    }

    /// Delivers the commands of one connection that were held back, after the client has closed it. Returns when the server has
    /// executed them or has closed the connection.
    pub fn deliver(&mut self) {
        let mut held = self.held.recv().expect("a held connection");
        // The server may have closed the connection already.
        let _ = held.server.write_all(&held.commands);
        let _ = held.server.shutdown(Shutdown::Write);
        held.answers.join().expect("the thread reads until the server closes the connection");
    }
}

fn forward(mut client: TcpStream, mut server: TcpStream, holds: &AtomicBool, sender: &Sender<Held>) {
    let (mut from, mut to) = (server.try_clone().expect("a copy"), client.try_clone().expect("a copy"));
    let answers = spawn(move || {
        let mut bytes = [0; 4096];
        // A client that has gone does not read the answers.
        while let Ok(1..) = from.read(&mut bytes).inspect(|&count| drop(to.write_all(&bytes[..count]))) {}
    });
    let mut bytes = [0; 4096];
    let mut commands = Vec::new();
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        commands.extend_from_slice(&bytes[..count]);
        if !holds.load(Ordering::SeqCst) && server.write_all(&commands).is_ok() {
            commands.clear();
        }
    }
    if commands.is_empty() {
        let _ = server.shutdown(Shutdown::Write);
    } else {
        sender.send(Held { server, commands, answers }).expect("the test waits");
    }
}
