//! Plain data of fixed size, with a lock or without.
//!
//! ```text
//!  ┌ lock word ┬ fingerprint ┬ length ┬ access ┐ 64 bytes ┬ the data, aligned to 64 … ┐
//! ```
//!
//! Data of up to a window is looked at where it lies; larger data is mapped in one piece by each
//! process that uses it, once for all clones of a handle.
//!
//! The data is either *guarded*: reached only through a [`DataGuard`], which has the lock; or
//! *raw*: copied in and out with atomic loads and stores, which may tear between elements. An
//! object is one or the other for life, so that no raw store meets a guard's `&mut`.
//!
//! *Killed here:* holding the lock: as for a lock; the next guard says so (for guarded data, also if
//! the holder exited, since nobody else could free it). The fingerprint and the
//! length never change after the object is made.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytemuck::Pod;
use tenfold_sys::clock::Deadline;

use crate::error::{HeapError, Result};
use crate::heap::block::Block;
use crate::heap::{At, Heap, MappedBlock, Shared, WINDOW};
use crate::object::{Handle, ObjectKind};
use crate::participant::{self, Death};
use crate::sync::Acquired;
use crate::sync::lock::LockWord;

/// Where the data begins in its block, and to what it is aligned.
const START: u64 = 64;

#[repr(C)]
struct DataObject {
    lock: LockWord,
    fingerprint: AtomicU64,
    len: AtomicU64,
    access: AtomicU64,
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for DataObject {}
const _: () = assert!(size_of::<DataObject>() as u64 <= START);

/// How the data is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Access {
    /// Through guards only.
    Guarded = 1,
    /// Without a lock, or with one that nothing enforces.
    Raw = 2,
}

/// A fixed number of bytes that all processes share.
#[derive(Debug, Clone)]
pub struct Data {
    handle: Handle,
    shared: At<DataObject>,
    len: u64,
    access: Access,
    /// Where the data is, if its block lies in one window.
    near: Option<Near>,
    /// For data that does not; mapped at first use.
    mapped: Arc<OnceLock<MappedBlock>>,
}

/// An address in a window, where it stays as long as the process lives.
#[derive(Debug, Clone, Copy)]
struct Near(NonNull<u8>);

// SAFETY: an address; what is done with the bytes there is the business of whoever does it.
unsafe impl Send for Near {}
// SAFETY: as above.
unsafe impl Sync for Near {}

impl Data {
    /// `len` bytes of zeros, to be used as `access` says. The fingerprint tells others what type of
    /// data it is.
    ///
    /// # Errors
    /// If the heap has no room.
    pub fn create(heap: Heap, access: Access, fingerprint: u64, len: u64) -> Result<Data> {
        let bytes =
            len.checked_add(START).ok_or(HeapError::TooLarge { bytes: len, limit: crate::heap::class::LARGEST })?;
        let handle = Handle::create(heap, ObjectKind::Data, bytes, |block| {
            let shared = block.view::<DataObject>(heap, 0)?;
            shared.fingerprint.store(fingerprint, Ordering::Relaxed);
            shared.len.store(len, Ordering::Relaxed);
            shared.access.store(access as u64, Ordering::Release);
            Ok(())
        })?;
        Data::from_handle(handle, access)
    }

    /// The data behind a handle, which must have been made for the same kind of access.
    ///
    /// # Errors
    /// [`HeapError::WrongKind`] if it is something else.
    pub fn from_handle(handle: Handle, access: Access) -> Result<Data> {
        let handle = handle.expect(ObjectKind::Data)?;
        let shared = handle.view::<DataObject>()?;
        let name =
            |access: u64| if access == Access::Raw as u64 { "raw shared value" } else { "shared value with a lock" };
        let found = shared.access.load(Ordering::Acquire);
        if found != access as u64 {
            return Err(HeapError::WrongKind { expected: name(access as u64), found: name(found) });
        }
        let len = shared.len.load(Ordering::Relaxed);
        if len.checked_add(START).is_none_or(|bytes| bytes > handle.block().len()) {
            return Err(HeapError::corrupt("length of shared data", shared.offset()));
        }
        let block = handle.block();
        let near = match block.len() <= WINDOW {
            true => Some(Near(block.address(handle.heap(), START, len)?)),
            false => None,
        };
        Ok(Data { handle, shared, len, access, near, mapped: Arc::default() })
    }

