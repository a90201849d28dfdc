//! 3. Threads share a list: each sees what the others have added.
use std::sync::Mutex;
use std::thread;

static LIST: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn run(n: u32) {
    let mut list = LIST.lock().unwrap();
    list.push(n);
    println!("{list:?}");
}

fn main() {
    for n in 0..10 {
        thread::spawn(move || run(n)).join().unwrap();
    }
    println!("{:?}", LIST.lock().unwrap());
}
