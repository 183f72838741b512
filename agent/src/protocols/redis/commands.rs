//! The commands of Redis (up to 8.0), and where each has its keys.
//!
//! In: the name of a command, in capitals, with its subcommand. Out: [`Keys`]. What is not here may be a command all the
//! same (of a module, of a later version); its arguments are never shown. Looked up by hash; no state.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Which arguments are keys; argument 0 is the command itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    None,
    /// From `first` to the one that is `before_end` from the last, every `step`th.
    Range {
        first: u64,
        before_end: u64,
        step: u64,
    },
    /// From `first` to `last`.
    Fixed {
        first: u64,
        last: u64,
    },
    /// Argument `at` says how many keys follow it; `destination`: the first argument is one too.
    Counted {
        at: u64,
        destination: bool,
    },
}

/// Names by the place of their keys; a plus joins a name and its subcommand.
const TABLE: &[(Keys, &str)] = &[
    (
        Keys::Fixed { first: 1, last: 1 },
        "APPEND BITCOUNT BITFIELD BITFIELD_RO BITPOS DECR DECRBY DUMP EXPIRE EXPIREAT EXPIRETIME GEOADD GEODIST GEOHASH
         GEOPOS GEORADIUS GEORADIUS_RO GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEOSEARCH GET GETBIT GETDEL GETEX GETRANGE
         GETSET HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY HINCRBYFLOAT HKEYS HLEN
         HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL
         HVALS INCR INCRBY INCRBYFLOAT LINDEX LINSERT LLEN LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MOVE PERSIST
         PEXPIRE PEXPIREAT PEXPIRETIME PFADD PSETEX PTTL RESTORE RESTORE-ASKING RPOP RPUSH RPUSHX SADD SCARD SET SETBIT
         SETEX SETNX SETRANGE SISMEMBER SMEMBERS SMISMEMBER SORT SORT_RO SPOP SRANDMEMBER SREM SSCAN STRLEN SUBSTR TTL
         TYPE XACK XADD XAUTOCLAIM XCLAIM XDEL XLEN XPENDING XRANGE XREVRANGE XSETID XTRIM ZADD ZCARD ZCOUNT ZINCRBY
         ZLEXCOUNT ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYLEX
         ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE PUBLISH
         SPUBLISH",
    ),
    (
        Keys::Fixed { first: 1, last: 2 },
        "BLMOVE BRPOPLPUSH COPY GEOSEARCHSTORE LCS LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE",
    ),
    (
        Keys::Fixed { first: 2, last: 2 },
        "MEMORY+USAGE OBJECT+FREQ OBJECT+IDLETIME OBJECT+ENCODING OBJECT+REFCOUNT XGROUP+DESTROY XGROUP+CREATECONSUMER
         XGROUP+CREATE XGROUP+DELCONSUMER XGROUP+SETID XINFO+STREAM XINFO+GROUPS XINFO+CONSUMERS",
    ),
    (
        Keys::Range { first: 1, before_end: 0, step: 1 },
        "DEL EXISTS MGET PFCOUNT PFMERGE SDIFF SDIFFSTORE SINTER SINTERSTORE SUNION SUNIONSTORE TOUCH UNLINK WATCH
         SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE",
    ),
    (Keys::Range { first: 1, before_end: 1, step: 1 }, "BLPOP BRPOP BZPOPMAX BZPOPMIN"),
    (Keys::Range { first: 1, before_end: 0, step: 2 }, "MSET MSETNX"),
    (Keys::Range { first: 2, before_end: 0, step: 1 }, "BITOP"),
    (Keys::Counted { at: 1, destination: false }, "LMPOP SINTERCARD ZDIFF ZINTER ZINTERCARD ZMPOP ZUNION"),
    (
        Keys::Counted { at: 2, destination: false },
        "BLMPOP BZMPOP EVAL EVAL_RO EVALSHA EVALSHA_RO FCALL FCALL_RO",
    ),
    (Keys::Counted { at: 2, destination: true }, "ZDIFFSTORE ZINTERSTORE ZUNIONSTORE"),
    (
        Keys::None,
        "ASKING AUTH BGREWRITEAOF BGSAVE DBSIZE DEBUG DISCARD ECHO EXEC FAILOVER FLUSHALL FLUSHDB HELLO INFO KEYS
         LASTSAVE LOLWUT MIGRATE MONITOR MULTI PFDEBUG PFSELFTEST PING PSYNC QUIT RANDOMKEY READONLY READWRITE REPLCONF
         REPLICAOF RESET ROLE SAVE SCAN SELECT SENTINEL SHUTDOWN SLAVEOF SWAPDB SYNC TIME UNWATCH WAIT WAITAOF XREAD
         XREADGROUP
         ACL+CAT ACL+DELUSER ACL+DRYRUN ACL+GENPASS ACL+GETUSER ACL+HELP ACL+LIST ACL+LOAD ACL+LOG ACL+SAVE ACL+SETUSER
         ACL+USERS ACL+WHOAMI CLIENT+CACHING CLIENT+GETNAME CLIENT+GETREDIR CLIENT+HELP CLIENT+ID CLIENT+INFO CLIENT+KILL
         CLIENT+LIST CLIENT+NO-EVICT CLIENT+NO-TOUCH CLIENT+PAUSE CLIENT+REPLY CLIENT+SETINFO CLIENT+SETNAME
         CLIENT+TRACKING CLIENT+TRACKINGINFO CLIENT+UNBLOCK CLIENT+UNPAUSE CLUSTER+ADDSLOTS CLUSTER+ADDSLOTSRANGE
         CLUSTER+BUMPEPOCH CLUSTER+COUNT-FAILURE-REPORTS CLUSTER+COUNTKEYSINSLOT CLUSTER+DELSLOTS CLUSTER+DELSLOTSRANGE
         CLUSTER+FAILOVER CLUSTER+FLUSHSLOTS CLUSTER+FORGET CLUSTER+GETKEYSINSLOT CLUSTER+HELP CLUSTER+INFO
         CLUSTER+KEYSLOT CLUSTER+LINKS CLUSTER+MEET CLUSTER+MYID CLUSTER+MYSHARDID CLUSTER+NODES CLUSTER+REPLICAS
         CLUSTER+REPLICATE CLUSTER+RESET CLUSTER+SAVECONFIG CLUSTER+SET-CONFIG-EPOCH CLUSTER+SETSLOT CLUSTER+SHARDS
         CLUSTER+SLAVES CLUSTER+SLOTS COMMAND+COUNT COMMAND+DOCS COMMAND+GETKEYS COMMAND+GETKEYSANDFLAGS COMMAND+HELP
         COMMAND+INFO COMMAND+LIST CONFIG+GET CONFIG+HELP CONFIG+RESETSTAT CONFIG+REWRITE CONFIG+SET FUNCTION+DELETE
         FUNCTION+DUMP FUNCTION+FLUSH FUNCTION+HELP FUNCTION+KILL FUNCTION+LIST FUNCTION+LOAD FUNCTION+RESTORE
         FUNCTION+STATS LATENCY+DOCTOR LATENCY+GRAPH LATENCY+HELP LATENCY+HISTOGRAM LATENCY+HISTORY LATENCY+LATEST
         LATENCY+RESET MEMORY+DOCTOR MEMORY+HELP MEMORY+MALLOC-STATS MEMORY+PURGE MEMORY+STATS MODULE+HELP MODULE+LIST
         MODULE+LOAD MODULE+LOADEX MODULE+UNLOAD OBJECT+HELP PUBSUB+CHANNELS PUBSUB+HELP PUBSUB+NUMPAT PUBSUB+NUMSUB
         PUBSUB+SHARDCHANNELS PUBSUB+SHARDNUMSUB SCRIPT+DEBUG SCRIPT+EXISTS SCRIPT+FLUSH SCRIPT+HELP SCRIPT+KILL
         SCRIPT+LOAD SLOWLOG+GET SLOWLOG+HELP SLOWLOG+LEN SLOWLOG+RESET XGROUP+HELP XINFO+HELP",
    ),
];

