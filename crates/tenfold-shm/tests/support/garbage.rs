//! Scribbling over the heap, and then using it: the bodies of the fuzz targets, and of the tests that
//! run the same with random garbage.
//!
//! What a rogue process writes over may make operations fail, never crash or hang. Not scribbled over
//! are the words of locks: a lock that says that a living process holds it is waited for.
#![allow(dead_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use tenfold_shm::dict::Dict;
use tenfold_shm::heap::class::{self, ClassHead};
use tenfold_shm::heap::{At, BlockId, Header};
use tenfold_shm::list::List;
use tenfold_shm::message::{self, Outgoing};
use tenfold_shm::queue::Queue;
use tenfold_shm::{Handle, Heap, ObjectKind, object, participant};

type Word = At<AtomicU64>;

/// What to do, read from random bytes.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        (0..bytes).try_fold(0, |number, _| Some(number << 8 | u64::from(self.byte()?)))
    }

    /// Writes garbage over some of the words.
    fn scribble(&mut self, words: &[Word]) {
        // A few words, so that what is behind the first checks is reached too.
        for _ in 0..6 {
            let (Some(which), Some(kind)) = (self.number(2), self.byte()) else { return };
            let Some(word) = words.get(which as usize % words.len().max(1)) else { return };
            let now = word.load(Ordering::Relaxed);
            let value = match kind % 8 {
                0 => self.number(8).unwrap_or(0),
                1 => u64::from(kind >> 3),
                2 => now ^ 1 << (kind >> 3),
                3 => now ^ 1 << (32 + (kind >> 3)),
                4 => words[self.number(2).unwrap_or(0) as usize % words.len()].load(Ordering::Relaxed),
                5 => u64::MAX - u64::from(kind >> 3),
                6 => now.wrapping_add(u64::from(kind >> 3)),
                _ => now.wrapping_sub(1 + u64::from(kind >> 3)),
            };
            word.store(value, Ordering::Relaxed);
        }
    }
}

