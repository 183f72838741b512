//! Fuzzes the parser of every protocol alone: any bytes, in any pieces, on both sides.
//!
//! Must not panic, must take what it says it takes, must keep no more than its bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seismo::protocols::{Config, Event, Limits, REGISTRY, Side};

const HEAD_BYTES: usize = 1024;

fuzz_target!(|pieces: Vec<(bool, Vec<u8>)>| {
    for row in REGISTRY {
        let Some(dialect) = row.dialect else { continue };
        let mut parser = dialect(&Config::default()).parser(Limits { head_bytes: HEAD_BYTES, fresh: true });
        let mut asked = None;
        for (is_request, bytes) in &pieces {
            let side = if *is_request { Side::Request } else { Side::Response };
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let step = parser.feed(side, rest, asked.as_ref());
                assert!(step.taken <= rest.len());
                assert!(parser.buffered_bytes() <= 4 * (HEAD_BYTES + 1));
                rest = &rest[step.taken..];
                match step.event {
                    Event::Request(request) => asked = Some(request),
                    Event::SkipBody(size) | Event::SkipToEnd(size) => {
                        rest = &rest[usize::try_from(size).unwrap_or(usize::MAX).min(rest.len())..]
                    }
                    Event::Broken(_) => {
                        parser.cut(side);
                        parser.reset(side);
                        break;
                    }
                    Event::NeedMore => assert!(step.taken > 0),
                    _ => {}
                }
            }
        }
    }
});