/// Commands whose first argument is the better part of their name.
const CONTAINERS: &str =
    "ACL CLIENT CLUSTER COMMAND CONFIG FUNCTION LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT SLOWLOG XGROUP XINFO";

/// What is known of a word in the place of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Command(Keys),
    /// Its subcommand follows.
    Container,
}

static KNOWN: LazyLock<HashMap<String, Known>> = LazyLock::new(|| {
    let commands = TABLE
        .iter()
        .flat_map(|(keys, names)| names.split_whitespace().map(|name| (name.replace('+', " "), Known::Command(*keys))));
    let containers = CONTAINERS.split_whitespace().map(|name| (name.to_owned(), Known::Container));
    commands.chain(containers).collect()
});

/// What is known of a name, given in capitals: `GET`, `CONFIG`, `CONFIG GET`.
pub(super) fn known(name: &str) -> Option<Known> {
    KNOWN.get(name).copied()
}

/// The same of what a client sent, in any letters.
pub(super) fn known_bytes(name: &[u8]) -> Option<Known> {
    known(&std::str::from_utf8(name).ok()?.to_ascii_uppercase())
}

/// Whether a name can be one of a command: not known, and short enough and plain enough to be shown.
pub(super) fn is_word(name: &[u8]) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

/// Longest name of a command or a subcommand.
pub(super) const MAX_NAME_BYTES: usize = 32;

