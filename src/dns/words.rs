//! The protocol's numbers with their names: types, classes, rcodes, opcodes, header flags.
//!
//! Text is Go's (miekg/dns): unknown types are `TYPE65280`, unknown classes `CLASS5`.

use std::fmt;
use std::str::FromStr;

/// A word that names no type, class, rcode or opcode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {0:?}")]
pub struct UnknownWord(pub String);

macro_rules! words {
    ($(#[$doc:meta])* $name:ident($repr:ty), $prefix:literal, { $($const:ident = $value:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub $repr);

        #[allow(missing_docs)] // They are the registry's names.
        impl $name {
            $(pub const $const: $name = $name($value);)*

            /// The word's text, or `None` when the number has no name.
            pub fn word(self) -> Option<&'static str> {
                match self.0 { $($value => Some($text),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.word() {
                    Some(word) => f.pad(word),
                    None => f.pad(&format!(concat!($prefix, "{}"), self.0)),
                }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            /// Upper-case words only, as Corefiles write them, and the prefixed number form.
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($text => Ok($name($value)),)*
                    _ => text
                        .strip_prefix($prefix)
                        .filter(|_| !$prefix.is_empty())
                        .and_then(|digits| digits.parse().ok())
                        .map($name)
                        .ok_or_else(|| UnknownWord(text.to_owned())),
                }
            }
        }
    };
}

words! {
    /// A record or question type (RFC 1035 §3.2.2 and the IANA registry).
    RecordType(u16), "TYPE", {
        NONE = 0, "None"; A = 1, "A"; NS = 2, "NS"; MD = 3, "MD"; MF = 4, "MF"; CNAME = 5, "CNAME"; SOA = 6, "SOA";
        MB = 7, "MB"; MG = 8, "MG"; MR = 9, "MR"; NULL = 10, "NULL"; PTR = 12, "PTR";
        HINFO = 13, "HINFO"; MINFO = 14, "MINFO"; MX = 15, "MX"; TXT = 16, "TXT"; RP = 17, "RP";
        AFSDB = 18, "AFSDB"; X25 = 19, "X25"; ISDN = 20, "ISDN"; RT = 21, "RT"; NSAPPTR = 23, "NSAP-PTR";
        SIG = 24, "SIG"; KEY = 25, "KEY"; PX = 26, "PX"; GPOS = 27, "GPOS"; AAAA = 28, "AAAA";
        LOC = 29, "LOC"; NXT = 30, "NXT"; EID = 31, "EID"; NIMLOC = 32, "NIMLOC"; SRV = 33, "SRV";
        ATMA = 34, "ATMA"; NAPTR = 35, "NAPTR"; KX = 36, "KX"; CERT = 37, "CERT"; DNAME = 39, "DNAME";
        OPT = 41, "OPT"; APL = 42, "APL"; DS = 43, "DS"; SSHFP = 44, "SSHFP"; IPSECKEY = 45, "IPSECKEY";
        RRSIG = 46, "RRSIG"; NSEC = 47, "NSEC"; DNSKEY = 48, "DNSKEY"; DHCID = 49, "DHCID";
        NSEC3 = 50, "NSEC3"; NSEC3PARAM = 51, "NSEC3PARAM"; TLSA = 52, "TLSA"; SMIMEA = 53, "SMIMEA";
        HIP = 55, "HIP"; NINFO = 56, "NINFO"; RKEY = 57, "RKEY"; TALINK = 58, "TALINK"; CDS = 59, "CDS";
        CDNSKEY = 60, "CDNSKEY"; OPENPGPKEY = 61, "OPENPGPKEY"; CSYNC = 62, "CSYNC"; ZONEMD = 63, "ZONEMD";
        SVCB = 64, "SVCB"; HTTPS = 65, "HTTPS"; SPF = 99, "SPF"; UINFO = 100, "UINFO"; UID = 101, "UID";
        GID = 102, "GID"; UNSPEC = 103, "UNSPEC"; NID = 104, "NID"; L32 = 105, "L32"; L64 = 106, "L64";
        LP = 107, "LP"; EUI48 = 108, "EUI48"; EUI64 = 109, "EUI64"; NXNAME = 128, "NXNAME"; TKEY = 249, "TKEY"; TSIG = 250, "TSIG";
        IXFR = 251, "IXFR"; AXFR = 252, "AXFR"; MAILB = 253, "MAILB"; MAILA = 254, "MAILA"; ANY = 255, "ANY";
        URI = 256, "URI"; CAA = 257, "CAA"; AVC = 258, "AVC"; AMTRELAY = 260, "AMTRELAY"; RESINFO = 261, "RESINFO";
        TA = 32768, "TA"; DLV = 32769, "DLV"; RESERVED = 65535, "Reserved";
    }
}

words! {
    /// A class (RFC 1035 §3.2.4).
    Class(u16), "CLASS", {
        IN = 1, "IN"; CS = 2, "CS"; CH = 3, "CH"; HS = 4, "HS"; NONE = 254, "NONE"; ANY = 255, "ANY";
    }
}

words! {
    /// A response code, extended by EDNS to 12 bits (RFC 6895 §2.3). 16 has two names, BADVERS and
    /// BADSIG; metrics, logs and Corefiles say BADSIG, as CoreDNS does.
    Rcode(u16), "RCODE", {
        NOERROR = 0, "NOERROR"; FORMERR = 1, "FORMERR"; SERVFAIL = 2, "SERVFAIL"; NXDOMAIN = 3, "NXDOMAIN";
        NOTIMP = 4, "NOTIMP"; REFUSED = 5, "REFUSED"; YXDOMAIN = 6, "YXDOMAIN"; YXRRSET = 7, "YXRRSET";
        NXRRSET = 8, "NXRRSET"; NOTAUTH = 9, "NOTAUTH"; NOTZONE = 10, "NOTZONE"; DSOTYPENI = 11, "DSOTYPENI";
        BADVERS = 16, "BADSIG"; BADKEY = 17, "BADKEY"; BADTIME = 18, "BADTIME"; BADMODE = 19, "BADMODE";
        BADNAME = 20, "BADNAME"; BADALG = 21, "BADALG"; BADTRUNC = 22, "BADTRUNC"; BADCOOKIE = 23, "BADCOOKIE";
    }
}

words! {
    /// An opcode, 4 bits (RFC 6895 §2.2).
    Opcode(u8), "OPCODE", {
        QUERY = 0, "QUERY"; IQUERY = 1, "IQUERY"; STATUS = 2, "STATUS"; NOTIFY = 4, "NOTIFY"; UPDATE = 5, "UPDATE";
    }
}

impl Rcode {
    /// The rcode of an upper-case word of a Corefile. `NOTIMPL` is CoreDNS's other word for NOTIMP;
    /// the number form is none of its words.
    pub fn named(word: &str) -> Option<Rcode> {
        match word {
            "NOTIMPL" => Some(Rcode::NOTIMP),
            _ => word.parse().ok().filter(|rcode: &Rcode| rcode.word() == Some(word)),
        }
    }
}

/// The bits of the header's third and fourth octets as one big-endian number (RFC 1035 §4.1.1,
/// RFC 4035 §3.2).
#[allow(missing_docs)] // They are RFC 1035's names.
pub mod flags {
    /// Where they stand in a message.
    pub const PLACE: std::ops::Range<usize> = 2..4;
    pub const QR: u16 = 0x8000;
    pub const OPCODE: u16 = 0x7800;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const Z: u16 = 0x0040;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
    pub const RCODE: u16 = 0x000f;
    /// The flags of one bit in their order, with the words of presentation.
    pub const WORDS: [(u16, &str); 8] = [
        (QR, "qr"),
        (AA, "aa"),
        (TC, "tc"),
        (RD, "rd"),
        (RA, "ra"),
        (Z, "z"),
        (AD, "ad"),
        (CD, "cd"),
    ];
}

/// The codes of EDNS options (RFC 6891 §6.1.2 and the IANA registry).
#[allow(missing_docs)] // They are the registry's names.
pub mod options {
    pub const NSID: u16 = 3;
    pub const CLIENT_SUBNET: u16 = 8;
    pub const EXPIRE: u16 = 9;
    pub const COOKIE: u16 = 10;
    pub const TCP_KEEPALIVE: u16 = 11;
    pub const PADDING: u16 = 12;
    pub const EXTENDED_ERROR: u16 = 15;
}

/// How a message travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
    /// A stream inside TLS (RFC 7858).
    Tls,
    /// An HTTP exchange inside TLS (RFC 8484).
    Https,
    /// A stream of a QUIC connection (RFC 9250).
    Quic,
}

impl Transport {
    /// CoreDNS's label and log word: TLS counts as `tcp` towards clients.
    pub fn client_word(self) -> &'static str {
        match self {
            Transport::Udp | Transport::Quic => "udp",
            Transport::Tcp | Transport::Tls | Transport::Https => "tcp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corefiles_name_rcodes_as_coredns_does() {
        for (word, rcode) in [
            ("SERVFAIL", Some(Rcode::SERVFAIL)),
            ("NOTIMP", Some(Rcode::NOTIMP)),
            ("NOTIMPL", Some(Rcode::NOTIMP)),
            ("BADSIG", Some(Rcode(16))),
            ("BADVERS", None),
            ("RCODE5", None),
            ("servfail", None),
        ] {
            assert_eq!(Rcode::named(word), rcode, "{word}");
        }
    }
}
