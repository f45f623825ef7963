//! Protobuf bytes, written straight from borrowed values (protobuf encoding, "Message Structure"): a frame is written
//! twice for each event, and messages of owned strings would copy every text first.
//!
//! Knows wire types, not messages. As proto3 does, a zero or empty value without `optional` is left out.

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

pub struct Out {
    bytes: Vec<u8>,
}

impl Out {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    pub fn end(self) -> Vec<u8> {
        self.bytes
    }

    #[inline]
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.bytes.push(n as u8);
    }
    fn key(&mut self, tag: u32, kind: u32) {
        self.varint(u64::from(tag << 3 | kind));
    }

    pub fn uint(&mut self, tag: u32, n: u64) {
        self.opt_uint(tag, (n != 0).then_some(n));
    }
    pub fn opt_uint(&mut self, tag: u32, n: Option<u64>) {
        if let Some(n) = n {
            self.key(tag, VARINT);
            self.varint(n);
        }
    }
    /// Zigzag.
    pub fn sint(&mut self, tag: u32, n: i64) {
        self.opt_sint(tag, (n != 0).then_some(n));
    }
    pub fn opt_sint(&mut self, tag: u32, n: Option<i64>) {
        self.opt_uint(tag, n.map(|n| ((n << 1) ^ (n >> 63)) as u64));
    }
    /// `fixed64`, and `sfixed64` as its bits.
    pub fn fixed(&mut self, tag: u32, n: u64) {
        self.opt_fixed(tag, (n != 0).then_some(n));
    }
    pub fn opt_fixed(&mut self, tag: u32, n: Option<u64>) {
        if let Some(n) = n {
            self.key(tag, FIXED64);
            self.bytes.extend_from_slice(&n.to_le_bytes());
        }
    }
    pub fn bool(&mut self, tag: u32, value: bool) {
        self.uint(tag, u64::from(value));
    }
    pub fn str(&mut self, tag: u32, text: &str) {
        self.opt_str(tag, (!text.is_empty()).then_some(text));
    }
    pub fn opt_str(&mut self, tag: u32, text: Option<&str>) {
        if let Some(text) = text {
            self.key(tag, BYTES);
            self.varint(text.len() as u64);
            self.bytes.extend_from_slice(text.as_bytes());
        }
    }
    /// Each one, empty ones too.
    pub fn strs(&mut self, tag: u32, texts: &[String]) {
        for text in texts {
            self.opt_str(tag, Some(text));
        }
    }
    /// `repeated uint32`, packed.
    pub fn packed(&mut self, tag: u32, numbers: impl ExactSizeIterator<Item = u32>) {
        if numbers.len() > 0 {
            self.message(tag, |out| numbers.for_each(|n| out.varint(u64::from(n))));
        }
    }

    pub fn message(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        self.key(tag, BYTES);
        let start = self.bytes.len();
        // Room for the usual length of one byte; a longer one moves what was written.
        self.bytes.push(0);
        write(self);
        let length = self.bytes.len() - start - 1;
        if length < 0x80 {
            self.bytes[start] = length as u8;
            return;
        }
        let (prefix, size) = varint(length as u64);
        let end = self.bytes.len();
        self.bytes.resize(end + size - 1, 0);
        self.bytes.copy_within(start + 1..end, start + size);
        self.bytes[start..start + size].copy_from_slice(&prefix[..size]);
    }
    pub fn opt_message<T>(&mut self, tag: u32, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        if let Some(value) = value {
            self.message(tag, |out| write(out, value));
        }
    }
}

/// A varint and how many bytes it has.
fn varint(mut n: u64) -> ([u8; 10], usize) {
    let (mut bytes, mut size) = ([0; 10], 0);
    while n >= 0x80 {
        bytes[size] = n as u8 | 0x80;
        n >>= 7;
        size += 1;
    }
    bytes[size] = n as u8;
    (bytes, size + 1)
}
