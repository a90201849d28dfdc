//! A dict and a list, all that can be done to them, and a model of both made of std's collections.
#![allow(dead_code)]

use proptest::prelude::*;
use tenfold_shm::dict::{Dict, Stamp};
use tenfold_shm::item::Item;
use tenfold_shm::list::List;
use tenfold_shm::message::Outgoing;
use tenfold_shm::{Handle, Heap};

/// A payload of plain bytes.
pub(crate) fn plain<'a>(parts: &'a [&'a [u8]]) -> Outgoing<'a> {
    Outgoing { parts, handles: &[] }
}

/// What dict and list contain. Values with an odd number hold a handle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    dict: Vec<(u64, u64)>,
    list: Vec<u64>,
}

/// What can be done. Numbers are keys, values or places, whatever fits.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Insert(u64),
    Replace(u64),
    InsertIf(u64),
    GetOrInsert(u64),
    InsertMany(u64),
    /// One after the other, of the same length.
    Overwrite(u64),
    /// The same, then many at once, most of which fit.
    OverwriteMany(u64),
    Remove(u64),
    Pop(u64),
    PopLast,
    ClearDict,
    ReadDict(u64),
    Push(u64),
    Extend(u64),
    InsertAt(u64, u64),
    Set(u64, u64),
    RemoveAt(u64),
    PopItem,
    SwapRemove(u64),
    Swap(u64, u64),
    Splice(u64, u64, u64),
    Reverse,
    Sort,
    ClearList,
    ReadList(u64),
    /// Makes others of both, fills them and drops them.
    BuildAndDrop(u64),
}

use Op::*;

impl Op {
    /// One of each kind and special case.
    pub(crate) fn all() -> Vec<Op> {
        vec![
            // Present, absent, and absent with a table that is full.
            Insert(3),
            Insert(1000),
            Insert(1010),
            Replace(3),
            InsertIf(3),
            InsertIf(1000),
            GetOrInsert(4),
            GetOrInsert(1000),
            InsertMany(12),
            Overwrite(4),
            OverwriteMany(12),
            Remove(3),
            Remove(1000),
            Pop(3),
            PopLast,
            ClearDict,
            ReadDict(3),
            Push(7),
            Push(1010),
            Extend(12),
            InsertAt(0, 7),
            InsertAt(5, 7),
            Set(5, 7),
            RemoveAt(0),
            RemoveAt(5),
            RemoveAt(1000),
            PopItem,
            SwapRemove(2),
            Swap(1, 4),
            Splice(2, 6, 3),
            Splice(0, 4, 0),
            Reverse,
            Sort,
            ClearList,
            ReadList(3),
            BuildAndDrop(9),
        ]
    }

    /// How large dict and list should be before it.
    pub(crate) fn size(&self) -> u64 {
        match self {
            // The next one needs a larger table, and a larger spine.
            Insert(1010) => 20,
            Push(1010) => 8,
            _ => 11,
        }
    }

    /// Any of them.
    pub(crate) fn any() -> impl Strategy<Value = Op> {
        let key = || prop_oneof![0..12_u64, 0..60_u64];
        prop_oneof![
            6 => key().prop_map(Insert),
            1 => key().prop_map(Replace),
            2 => key().prop_map(InsertIf),
            2 => key().prop_map(GetOrInsert),
            1 => key().prop_map(InsertMany),
            2 => key().prop_map(Overwrite),
            1 => key().prop_map(OverwriteMany),
            3 => key().prop_map(Remove),
            1 => key().prop_map(Pop),
            1 => Just(PopLast),
            1 => Just(ClearDict),
            1 => key().prop_map(ReadDict),
            6 => key().prop_map(Push),
            1 => key().prop_map(Extend),
            3 => (key(), key()).prop_map(|(a, b)| InsertAt(a, b)),
            2 => (key(), key()).prop_map(|(a, b)| Set(a, b)),
            4 => key().prop_map(RemoveAt),
            1 => Just(PopItem),
            1 => key().prop_map(SwapRemove),
            1 => (key(), key()).prop_map(|(a, b)| Swap(a, b)),
            2 => (key(), key(), 0..6_u64).prop_map(|(a, b, c)| Splice(a, b, c)),
            1 => Just(Reverse),
            1 => Just(Sort),
            1 => Just(ClearList),
            1 => key().prop_map(ReadList),
            1 => key().prop_map(BuildAndDrop),
        ]
    }

    /// The keys and values that it puts one after the other, if it is of that kind.
    fn puts(&self) -> Option<Vec<(u64, u64)>> {
        match *self {
            InsertMany(count) => Some((0..count).map(|n| (n * 3, n + 7)).collect()),
            Overwrite(key) => Some(overwritten(key).collect()),
            OverwriteMany(count) => Some(overwritten(0).chain(even_values(count)).collect()),
            _ => None,
        }
    }
}

impl Model {
    /// A dict and a list of about `size` numbers, in no obvious order.
    pub(crate) fn sample(size: u64) -> Model {
        Model { dict: (0..size).map(|n| (n, 100 + n)).collect(), list: (0..size).map(|n| n * 7 % 11).collect() }
    }

