//! Dict and List across processes: what they hold, in which order, and that all of it is freed.

mod support;

use std::collections::HashSet;

use support::{Child, alone, bytes, heap, live_blocks, many, none, number};
use tenfold_shm::HeapError;
use tenfold_shm::dict::{Dict, Key, Stamp};
use tenfold_shm::list::{List, Place};
use tenfold_sys::process::ExitStatus;

fn dict() -> Dict {
    Dict::create(heap()).unwrap()
}

fn numbers(list: &List) -> Vec<u64> {
    list.to_vec().unwrap().iter().map(|item| number(&item.bytes)).collect()
}

fn push_number(list: &List, value: u64) {
    list.push(bytes(&[&value.to_le_bytes()])).unwrap();
}

#[test]
fn a_key_has_the_value_it_was_given_last() {
    let _alone = alone();
    let dict = dict();
    assert!(!dict.insert(b"one", bytes(&[b"1"])).unwrap());
    assert!(dict.insert(b"one", bytes(&[b"I"])).unwrap());
    assert_eq!(dict.get(b"one").unwrap().unwrap().bytes, b"I");
    assert_eq!(dict.replace(b"one", bytes(&[b"uno"])).unwrap().unwrap().bytes, b"I");
    assert_eq!(dict.replace(b"two", bytes(&[b"due"])).unwrap(), None);
    assert_eq!(dict.get_with(b"two", |value, _| value.len()).unwrap(), Some(3));
    assert_eq!(dict.len(), 2);
    assert!(dict.contains(b"two").unwrap() && !dict.contains(b"three").unwrap());
    assert!(dict.remove(b"two").unwrap() && !dict.remove(b"two").unwrap());
    assert_eq!(dict.pop(b"one").unwrap().unwrap().bytes, b"uno");
    assert_eq!(dict.pop(b"one").unwrap(), None);
    assert!(dict.is_empty());
}

#[test]
fn empty_keys_and_values_are_like_any_others() {
    let _alone = alone();
    let dict = dict();
    assert!(!dict.insert(b"", bytes(&[])).unwrap());
    assert_eq!(dict.get(b"").unwrap().unwrap().bytes, b"");
    assert_eq!(dict.len(), 1);
}

#[test]
fn keys_keep_the_order_of_their_insertion() {
    let _alone = alone();
    let dict = dict();
    for key in 0..100_u64 {
        dict.insert(&key.to_le_bytes(), bytes(&[])).unwrap();
    }
    for key in (0..100_u64).step_by(2) {
        dict.remove(&key.to_le_bytes()).unwrap();
    }
    for key in [4_u64, 200, 2] {
        dict.insert(&key.to_le_bytes(), bytes(&[])).unwrap();
    }
    let expected: Vec<u64> = (0..100).filter(|key| key % 2 == 1).chain([4, 200, 2]).collect();
    let keys: Vec<u64> = dict.keys().unwrap().iter().map(|key| number(key)).collect();
    assert_eq!(keys, expected);
    assert_eq!(dict.pop_last().unwrap().map(|(key, _)| number(&key)), Some(2));
    assert_eq!(dict.pop_last().unwrap().map(|(key, _)| number(&key)), Some(200));
    assert_eq!(dict.len(), 51);
}

