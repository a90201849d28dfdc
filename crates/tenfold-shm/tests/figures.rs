//! What the core's operations cost. Run with
//! `cargo test -p tenfold-shm --release --test figures -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::Instant;

use tenfold_shm::Heap;
use tenfold_shm::message::{self, Outgoing, Payload};
use tenfold_shm::object::{self, Handle, ObjectKind};
use tenfold_shm::participant::{self, HeldCell};

/// The best of seven runs, in nanoseconds a call.
fn measure(what: &str, calls: u32, mut f: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        for _ in 0..calls {
            f();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    println!("{what:<44} {best:>10.1} ns");
}

#[test]
#[ignore = "a measurement, not a test"]
fn what_the_core_costs() {
    let heap = Heap::get().unwrap();
    measure("seat", 1_000_000, || {
        black_box(participant::seat(heap).unwrap());
    });
    let seat = participant::seat(heap).unwrap();
    let event = Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap();
    for bytes in [8, 64, 1000, 8000, 100_000] {
        measure(&format!("take + give_back of {bytes} bytes"), 300_000, || {
            let block = heap.take(seat, bytes, ObjectKind::Bytes, seat.transit(0)).unwrap();
            heap.give_back(seat, block.id(), seat.transit(0)).unwrap();
        });
    }
    measure("reference and release (two locks and commits)", 300_000, || {
        event.refer_from(seat.transit(0)).unwrap();
        object::release(heap, seat, seat.transit(0)).unwrap();
    });
    measure("Handle clone and drop", 1_000_000, || drop(black_box(event.clone())));
    measure("Handle::from_id of a held object", 300_000, || drop(Handle::from_id(heap, event.id()).unwrap()));
    measure("Handle::create and drop", 100_000, || {
        drop(Handle::create(heap, ObjectKind::Event, 8, |_| Ok(())).unwrap());
    });
    for (bytes, calls) in [(64, 200_000), (4 << 10, 100_000), (1 << 20, 500), (4 << 20, 100)] {
        let payload = vec![1; bytes];
        measure(&format!("message write, read, free of {bytes} bytes"), calls, || {
            let cell = HeldCell::take(heap).unwrap();
            message::write(heap, seat, Outgoing { parts: &[&payload], handles: &[] }, cell.word()).unwrap();
            let sum = Payload::held(heap, cell).unwrap().with(|bytes| bytes[0]).unwrap();
            assert_eq!(black_box(sum), 1);
        });
        measure(&format!("message of {bytes} bytes, with a copy out"), calls, || {
            let cell = HeldCell::take(heap).unwrap();
            message::write(heap, seat, Outgoing { parts: &[&payload], handles: &[] }, cell.word()).unwrap();
            black_box(Payload::held(heap, cell).unwrap().into_vec().unwrap());
        });
    }
}
