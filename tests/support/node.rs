//! A node in the test's own process, on a free port.

use std::net::SocketAddr;
use std::time::Duration;

use switchboard::config::Config;
use switchboard::server::Server;

use super::{TestClient, eventually, within};
use switchboard::model::readiness::ReadinessState;

/// A node that ends without ceremony when it is dropped, or with [`TestNode::drain`].
pub struct TestNode {
    server: Option<Server>,
    pub address: SocketAddr,
}

/// No ping is sent during a test: most tests have clients that read nothing for a while, and on a
/// busy machine that is longer than any client may take to answer.
pub const NO_HEARTBEAT: Duration = Duration::from_secs(3600);

/// The defaults on a free port, without heartbeats.
pub fn config() -> Config {
    Config {
        heartbeat: NO_HEARTBEAT,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        node: "test".into(),
        ..Config::default()
    }
}

impl TestNode {
    /// A node with the memory broker and the default options.
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// A node with some options changed, ready to serve.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let node = Self::unready(change);
        let readiness = node.server().readiness().clone();
        eventually("the node is ready", || {
            readiness.state() == ReadinessState::Ready
        })
        .await;
        node
    }

    /// A node that may have to wait for its Redis.
    pub fn unready(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        let server = Server::start_unchecked(&config).expect("the node starts");
        Self {
            address: server.address(),
            server: Some(server),
        }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the node runs")
    }

    /// A client that has been welcomed.
    pub async fn client(&self) -> TestClient {
        TestClient::connect(self.address).await
    }

    /// Drains the node; ready when it has ended.
    pub async fn drain(mut self) {
        let server = self.server.take().expect("the node runs");
        within("the drain is complete", server.drain()).await;
    }
}
