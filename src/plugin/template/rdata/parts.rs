//! What the text of each type's RDATA has, part by part, in miekg/dns's words.
//!
//! Owns the table of types and the kinds of parts. Reads nothing.

use crate::dns::RecordType;

/// What one field of the text is, or all that are left.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Name,
    /// A number in so many octets.
    Number(usize),
    /// A number in so many octets, or one of these words in its place, in any spelling.
    Word(usize, &'static [(&'static str, u8)]),
    /// Seconds, or numbers with units.
    Time,
    String,
    /// All that are left, at least one.
    Strings,
    /// A text without its length.
    Text,
    Ipv4,
    Ipv6,
    /// All that are left, as one run of digits.
    Hex,
    /// All that are left, as one run of digits.
    Base64,
    /// A type's word.
    Type,
    /// The words of types that are left, as a bitmap (RFC 4034 §4.1.2).
    Types,
    /// YYYYMMDDHHmmSS, or seconds (RFC 4034 §3.2).
    Date,
    /// Hexadecimal digits behind their length, `-` for none (RFC 5155 §3.3).
    Salt,
    /// Base 32 digits behind their length (RFC 5155 §3.3).
    Hash,
    /// So many octets in hexadecimal with hyphens (RFC 7043).
    Hyphens(usize),
    /// Four numbers in hexadecimal with colons (RFC 6742 §2.1).
    Groups,
    /// All that are left, as LOC has them.
    Location,
    /// All that are left, as APL has them; there may be none.
    Prefixes,
    /// All that are left, as SVCB has them; there may be none.
    Parameters,
}

/// Kinds of certificates (RFC 4398 §2.1).
const CERTIFICATES: &[(&str, u8)] = &[
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];

/// Algorithms of DNSSEC (RFC 4034 appendix A.1).
const ALGORITHMS: &[(&str, u8)] = &[
    ("RSAMD5", 1),
    ("DH", 2),
    ("DSA", 3),
    ("RSASHA1", 5),
    ("DSA-NSEC3-SHA1", 6),
    ("RSASHA1-NSEC3-SHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECC-GOST", 12),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("INDIRECT", 252),
    ("PRIVATEDNS", 253),
    ("PRIVATEOID", 254),
];

