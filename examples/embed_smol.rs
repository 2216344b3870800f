//! A node inside a program on smol: it publishes a number each second in the room `lobby`, and
//! prints what arrives there until a client publishes `"stop"`.
//!
//! `cargo run --no-default-features --features rt-smol --example embed_smol [HOST:PORT]`

use std::env;
use std::error::Error;
use std::time::Duration;

use switchboard::{Config, PublishOptions, RoomEvent, Server};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let mut config = Config::default();
        if let Some(address) = env::args().nth(1) {
            config.listen = address.parse()?;
        }
        let server = Server::start(&config)?;
        println!("clients connect to ws://{}/ws", server.address());

        let mut lobby = server.subscribe("lobby", None).await?;
        let handle = server.handle();
        smol::spawn(async move {
            for number in 1.. {
                let published = handle.publish("lobby", number, PublishOptions::default());
                if let Err(error) = published.await {
                    return eprintln!("not published: {error}");
                }
                smol::Timer::after(Duration::from_secs(1)).await;
            }
        })
        .detach();
        while let Some(event) = lobby.next().await {
            if let RoomEvent::Message(message) = event? {
                println!("{}", message.data);
                if message.data.json() == Some("\"stop\"") {
                    break;
                }
            }
        }
        server.drain().await;
        Ok(())
    })
}