    /// What may be found when the operation is cut short: first what is there now, last what is there
    /// when it is done.
    pub(crate) fn states(&self, op: &Op) -> Vec<Model> {
        let mut states = vec![self.clone()];
        match op.puts() {
            // Each of the keys on its own happens whole or not at all.
            Some(puts) => {
                for (key, value) in puts {
                    let mut next = states[states.len() - 1].clone();
                    next.put(key, value);
                    states.push(next);
                }
            }
            None => {
                let mut after = self.clone();
                after.apply(op);
                states.push(after);
            }
        }
        states
    }

    fn at(&self, key: u64) -> Option<usize> {
        self.dict.iter().position(|(k, _)| *k == key)
    }

    fn put(&mut self, key: u64, value: u64) {
        match self.at(key) {
            Some(at) => self.dict[at].1 = value,
            None => self.dict.push((key, value)),
        }
    }

    fn apply(&mut self, op: &Op) {
        let len = self.list.len();
        match *op {
            Insert(key) | Replace(key) => self.put(key, key + 1),
            // Only what is there and even is changed.
            InsertIf(key) => self.put(key, 5),
            GetOrInsert(key) => {
                if self.at(key).is_none() {
                    self.put(key, 9);
                }
            }
            InsertMany(_) | Overwrite(_) | OverwriteMany(_) => {
                for (key, value) in op.puts().into_iter().flatten() {
                    self.put(key, value);
                }
            }
            Remove(key) | Pop(key) => {
                if let Some(at) = self.at(key) {
                    self.dict.remove(at);
                }
            }
            PopLast => drop(self.dict.pop()),
            ClearDict => self.dict.clear(),
            ReadDict(_) | ReadList(_) | BuildAndDrop(_) => {}
            Push(item) => self.list.push(item),
            Extend(count) => self.list.extend(0..count),
            InsertAt(at, item) => self.list.insert((at as usize).min(len), item),
            Set(at, item) => {
                if let Some(slot) = self.list.get_mut(at as usize) {
                    *slot = item;
                }
            }
            RemoveAt(at) => {
                if (at as usize) < len {
                    self.list.remove(at as usize);
                }
            }
            PopItem => drop(self.list.pop()),
            SwapRemove(at) => {
                if (at as usize) < len {
                    self.list.swap_remove(at as usize);
                }
            }
            Swap(one, other) => {
                if (one.max(other) as usize) < len {
                    self.list.swap(one as usize, other as usize);
                }
            }
            Splice(from, to, count) => {
                let from = (from as usize).min(len);
                let to = (to as usize).clamp(from, len.max(from));
                self.list.splice(from..to, 50..50 + count);
            }
            Reverse => self.list.reverse(),
            Sort => self.list.sort(),
            ClearList => self.list.clear(),
        }
    }
}

/// The real ones.
pub(crate) struct World {
    heap: Heap,
    dict: Dict,
    list: List,
    /// What the odd values hold.
    inner: Handle,
}

/// What a key is set to by [`Overwrite`]: without handles, or it would not be overwritten.
fn overwritten(key: u64) -> impl Iterator<Item = (u64, u64)> {
    [200, 202, 204].into_iter().map(move |value| (key, value))
}

/// What keys are set to by [`OverwriteMany`].
fn even_values(count: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..count).map(|n| (n, 300 + 2 * n))
}

fn key_bytes(key: u64) -> [u8; 8] {
    key.to_le_bytes()
}

fn value_of(item: &Item) -> u64 {
    let value = u64::from_le_bytes(item.bytes[..8].try_into().unwrap());
    assert_eq!(item.handles.len() as u64, value % 2);
    for handle in &item.handles {
        let inner = List::from_handle(handle.clone()).unwrap();
        assert_eq!(inner.get(0).unwrap().unwrap().bytes, b"inner");
    }
    value
}

impl World {
    pub(crate) fn new(heap: Heap, model: &Model) -> World {
        let inner = List::create(heap).unwrap();
        inner.push(plain(&[b"inner"])).unwrap();
        let (dict, list) = (Dict::create(heap).unwrap(), List::create(heap).unwrap());
        let world = World { heap, dict, list, inner: inner.handle().clone() };
        for (key, value) in &model.dict {
            world.with(*value, |value| world.dict.insert(&key_bytes(*key), value).unwrap());
        }
        for item in &model.list {
            world.with(*item, |item| world.list.push(item).unwrap());
        }
        assert_eq!(world.contents(), *model);
        world
    }

