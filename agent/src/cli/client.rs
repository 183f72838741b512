//! Asks a running agent over HTTP. Only `http://`: the agent listens on loopback, there is no TLS in it.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use serde::de::DeserializeOwned;

use super::AGENT_VARIABLE;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For the answer to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub struct AgentArguments {
    /// The agent's address.
    #[arg(long, value_name = "URL", env = AGENT_VARIABLE, default_value = "http://127.0.0.1:9464", value_parser = base)]
    pub agent: String,
}

fn base(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(rest) if !rest.trim_matches('/').is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("not an address such as http://127.0.0.1:9464 (only http:// is spoken)".to_owned()),
    }
}

impl AgentArguments {
    /// One JSON answer.
    pub fn json<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.ask(path, &[])?;
        serde_json::from_reader(answer).with_context(|| format!("{}{path}: not what an agent answers", self.agent))
    }

    /// The body of an answer, to be read as it comes.
    pub fn ask(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<impl BufRead + use<>> {
        let url = format!("{}{path}", self.agent);
        let client: ureq::Agent = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .http_status_as_error(false)
            // The agent is a neighbour: a proxy for the world outside is not asked.
            .proxy(None)
            .build()
            .into();
        let request = client.get(&url).query_pairs(parameters.iter().map(|(key, value)| (*key, value.as_str())));
        let mut answer = request.call().map_err(|error| match error {
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                anyhow!("no agent listens at {} (start one with: seismo run)", self.agent)
            }
            error => anyhow!("{url}: {error}"),
        })?;
        if answer.status() != 200 {
            let status = answer.status();
            let body = answer.body_mut().with_config().limit(64 << 10).read_to_string().unwrap_or_default();
            let told = serde_json::from_str::<serde_json::Value>(&body).ok();
            match told.as_ref().and_then(|body| body["error"].as_str()) {
                Some(message) => bail!("{url}: {message}"),
                None => bail!("{url}: answered {status}"),
            }
        }
        Ok(BufReader::new(answer.into_body().into_reader()))
    }
}
