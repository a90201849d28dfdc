//! Costs of the containers, operation by operation: `cargo run --release -p tenfold-shm --example bench_containers`.

use std::time::Instant;
use tenfold_shm::dict::Dict;
use tenfold_shm::heap::Heap;
use tenfold_shm::list::List;
use tenfold_shm::message::Outgoing;

fn time(name: &str, n: u64, mut f: impl FnMut(u64)) {
    let start = Instant::now();
    for i in 0..n {
        f(i);
    }
    println!("{name:40} {:8.1} ns", start.elapsed().as_nanos() as f64 / n as f64);
}

fn main() {
    let heap = Heap::get().unwrap();
    for size in [1000_u64, 1_000_000] {
        let d = Dict::create(heap).unwrap();
        let v = 7_u64.to_le_bytes();
        time(&format!("insert new {size}"), size, |i| {
            d.insert(&i.to_le_bytes(), Outgoing { parts: &[&v], handles: &[] }).unwrap();
        });
        let rnd = |i: u64| (i.wrapping_mul(0x9e3779b97f4a7c15) >> 20) % size;
        let n = 1_000_000;
        time(&format!("get_with random of {size}"), n, |i| {
            d.get_with(&rnd(i).to_le_bytes(), |b, _| b.len()).unwrap().unwrap();
        });
        time(&format!("get random of {size}"), n, |i| {
            d.get(&rnd(i).to_le_bytes()).unwrap().unwrap();
        });
        time(&format!("replace random of {size}"), n, |i| {
            d.insert(&rnd(i).to_le_bytes(), Outgoing { parts: &[&v], handles: &[] }).unwrap();
        });
        time(&format!("remove+insert random of {size}"), n, |i| {
            let k = rnd(i).to_le_bytes();
            d.remove(&k).unwrap();
            d.insert(&k, Outgoing { parts: &[&v], handles: &[] }).unwrap();
        });
        let s = Instant::now();
        d.clear().unwrap();
        println!("clear {size}: {:?}", s.elapsed());
        let l = List::create(heap).unwrap();
        time(&format!("push {size}"), size, |_| l.push(Outgoing { parts: &[&v], handles: &[] }).unwrap());
        time(&format!("list get_with random {size}"), n, |i| {
            l.get_with(rnd(i), |b, _| b.len()).unwrap().unwrap();
        });
        time(&format!("list set random {size}"), n, |i| {
            l.set(rnd(i), Outgoing { parts: &[&v], handles: &[] }).unwrap();
        });
        let s = Instant::now();
        l.reverse().unwrap();
        println!("reverse {size}: {:?}", s.elapsed());
        let s = Instant::now();
        l.insert(size / 2, Outgoing { parts: &[&v], handles: &[] }).unwrap();
        println!("insert middle {size}: {:?}", s.elapsed());
        time(&format!("pop {size}"), size, |_| {
            l.pop().unwrap();
        });
    }
    let l = Dict::create(heap).unwrap();
    time("empty get", 1_000_000, |_| {
        l.get_with(b"a", |b, _| b.len()).unwrap();
    });
    let lock = heap.header();
    let _ = lock;
    time("seat", 1_000_000, |_| {
        std::hint::black_box(tenfold_shm::participant::seat(heap).unwrap());
    });
    let seat = tenfold_shm::participant::seat(heap).unwrap();
    time("take+give_back", 1_000_000, |_| {
        let b = heap.take(seat, 50, tenfold_shm::ObjectKind::Bytes, seat.transit(3)).unwrap();
        heap.give_back(seat, b.id(), seat.transit(3)).unwrap();
    });
}