    /// The handle, to be sent elsewhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What the maker said about the type of the data.
    pub fn fingerprint(&self) -> u64 {
        self.shared.fingerprint.load(Ordering::Relaxed)
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes are in this process, aligned to 64, for as long as any clone of this handle
    /// lives. What may be done with them is as for raw data.
    ///
    /// # Errors
    /// [`HeapError::AddressSpace`] if they cannot be mapped.
    #[inline]
    pub fn address(&self) -> Result<NonNull<u8>> {
        match self.near {
            Some(Near(address)) => Ok(address),
            None => self.mapped_address(),
        }
    }

    fn mapped_address(&self) -> Result<NonNull<u8>> {
        let (heap, block) = (self.handle.heap(), self.handle.block());
        let mapped = match self.mapped.get() {
            Some(mapped) => mapped,
            None => {
                let fresh = heap.map_range(block.offset() + START, self.len)?;
                // Another thread may have been faster; then ours goes.
                self.mapped.get_or_init(|| fresh)
            }
        };
        NonNull::new(mapped.as_ptr()).ok_or(HeapError::AddressSpace { length: self.len })
    }

    fn guarded(&self) -> Result<()> {
        match self.access {
            Access::Guarded => Ok(()),
            Access::Raw => {
                Err(HeapError::WrongKind { expected: "shared value with a lock", found: "raw shared value" })
            }
        }
    }

    fn raw(&self) -> Result<()> {
        match self.access {
            Access::Raw => Ok(()),
            Access::Guarded => {
                Err(HeapError::WrongKind { expected: "raw shared value", found: "shared value with a lock" })
            }
        }
    }

    /// Takes the lock, waiting until the deadline; `None` when it has come. The guard shows the
    /// data as elements of type `T`.
    ///
    /// # Errors
    /// If the data is raw, cannot be mapped, or does not consist of whole elements.
    #[inline]
    pub fn lock<T: Pod>(&self, deadline: Deadline) -> Result<Option<DataGuard<'_, T>>> {
        self.lock_by(|word, heap, me| word.acquire(heap, me, deadline))
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// As [`Data::lock`].
    #[inline]
    pub fn try_lock<T: Pod>(&self) -> Result<Option<DataGuard<'_, T>>> {
        self.lock_by(|word, _, me| word.try_acquire(me))
    }

