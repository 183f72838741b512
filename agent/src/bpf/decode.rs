//! Bytes from the ring to wire structs. Every length is checked; a record that does not fit its kind is an error, never
//! a guess. Payload bytes are shared with the batch they came in, not copied.

use bytes::Bytes;
use seismo_common::Wire;
use seismo_common::handover::HandoverRecord;
use seismo_common::payload::PayloadRecord;
use seismo_common::process::ProcessRecord;
use seismo_common::record::{
    FILLER, FillerRecord, HANDOVER, PAYLOAD, PROCESS_EXEC, PROCESS_EXIT, PROCESS_FORK, RecordHeader, TASK, TCP_STATE,
};
use seismo_common::task::TaskRecord;
use seismo_common::tcp::TcpStateRecord;

/// A record as a kernel program wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Process(ProcessRecord),
    TcpState(TcpStateRecord),
    Payload(PayloadRecord, Bytes),
    Task(TaskRecord),
    Handover(HandoverRecord),
    /// Means nothing.
    Filler(FillerRecord),
}

impl Record {
    /// When the kernel program ran, `CLOCK_MONOTONIC`, ns.
    pub const fn ktime_ns(&self) -> u64 {
        match self {
            Self::Process(record) => record.header.ktime_ns,
            Self::TcpState(record) => record.header.ktime_ns,
            Self::Payload(record, _) => record.header.ktime_ns,
            Self::Task(record) => record.header.ktime_ns,
            Self::Handover(record) => record.header.ktime_ns,
            Self::Filler(record) => record.header.ktime_ns,
        }
    }
}

/// Why a record could not be read; label value of the drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than its header or than its kind's struct, or `len` disagrees.
    Length,
    /// A kind this agent does not know.
    Kind,
}

impl Malformed {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Length => "malformed_length",
            Self::Kind => "unknown_kind",
        }
    }
}

/// Records of one drain, back to back, each at a multiple of 8 bytes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub bytes: Bytes,
    pub records: u64,
}

impl Batch {
    /// Decodes record by record.
    pub fn iter(&self) -> impl Iterator<Item = Result<Record, Malformed>> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= self.bytes.len() {
                return None;
            }
            let Some(header) = read::<RecordHeader>(&self.bytes[at..]) else {
                at = self.bytes.len();
                return Some(Err(Malformed::Length));
            };
            let end = at + header.len as usize;
            if (header.len as usize) < size_of::<RecordHeader>() || end > self.bytes.len() {
                at = self.bytes.len();
                return Some(Err(Malformed::Length));
            }
            let record = decode(&self.bytes.slice(at..end), header);
            at = align(end);
            Some(record)
        })
    }
}

/// Where the record after one that ends at `end` begins in a batch.
pub(super) const fn align(end: usize) -> usize {
    end.next_multiple_of(8)
}

fn decode(bytes: &Bytes, header: RecordHeader) -> Result<Record, Malformed> {
    match header.kind {
        PROCESS_FORK | PROCESS_EXEC | PROCESS_EXIT => read(bytes).map(Record::Process).ok_or(Malformed::Length),
        TCP_STATE => read(bytes).map(Record::TcpState).ok_or(Malformed::Length),
        PAYLOAD => {
            let record: PayloadRecord = read(bytes).ok_or(Malformed::Length)?;
            let data = bytes.slice(size_of::<PayloadRecord>()..);
            if data.len() != record.captured as usize
                || u64::from(record.skipped) + u64::from(record.captured) > u64::from(record.length)
            {
                return Err(Malformed::Length);
            }
            Ok(Record::Payload(record, data))
        }
        TASK => read(bytes).map(Record::Task).ok_or(Malformed::Length),
        HANDOVER => read(bytes).map(Record::Handover).ok_or(Malformed::Length),
        FILLER => read(bytes).map(Record::Filler).ok_or(Malformed::Length),
        _ => Err(Malformed::Kind),
    }
}

/// Reads a wire struct from the front of `bytes`.
pub(super) fn read<T: Wire>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: enough bytes, unaligned read, and `Wire` promises that every byte pattern is a valid value.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::{Batch, Bytes, Malformed, PAYLOAD, PayloadRecord, Record};

    const CAPTURED: usize = offset_of!(PayloadRecord, captured);

    /// A payload record of `captured` bytes, as the kernel lays it out.
    fn payload(captured: u32) -> Vec<u8> {
        const HEAD: usize = size_of::<PayloadRecord>();
        let mut bytes = vec![0u8; HEAD + captured as usize];
        bytes[0..2].copy_from_slice(&PAYLOAD.to_ne_bytes());
        bytes[4..8].copy_from_slice(&(HEAD as u32 + captured).to_ne_bytes());
        for field in [offset_of!(PayloadRecord, length), CAPTURED] {
            bytes[field..field + 4].copy_from_slice(&captured.to_ne_bytes());
        }
        bytes[HEAD..].fill(b'x');
        bytes
    }

    fn batch(bytes: Vec<u8>) -> Batch {
        Batch { bytes: Bytes::from(bytes), records: 0 }
    }

    #[test]
    fn records_are_read_one_after_the_other_with_their_bytes() {
        let mut bytes = payload(5);
        bytes.resize(super::align(bytes.len()), 0);
        bytes.extend(payload(0));
        let records: Vec<_> = batch(bytes).iter().collect();
        assert_eq!(records.len(), 2);
        assert!(matches!(&records[0], Ok(Record::Payload(record, data)) if record.captured == 5 && data == "xxxxx"));
        assert!(matches!(&records[1], Ok(Record::Payload(_, data)) if data.is_empty()));
    }

    #[test]
    fn a_cut_or_lying_record_is_an_error_and_never_a_panic() {
        let whole = payload(16);
        for end in 1..whole.len() {
            assert_eq!(batch(whole[..end].to_vec()).iter().next(), Some(Err(Malformed::Length)), "cut at {end}");
        }
        let mut lies = payload(16);
        lies[CAPTURED..CAPTURED + 4].copy_from_slice(&17u32.to_ne_bytes());
        assert_eq!(batch(lies).iter().next(), Some(Err(Malformed::Length)));
        let mut unknown = payload(0);
        unknown[0] = 99;
        assert_eq!(batch(unknown).iter().next(), Some(Err(Malformed::Kind)));
        let mut endless = payload(0);
        endless[4..8].fill(0);
        assert_eq!(batch(endless).iter().collect::<Vec<_>>(), [Err(Malformed::Length)]);
    }
}
