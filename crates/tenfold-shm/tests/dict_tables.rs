//! A thread remembers where the table of the dict is that it used last. Others replace that table.

mod support;

use std::sync::mpsc::channel;

use support::{Child, alone, bytes, heap, live_blocks, number};
use tenfold_shm::dict::Dict;

fn insert(dict: &Dict, keys: core::ops::Range<u64>, times: u64) {
    for key in keys {
        dict.insert(&key.to_le_bytes(), bytes(&[&(key * times).to_le_bytes()])).unwrap();
    }
}

/// Whether the dict has these keys, with such values, and no more.
fn has_exactly(dict: &Dict, keys: core::ops::Range<u64>, times: u64) -> bool {
    let value = |key: u64| dict.get(&key.to_le_bytes()).unwrap().map(|item| number(&item.bytes));
    dict.len() == keys.end && keys.clone().all(|key| value(key) == Some(key * times)) && value(keys.end).is_none()
}

#[test]
fn a_table_that_another_process_replaced_is_found() {
    let _alone = alone();
    let dict = Dict::create(heap()).unwrap();
    for count in [1, 10, 100, 1000, 20_000] {
        let other = dict.clone();
        Child::run(move || insert(&other, 0..count, 3)).succeeds();
        assert!(has_exactly(&dict, 0..count, 3));
        // A child begins with what its parent remembers.
        let other = dict.clone();
        Child::run(move || assert!(has_exactly(&other, 0..count, 3))).succeeds();
    }
}

#[test]
fn a_table_that_another_thread_replaced_is_found() {
    let _alone = alone();
    let dict = Dict::create(heap()).unwrap();
    let (grow, told) = channel();
    let (done, grown) = channel();
    std::thread::scope(|scope| {
        let other = &dict;
        scope.spawn(move || {
            for count in told {
                insert(other, 0..count, 2);
                done.send(()).unwrap();
            }
        });
        for count in [5, 50, 500, 5000] {
            grow.send(count).unwrap();
            grown.recv().unwrap();
            assert!(has_exactly(&dict, 0..count, 2));
        }
        drop(grow);
    });
}

#[test]
fn dicts_in_the_place_of_others_are_not_taken_for_them() {
    let _alone = alone();
    let before = live_blocks();
    for round in 1..200 {
        let (one, other) = (Dict::create(heap()).unwrap(), Dict::create(heap()).unwrap());
        insert(&one, 0..round, round);
        insert(&other, 0..30, 7);
        assert!(has_exactly(&one, 0..round, round));
        assert!(has_exactly(&other, 0..30, 7));
    }
    assert_eq!(live_blocks(), before);
}