    #[inline]
    fn lock_by<T: Pod>(
        &self,
        acquire: impl FnOnce(&LockWord, Heap, u32) -> Acquired,
    ) -> Result<Option<DataGuard<'_, T>>> {
        self.guarded()?;
        let elements = self.elements::<T>()?;
        let address = self.address()?.cast::<T>();
        let heap = self.handle.heap();
        let me = participant::seat(heap)?.owner();
        match acquire(&self.shared.get().lock, heap, me) {
            Acquired::TimedOut => Ok(None),
            acquired => Ok(Some(DataGuard {
                data: self,
                address,
                elements,
                owner_died: acquired == Acquired::OwnerDied,
                _elements: PhantomData,
            })),
        }
    }

    fn elements<T: Pod>(&self) -> Result<usize> {
        const { assert!(align_of::<T>() as u64 <= START, "the type's alignment is larger than that of shared data") }
        match size_of::<T>() as u64 {
            0 => Ok(0),
            size if self.len.is_multiple_of(size) => Ok((self.len / size) as usize),
            _ => Err(HeapError::corrupt("length of shared data", self.shared.offset())),
        }
    }

    /// Whether somebody holds the lock.
    pub fn is_locked(&self) -> bool {
        self.shared.lock.owner() != 0
    }

    /// Takes the lock of raw data, waiting until the deadline. Nothing enforces it.
    ///
    /// # Errors
    /// If the data is not raw.
    pub fn acquire(&self, deadline: Deadline) -> Result<Acquired> {
        self.raw()?;
        let heap = self.handle.heap();
        Ok(self.shared.lock.acquire(heap, participant::seat(heap)?.owner(), deadline))
    }

    /// Frees the lock of raw data, whoever took it. Returns whether anybody had.
    ///
    /// # Errors
    /// If the data is not raw.
    pub fn release(&self) -> Result<bool> {
        self.raw()?;
        Ok(self.shared.lock.release(participant::seat(self.handle.heap())?.owner()))
    }

    /// Copies element `index` out. One of 1, 2, 4 or 8 bytes is read whole; a larger one may be
    /// torn if another process writes it at the same time.
    ///
    /// # Errors
    /// If the data is not raw or has no such element.
    #[inline]
    pub fn load<T: Pod>(&self, index: usize) -> Result<T> {
        self.raw_elements()?.load(index).ok_or_else(|| self.beyond_the_end())
    }

    /// Copies `value` into element `index`; torn or not as for [`Data::load`].
    ///
    /// # Errors
    /// As [`Data::load`].
    #[inline]
    pub fn store<T: Pod>(&self, index: usize, value: T) -> Result<()> {
        if self.raw_elements()?.store(index, value) { Ok(()) } else { Err(self.beyond_the_end()) }
    }

    #[cold]
    fn beyond_the_end(&self) -> HeapError {
        HeapError::corrupt("index beyond the end of shared data", self.shared.offset())
    }

    /// The data as elements of type `T`, for many accesses.
    ///
    /// # Errors
    /// If the data is not raw, cannot be mapped, or does not consist of whole elements.
    #[inline]
    pub fn raw_elements<T: Pod>(&self) -> Result<RawElements<'_, T>> {
        self.raw()?;
        let len = self.elements::<T>()?;
        Ok(RawElements { address: self.address()?, len, _data: PhantomData })
    }
}

/// Raw data as elements of one type.
#[derive(Debug, Clone, Copy)]
pub struct RawElements<'a, T: Pod> {
    address: NonNull<u8>,
    len: usize,
    _data: PhantomData<(&'a Data, T)>,
}

impl<T: Pod> RawElements<'_, T> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies an element out, as [`Data::load`]; `None` if there is no such element.
    #[inline]
    pub fn load(&self, index: usize) -> Option<T> {
        let mut value = T::zeroed();
        load_bytes(self.element(index)?, bytemuck::bytes_of_mut(&mut value));
        Some(value)
    }

    /// Copies `value` into an element, as [`Data::store`]; whether there is such an element.
    #[inline]
    pub fn store(&self, index: usize, value: T) -> bool {
        let Some(address) = self.element(index) else { return false };
        store_bytes(address, bytemuck::bytes_of(&value));
        true
    }

    #[inline]
    fn element(&self, index: usize) -> Option<NonNull<u8>> {
        // SAFETY: the element lies inside the data, which is in bounds of its mapping for as long as the `Data` that
        // this borrows.
        (index < self.len).then(|| unsafe { self.address.add(index * size_of::<T>()) })
    }
}

/// Reads the bytes at `address`, which is aligned as the type of that size is, with the widest
/// atomic loads that fit.
#[inline]
fn load_bytes(address: NonNull<u8>, bytes: &mut [u8]) {
    let mut at = 0;
    while at < bytes.len() {
        // SAFETY: `address..address + bytes.len()` lies in a shared mapping that outlives the
        // caller's borrow; each access is aligned as checked and inside the range, and everybody
        // uses atomics of the same width on the same element.
        unsafe {
            let from = address.as_ptr().add(at);
            match step(from, bytes.len() - at) {
                8 => put(&mut bytes[at..], (*from.cast::<AtomicU64>()).load(Ordering::Acquire).to_ne_bytes(), &mut at),
                4 => put(&mut bytes[at..], (*from.cast::<AtomicU32>()).load(Ordering::Acquire).to_ne_bytes(), &mut at),
                2 => put(&mut bytes[at..], (*from.cast::<AtomicU16>()).load(Ordering::Acquire).to_ne_bytes(), &mut at),
                _ => put(&mut bytes[at..], [(*from.cast::<AtomicU8>()).load(Ordering::Acquire)], &mut at),
            }
        }
    }
}