/// The parts of a type's text, each with what miekg/dns calls it; `None` for the types that have no text of
/// their own.
pub(super) fn parts(rtype: RecordType) -> Option<&'static [(&'static str, Part)]> {
    use Part::{
        Base64, Date, Groups, Hash, Hex, Hyphens, Ipv4, Ipv6, Location, Name, Number, Parameters,
        Prefixes, Salt, String, Strings, Text, Time, Type, Types, Word,
    };
    const KEY: &[(&str, Part)] = &[
        ("Flags", Number(2)),
        ("Protocol", Number(1)),
        ("Algorithm", Number(1)),
        ("PublicKey", Base64),
    ];
    const DIGEST: &[(&str, Part)] = &[
        ("KeyTag", Number(2)),
        ("Algorithm", Word(1, ALGORITHMS)),
        ("DigestType", Number(1)),
        ("Digest", Hex),
    ];
    const CERTIFICATE: &[(&str, Part)] = &[
        ("Usage", Number(1)),
        ("Selector", Number(1)),
        ("MatchingType", Number(1)),
        ("Certificate", Hex),
    ];
    Some(match rtype {
        RecordType::A => &[("A", Ipv4)],
        RecordType::AAAA => &[("AAAA", Ipv6)],
        RecordType::NS => &[("Ns", Name)],
        RecordType::CNAME | RecordType::DNAME => &[("Target", Name)],
        RecordType::PTR | RecordType::NSAPPTR => &[("Ptr", Name)],
        RecordType::MB => &[("Mb", Name)],
        RecordType::MD => &[("Md", Name)],
        RecordType::MF => &[("Mf", Name)],
        RecordType::MG => &[("Mg", Name)],
        RecordType::MR => &[("Mr", Name)],
        RecordType::RP => &[("Mbox", Name), ("Txt", Name)],
        RecordType::MINFO => &[("Rmail", Name), ("Email", Name)],
        RecordType::TALINK => &[("PreviousName", Name), ("NextName", Name)],
        RecordType::MX => &[("Pref", Number(2)), ("Mx", Name)],
        RecordType::KX => &[("Pref", Number(2)), ("Exchanger", Name)],
        RecordType::AFSDB => &[("Subtype", Number(2)), ("Hostname", Name)],
        RecordType::RT => &[("Preference", Number(2)), ("Host", Name)],
        RecordType::LP => &[("Preference", Number(2)), ("Fqdn", Name)],
        RecordType::PX => &[("Preference", Number(2)), ("Map822", Name), ("Mapx400", Name)],
        RecordType::SRV => {
            &[("Priority", Number(2)), ("Weight", Number(2)), ("Port", Number(2)), ("Target", Name)]
        }
        RecordType::NAPTR => &[
            ("Order", Number(2)),
            ("Preference", Number(2)),
            ("Flags", String),
            ("Service", String),
            ("Regexp", String),
            ("Replacement", Name),
        ],
        RecordType::SOA => &[
            ("Ns", Name),
            ("Mbox", Name),
            ("zone parameter", Number(4)),
            ("zone parameter", Time),
            ("zone parameter", Time),
            ("zone parameter", Time),
            ("zone parameter", Time),
        ],
        RecordType::TXT | RecordType::SPF | RecordType::AVC => &[("Txt", Strings)],
        RecordType::NINFO => &[("ZSData", Strings)],
        RecordType::RESINFO => &[("Resinfo", Strings)],
        RecordType::HINFO => &[("Fields", String), ("Fields", String)],
        RecordType::X25 => &[("PSDNAddress", String)],
        RecordType::UINFO => &[("Uinfo", String)],
        RecordType::GPOS => &[("Longitude", String), ("Latitude", String), ("Altitude", String)],
        RecordType::CAA => &[("Flag", Number(1)), ("Tag", String), ("Value", Text)],
        RecordType::URI => &[("Priority", Number(2)), ("Weight", Number(2)), ("Target", Text)],
        RecordType::DS | RecordType::CDS | RecordType::DLV | RecordType::TA => DIGEST,
        RecordType::SSHFP => &[("Algorithm", Number(1)), ("Type", Number(1)), ("Fingerprint", Hex)],
        RecordType::TLSA | RecordType::SMIMEA => CERTIFICATE,
        RecordType::ZONEMD => &[
            ("Serial", Number(4)),
            ("Scheme", Number(1)),
            ("Hash Algorithm", Number(1)),
            ("Digest", Hex),
        ],
        RecordType::EID => &[("Endpoint", Hex)],
        RecordType::NIMLOC => &[("Locator", Hex)],
        RecordType::DNSKEY | RecordType::CDNSKEY | RecordType::KEY | RecordType::RKEY => KEY,
        RecordType::OPENPGPKEY => &[("PublicKey", Base64)],
        RecordType::DHCID => &[("Digest", Base64)],
        RecordType::RRSIG | RecordType::SIG => &[
            ("Typecovered", Type),
            ("Algorithm", Word(1, ALGORITHMS)),
            ("Labels", Number(1)),
            ("OrigTtl", Number(4)),
            ("Expiration", Date),
            ("Inception", Date),
            ("KeyTag", Number(2)),
            ("SignerName", Name),
            ("Signature", Base64),
        ],
        RecordType::NSEC => &[("NextDomain", Name), ("TypeBitMap", Types)],
        RecordType::NSEC3 => &[
            ("Hash", Number(1)),
            ("Flags", Number(1)),
            ("Iterations", Number(2)),
            ("Salt", Salt),
            ("NextDomain", Hash),
            ("TypeBitMap", Types),
        ],
        RecordType::NSEC3PARAM => {
            &[("Hash", Number(1)), ("Flags", Number(1)), ("Iterations", Number(2)), ("Salt", Salt)]
        }
        RecordType::CSYNC => &[("serial", Number(4)), ("flags", Number(2)), ("TypeBitMap", Types)],
        RecordType::EUI48 => &[("Address", Hyphens(6))],
        RecordType::EUI64 => &[("Address", Hyphens(8))],
        RecordType::NID => &[("Preference", Number(2)), ("NodeID", Groups)],
        RecordType::L64 => &[("Preference", Number(2)), ("Locator64", Groups)],
        RecordType::L32 => &[("Preference", Number(2)), ("Locator", Ipv4)],
        RecordType::LOC => &[("Latitude", Location)],
        RecordType::APL => &[("item", Prefixes)],
        RecordType::SVCB | RecordType::HTTPS => {
            &[("priority", Number(2)), ("Target", Name), ("value", Parameters)]
        }
        RecordType::CERT => &[
            ("Type", Word(2, CERTIFICATES)),
            ("KeyTag", Number(2)),
            ("Algorithm", Word(1, ALGORITHMS)),
            ("Certificate", Base64),
        ],
        RecordType::UID => &[("Uid", Number(4))],
        RecordType::GID => &[("Gid", Number(4))],
        _ => return None,
    })
}
