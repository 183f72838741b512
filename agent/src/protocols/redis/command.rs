//! One command as it is read, argument by argument, to the request that the span is made of.
//!
//! In: the number of arguments, then each argument whole or as masked. Out: [`Request`] with operation and masked
//! statement. Of arguments only keys are shown, of at most [`MAX_SHOWN`] arguments; log-ins, values and scripts never.
//! Does not frame: that is `request`.

use crate::model::attributes::Attributes;
use crate::model::context::InBand;
use crate::semconv;

use super::super::{Body, Request};
use super::commands::{self, Keys, Known, MAX_NAME_BYTES};
use super::hint;

/// Arguments of a statement that are shown, masked or not; what follows is `...`.
const MAX_SHOWN: u64 = 16;
/// Longest statement, about.
const MAX_TEXT_BYTES: usize = 1024;
/// Longest argument that means something to us and is no key: a number, a digest, the name of a function.
const MAX_WORD_BYTES: usize = 64;
/// Shown as the operation where a name is none.
pub(super) const OTHER: &str = "_OTHER";
/// Attributes that most spans have, at most.
const ATTRIBUTES: usize = 12;

/// What of arguments may be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    pub(super) keys: bool,
    pub(super) key_bytes: usize,
    pub(super) text_bytes: usize,
}

impl Keeping {
    pub(super) fn new(keys: bool, key_bytes: usize, head_bytes: usize) -> Self {
        Self { keys, key_bytes, text_bytes: MAX_TEXT_BYTES.min(head_bytes / 2) }
    }
}

/// What an argument is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Name,
    Subcommand,
    Key,
    /// How many keys follow.
    Count,
    /// Read and not shown.
    Word,
    Masked,
}

/// What a client says about answers (`CLIENT REPLY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    On,
    Off,
    Skip,
}

#[derive(Debug, Default)]
pub(super) struct Command {
    arguments: u64,
    /// Of the argument that comes next.
    index: u64,
    /// In capitals, with its subcommand.
    name: String,
    known: Option<Known>,
    /// Keys that follow, as the command said.
    counted: u64,
    text: String,
    /// Argument kept as [`Role::Word`].
    word: Option<String>,
    truncated_values: u32,
    inline: bool,
}

impl Command {
    pub(super) fn new(arguments: u64, inline: bool) -> Self {
        Self { arguments, inline, ..Self::default() }
    }

    fn keys(&self) -> Keys {
        match self.known {
            Some(Known::Command(keys)) => keys,
            _ => Keys::None,
        }
    }

    /// What the next argument is, and how long it may be to be read.
    pub(super) fn role(&self, keeping: &Keeping) -> (Role, usize) {
        match self.index {
            0 => return (Role::Name, MAX_NAME_BYTES),
            1 if self.known == Some(Known::Container) => return (Role::Subcommand, MAX_NAME_BYTES),
            _ => {}
        }
        let word = match self.name.as_str() {
            "SELECT" | "EVALSHA" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" => self.index == 1,
            "CLIENT REPLY" => self.index == 2,
            _ => false,
        };
        if word {
            (Role::Word, MAX_WORD_BYTES)
        } else if self.keys().is_count(self.index) {
            (Role::Count, MAX_WORD_BYTES)
        } else if keeping.keys && self.index < MAX_SHOWN && self.keys().has(self.index, self.arguments, self.counted) {
            (Role::Key, keeping.key_bytes.min(keeping.text_bytes.saturating_sub(self.text.len())))
        } else {
            (Role::Masked, 0)
        }
    }

