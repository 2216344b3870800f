//! A link to a server that takes time: each byte arrives at the other end a fixed time after it was
//! sent, in both directions, and as many may be on the way as the sender likes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Its threads end with the connections through it, and at the latest with the tests.
pub struct SlowLink {
    pub address: SocketAddr,
}

impl SlowLink {
    /// A link to a port of this machine that takes this long each way.
    pub fn before(port: u16, each_way: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it has one");
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                for socket in [&client, &server] {
                    socket.set_nodelay(true).expect("a TCP socket");
                }
                pass(&client, &server, each_way);
                pass(&server, &client, each_way);
            }
        });
        Self { address }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

fn pass(from: &TcpStream, to: &TcpStream, time: Duration) {
    let mut from = from.try_clone().expect("a second handle");
    let mut to = to.try_clone().expect("a second handle");
    let (sender, on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let bytes = buffer[..read].to_vec();
            if sender.send((Instant::now() + time, bytes)).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (arrival, bytes) in on_the_way {
            thread::sleep(arrival.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other end may be gone already.
        let _ = to.shutdown(Shutdown::Write);
    });
}
