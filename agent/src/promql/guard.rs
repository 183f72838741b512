//! What is refused before the grammar sees a text: sizes that would exhaust the stack or overflow a duration.
//!
//! The grammar is a library; its recursion is as deep as operators and brackets nest, and it takes any
//! number as seconds. One pass over the text outside strings and label matchers.

use super::parse::{Refusal, parse_duration};

const MAX_TEXT_BYTES: usize = 16 * 1024;
/// Operators and opening brackets together: an upper bound of the depth of the tree.
const MAX_OPERATORS: usize = 256;
/// Longest range, offset or step, seconds (100 years).
const MAX_SECONDS: f64 = 100.0 * 365.0 * 86_400.0;

pub(super) fn guard(text: &str) -> Result<(), Refusal> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Refusal::new("", format!("longer than {MAX_TEXT_BYTES} bytes")));
    }
    let mut operators = 0;
    let (mut in_braces, mut in_brackets, mut duration_next) = (false, false, false);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' | '`' => string_length(rest, first),
            _ if is_word(first) => rest.find(|each| !is_word(each)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        match first {
            '{' => in_braces = true,
            '}' => in_braces = false,
            _ if in_braces => continue,
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            _ if is_word(first) && duration_next => check_duration(token)?,
            _ => {}
        }
        let names_operator = matches!(token, "and" | "or" | "unless" | "atan2");
        operators += usize::from(names_operator || "([+-*/%^=<>!".contains(first));
        if operators > MAX_OPERATORS {
            return Err(Refusal::new("", format!("more than {MAX_OPERATORS} operators and brackets")));
        }
        duration_next = match first {
            '[' => true,
            ':' => in_brackets,
            '-' | '+' => duration_next,
            _ if first.is_whitespace() => duration_next,
            _ => token.eq_ignore_ascii_case("offset"),
        };
    }
    Ok(())
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '.')
}

/// Bytes of the string literal that `rest` begins with, or of all of it when it doesn't end.
fn string_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, each) in rest.char_indices().skip(1) {
        if each == quote && !escaped {
            return at + each.len_utf8();
        }
        escaped = each == '\\' && !escaped && quote != '`';
    }
    rest.len()
}

/// Something that stands where a duration does; what is no duration at all is left to the grammar.
fn check_duration(word: &str) -> Result<(), Refusal> {
    let seconds = match word.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) if word.starts_with(|first: char| first.is_ascii_digit()) => {
            parse_duration(word).map_err(|message| Refusal::new(word, message))?.as_secs_f64()
        }
        Err(_) => return Ok(()),
    };
    if seconds <= MAX_SECONDS {
        return Ok(());
    }
    Err(Refusal::new(word, format!("{word} is longer than 100 years")))
}
