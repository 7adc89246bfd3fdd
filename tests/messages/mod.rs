//! DNS messages that tests send.

use nodens::dns::RecordType;

/// A query in wire form for records of a type, with RD.
pub(crate) fn query(name: &str, qtype: RecordType, id: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend(b"\x01\0\0\x01\0\0\0\0\0\0");
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(qtype.0.to_be_bytes());
    query.extend(b"\0\x01");
    query
}