fn plain<'a>(parts: &'a [&'a [u8]]) -> Outgoing<'a> {
    Outgoing { parts, handles: &[] }
}

/// What is in the heap before the scribbling.
pub(crate) struct Scene {
    heap: Heap,
    dict: Dict,
    list: List,
    queue: Queue,
    inner: Handle,
}

impl Scene {
    pub(crate) fn new(heap: Heap) -> Scene {
        let inner = List::create(heap).unwrap();
        inner.push(plain(&[b"inner"])).unwrap();
        let inner = inner.handle().clone();
        let (dict, list) = (Dict::create(heap).unwrap(), List::create(heap).unwrap());
        let queue = Queue::create(heap, None).unwrap();
        for number in 0..20_u64 {
            let bytes: [&[u8]; 2] = [&number.to_le_bytes(), &[7; 100][..number as usize * 5]];
            let handles = if number % 4 == 0 { std::slice::from_ref(&inner) } else { &[] };
            let value = Outgoing { parts: &bytes, handles };
            dict.insert(&number.to_le_bytes(), value).unwrap();
            list.push(value).unwrap();
            queue.try_put(value).unwrap();
        }
        dict.remove(&3_u64.to_le_bytes()).unwrap();
        Scene { heap, dict, list, queue, inner }
    }
}

/// The words of an object and of all blocks that can be reached from it, but for those of locks.
fn reachable(heap: Heap, object: &Handle, locks: &[std::ops::Range<u64>]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut blocks = vec![object.id()];
    let mut next = 0;
    while let Some(id) = blocks.get(next).copied() {
        next += 1;
        let Ok(block) = heap.block(id) else { continue };
        // An object inside has locks of its own.
        for at in (0..block.len() / 8 * 8).step_by(8) {
            if next == 1 && locks.iter().any(|lock| lock.contains(&at)) {
                continue;
            }
            let Ok(word) = block.word(heap, at) else { continue };
            words.push(word);
            let Some(id) = BlockId::from_bits(word.load(Ordering::Relaxed)) else { continue };
            let is_part = heap.block(id).is_ok() && Handle::from_id(heap, id).is_err();
            let is_spine = Handle::from_id(heap, id).is_ok_and(|handle| handle.kind() == ObjectKind::Spine);
            if (is_part || is_spine) && !blocks.contains(&id) {
                blocks.push(id);
            }
        }
    }
    words
}

const DICT_LOCK: std::ops::Range<u64> = 0..120;
const QUEUE_LOCKS: [std::ops::Range<u64>; 2] = [112..232, 304..424];
/// Where the directory of descriptor tables lies.
const DIRECTORY: u64 = 64 << 10;

/// The words of all descriptors, and of the free lists' heads.
fn descriptors(heap: Heap) -> Vec<Word> {
    let table = heap.word(DIRECTORY).unwrap().load(Ordering::Relaxed);
    let in_use = |index: &u64| heap.word(table + index * 64).is_ok_and(|state| state.load(Ordering::Relaxed) != 0);
    let last = (1..16_384).take_while(in_use).last().unwrap_or(0);
    let mut words: Vec<Word> = (8..8 * (last + 1)).map(|word| heap.word(table + word * 8).unwrap()).collect();
    let heads = (size_of::<Header>() - class::CLASSES * size_of::<ClassHead>()) as u64;
    for class in 0..class::CLASSES as u64 {
        // After the lock: the first free descriptor, the count of live blocks.
        for at in [120, 128] {
            words.push(heap.word(heads + class * size_of::<ClassHead>() as u64 + at).unwrap());
        }
    }
    words
}

fn use_blocks(heap: Heap) {
    let seat = participant::seat(heap).unwrap();
    for bytes in [1, 64, 65, 200, 256, 1000, 5000, 9000, 70_000, 1 << 20, 3 << 20] {
        let cell = seat.transit(1);
        if let Ok(block) = heap.take(seat, bytes, ObjectKind::Bytes, cell) {
            let mut byte = [0];
            let _ = block.write(heap, 0, &[1]).and_then(|()| block.read(heap, bytes - 1, &mut byte));
            let _ = block.zero(heap, u64::MAX);
            let _ = heap.block(block.id());
            let _ = heap.give_back(seat, block.id(), cell);
        }
        cell.store(0, Ordering::Relaxed);
    }
    for bits in 0..400_u64 {
        for generation in 0..3 {
            let id = BlockId::from_bits(generation << 32 | bits);
            if let Some(Ok(block)) = id.map(|id| heap.block(id)) {
                let mut bytes = [0; 16];
                let _ = block.read(heap, 0, &mut bytes);
                let _ = block.word(heap, block.len().saturating_sub(8));
            }
        }
    }
    let _ = (heap.stats(), heap.census(), heap.trim(seat));
}

fn use_dict(dict: &Dict, handle: &Handle) {
    for key in [0, 3, 8, 19, 20, 21_u64] {
        let key = key.to_le_bytes();
        let _ = dict.get(&key);
        let _ = dict.get_with(&key, |bytes, handles| (bytes.len(), handles.len()));
        let _ = dict.insert(&key, plain(&[b"new"]));
        let _ = dict.replace(&key, Outgoing { parts: &[b"new"], handles: std::slice::from_ref(handle) });
        let _ = dict.remove(&key);
        let _ = dict.insert(&key, plain(&[b"again"]));
    }
    let _ = (dict.keys(), dict.values(), dict.items(), dict.batch_of_keys(5, None, 3));
    for key in 100..130_u64 {
        let _ = dict.insert(&key.to_le_bytes(), plain(&[b"grow"]));
    }
    let _ = (dict.pop_last(), dict.pop_last(), dict.clear());
    let _ = dict.insert(b"after", plain(&[b"clear"]));
}

fn use_list(list: &List, handle: &Handle) {
    for at in [0, 1, 7, 19, 20, 100] {
        let _ = list.get(at);
        let _ = list.get_with(at, |bytes, handles| (bytes.len(), handles.len()));
        let _ = list.set(at, plain(&[b"new"]));
        let _ = list.insert(at, Outgoing { parts: &[b"new"], handles: std::slice::from_ref(handle) });
        let _ = list.remove(at);
        let _ = list.swap_remove(at);
    }
    let _ = (list.to_vec(), list.slice(3, 5), list.reverse(), list.sort_by(|a, b| a.bytes.cmp(&b.bytes)));
    for _ in 0..30 {
        let _ = list.push(plain(&[b"grow"]));
    }
    let _ = (list.splice(2, 9, [plain(&[b"splice"])].into_iter()), list.pop(), list.clear());
    let _ = list.push(plain(&[b"after"]));
}

fn use_queue(queue: &Queue, handle: &Handle) {
    for _ in 0..30 {
        let _ = queue.try_put(plain(&[b"new"]));
        let _ = queue.try_put(Outgoing { parts: &[&[1; 500]], handles: std::slice::from_ref(handle) });
        if let Ok(payload) = queue.try_get() {
            let _ = (payload.with(<[u8]>::len), payload.handles(), payload.to_vec());
        }
    }
    let _ = (queue.len(), queue.is_full());
    // A scribbled position may promise any number of messages.
    for _ in 0..1000 {
        let _ = queue.try_get().map(|payload| payload.to_vec());
    }
}

/// Garbage in the descriptors and the free lists.
pub(crate) fn blocks(input: &mut Input<'_>, scene: Scene) {
    input.scribble(&descriptors(scene.heap));
    use_blocks(scene.heap);
    use_dict(&scene.dict, &scene.inner);
    use_list(&scene.list, &scene.inner);
    use_queue(&scene.queue, &scene.inner);
}

/// Garbage in a message and its table of handles.
pub(crate) fn messages(input: &mut Input<'_>, scene: Scene) {
    let heap = scene.heap;
    let seat = participant::seat(heap).unwrap();
    let handles = [scene.inner.clone(), scene.dict.handle().clone(), scene.inner.clone()];
    let cell = seat.transit(1);
    let id = message::write(heap, seat, Outgoing { parts: &[&[3; 40]], handles: &handles }, cell).unwrap();
    let block = heap.block(id).unwrap();
    let words: Vec<Word> = (0..block.len() / 8).map(|word| block.word(heap, word * 8).unwrap()).collect();
    if input.byte().is_some_and(|byte| byte % 4 == 0) {
        // Its own id among its handles.
        words[2].store(id.bits(), Ordering::Relaxed);
    }
    input.scribble(&words);
    let _ = message::read_in_place(heap, id);
    let _ = object::release(heap, seat, cell);
    cell.store(0, Ordering::Relaxed);
}

/// Garbage in a dict's root, index, positions and entries.
pub(crate) fn dict(input: &mut Input<'_>, scene: Scene) {
    input.scribble(&reachable(scene.heap, scene.dict.handle(), &[DICT_LOCK]));
    use_dict(&scene.dict, &scene.inner);
}

/// Garbage in a list's root, spine and items.
pub(crate) fn list(input: &mut Input<'_>, scene: Scene) {
    input.scribble(&reachable(scene.heap, scene.list.handle(), &[DICT_LOCK]));
    use_list(&scene.list, &scene.inner);
}

/// Garbage in a queue's ends, segments and messages.
pub(crate) fn queue(input: &mut Input<'_>, scene: Scene) {
    input.scribble(&reachable(scene.heap, scene.queue.handle(), &QUEUE_LOCKS));
    use_queue(&scene.queue, &scene.inner);
}
