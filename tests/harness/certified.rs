//! A real nginx that answers over TLS, by itself and in front of a collector, with certificates that openssl makes here: a good
//! one, one that expired, and an authority that vouched for neither.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{self, Process};
use crate::rig::{Rig, free_port};
use crate::rotel::Ports;
use crate::{http, programs};

const LIMIT: Duration = Duration::from_secs(30);
/// Unix time of `EXPIRES`, s.
pub const EXPIRES_S: i64 = 2_524_607_999;
const EXPIRES: &str = "20491231235959Z";
const AUTHORITY: &str = "[ca]\ndefault_ca=d\n[d]\nnew_certs_dir=.\ndatabase=index.txt\ncertificate=ca.pem\nprivate_key=ca.key\n\
    default_md=sha256\npolicy=p\nunique_subject=no\nrand_serial=yes\nx509_extensions=e\n[p]\ncommonName=supplied\n\
    [e]\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";

#[derive(Debug)]
pub struct Certified {
    _process: Process,
    /// Of localhost and 127.0.0.1, good until [`EXPIRES_S`]; answers `ok`, takes OTLP over HTTP, and alerts.
    pub port: u16,
    /// The same with OTLP over gRPC, for those who show [`Certified::client`].
    pub grpc: u16,
    /// Its certificate expired.
    pub expired: u16,
    dir: PathBuf,
}

impl Certified {
    /// `collector`: what is behind it.
    pub fn start(rig: &Rig, collector: Ports) -> Result<Self> {
        Self::start_before(rig, collector, free_port()?)
    }

    /// `hook`: what is behind `/alerts`.
    pub fn start_before(rig: &Rig, collector: Ports, hook: u16) -> Result<Self> {
        let dir = rig.dir().join("certified");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("ca.cnf"), AUTHORITY)?;
        fs::write(dir.join("index.txt"), "")?;
        let openssl = |arguments: &str| -> Result<()> {
            let mut command = Command::new(programs::find("openssl")?);
            command.args(arguments.split(' ')).current_dir(&dir);
            let (status, _, said) = process::output(command, &dir, "openssl", LIMIT)?;
            ensure!(status.success(), "openssl {arguments}: {said}");
            Ok(())
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for name in ["ca", "other"] {
            let own = format!("-keyout {name}.key -out {name}.pem -days 36500 -subj /CN={name}");
            openssl(&format!("req -x509 {key} {own} -addext basicConstraints=critical,CA:TRUE"))?;
        }
        for (name, subject) in [("server", "localhost"), ("client", "agent")] {
            openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={subject}"))?;
        }
        for (request, name, until) in
            [("server", "server", EXPIRES), ("server", "expired", "20200201000000Z"), ("client", "client", EXPIRES)]
        {
            let dates = format!("-startdate 20200101000000Z -enddate {until}");
            openssl(&format!("ca -batch -config ca.cnf -in {request}.csr -out {name}.pem -notext {dates}"))?;
        }
        let (port, grpc, expired) = (free_port()?, free_port()?, free_port()?);
        let text = configuration(&dir.display().to_string(), [port, grpc, expired], collector, hook);
        fs::write(dir.join("nginx.conf"), text)?;
        let mut command = Command::new(programs::find("nginx")?);
        command.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log"));
        let mut process = rig.outside("certified", command)?;
        process
            .await_ready(LIMIT, || [port, grpc, expired].into_iter().all(http::listens))
            .context("nginx with TLS")?;
        Ok(Self { _process: process, port, grpc, expired, dir })
    }

    /// Certificate of who vouches for all its certificates.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A client's certificate that the authority vouched for, and its key.
    pub fn client(&self) -> [PathBuf; 2] {
        [self.dir.join("client.pem"), self.dir.join("client.key")]
    }

    /// Certificate of somebody who vouches for none.
    pub fn other(&self) -> PathBuf {
        self.dir.join("other.pem")
    }
}

fn configuration(dir: &str, [port, grpc, expired]: [u16; 3], collector: Ports, hook: u16) -> String {
    let (http, behind) = (collector.http, collector.grpc);
    format!(
        r#"
user root;
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  client_max_body_size 0;
  default_type text/plain;
  ssl_certificate_key {dir}/server.key;
  server {{
    listen 127.0.0.1:{port} ssl;
    # Of this address it has no certificate.
    listen 127.0.0.2:{port} ssl;
    ssl_certificate {dir}/server.pem;
    location / {{ return 200 "ok\n"; }}
    location /v1/ {{ proxy_pass http://127.0.0.1:{http}; }}
    location /alerts {{ proxy_pass http://127.0.0.1:{hook}; }}
  }}
  server {{
    listen 127.0.0.1:{grpc} ssl http2;
    ssl_certificate {dir}/server.pem;
    ssl_client_certificate {dir}/ca.pem;
    ssl_verify_client on;
    location / {{ grpc_pass grpc://127.0.0.1:{behind}; }}
  }}
  server {{
    listen 127.0.0.1:{expired} ssl;
    ssl_certificate {dir}/expired.pem;
    location / {{ return 200 "ok\n"; }}
  }}
}}
"#
    )
}
