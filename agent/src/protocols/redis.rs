//! Redis (RESP2 and RESP3, servers up to 8.0, and what speaks like it): commands and their answers, in order.
//!
//! Each command is an exchange, also in a pipeline and in a transaction, whose `EXEC` tells how many it ran. Pushes and
//! messages of subscriptions are nobody's answer; `MONITOR` and replication make the connection opaque. Of arguments
//! only keys are kept, of answers the first word of an error. Values are skipped by their length. Attributes:
//! OpenTelemetry's conventions for Redis. Not followed: databases changed inside a transaction.

mod command;
mod commands;
mod exchange;
mod hint;
mod line;
mod reply;
mod request;
mod start;

use self::command::Keeping;
use self::reply::Replies;
use self::request::Commands;
use super::{Event, Limits, Parser, Protocol, Request, Side, Step};

pub const PROTOCOL: Protocol =
    Protocol { name: "redis", detect: start::detect, resume: start::resume, dialect: Some(exchange::dialect) };

crate::section! {
    /// Redis.
    pub struct Config {
        /// Keep keys and channels in a command's statement (`db.query.text`). They may name people. Values never are kept.
        pub keys: bool = true,
        /// Longest key kept, in bytes; a longer one is masked like a value.
        pub key_bytes: usize = 128,
        /// Commands told apart that are none of Redis itself, such as those of modules; any further one is `_OTHER`.
        pub other_commands: usize = 100,
    }
}

/// One connection's parser.
pub struct Redis {
    commands: Commands,
    replies: Replies,
}

impl Redis {
    fn new(limits: Limits, config: &Config) -> Self {
        let keeping = Keeping::new(config.keys, config.key_bytes, limits.head_bytes);
        Self {
            commands: Commands::new(keeping, limits.head_bytes),
            replies: Replies::new(limits.head_bytes, limits.fresh),
        }
    }
}

impl Parser for Redis {
    fn feed(&mut self, side: Side, bytes: &[u8], asked: Option<&Request>) -> Step {
        match side {
            Side::Request => self.commands.feed(bytes),
            Side::Response => self.replies.feed(bytes, asked),
        }
    }

    fn is_unasked(&self, bytes: &[u8]) -> bool {
        self.replies.is_unasked(bytes)
    }

    fn cut(&mut self, side: Side) -> Option<Event> {
        match side {
            Side::Request => self.commands.cut(),
            Side::Response => self.replies.cut(),
        }
    }

    fn reset(&mut self, side: Side) {
        match side {
            Side::Request => {
                self.commands.reset();
                self.replies.lose_database();
            }
            Side::Response => self.replies.reset(),
        }
    }

    fn buffered_bytes(&self) -> usize {
        self.commands.kept_bytes() + self.replies.kept_bytes()
    }
}