    /// The next argument, whole.
    pub(super) fn take(&mut self, role: Role, bytes: &[u8], keeping: &Keeping) {
        match role {
            Role::Name => {
                if commands::is_word(bytes) {
                    self.name = String::from_utf8_lossy(bytes).to_ascii_uppercase();
                    self.known = commands::known(&self.name);
                }
                let name = if self.name.is_empty() { OTHER } else { &self.name };
                self.text.push_str(name);
                self.index += 1;
                return;
            }
            Role::Subcommand if commands::is_word(bytes) => {
                let full = format!("{} {}", self.name, String::from_utf8_lossy(bytes).to_ascii_uppercase());
                self.known = commands::known(&full);
                self.text.clone_from(&full);
                self.name = full;
                self.index += 1;
                return;
            }
            Role::Count => self.counted = super::line::number(bytes).unwrap_or(0),
            Role::Word => self.word = std::str::from_utf8(bytes).ok().map(str::to_owned),
            Role::Key => {
                let shown = shown(bytes);
                if self.text.len() + shown.len() <= keeping.text_bytes {
                    self.text.push(' ');
                    self.text.push_str(&shown);
                    self.index += 1;
                    return;
                }
                self.truncated_values += 1;
            }
            Role::Subcommand | Role::Masked => {}
        }
        self.mask_one();
    }

    /// The next argument, of which nothing is kept.
    pub(super) fn mask(&mut self, role: Role) {
        match role {
            Role::Name => self.text.push_str(OTHER),
            Role::Key => self.truncated_values += 1,
            // A subcommand that is none: nothing is known of its arguments.
            Role::Subcommand => self.known = None,
            _ => {}
        }
        if role == Role::Name { self.index += 1 } else { self.mask_one() }
    }

    fn mask_one(&mut self) {
        match self.index {
            0..MAX_SHOWN => self.text.push_str(" ?"),
            MAX_SHOWN => self.text.push_str(" ..."),
            _ => {}
        }
        self.index += 1;
    }

    /// All arguments were read.
    pub(super) fn is_whole(&self) -> bool {
        self.index >= self.arguments
    }

    /// What the command is, is certain.
    pub(super) fn is_named(&self) -> bool {
        let undecided = self.name == "CLIENT REPLY" && self.word.is_none();
        !self.name.is_empty() && self.known != Some(Known::Container) && !undecided
    }

    /// It belongs to Redis for certain.
    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// What it says about the answers to come. `None`: nothing.
    pub(super) fn says(&self) -> Option<Say> {
        if self.name != "CLIENT REPLY" {
            return None;
        }
        let word = self.word.as_deref()?;
        [("ON", Say::On), ("OFF", Say::Off), ("SKIP", Say::Skip)]
            .into_iter()
            .find_map(|(name, say)| word.eq_ignore_ascii_case(name).then_some(say))
    }

    /// The request; arguments that were not read are masked.
    pub(super) fn request(&mut self, body: Body) -> Request {
        let read = self.index;
        while !self.is_whole() && self.index <= MAX_SHOWN {
            self.mask_one();
        }
        self.index = read;
        let mut attributes = Attributes::with_capacity(ATTRIBUTES);
        let name = if self.name.is_empty() { OTHER.to_owned() } else { std::mem::take(&mut self.name) };
        let mut word = self.word.take();
        let hint = hint::of(&name, self.arguments);
        match name.as_str() {
            // Where it leads, if the server agrees.
            "SELECT" => {
                let index = word.take().filter(|word| super::line::number(word.as_bytes()).is_some());
                index.into_iter().for_each(|index| attributes.set(semconv::DB_NAMESPACE, index));
            }
            "EVALSHA" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" => {
                let procedure = word.take().filter(|word| is_plain(word));
                procedure.into_iter().for_each(|word| attributes.set(semconv::DB_STORED_PROCEDURE_NAME, word));
            }
            _ => {}
        }
        attributes.set(semconv::DB_OPERATION_NAME, name);
        attributes.set(semconv::DB_QUERY_TEXT, std::mem::take(&mut self.text));
        Request {
            key: None,
            attributes,
            hint,
            body,
            silent: false,
            // A word alone may be the rest of anything.
            certain: self.is_known() && !self.inline,
            truncated_values: self.truncated_values,
            in_band: InBand::default(),
        }
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.text.len() + self.name.len() + self.word.as_ref().map_or(0, String::len)
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_ascii_graphic() && !matches!(letter, '"' | '\\'))
}

