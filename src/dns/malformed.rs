//! What is wrong with bytes that are no message.

/// Why bytes are not a message, in the words of miekg/dns, which the `errors` plugin shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The message ends inside a name, a record or the header.
    #[error("buffer size too small")]
    Cut,
    /// RDATA that ends before what its type must have.
    #[error("overflow unpacking rdata")]
    RdataCut,
    /// A compression pointer that does not point backwards.
    #[error("too many compression pointers")]
    Pointer,
    /// A label type other than normal and pointer.
    #[error("bad rdata")]
    LabelKind,
    /// More than 255 octets.
    #[error("domain name exceeded 255 wire-format octets")]
    NameTooLong,
    /// RDATA longer than what is in it, or with a name that overruns it.
    #[error("bad rdlength")]
    Rdata,
    /// More than 65535 octets, or more records than a count holds.
    #[error("message too long")]
    TooLong,
}
