//! Whose payloads may be read, as written: `pid=N`, `cgroup=PATH`, `exe=GLOB`, `port=N`, `netns=PATH`, `all`.
//!
//! Only the spelling is checked here; whether a path exists is found out by `host` when the agent starts.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};

/// One entry of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeItem {
    Pid(u32),
    /// A cgroup and those below it: a path of the file system or below the cgroup v2 root.
    Cgroup(PathBuf),
    /// Against the whole path of the executable, or its file name when the glob has no slash.
    Exe(String),
    /// Local or peer port.
    Port(u16),
    /// A network namespace by the path of its file (`/run/netns/x`, `/proc/1/ns/net`).
    Netns(PathBuf),
    All,
}

crate::section! {
    /// Whose payloads may be read.
    pub struct Scope {
        /// Payload bytes are copied only from what is listed here (union): pid=N, cgroup=PATH (and below),
        /// exe=GLOB, port=N, netns=PATH, all. Empty: no payload of any process is read; metrics still count.
        pub include: Vec<ScopeItem> = Vec::new(),
        /// Left out even when included; the same forms.
        pub exclude: Vec<ScopeItem> = Vec::new(),
    }
}

impl FromStr for ScopeItem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let Some((kind, value)) = text.split_once('=') else {
            return Err(format!("'{text}' is no scope: write pid=N, cgroup=PATH, exe=GLOB, port=N, netns=PATH or all"));
        };
        if value.is_empty() {
            return Err(format!("{text}: nothing after '='"));
        }
        match kind {
            "pid" => match value.parse() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                _ => Err(format!("{text}: not a process id")),
            },
            "port" => match value.parse() {
                Ok(port) if port > 0 => Ok(Self::Port(port)),
                _ => Err(format!("{text}: not a port (1 to 65535)")),
            },
            "cgroup" => Ok(Self::Cgroup(value.into())),
            "netns" => Ok(Self::Netns(value.into())),
            "exe" => Ok(Self::Exe(value.to_owned())),
            _ => Err(format!("{text}: '{kind}' is none of pid, cgroup, exe, port, netns")),
        }
    }
}

impl fmt::Display for ScopeItem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(out, "pid={pid}"),
            Self::Cgroup(path) => write!(out, "cgroup={}", path.display()),
            Self::Exe(glob) => write!(out, "exe={glob}"),
            Self::Port(port) => write!(out, "port={port}"),
            Self::Netns(path) => write!(out, "netns={}", path.display()),
            Self::All => out.write_str("all"),
        }
    }
}

impl Serialize for ScopeItem {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScopeItem {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::ScopeItem;

    #[test]
    fn every_form_is_read_and_shown_as_it_was_written() {
        for text in ["pid=7", "cgroup=/system.slice/x.service", "exe=*/nginx", "port=80", "netns=/run/netns/a", "all"] {
            assert_eq!(text.parse::<ScopeItem>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_form_is_refused_with_what_is_wrong() {
        let cases = [
            ("pid=abc", "pid=abc: not a process id"),
            ("pid=0", "pid=0: not a process id"),
            ("pid=-1", "pid=-1: not a process id"),
            ("port=0", "port=0: not a port (1 to 65535)"),
            ("port=70000", "port=70000: not a port (1 to 65535)"),
            ("exe=", "exe=: nothing after '='"),
            ("user=root", "user=root: 'user' is none of pid, cgroup, exe, port, netns"),
            ("nginx", "'nginx' is no scope: write pid=N, cgroup=PATH, exe=GLOB, port=N, netns=PATH or all"),
            ("", "'' is no scope: write pid=N, cgroup=PATH, exe=GLOB, port=N, netns=PATH or all"),
        ];
        for (text, message) in cases {
            assert_eq!(text.parse::<ScopeItem>(), Err(message.to_owned()));
        }
    }
}
