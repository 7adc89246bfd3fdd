//! Any octets as a kept cache, or as entries that another process sends: they are refused, or each
//! entry that comes out of them is written as it was read, and a store takes it or not.
//!
//! The first octet says whether the octets are a file or the records in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodens::plugin::cache::codec::{FileWriter, StoreId, decode, encode, read};
use nodens::plugin::cache::{Cursor, Kept};
use std::time::Duration;

#[path = "../../benches/rig/mod.rs"]
mod rig;
use rig::Rig;

/// Octets of a file, at most.
const MOST: u64 = 1 << 20;

fuzz_target!(|octets: &[u8]| {
    let [choice, octets @ ..] = octets else { return };
    let rig = Rig::new(rig::COREFILE);
    let unix = rig.now.unix;
    if choice & 1 == 0 {
        let _ = read(octets, MOST, |_, records| decode(records, unix, |kept| check(&rig, &kept)));
    } else {
        // Checksums are nothing that a fuzzer finds: records as they are, and in a file.
        let mut all = Vec::new();
        let _ = decode(octets, unix, |kept| all.push(kept));
        let store = StoreId::of("fuzz");
        let mut writer = FileWriter::new(Vec::new(), MOST).expect("memory takes it");
        for kept in &all {
            check(&rig, kept);
            writer.put(store, kept, unix).expect("memory takes it");
        }
        let (file, totals) = writer.finish().expect("memory takes it");
        assert!(file.len() as u64 <= MOST + 64);
        let mut again = 0;
        read(&file[..], MOST, |_, records| decode(records, unix, |_| again += 1))
            .expect("what was written is read");
        assert_eq!(again, totals.entries);
    }
    export(&rig);
});

fn check(rig: &Rig, kept: &Kept) {
    let mut octets = Vec::new();
    encode(kept, rig.now.unix, &mut octets);
    let mut count = 0;
    decode(&octets, rig.now.unix, |again| {
        assert_eq!((&again.message, again.kind), (&kept.message, kept.kind));
        count += 1;
    })
    .expect("what was encoded is decoded");
    assert!(count <= 1);
    rig.store().import(kept, rig.now.monotonic);
}

/// Everything that was taken goes out again, now and later.
fn export(rig: &Rig) {
    for later in [0, 10, 100_000] {
        let now = rig.now.monotonic + Duration::from_secs(later);
        let mut cursor = Cursor::default();
        while let Some(entries) = rig.store().export(&mut cursor, now) {
            for kept in entries {
                let mut octets = Vec::new();
                encode(&kept, rig.now.unix, &mut octets);
            }
        }
    }
}