#[test]
fn a_dict_grows_shrinks_and_is_compacted() {
    let _alone = alone();
    let dict = dict();
    let before = live_blocks();
    for round in 0..3 {
        for key in 0..20_000_u64 {
            dict.insert(&key.to_le_bytes(), bytes(&[&round.to_string().into_bytes()])).unwrap();
        }
        for key in 0..20_000_u64 {
            assert_eq!(dict.get(&key.to_le_bytes()).unwrap().unwrap().bytes, round.to_string().into_bytes());
        }
        for key in 0..19_990_u64 {
            assert!(dict.remove(&key.to_le_bytes()).unwrap());
        }
        assert_eq!(dict.len(), 10);
    }
    // Inserting and removing for ever does not need ever more room.
    for key in 0..100_000_u64 {
        dict.insert(&(1 << 40 | key).to_le_bytes(), bytes(&[])).unwrap();
        dict.remove(&(1 << 40 | key).to_le_bytes()).unwrap();
    }
    assert_eq!(dict.len(), 10);
    dict.clear().unwrap();
    assert_eq!(live_blocks(), before);
    assert_eq!(dict.keys().unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn popping_the_last_of_many_is_not_slow() {
    let _alone = alone();
    let dict = dict();
    for key in 0..50_000_u64 {
        dict.insert(&key.to_le_bytes(), bytes(&[])).unwrap();
    }
    // With a walk over what was removed each time, this would take minutes.
    for key in (0..50_000_u64).rev() {
        assert_eq!(dict.pop_last().unwrap().map(|(key, _)| number(&key)), Some(key));
    }
    assert_eq!(dict.pop_last().unwrap(), None);
}

#[test]
fn a_stamp_holds_until_the_next_write() {
    let _alone = alone();
    let dict = dict();
    assert!(dict.insert_if(b"k", bytes(&[b"1"]), Stamp::ABSENT).unwrap());
    assert!(!dict.insert_if(b"k", bytes(&[b"2"]), Stamp::ABSENT).unwrap());
    let (stamp, item) = dict.get_stamped(b"k").unwrap();
    assert_eq!(item.unwrap().bytes, b"1");
    assert!(dict.insert_if(b"k", bytes(&[b"3"]), stamp).unwrap());
    assert!(!dict.insert_if(b"k", bytes(&[b"4"]), stamp).unwrap());
    assert!(!dict.remove_if(b"k", stamp).unwrap());
    let (stamp, _) = dict.get_stamped(b"k").unwrap();
    assert!(dict.remove_if(b"k", stamp).unwrap());
    assert!(dict.remove_if(b"k", Stamp::ABSENT).unwrap());
    // The same bytes written again are another value.
    dict.insert(b"k", bytes(&[b"3"])).unwrap();
    assert!(!dict.insert_if(b"k", bytes(&[b"5"]), stamp).unwrap());
    assert_eq!(dict.get_or_insert(b"k", bytes(&[b"6"])).unwrap().unwrap().bytes, b"3");
    assert_eq!(dict.get_or_insert(b"l", bytes(&[b"7"])).unwrap(), None);
    assert_eq!(dict.get(b"l").unwrap().unwrap().bytes, b"7");
}

#[test]
fn many_keys_are_set_at_once() {
    let _alone = alone();
    let dict = dict();
    dict.insert(b"b", bytes(&[b"old"])).unwrap();
    let before = live_blocks();
    let value: [&[u8]; 1] = [b"new"];
    let entries = [b"a", b"b", b"a", b"c"].map(|key| (&key[..], bytes(&value)));
    dict.insert_many(entries.into_iter()).unwrap();
    assert_eq!(dict.keys().unwrap(), [b"b", b"a", b"c"]);
    assert!(dict.values().unwrap().iter().all(|value| value.bytes == b"new"));
    assert_eq!(live_blocks(), before + 2);
    let keys: Vec<[u8; 8]> = (0..10_000_u64).map(u64::to_le_bytes).collect();
    dict.insert_many(keys.iter().map(|key| (&key[..], bytes(&value)))).unwrap();
    assert_eq!(dict.len(), 10_003);
}

#[test]
fn a_batch_notices_that_keys_came_or_went() {
    let _alone = alone();
    let dict = dict();
    for key in 0..10_u64 {
        dict.insert(&key.to_le_bytes(), bytes(&[])).unwrap();
    }
    let first = dict.batch_of_keys(0, None, 4).unwrap();
    assert_eq!(first.items.len(), 4);
    dict.insert(&1_u64.to_le_bytes(), bytes(&[b"another value"])).unwrap();
    let second = dict.batch_of_items(first.next.unwrap(), Some(first.version), 100).unwrap();
    assert_eq!(second.items.iter().map(|(key, _)| number(key)).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
    assert_eq!(second.next, None);
    dict.remove(&1_u64.to_le_bytes()).unwrap();
    assert_eq!(dict.batch_of_values(4, Some(first.version), 100), Err(HeapError::KeysChanged));
}

#[test]
fn large_keys_and_values_are_kept() {
    let _alone = alone();
    let dict = dict();
    let before = live_blocks();
    let large = vec![7; 3 << 20];
    dict.insert(&large, bytes(&[&large, b"end"])).unwrap();
    dict.insert(b"short", bytes(&[&large])).unwrap();
    assert_eq!(dict.get(&large).unwrap().unwrap().bytes.len(), large.len() + 3);
    assert_eq!(dict.get_with(b"short", |value, _| value == large).unwrap(), Some(true));
    assert!(dict.remove(&large).unwrap());
    dict.clear().unwrap();
    assert_eq!(live_blocks(), before);
}

#[test]
fn objects_inside_live_as_long_as_they_are_inside() {
    let _alone = alone();
    let heap = heap();
    let before = live_blocks();
    let dict = Dict::create(heap).unwrap();
    {
        let list = List::create(heap).unwrap();
        push_number(&list, 17);
        dict.insert(b"list", many(&[b"a list"], &[list.handle().clone()])).unwrap();
    }
    let item = dict.get(b"list").unwrap().unwrap();
    assert_eq!(item.bytes, b"a list");
    assert_eq!(numbers(&List::from_handle(item.handles[0].clone()).unwrap()), [17]);
    drop(item);
    // One that leaves the dict is alive as long as somebody has it.
    let item = dict.replace(b"list", bytes(&[b"plain"])).unwrap().unwrap();
    assert_eq!(numbers(&List::from_handle(item.handles[0].clone()).unwrap()), [17]);
    drop(item);
    // Deep nesting is taken apart without recursion.
    let mut inner = List::create(heap).unwrap();
    for _ in 0..2000 {
        let outer = List::create(heap).unwrap();
        outer.push(many(&[b"deeper"], &[inner.handle().clone()])).unwrap();
        inner = outer;
    }
    dict.insert(b"deep", many(&[b""], &[inner.handle().clone()])).unwrap();
    drop(inner);
    drop(dict);
    assert_eq!(live_blocks(), before);
}

#[test]
fn a_dict_is_no_list() {
    let _alone = alone();
    let dict = dict();
    assert!(matches!(List::from_handle(dict.handle().clone()), Err(HeapError::WrongKind { .. })));
}

#[test]
fn a_list_is_what_was_done_to_it() {
    let _alone = alone();
    let list = List::create(heap()).unwrap();
    let before = live_blocks();
    for value in 0..5 {
        push_number(&list, value);
    }
    assert_eq!(number(&list.get(3).unwrap().unwrap().bytes), 3);
    assert_eq!(list.get(5).unwrap(), None);
    let one = |value: u64| value.to_le_bytes();
    list.insert(0, bytes(&[&one(10)])).unwrap();
    list.insert(0, bytes(&[&one(11)])).unwrap();
    list.insert(3, bytes(&[&one(12)])).unwrap();
    list.insert(99, bytes(&[&one(13)])).unwrap();
    assert_eq!(numbers(&list), [11, 10, 0, 12, 1, 2, 3, 4, 13]);
    assert_eq!(list.remove(3).unwrap().map(|i| number(&i.bytes)), Some(12));
    assert_eq!(list.remove(0).unwrap().map(|i| number(&i.bytes)), Some(11));
    assert_eq!(list.remove(6).unwrap().map(|i| number(&i.bytes)), Some(13));
    assert_eq!(list.remove(6).unwrap(), None);
    assert_eq!(numbers(&list), [10, 0, 1, 2, 3, 4]);
    assert!(list.set(1, bytes(&[&one(20)])).unwrap());
    assert!(!list.set(6, bytes(&[&one(20)])).unwrap());
    assert_eq!(list.replace(0, bytes(&[&one(21)])).unwrap().map(|i| number(&i.bytes)), Some(10));
    assert!(list.swap(0, 5).unwrap());
    assert_eq!(numbers(&list), [4, 20, 1, 2, 3, 21]);
    list.reverse().unwrap();
    assert_eq!(numbers(&list), [21, 3, 2, 1, 20, 4]);
    list.sort_by(|a, b| number(&a.bytes).cmp(&number(&b.bytes))).unwrap();
    assert_eq!(numbers(&list), [1, 2, 3, 4, 20, 21]);
    assert_eq!(list.swap_remove(0).unwrap().map(|i| number(&i.bytes)), Some(1));
    assert_eq!(numbers(&list), [21, 2, 3, 4, 20]);
    let (values, parts): (Vec<[u8; 8]>, _) = ((30..33).map(one).collect(), 1);
    let parts: Vec<[&[u8]; 1]> = values.iter().map(|value| [&value[..]; 1]).take(3 * parts).collect();
    list.extend(parts.iter().map(|part| bytes(part))).unwrap();
    list.splice(1, 4, parts.iter().map(|part| bytes(part))).unwrap();
    assert_eq!(numbers(&list), [21, 30, 31, 32, 20, 30, 31, 32]);
    list.remove_range(0, 5).unwrap();
    assert_eq!(numbers(&list), [30, 31, 32]);
    assert_eq!(list.pop().unwrap().map(|i| number(&i.bytes)), Some(32));
    assert_eq!(list.slice(1, 9).unwrap().0.len(), 1);
    list.extend(none()).unwrap();
    list.clear().unwrap();
    assert_eq!(list.pop().unwrap(), None);
    assert_eq!((list.len(), live_blocks()), (0, before));
}

#[test]
fn long_lists_keep_their_items() {
    let _alone = alone();
    let list = List::create(heap()).unwrap();
    let before = live_blocks();
    const COUNT: u64 = 400_000;
    for value in 0..COUNT {
        push_number(&list, value);
    }
    list.reverse().unwrap();
    for at in (0..COUNT).step_by(997) {
        assert_eq!(number(&list.get(at).unwrap().unwrap().bytes), COUNT - 1 - at);
    }
    // First in, first out for long: what left at the front does not pile up.
    let blocks = live_blocks();
    for value in 0..2 * COUNT {
        push_number(&list, value);
        list.remove(0).unwrap();
    }
    assert!(live_blocks() < blocks + 16, "{} {blocks}", live_blocks());
    assert_eq!(number(&list.get(0).unwrap().unwrap().bytes), COUNT);
    list.clear().unwrap();
    assert_eq!(live_blocks(), before);
}

#[test]
fn a_sort_that_was_overtaken_is_done_again() {
    let _alone = alone();
    let list = List::create(heap()).unwrap();
    for value in [3, 1, 2] {
        push_number(&list, value);
    }
    let mut once = true;
    list.sort_by(|a, b| {
        if std::mem::take(&mut once) {
            push_number(&list, 0);
        }
        number(&a.bytes).cmp(&number(&b.bytes))
    })
    .unwrap();
    assert_eq!(numbers(&list), [0, 1, 2, 3]);
}

#[test]
fn processes_share_what_they_write() {
    let _alone = alone();
    let heap = heap();
    let (dict, list) = (Dict::create(heap).unwrap(), List::create(heap).unwrap());
    let children: Vec<Child> = (0..4_u64)
        .map(|who| {
            let (dict, list) = (dict.clone(), list.clone());
            Child::run(move || {
                for n in 0..2000_u64 {
                    let key = (who << 32 | n).to_le_bytes();
                    dict.insert(&key, bytes(&[&n.to_le_bytes()])).unwrap();
                    list.push(bytes(&[&key])).unwrap();
                    loop {
                        let (stamp, old) = dict.get_stamped(b"sum").unwrap();
                        let sum = old.map_or(0, |old| number(&old.bytes)) + n;
                        if dict.insert_if(b"sum", bytes(&[&sum.to_le_bytes()]), stamp).unwrap() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    children.into_iter().for_each(Child::succeeds);
    assert_eq!(dict.len(), 8001);
    assert_eq!(number(&dict.get(b"sum").unwrap().unwrap().bytes), 4 * (0..2000).sum::<u64>());
    let pushed = numbers(&list);
    assert_eq!(pushed.iter().collect::<HashSet<_>>().len(), 8000);
    for who in 0..4 {
        assert!(pushed.iter().filter(|value| *value >> 32 == who).is_sorted());
    }
}

#[test]
fn a_full_heap_is_an_error_and_loses_nothing() {
    let _alone = alone();
    let heap = heap();
    let limit = heap.stats().limit_bytes;
    let child = Child::run(|| {
        let (dict, list) = (Dict::create(heap).unwrap(), List::create(heap).unwrap());
        for key in 0..1000_u64 {
            dict.insert(&key.to_le_bytes(), bytes(&[])).unwrap();
            push_number(&list, key);
        }
        let before = live_blocks();
        heap.set_limit(heap.stats().committed_bytes);
        let large = vec![0; 64 << 20];
        assert!(matches!(dict.insert(b"large", bytes(&[&large])), Err(HeapError::OutOfMemory { .. })));
        assert!(matches!(list.push(bytes(&[&large])), Err(HeapError::OutOfMemory { .. })));
        assert_eq!((dict.len(), list.len(), live_blocks()), (1000, 1000, before));
        let full = (0..).find_map(|key: u64| dict.insert(&(key << 32 | 1).to_le_bytes(), bytes(&[])).err()).unwrap();
        assert!(matches!(full, HeapError::OutOfMemory { .. }), "{full}");
        let len = dict.len();
        assert_eq!(dict.keys().unwrap().len() as u64, len);
        dict.clear().unwrap();
        dict.insert(b"room again", bytes(&[])).unwrap();
    });
    let status = child.wait();
    // The limit is the family's.
    heap.set_limit(limit);
    assert_eq!(status, ExitStatus::Exited(0));
}

/// A key of which the first `compared` bytes are compared.
fn spelled(bytes: &[u8], compared: usize) -> Key<'_> {
    Key::spelled(bytes, compared, compared)
}

#[test]
fn a_key_keeps_the_spelling_that_came_first() {
    let _alone = alone();
    let dict = dict();
    let long = [b'x'; 300];
    assert!(!dict.insert(spelled(b"1:one", 2), bytes(&[b"a"])).unwrap());
    assert!(dict.insert(spelled(b"1:", 2), bytes(&[b"b"])).unwrap());
    assert!(dict.insert_if(spelled(b"2:", 2), bytes(&[b"c"]), Stamp::ABSENT).unwrap());
    let (stamp, _) = dict.get_stamped(spelled(b"2:two", 2)).unwrap();
    assert!(dict.insert_if(spelled(b"2:two", 2), bytes(&[&long]), stamp).unwrap());
    assert_eq!(dict.replace(spelled(b"2:II", 2), bytes(&[b"d"])).unwrap().unwrap().bytes, long);
    let many = [spelled(b"3:", 2), spelled(b"1:I", 2), spelled(b"3:three", 2)];
    dict.insert_many(many.iter().map(|&key| (key, bytes(&[b"e"])))).unwrap();
    assert_eq!(dict.keys().unwrap(), [&b"1:one"[..], b"2:", b"3:"]);
    assert_eq!(dict.get(spelled(b"1:", 2)).unwrap().unwrap().bytes, b"e");
    assert!(dict.remove(spelled(b"1:whatever", 2)).unwrap());
    assert!(!dict.contains(spelled(b"1:one", 2)).unwrap());
}

#[test]
fn kin_are_found_by_their_beginning() {
    let _alone = alone();
    let (dict, before) = (dict(), live_blocks());
    for name in ["?a", "?b", "?c"] {
        let key = Key::spelled(name.as_bytes(), 1, 2);
        assert!(dict.insert_at_version(key, bytes(&[b"v"]), dict.version()).unwrap());
    }
    dict.insert(b"?", bytes(&[])).unwrap();
    dict.insert(b"!a", bytes(&[])).unwrap();
    let kin = dict.kin(b"?").unwrap();
    let names: HashSet<&[u8]> = kin.keys.iter().map(|(name, _)| &name[..]).collect();
    assert!(["?a", "?b", "?c"].iter().all(|name| names.contains(name.as_bytes())));
    assert!(!names.contains(&b"!a"[..]));
    let stale = dict.insert_at_version(b"?d", bytes(&[]), kin.version.wrapping_sub(1));
    assert!(!stale.unwrap() && !dict.contains(b"?d").unwrap());
    for (name, stamp) in &kin.keys {
        let key = Key::spelled(name, 1, name.len());
        assert!(dict.remove_if(key, *stamp).unwrap());
    }
    dict.clear().unwrap();
    assert!(dict.kin(b"?").unwrap().keys.is_empty());
    assert_eq!(live_blocks(), before);
}

#[test]
fn places_count_from_either_end() {
    let _alone = alone();
    let list = List::create(heap()).unwrap();
    let item = |value: u64| value.to_le_bytes();
    (0..5).for_each(|value| push_number(&list, value));
    assert_eq!(list.get(Place::Back(1)).unwrap().map(|item| number(&item.bytes)), Some(4));
    assert_eq!(list.get(Place::Back(0)).unwrap(), None);
    assert_eq!(list.get(Place::Back(6)).unwrap(), None);
    assert!(list.set(Place::Back(5), bytes(&[&item(10)])).unwrap());
    list.insert(Place::Back(1), bytes(&[&item(11)])).unwrap();
    list.insert(Place::Back(99), bytes(&[&item(12)])).unwrap();
    list.insert(Place::END, bytes(&[&item(13)])).unwrap();
    assert_eq!(numbers(&list), [12, 10, 1, 2, 3, 11, 4, 13]);
    assert_eq!(list.remove(Place::Back(2)).unwrap().map(|item| number(&item.bytes)), Some(4));
    let (slice, changes) = list.slice(Place::Back(3), Place::Back(1)).unwrap();
    assert_eq!(slice.iter().map(|item| number(&item.bytes)).collect::<Vec<_>>(), [3, 11]);
    list.splice(Place::Back(3), Place::END, [bytes(&[&item(20)])].into_iter()).unwrap();
    assert_eq!(numbers(&list), [12, 10, 1, 2, 20]);
    assert!(!list.splice_if(0, 1, none(), changes).unwrap());
    assert!(list.splice_if(0, 1, none(), list.changes()).unwrap());
    assert_eq!(numbers(&list), [10, 1, 2, 20]);
}

#[test]
fn values_of_one_length_take_each_others_place() {
    let _alone = alone();
    let (dict, before) = (dict(), live_blocks());
    for len in 0..80_usize {
        for key_len in [1, 2, 7, 8, 9] {
            let key = vec![b'k'; key_len];
            dict.clear().unwrap();
            dict.insert(b"neighbour", bytes(&[b"stays"])).unwrap();
            for turn in 0..5_u8 {
                let value = vec![turn; len];
                dict.insert(&key, bytes(&[&value])).unwrap();
                assert_eq!(dict.get(&key).unwrap().unwrap().bytes, value);
            }
            let (stamp, _) = dict.get_stamped(&key).unwrap();
            let value = vec![9; len];
            assert!(dict.insert_if(&key, bytes(&[&value]), stamp).unwrap(), "{len} {key_len}");
            assert!(!dict.insert_if(&key, bytes(&[b"late"]), stamp).unwrap(), "{len} {key_len}");
            assert!(!dict.remove_if(&key, stamp).unwrap());
            assert_eq!(dict.replace(&key, bytes(&[b"longer than before"])).unwrap().unwrap().bytes, value);
            assert_eq!(dict.get(b"neighbour").unwrap().unwrap().bytes, b"stays");
            assert_eq!(dict.keys().unwrap(), [&b"neighbour"[..], &key]);
        }
    }
    dict.clear().unwrap();
    assert_eq!(live_blocks(), before);
}

#[test]
fn many_values_take_the_place_of_others_and_some_do_not() {
    let _alone = alone();
    let dict = dict();
    let keys: Vec<[u8; 8]> = (0..100_u64).map(u64::to_le_bytes).collect();
    let fill = |value: &[u8], keys: &[[u8; 8]]| {
        let parts = [value];
        dict.insert_many(keys.iter().map(|key| (key, bytes(&parts)))).unwrap();
    };
    fill(b"one", &keys[..50]);
    for value in [&b"two"[..], b"ten", b"three", b"seven", b"all"] {
        fill(value, &keys);
        dict.insert(&keys[3], bytes(&[value])).unwrap();
        assert!(dict.values().unwrap().iter().all(|item| item.bytes == value));
        assert_eq!(dict.len(), 100);
    }
    let queue = tenfold_shm::queue::Queue::create(heap(), None).unwrap();
    let handles = [queue.handle().clone()];
    dict.insert(&keys[0], many(&[b"few"], &handles)).unwrap();
    fill(b"any", &keys);
    assert!(dict.get(&keys[0]).unwrap().unwrap().handles.is_empty());
}