/// A key as `redis-cli` would want it typed.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text)
            if !text.is_empty()
                && text.chars().all(|letter| {
                    !letter.is_whitespace() && !letter.is_control() && !matches!(letter, '"' | '\'' | '\\')
                }) =>
        {
            text.to_owned()
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, Keeping, Role};
    use crate::protocols::Body;
    use crate::semconv;

    fn text(keys: bool, arguments: &[&[u8]]) -> (String, String, u32) {
        let keeping = Keeping::new(keys, 20, 65_536);
        let mut command = Command::new(arguments.len() as u64, false);
        for bytes in arguments {
            let (role, most) = command.role(&keeping);
            if role == Role::Masked || bytes.len() > most {
                command.mask(role);
            } else {
                command.take(role, bytes, &keeping);
            }
        }
        let request = command.request(Body::None);
        let get = |key| request.attributes.text(key).unwrap_or_default().to_owned();
        (get(semconv::DB_OPERATION_NAME), get(semconv::DB_QUERY_TEXT), request.truncated_values)
    }

    #[test]
    fn keys_are_shown_and_everything_else_is_masked() {
        for (command, operation, expected) in [
            (&["set", "user:1", "secret", "EX", "10"][..], "SET", "SET user:1 ? ? ?"),
            (&["MSET", "a", "1", "b", "2"], "MSET", "MSET a ? b ?"),
            (&["AUTH", "name", "secret"], "AUTH", "AUTH ? ?"),
            (&["HELLO", "3", "AUTH", "name", "secret"], "HELLO", "HELLO ? ? ? ?"),
            (&["config", "set", "requirepass", "secret"], "CONFIG SET", "CONFIG SET ? ?"),
            (&["CONFIG"], "CONFIG", "CONFIG"),
            (&["CLIENT", "se cret", "x"], "CLIENT", "CLIENT ? ?"),
            (&["EVAL", "return 'secret'", "1", "k", "v"], "EVAL", "EVAL ? ? k ?"),
            (&["JSON.GET", "doc", "$.secret"], "JSON.GET", "JSON.GET ? ?"),
            (&["se cret", "x"], "_OTHER", "_OTHER ?"),
            (&["SELECT", "3"], "SELECT", "SELECT ?"),
            (&["GET", "two words"], "GET", "GET \"two words\""),
            (&["GET", "grüße"], "GET", "GET grüße"),
            (&["GET", ""], "GET", "GET \"\""),
            (&["PING"], "PING", "PING"),
        ] {
            let command: Vec<_> = command.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(text(true, &command), (operation.to_owned(), expected.to_owned(), 0));
        }
        assert_eq!(text(true, &[b"GET", b"\xff\0"]).1, "GET \"\\xff\\x00\"");
        assert_eq!(text(false, &[b"GET", b"k"]).1, "GET ?");
    }

    #[test]
    fn a_key_that_is_too_long_is_masked_and_counted() {
        assert_eq!(text(true, &[b"GET", &[b'k'; 21]]), ("GET".to_owned(), "GET ?".to_owned(), 1));
    }

    #[test]
    fn a_statement_is_bounded() {
        let many: Vec<&[u8]> = std::iter::once(&b"MGET"[..]).chain(std::iter::repeat_n(&b"k"[..], 1000)).collect();
        assert_eq!(text(true, &many).1, format!("MGET{} ...", " k".repeat(15)));
        let binary: Vec<&[u8]> =
            std::iter::once(&b"MGET"[..]).chain(std::iter::repeat_n(&[0_u8; 20][..], 100)).collect();
        let (_, shown, masked) = text(true, &binary);
        assert!(shown.len() <= 1024 + 64 && masked > 0, "{shown}");
    }
}
