//! Protobuf messages in wire form, written field by field.
//!
//! An encoder of our own: the schemas that we write (dnstap's, pprof's) are fixed and have three
//! kinds of fields, and a general crate would bring more code than is written here. Never reads.

/// Fields, one behind the other.
#[derive(Debug, Default)]
pub struct Fields(Vec<u8>);

impl Fields {
    /// None yet, and room for so many octets.
    pub fn with_capacity(octets: usize) -> Fields {
        Fields(Vec::with_capacity(octets))
    }

    /// A whole number that is not negative (wire type 0).
    pub fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    /// Octets, text or a message (wire type 2).
    pub fn octets(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// Whole numbers packed into one field (wire type 2).
    pub fn numbers(&mut self, field: u64, values: &[u64]) {
        let mut packed = Fields::default();
        for value in values {
            packed.varint(*value);
        }
        self.octets(field, &packed.0);
    }

    /// 32 bits (wire type 5).
    pub fn fixed(&mut self, field: u64, value: u32) {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// What was written.
    pub fn into_octets(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::Fields;

    #[test]
    fn fields_have_the_wire_types_of_protobuf() {
        let mut fields = Fields::default();
        fields.number(1, 150);
        fields.octets(2, b"testing");
        fields.numbers(6, &[3, 270, 86942]);
        fields.fixed(16, 1);
        // The examples of protobuf.dev/programming-guides/encoding.
        let expected =
            b"\x08\x96\x01\x12\x07testing\x32\x06\x03\x8e\x02\x9e\xa7\x05\x85\x01\x01\0\0\0";
        assert_eq!(fields.into_octets(), expected);
    }
}
