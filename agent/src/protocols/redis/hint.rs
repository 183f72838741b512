//! What the reader of answers must know of a command, in the one byte that a request carries for it.
//!
//! In: the command's name and the number of its arguments. Out: [`Hint`] and back. A command that subscribes is answered
//! once per channel; up to [`MANY`] further answers are told, beyond that only that there are some.

/// Coding of [`Hint::Subscribe`]: the top bit, three bits of kind, four of further answers.
const SUBSCRIBE: u8 = 0x80;
/// So many further answers or more, or a number that the command does not tell.
pub(super) const MANY: u8 = 15;

const PLAIN: [(Hint, u8); 6] =
    [(Hint::None, 0), (Hint::Select, 1), (Hint::Ping, 2), (Hint::Opaque, 3), (Hint::Reset, 4), (Hint::Exec, 5)];

/// Kinds of [`Hint::Subscribe`], as the server spells them in its answers.
const KINDS: [&str; 6] = ["subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    None,
    Select,
    /// Of a subscribed connection it is answered with an array.
    Ping,
    /// If it succeeds, something else follows.
    Opaque,
    Reset,
    Exec,
    Subscribe {
        kind: u8,
        further: u8,
    },
}

/// The byte for a command.
pub(super) fn of(name: &str, arguments: u64) -> u8 {
    let hint = match name {
        "SELECT" => Hint::Select,
        "PING" => Hint::Ping,
        "MONITOR" | "SYNC" | "PSYNC" => Hint::Opaque,
        "RESET" => Hint::Reset,
        "EXEC" => Hint::Exec,
        _ => match KINDS.iter().position(|kind| name.eq_ignore_ascii_case(kind)) {
            Some(kind) => Hint::Subscribe {
                kind: kind as u8,
                // Without a channel it means all of them.
                further: arguments.checked_sub(2).map_or(MANY, |further| further.min(u64::from(MANY)) as u8),
            },
            None => Hint::None,
        },
    };
    match hint {
        Hint::Subscribe { kind, further } => SUBSCRIBE | kind << 4 | further,
        plain => PLAIN.iter().find(|(hint, _)| *hint == plain).map_or(0, |(_, code)| *code),
    }
}

/// What a byte means.
pub(super) fn read(code: u8) -> Hint {
    if code & SUBSCRIBE != 0 {
        return Hint::Subscribe { kind: (code >> 4) & 7, further: code & 15 };
    }
    PLAIN.iter().find(|(_, known)| *known == code).map_or(Hint::None, |(hint, _)| *hint)
}

/// Which kind of subscription an answer confirms, by its first word.
pub(super) fn confirms(word: &[u8]) -> Option<u8> {
    KINDS.iter().position(|kind| kind.as_bytes() == word).map(|kind| kind as u8)
}

#[cfg(test)]
mod tests {
    use super::{Hint, MANY, confirms, of, read};

    #[test]
    fn what_is_told_is_understood() {
        for (name, arguments, hint) in [
            ("GET", 2, Hint::None),
            ("SELECT", 2, Hint::Select),
            ("PING", 1, Hint::Ping),
            ("MONITOR", 1, Hint::Opaque),
            ("RESET", 1, Hint::Reset),
            ("EXEC", 1, Hint::Exec),
            ("SUBSCRIBE", 2, Hint::Subscribe { kind: 0, further: 0 }),
            ("SUNSUBSCRIBE", 4, Hint::Subscribe { kind: 5, further: 2 }),
            ("PSUBSCRIBE", 1000, Hint::Subscribe { kind: 1, further: MANY }),
            ("UNSUBSCRIBE", 1, Hint::Subscribe { kind: 3, further: MANY }),
        ] {
            assert_eq!(read(of(name, arguments)), hint, "{name}");
        }
        assert_eq!([confirms(b"punsubscribe"), confirms(b"message")], [Some(4), None]);
    }
}
