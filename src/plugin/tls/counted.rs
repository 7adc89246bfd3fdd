//! TLS whose QUIC connections are counted while they live.
//!
//! A carrier of QUIC that opens connections on its own tells nobody when they end. Each holds two
//! header protection keys until then, so keys that count themselves tell it. Everything else of the
//! cipher suites is ring's.

use rustls::crypto::CryptoProvider;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey};
use rustls::{Error, SupportedCipherSuite, Tls13CipherSuite};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The keys of one established connection, one for each direction. One that is shaking hands has
/// three times as many.
const KEYS_OF_A_CONNECTION: usize = 2;

/// Keys alive in this process. rustls takes algorithms that live for ever, so their counter does.
static KEYS: AtomicUsize = AtomicUsize::new(0);

/// The QUIC connections of this process that clients have opened, not fewer than there are.
pub fn quic_connections() -> usize {
    KEYS.load(Ordering::Relaxed).div_ceil(KEYS_OF_A_CONNECTION)
}

/// ring's provider with its TLS 1.3 suites counted, those of one process made once.
pub(super) fn provider() -> CryptoProvider {
    static SUITES: OnceLock<Vec<SupportedCipherSuite>> = OnceLock::new();
    let ring = rustls::crypto::ring::default_provider();
    let suites = SUITES.get_or_init(|| ring.cipher_suites.iter().copied().map(counted).collect());
    CryptoProvider { cipher_suites: suites.clone(), ..ring }
}

fn counted(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(Tls13CipherSuite { common, hkdf_provider, aead_alg, quic }) =
        suite
    else {
        return suite;
    };
    let quic = quic.map(|of| -> &'static dyn Algorithm { Box::leak(Box::new(Counted { of })) });
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common: rustls::CipherSuiteCommon {
            suite: common.suite,
            hash_provider: common.hash_provider,
            confidentiality_limit: common.confidentiality_limit,
        },
        hkdf_provider: *hkdf_provider,
        aead_alg: *aead_alg,
        quic,
    })))
}

/// An algorithm whose header protection keys are counted.
struct Counted {
    of: &'static dyn Algorithm,
}

impl Algorithm for Counted {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        self.of.packet_key(key, iv)
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(Key::new(self.of.header_protection_key(key), &KEYS))
    }

    fn aead_key_len(&self) -> usize {
        self.of.aead_key_len()
    }

    fn fips(&self) -> bool {
        self.of.fips()
    }
}

struct Key {
    of: Box<dyn HeaderProtectionKey>,
    alive: &'static AtomicUsize,
}

impl Key {
    fn new(of: Box<dyn HeaderProtectionKey>, alive: &'static AtomicUsize) -> Key {
        alive.fetch_add(1, Ordering::Relaxed);
        Key { of, alive }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HeaderProtectionKey for Key {
    fn encrypt_in_place(
        &self,
        sample: &[u8],
        first: &mut u8,
        packet_number: &mut [u8],
    ) -> Result<(), Error> {
        self.of.encrypt_in_place(sample, first, packet_number)
    }

    fn decrypt_in_place(
        &self,
        sample: &[u8],
        first: &mut u8,
        packet_number: &mut [u8],
    ) -> Result<(), Error> {
        self.of.decrypt_in_place(sample, first, packet_number)
    }

    fn sample_len(&self) -> usize {
        self.of.sample_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl HeaderProtectionKey for Nothing {
        fn encrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), Error> {
            Ok(())
        }

        fn decrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), Error> {
            Ok(())
        }

        fn sample_len(&self) -> usize {
            16
        }
    }

    #[test]
    fn a_key_counts_as_long_as_it_lives() {
        static ALIVE: AtomicUsize = AtomicUsize::new(0);
        let keys = [Key::new(Box::new(Nothing), &ALIVE), Key::new(Box::new(Nothing), &ALIVE)];
        assert_eq!(ALIVE.load(Ordering::Relaxed), 2);
        drop(keys);
        assert_eq!(ALIVE.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_suites_of_quic_are_counted() {
        let suites = provider().cipher_suites;
        let quic = suites.iter().filter_map(|suite| suite.tls13().and_then(|suite| suite.quic));
        // Keys of other lengths are rustls' alone to make.
        let quic = quic.filter(|algorithm| algorithm.aead_key_len() == 32);
        let keys: Vec<_> =
            quic.map(|algorithm| algorithm.header_protection_key(AeadKey::from([0; 32]))).collect();
        assert_eq!(keys.len(), 2);
        assert!(quic_connections() >= 1);
    }
}