#[inline]
fn put<const N: usize>(bytes: &mut [u8], loaded: [u8; N], at: &mut usize) {
    bytes[..N].copy_from_slice(&loaded);
    *at += N;
}

#[inline]
fn get<const N: usize>(bytes: &[u8], at: &mut usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[*at..*at + N]);
    *at += N;
    part
}

/// Writes the bytes to `address`; the counterpart of [`load_bytes`].
#[inline]
fn store_bytes(address: NonNull<u8>, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        // SAFETY: as in `load_bytes`.
        unsafe {
            let to = address.as_ptr().add(at);
            match step(to, bytes.len() - at) {
                8 => (*to.cast::<AtomicU64>()).store(u64::from_ne_bytes(get(bytes, &mut at)), Ordering::Release),
                4 => (*to.cast::<AtomicU32>()).store(u32::from_ne_bytes(get(bytes, &mut at)), Ordering::Release),
                2 => (*to.cast::<AtomicU16>()).store(u16::from_ne_bytes(get(bytes, &mut at)), Ordering::Release),
                _ => {
                    let [byte] = get(bytes, &mut at);
                    (*to.cast::<AtomicU8>()).store(byte, Ordering::Release);
                }
            }
        }
    }
}

/// The widest access at this address that does not go beyond `left` bytes.
#[inline]
fn step(address: *mut u8, left: usize) -> usize {
    let address = address as usize;
    [8, 4, 2].into_iter().find(|width| left >= *width && address.is_multiple_of(*width)).unwrap_or(1)
}

/// The data, locked: nobody else sees it until the guard is dropped.
#[must_use]
#[derive(Debug)]
pub struct DataGuard<'a, T: Pod> {
    data: &'a Data,
    address: NonNull<T>,
    elements: usize,
    owner_died: bool,
    _elements: PhantomData<&'a mut [T]>,
}

// SAFETY: the guard is the sole access to plain data in shared memory, like a `&mut [T]`; the lock
// may be released by any thread of this process.
unsafe impl<T: Pod + Send> Send for DataGuard<'_, T> {}
// SAFETY: as above; a shared guard gives `&[T]` only.
unsafe impl<T: Pod + Sync> Sync for DataGuard<'_, T> {}

impl<T: Pod> DataGuard<'_, T> {
    /// Whether the lock's last holder died abnormally: the data may be half changed.
    pub fn owner_died(&self) -> bool {
        self.owner_died
    }
}

impl<T: Pod> Deref for DataGuard<'_, T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `elements` elements from `address` are mapped as long as `data` lives, aligned
        // (64 covers T), and valid as any bytes are a T. Guarded data is reached through guards
        // only, and this guard has the lock, which guards alone release.
        unsafe { core::slice::from_raw_parts(self.address.as_ptr(), self.elements) }
    }
}

impl<T: Pod> DerefMut for DataGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only reference.
        unsafe { core::slice::from_raw_parts_mut(self.address.as_ptr(), self.elements) }
    }
}

impl<T: Pod> Drop for DataGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // A guard that was copied by a fork is not the holder and frees nothing. A process that
        // cannot get its slot back has lost the lock with it.
        if let Ok(seat) = participant::seat(self.data.handle.heap()) {
            self.data.shared.lock.release_own(seat.owner());
        }
    }
}

pub(crate) fn owner_died(heap: Heap, death: &Death, block: Block) -> Result<()> {
    let shared = block.view::<DataObject>(heap, 0)?;
    // A guard's lock can be freed by nobody else, so also one that exits in the middle is told of.
    let guarded = shared.access.load(Ordering::Relaxed) == Access::Guarded as u64;
    shared.lock.owner_died(death.slot + 1, guarded || death.is_abnormal());
    Ok(())
}

pub(crate) fn is_held_by(heap: Heap, slot: u32, block: Block) -> bool {
    block.view::<DataObject>(heap, 0).is_ok_and(|data| data.lock.owner() == slot + 1)
}
