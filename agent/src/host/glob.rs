//! Glob for executables: `*` matches any run of bytes (slashes too), `?` one byte, all else itself.
//!
//! A glob without a slash is compared with the file name, one with a slash with the whole path.
//! Linear memory, at most length of glob × length of path steps.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn matches(&self, path: &Path) -> bool {
        let subject = if self.0.contains('/') { path.as_os_str() } else { path.file_name().unwrap_or_default() };
        wild(self.0.as_bytes(), subject.as_bytes())
    }
}

/// Greedy with one point of return: the last star takes a byte more whenever the rest does not fit.
fn wild(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(in_text) {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at + 1, in_text));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                in_text += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                at = after;
                in_text = taken + 1;
            }
        }
    }
    glob.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Glob;

    #[test]
    fn a_glob_is_compared_with_the_name_or_the_whole_path() {
        let nginx = "/usr/sbin/nginx";
        let cases = [
            ("nginx", nginx, true),
            ("ngin?", nginx, true),
            ("ng*x", nginx, true),
            ("*", nginx, true),
            ("**", nginx, true),
            ("sbin", nginx, false),
            ("nginx*", nginx, true),
            ("nginx?", nginx, false),
            ("/usr/*/nginx", nginx, true),
            ("*/nginx", nginx, true),
            ("/usr/sbin", nginx, false),
            ("/opt/*", nginx, false),
            ("/usr/*", "/usr/local/bin/app", true),
            ("python3*", "/usr/bin/python3.12", true),
            ("*a*a*a*b", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("", nginx, false),
        ];
        for (glob, path, expected) in cases {
            assert_eq!(Glob::new(glob).matches(Path::new(path)), expected, "{glob} against {path}");
        }
    }
}
