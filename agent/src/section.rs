//! How a unit declares its part of the configuration file: keys, defaults and documentation in one place.
//!
//! `section!` makes the struct, its defaults, strict reading (unknown keys are errors) and the text that
//! `seismo config print` shows. Units own their section; `config.rs` only composes them.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

/// What `config print` needs to know of a section: each key's path and documentation, in order.
pub trait Documented {
    /// Appends `(path, text)` for every key; `path` is dotted and starts with `prefix`.
    fn document(prefix: &str, out: &mut Vec<(String, &'static str)>);
}

/// A length of time as people write it (`5s`, `250ms`, `1h30m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(pub Duration);

impl Interval {
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Saturates at `u64::MAX` ns (584 years).
    pub fn as_ns(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(out)
    }
}

impl std::str::FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|error| format!("'{text}' is not a duration such as 5s or 250ms: {error}"))
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Declares a configuration section.
///
/// ```
/// seismo::section! {
///     /// How much is remembered.
///     pub struct Config {
///         /// Connections tracked at once.
///         pub connections: usize = 1024,
///     }
/// }
/// assert_eq!(Config::default().connections, 1024);
/// ```
/// Sub-sections (types made by this macro) follow the keys after the word `sections`.
#[macro_export]
macro_rules! section {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $($(#[doc = $key_doc:literal])+ pub $key:ident : $ty:ty = $default:expr),* $(,)?
        }
        $(sections { $($(#[doc = $sub_doc:literal])+ pub $sub:ident : $sub_ty:ty),* $(,)? })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $key_doc])+ pub $key: $ty,)*
            $($($(#[doc = $sub_doc])+ pub $sub: $sub_ty,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* $($($sub: <$sub_ty>::default(),)*)? }
            }
        }

        impl $crate::section::Documented for $name {
            fn document(prefix: &str, out: &mut Vec<(String, &'static str)>) {
                $(out.push((format!("{prefix}{}", stringify!($key)), concat!($($key_doc, "\n"),+)));)*
                $($(
                    out.push((format!("{prefix}{}", stringify!($sub)), concat!($($sub_doc, "\n"),+)));
                    <$sub_ty as $crate::section::Documented>::document(&format!("{prefix}{}.", stringify!($sub)), out);
                )*)?
            }
        }
    };
}