    fn with<R>(&self, value: u64, f: impl FnOnce(Outgoing<'_>) -> R) -> R {
        let handles = if value % 2 == 1 { std::slice::from_ref(&self.inner) } else { &[] };
        f(Outgoing { parts: &[&value.to_le_bytes()], handles })
    }

    fn with_many<R>(&self, values: impl Iterator<Item = u64>, f: impl FnOnce(&[Outgoing<'_>]) -> R) -> R {
        let values: Vec<[u8; 8]> = values.map(u64::to_le_bytes).collect();
        let parts: Vec<[&[u8]; 1]> = values.iter().map(|value| [&value[..]]).collect();
        let outgoing: Vec<Outgoing<'_>> = values
            .iter()
            .zip(&parts)
            .map(|(value, parts)| {
                let handles = if value[0] % 2 == 1 { std::slice::from_ref(&self.inner) } else { &[] };
                Outgoing { parts, handles }
            })
            .collect();
        f(&outgoing)
    }

    pub(crate) fn apply(&self, op: &Op) {
        let (dict, list) = (&self.dict, &self.list);
        match *op {
            Insert(key) => drop(self.with(key + 1, |v| dict.insert(&key_bytes(key), v).unwrap())),
            Replace(key) => drop(self.with(key + 1, |v| dict.replace(&key_bytes(key), v).unwrap())),
            InsertIf(key) => {
                let (stamp, old) = dict.get_stamped(&key_bytes(key)).unwrap();
                assert_eq!(old.is_none(), stamp == Stamp::ABSENT);
                assert!(self.with(5, |v| dict.insert_if(&key_bytes(key), v, stamp).unwrap()));
            }
            GetOrInsert(key) => drop(self.with(9, |v| dict.get_or_insert(&key_bytes(key), v).unwrap())),
            InsertMany(count) => {
                let keys: Vec<[u8; 8]> = (0..count).map(|n| key_bytes(n * 3)).collect();
                self.with_many((0..count).map(|n| n + 7), |values| {
                    let entries = keys.iter().zip(values).map(|(key, value)| (&key[..], *value));
                    dict.insert_many(entries).unwrap();
                });
            }
            Overwrite(key) => self.overwrite(key),
            OverwriteMany(count) => {
                self.overwrite(0);
                let (keys, values): (Vec<[u8; 8]>, Vec<u64>) =
                    even_values(count).map(|(key, value)| (key_bytes(key), value)).unzip();
                self.with_many(values.into_iter(), |values| {
                    dict.insert_many(keys.iter().zip(values.iter().copied())).unwrap();
                });
            }
            Remove(key) => drop(dict.remove(&key_bytes(key)).unwrap()),
            Pop(key) => drop(dict.pop(&key_bytes(key)).unwrap()),
            PopLast => drop(dict.pop_last().unwrap()),
            ClearDict => dict.clear().unwrap(),
            ReadDict(key) => {
                drop(dict.get(&key_bytes(key)).unwrap());
                drop(dict.items().unwrap());
            }
            Push(item) => self.with(item, |v| list.push(v).unwrap()),
            Extend(count) => self.with_many(0..count, |items| list.extend(items.iter().copied()).unwrap()),
            InsertAt(at, item) => self.with(item, |v| list.insert(at, v).unwrap()),
            Set(at, item) => drop(self.with(item, |v| list.set(at, v).unwrap())),
            RemoveAt(at) => drop(list.remove(at).unwrap()),
            PopItem => drop(list.pop().unwrap()),
            SwapRemove(at) => drop(list.swap_remove(at).unwrap()),
            Swap(one, other) => drop(list.swap(one, other).unwrap()),
            Splice(from, to, count) => {
                self.with_many(50..50 + count, |items| list.splice(from, to, items.iter().copied()).unwrap());
            }
            Reverse => list.reverse().unwrap(),
            Sort => list.sort_by(|a, b| value_of(a).cmp(&value_of(b))).unwrap(),
            ClearList => list.clear().unwrap(),
            ReadList(at) => {
                drop(list.get(at).unwrap());
                drop(list.to_vec().unwrap());
            }
            BuildAndDrop(size) => drop(World::new(self.heap, &Model::sample(size))),
        }
    }

    fn overwrite(&self, key: u64) {
        for (key, value) in overwritten(key) {
            self.with(value, |value| self.dict.insert(&key_bytes(key), value).unwrap());
        }
    }

    pub(crate) fn contents(&self) -> Model {
        let dict: Vec<(u64, u64)> = self
            .dict
            .items()
            .unwrap()
            .iter()
            .map(|(key, value)| (u64::from_le_bytes(key[..].try_into().unwrap()), value_of(value)))
            .collect();
        let list: Vec<u64> = self.list.to_vec().unwrap().iter().map(value_of).collect();
        assert_eq!((self.dict.len(), self.list.len()), (dict.len() as u64, list.len() as u64));
        // The index says the same as the entries.
        for (key, value) in &dict {
            assert_eq!(self.dict.get(&key_bytes(*key)).unwrap().as_ref().map(value_of), Some(*value));
        }
        Model { dict, list }
    }

    /// Does something to both that leaves them as they were.
    pub(crate) fn still_works(&self) {
        let key = key_bytes(u64::MAX);
        assert!(!self.dict.insert(&key, plain(&[b"12345678"])).unwrap());
        assert!(self.dict.remove(&key).unwrap());
        self.list.push(plain(&[b"12345678"])).unwrap();
        assert!(self.list.pop().unwrap().is_some());
        self.list.insert(0, plain(&[b"12345678"])).unwrap();
        assert!(self.list.remove(0).unwrap().is_some());
    }
}