impl Keys {
    /// Whether argument `index` of `arguments` (the command counts) is a key; `counted` is what argument `at` said.
    pub(super) fn has(self, index: u64, arguments: u64, counted: u64) -> bool {
        match self {
            Self::None => false,
            Self::Fixed { first, last } => (first..=last).contains(&index),
            Self::Range { first, before_end, step } => {
                let end = arguments.saturating_sub(before_end);
                index >= first && index < end && (index - first).is_multiple_of(step)
            }
            Self::Counted { at, destination } => (destination && index == 1) || (index > at && index - at <= counted),
        }
    }

    /// Whether argument `index` says how many keys there are.
    pub(super) fn is_count(self, index: u64) -> bool {
        matches!(self, Self::Counted { at, .. } if at == index)
    }
}

#[cfg(test)]
mod tests {
    use super::{CONTAINERS, KNOWN, Keys, Known, MAX_NAME_BYTES, TABLE, is_word, known, known_bytes};

    #[test]
    fn every_name_is_there_once_and_fits() {
        let names: usize = TABLE.iter().map(|(_, names)| names.split_whitespace().count()).sum();
        assert_eq!(KNOWN.len(), names + CONTAINERS.split_whitespace().count(), "a name is there twice");
        for name in KNOWN.keys() {
            assert!(name.split(' ').all(|word| is_word(word.as_bytes()) && word.len() <= MAX_NAME_BYTES), "{name}");
            assert_eq!(*name, name.to_ascii_uppercase());
            if let Some((container, _)) = name.split_once(' ') {
                assert_eq!(known(container), Some(Known::Container), "{name}");
            }
        }
    }

    #[test]
    fn keys_are_where_the_server_looks_for_them() {
        let keys = |name: &str, arguments: u64, counted: u64| -> Vec<u64> {
            match known(name) {
                Some(Known::Command(keys)) => (0..arguments).filter(|at| keys.has(*at, arguments, counted)).collect(),
                other => panic!("{name}: {other:?}"),
            }
        };
        for (name, arguments, counted, expected) in [
            ("GET", 2, 0, vec![1]),
            ("SET", 5, 0, vec![1]),
            ("MGET", 4, 0, vec![1, 2, 3]),
            ("MSET", 5, 0, vec![1, 3]),
            ("BLPOP", 4, 0, vec![1, 2]),
            ("RENAME", 3, 0, vec![1, 2]),
            ("BITOP", 5, 0, vec![2, 3, 4]),
            ("EVAL", 6, 2, vec![3, 4]),
            ("EVAL", 6, 0, vec![]),
            ("ZUNIONSTORE", 7, 2, vec![1, 3, 4]),
            ("ZINTER", 5, 2, vec![2, 3]),
            ("XGROUP CREATE", 5, 0, vec![2]),
            ("AUTH", 3, 0, vec![]),
            ("BLPOP", 1, 0, vec![]),
        ] {
            assert_eq!(keys(name, arguments, counted), expected, "{name}");
        }
    }

    #[test]
    fn names_are_known_in_any_letters() {
        assert_eq!(known_bytes(b"gEt"), known("GET"));
        assert_eq!(known_bytes(b"Config"), Some(Known::Container));
        assert!(matches!(known("GET"), Some(Known::Command(Keys::Fixed { first: 1, last: 1 }))));
        assert_eq!(known_bytes(b"HTTP"), None);
        assert_eq!(known_bytes(b"\xff"), None);
    }
}
