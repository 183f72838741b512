//! TLS records: recognised so that their bytes count as opaque, not as an unknown protocol.
//!
//! Looks at six bytes: a handshake record of version 3.x that begins with a ClientHello or a ServerHello.
//! Nothing behind them is read; what the application wrote before encryption comes from other probes.

use super::{Detect, Protocol, Resume, Side, resume_as_detected};

pub const PROTOCOL: Protocol = Protocol { name: "tls", detect, resume, dialect: None };

fn resume(side: Side, bytes: &[u8]) -> Resume {
    resume_as_detected(detect, side, bytes)
}

fn detect(bytes: &[u8]) -> Detect {
    match *bytes {
        // Content type handshake, major version 3, a length of two bytes, then the message type.
        [22, 3, 0..=4, _, _, 1, ..] => Detect::Request,
        [22, 3, 0..=4, _, _, 2, ..] => Detect::Response,
        [] | [22] | [22, 3] | [22, 3, 0..=4] | [22, 3, 0..=4, _] | [22, 3, 0..=4, _, _] => Detect::More,
        _ => Detect::No,
    }
}

#[cfg(test)]
mod tests {
    use super::{Detect, detect};

    #[test]
    fn a_hello_is_told_from_its_first_six_bytes() {
        let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252];
        for cut in 0..6 {
            assert_eq!(detect(&hello[..cut]), Detect::More, "{cut} bytes");
        }
        assert_eq!(detect(&hello), Detect::Request);
        assert_eq!(detect(&[22, 3, 3, 0, 90, 2]), Detect::Response);
        assert_eq!(detect(&[23, 3, 3, 0, 90, 2]), Detect::No, "application data is no beginning");
        assert_eq!(detect(b"GET / HTTP/1.1"), Detect::No);
    }
}
