//! What the commands share that call the HTTP API: the request, and what a refusal means.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::CommandFailure;
use crate::client::http::{HttpClient, HttpError};
use crate::config::{ApiInvocation, ApiUrl};

/// The HTTP API of a node.
pub(super) struct Api {
    url: ApiUrl,
    http: HttpClient,
}

/// The body of an error.
#[derive(Deserialize)]
struct ErrorBody {
    reason: String,
}

impl Api {
    pub(super) fn of(invocation: &ApiInvocation) -> Result<Self, CommandFailure> {
        let options = &invocation.options;
        let (url, key) = (options.api(), options.api_key.clone());
        let http = HttpClient::new(url.clone(), key, options.ca.as_deref(), options.timeout);
        let http = http.map_err(|error| CommandFailure::Refused(error.to_string()))?;
        Ok(Self { url, http })
    }

    /// The answer to a GET, which must be a 200.
    pub(super) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, CommandFailure> {
        let answer = self.http.get(target).await?;
        let status = answer.status.as_u16();
        if status == 200 {
            return serde_json::from_slice(&answer.body).map_err(|error| {
                let url = &self.url;
                CommandFailure::Refused(format!("{url} is not an API of Switchboard: {error}"))
            });
        }
        let body = serde_json::from_slice(&answer.body);
        let reason = match body {
            Ok(ErrorBody { reason }) => reason,
            Err(_) => "this is not an API of Switchboard; give --api-url".to_owned(),
        };
        let sentence = format!("{} answered {status}: {reason}", self.url);
        Err(match status {
            // Redis or the node does not answer at present.
            500.. => CommandFailure::NoAnswer(sentence),
            _ => CommandFailure::Refused(sentence),
        })
    }
}

impl From<HttpError> for CommandFailure {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Large | HttpError::Request(_) => CommandFailure::Refused(error.to_string()),
            error => CommandFailure::NoAnswer(error.to_string()),
        }
    }
}
