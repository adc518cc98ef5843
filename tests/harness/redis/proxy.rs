//! A TCP proxy between a Redis server and its clients that disturbs connections: it delays bytes, holds them back, or cuts the
//! connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A proxy on a port of its own in front of a server. It can delay all data, hold them back, or cut all connections. Dropping the
/// value cuts the connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The milliseconds by which each piece is delayed.
    delay_ms: AtomicU64,
    /// The connections with a lower number are held back.
    held_below: AtomicU64,
    /// The number of the next connection.
    next: AtomicU64,
    /// How many pieces are held back.
    held_pieces: AtomicUsize,
    /// Whether connections are cut and refused.
    is_cut: AtomicBool,
    /// Whether the proxy has ended.
    has_ended: AtomicBool,
    /// The connections, to cut them.
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Starts a proxy in front of the server on a port of 127.0.0.1.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let proxy = Self { address, state: Arc::default() };
        let state = Arc::clone(&proxy.state);
        std::thread::spawn(move || serve(&listener, port, &state));
        proxy
    }

    /// Returns `host:port` of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Delays the data in both directions: each piece of at most 64 kB by this time, one piece after the other.
    pub fn delay(&self, time: Duration) {
        self.state.delay_ms.store(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// Forwards nothing, until [`Proxy::restore`]. The connections stay open, and new ones are accepted.
    pub fn hold(&self) {
        self.state.held_below.store(u64::MAX, Ordering::SeqCst);
    }

    /// Forwards nothing on the present connections, until [`Proxy::restore`]. New ones are served.
    pub fn hold_present(&self) {
        self.state.held_below.store(self.state.next.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Returns how many pieces are held back, or were held back and are not forwarded yet.
    pub fn held_pieces(&self) -> usize {
        self.state.held_pieces.load(Ordering::SeqCst)
    }

    /// Cuts all connections, and each new one, until [`Proxy::restore`].
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
        self.state.cut();
    }

    /// Cuts all connections once. The next ones are served.
    pub fn cut_once(&self) {
        self.state.cut();
    }

    /// Serves everything again, without a delay.
    pub fn restore(&self) {
        self.delay(Duration::ZERO);
        self.state.held_below.store(0, Ordering::SeqCst);
        self.state.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Ordering::SeqCst);
        self.state.cut();
        // The listener waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn cut(&self) {
        let mut streams = self.streams.lock().expect("no thread panics");
        for stream in streams.drain(..) {
            // The other side may have closed it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(listener: &TcpListener, port: u16, state: &Arc<State>) {
    for client in listener.incoming() {
        if state.has_ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
            let copy = stream.try_clone().expect("there are file descriptors");
            state.streams.lock().expect("no thread panics").push(copy);
        }
        // A cut that came before the streams were in the list.
        if state.is_cut.load(Ordering::SeqCst) {
            state.cut();
        }
        let number = state.next.fetch_add(1, Ordering::SeqCst);
        let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { continue };
        for (from, to) in [(from_client, server), (from_server, client)] {
            let state = Arc::clone(state);
            std::thread::spawn(move || forward(from, to, number, &state));
        }
    }
}

/// Forwards until one of the connections ends, and ends the other one.
fn forward(mut from: TcpStream, mut to: TcpStream, number: u64, state: &State) {
    let mut piece = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        std::thread::sleep(Duration::from_millis(state.delay_ms.load(Ordering::Relaxed)));
        let is_held = || state.held_below.load(Ordering::SeqCst) > number;
        let was_held = is_held();
        state.held_pieces.fetch_add(usize::from(was_held), Ordering::SeqCst);
        while is_held() && !state.has_ended.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let result = to.write_all(&piece[..length]);
        state.held_pieces.fetch_sub(usize::from(was_held), Ordering::SeqCst);
        if result.is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
