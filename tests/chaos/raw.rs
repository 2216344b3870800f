//! Clients that misbehave: they join a room, then read slowly or not at all, and never send a pong.
//! Each has a thread and a blocking socket, with a small buffer, so that it is soon full.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// The receive buffer of one of them; the kernel doubles it.
const BUFFER: usize = 4096;

/// A client that joined and sends nothing more; its drop closes the connection.
pub struct Raw {
    stop: Arc<AtomicBool>,
    socket: TcpStream,
}

impl Raw {
    /// Joins a room, then reads `rate` bytes a second; `None` means without a limit.
    pub fn join(address: SocketAddr, room: &str, rate: Option<usize>) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP));
        let socket = socket.expect("a socket");
        socket.set_recv_buffer_size(BUFFER).expect("a small buffer");
        socket.connect(&address.into()).expect("nginx listens");
        let mut socket = TcpStream::from(socket);
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket
            .write_all(request.as_bytes())
            .expect("the socket is open");
        let join = format!(r#"{{"type":"join","id":1,"room":"{room}"}}"#);
        socket
            .write_all(&masked(&join))
            .expect("the socket is open");
        let stop = Arc::new(AtomicBool::new(false));
        let reading = socket.try_clone().expect("another handle");
        let stopping = stop.clone();
        std::thread::spawn(move || read(reading, rate, &stopping));
        Self { stop, socket }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It may have ended already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// A client's text frame; a mask of zeros is a valid mask.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126);
    let mut frame = vec![0x81, 0x80 | length.expect("a short command"), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn read(mut socket: TcpStream, rate: Option<usize>, stop: &AtomicBool) {
    let mut scrap = [0; 4096];
    let step = Duration::from_millis(100);
    while !stop.load(Ordering::Relaxed) {
        let most = rate.map_or(scrap.len(), |rate| rate / 10);
        if most > 0 {
            match socket.read(&mut scrap[..most.min(4096)]) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
        if rate.is_some() {
            std::thread::sleep(step);
        }
    }
}
