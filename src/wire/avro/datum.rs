//! The bytes of a datum, front to back, as the Avro specification ("Binary encoding") has them. What is not there is an
//! error, never a default: a cut-off event must not pass for one that lacks its last fields.

pub const ENDS: &str = "the Avro value ends too early";
const TOO_LONG: &str = "a number in the Avro value is too large";
const NEGATIVE: &str = "a length in the Avro value is negative";

pub type Read<T> = Result<T, &'static str>;

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub struct Datum<'d>(pub &'d [u8]);

impl<'d> Datum<'d> {
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
    pub fn take(&mut self, length: usize) -> Read<&'d [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ENDS)?;
        self.0 = rest;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(ENDS)?;
        self.0 = rest;
        Ok(*taken)
    }
    pub fn bool(&mut self) -> Read<bool> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("a boolean in the Avro value is neither 0 nor 1"),
        }
    }
    pub fn float(&mut self) -> Read<f32> {
        self.array().map(f32::from_le_bytes)
    }
    pub fn double(&mut self) -> Read<f64> {
        self.array().map(f64::from_le_bytes)
    }
    pub fn long(&mut self) -> Read<i64> {
        let mut number = 0_u64;
        for (place, byte) in self.0.iter().take(10).enumerate() {
            // The tenth byte has the last of the 64 bits.
            if place == 9 && *byte > 1 {
                return Err(TOO_LONG);
            }
            number |= u64::from(byte & 0x7F) << (7 * place);
            if *byte < 0x80 {
                self.0 = &self.0[place + 1..];
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(ENDS)
    }
    pub fn int(&mut self) -> Read<i32> {
        i32::try_from(self.long()?).map_err(|_| TOO_LONG)
    }
    pub fn bytes(&mut self) -> Read<&'d [u8]> {
        let length = usize::try_from(self.long()?).map_err(|_| NEGATIVE)?;
        self.take(length)
    }
    pub fn text(&mut self) -> Read<&'d str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a string in the Avro value is not UTF-8")
    }
    /// Which of this many symbols or branches.
    pub fn choice(&mut self, of: usize) -> Read<usize> {
        let at = usize::try_from(self.long()?).ok().filter(|at| *at < of);
        at.ok_or("the Avro value names a symbol or branch that its schema lacks")
    }
    /// How many items the next block of an array or map has; 0: it was the last.
    pub fn block(&mut self) -> Read<u64> {
        let count = self.long()?;
        if count < 0 {
            // Its bytes, for those who skip it.
            if self.long()? < 0 {
                return Err(NEGATIVE);
            }
        }
        Ok(count.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_to_the_last_bit_and_no_further() {
        let long = |bytes: &[u8]| Datum(bytes).long();
        assert_eq!([long(&[0]), long(&[1]), long(&[2]), long(&[0x80, 1])], [Ok(0), Ok(-1), Ok(1), Ok(64)]);
        let last = |byte| [&[0xFF; 9][..], &[byte]].concat();
        assert_eq!(long(&last(1)), Ok(i64::MIN));
        assert_eq!(long(&[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]), Ok(i64::MAX));
        assert_eq!(
            [long(&last(2)), long(&last(0x81)), long(&[0xFF; 9]), long(&[])],
            [Err(TOO_LONG), Err(TOO_LONG), Err(ENDS), Err(ENDS)]
        );
        assert_eq!(Datum(&[0x80, 0x80, 0x80, 0x80, 0x10]).int(), Err(TOO_LONG));
    }

    #[test]
    fn a_count_may_be_negative_and_a_size_may_not() {
        assert_eq!([Datum(&[3, 8]).block(), Datum(&[3, 1]).block(), Datum(&[3]).block()], [Ok(2), Err(NEGATIVE), Err(ENDS)]);
        let smallest = [&[0xFF; 9][..], &[1, 0]].concat();
        assert_eq!(Datum(&smallest).block(), Ok(1 << 63));
    }
}
