//! A gate in front of a server: while it is shut, it holds the bytes of both sides, and forwards
//! them when it opens, even if the sender has closed meanwhile. So a process appears frozen to the
//! other, and its last commands arrive after it has ended.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::GLANCE;

/// A gate on a port of its own. Its threads end with the connections through it, and at the latest
/// with the tests.
pub struct Gate {
    pub address: SocketAddr,
    shut: Arc<AtomicBool>,
}

impl Gate {
    /// An open gate before a port of this machine.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it has one");
        let shut = Arc::new(AtomicBool::new(false));
        let is_shut = shut.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                pass(&client, &server, is_shut.clone());
                pass(&server, &client, is_shut.clone());
            }
        });
        Self { address, shut }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.shut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

fn pass(from: &TcpStream, to: &TcpStream, shut: Arc<AtomicBool>) {
    let mut from = from.try_clone().expect("a second handle");
    let mut to = to.try_clone().expect("a second handle");
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            while shut.load(Ordering::SeqCst) {
                thread::sleep(GLANCE);
            }
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // The other end may be gone already.
        let _ = to.shutdown(Shutdown::Write);
    });
}
