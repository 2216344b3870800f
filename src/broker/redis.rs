//! (Another hand is writing this.)
use super::{Broker, BrokerEvent, Settings};
use crate::config::RedisUrl;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use std::sync::Arc;
#[derive(Debug, thiserror::Error)]
#[error("not yet")]
pub struct Error;
#[derive(Clone, Debug)]
pub struct Servers {
    pub urls: Vec<RedisUrl>,
    pub ca: Option<std::path::PathBuf>,
    pub prefix: String,
}
pub fn start<E: From<BrokerEvent> + Send + 'static>(
    _servers: Servers,
    _settings: Settings,
    _readiness: Readiness,
    _metrics: Arc<Metrics>,
    _events: flume::Sender<E>,
) -> Result<Broker, Error> {
    Err(Error)
}
