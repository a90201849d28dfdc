//! tmp
#[path = "support/garbage.rs"]
mod garbage;
use garbage::{Input, Scene};
use tenfold_shm::Heap;
#[test]
fn one() {
    let bytes: Vec<u8> = std::env::var("BYTES").unwrap().split(',').map(|b| b.trim().parse().unwrap()).collect();
    garbage::queue(&mut Input::new(&bytes), Scene::new(Heap::get().unwrap()));
}
