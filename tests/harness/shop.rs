//! A chain of real services with names of their own: nginx (`front`) passes on to a service in Python (`shop`), which asks
//! Redis (`store`) and a server that is out of scope (`stock.example`).
//!
//! Of N requests by curl, all reach `shop` and `store`, every second one `stock.example`, and every fifth fails with 500.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::agent::Launch;
use crate::nginx::Nginx;
use crate::process::Process;
use crate::redis::Redis;
use crate::rig::{Rig, free_port};
use crate::scripted::{Language, Server};
use crate::{http, programs};

#[derive(Debug)]
pub struct Shop {
    pub front: Nginx,
    port: u16,
    store: Redis,
    _shop: Process,
    _stock: Server,
}

impl Shop {
    pub fn open(rig: &Rig) -> Result<Self> {
        let (store, stock, port) = (Redis::start(rig)?, Server::start_outside(rig, Language::Python)?, free_port()?);
        let mut command = Command::new(programs::PYTHON);
        command.arg(rig.file("shop.py", include_str!("scripts/shop.py"))?);
        command.args([port, store.port, stock.port].map(|port| port.to_string())).stdin(Stdio::null());
        let mut shop = rig.inside("shop", command)?;
        shop.await_ready(Duration::from_secs(20), || http::listens(port))?;
        let front = Nginx::start(rig, Some(port))?;
        Ok(Self { front, port, store, _shop: shop, _stock: stock })
    }

    /// How an agent is started that calls them as above.
    pub fn launch(&self, config: &str) -> Result<Launch> {
        let mut text = "services:\n".to_owned();
        for (port, name) in [(self.front.port, "front"), (self.port, "shop"), (self.store.port, "store")] {
            writeln!(text, "- {{match: port={port}, name: {name}}}")?;
        }
        Ok(Launch { config: Some(text + config), ..Launch::default() })
    }

    /// curl asks for /up/1 to /up/`requests` on one connection.
    pub fn visit(&self, rig: &Rig, requests: usize) -> Result<()> {
        let mut curl = Command::new(programs::find("curl")?);
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "50",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}\\n",
        ]);
        curl.arg(format!("http://127.0.0.1:{}/up/[1-{requests}]", self.front.port));
        let out = rig.inside("curl", curl)?.finish(Duration::from_secs(60))?;
        let failed = out.lines().filter(|code| *code == "500").count();
        ensure!(out.lines().count() == requests && failed == requests / 5, "curl: {out}");
        Ok(())
    }
}
