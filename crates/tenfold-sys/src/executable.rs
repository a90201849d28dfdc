//! The main executable as seen from within: which file it is, where its image lies, how a function is named across
//! processes that run the same file, and how a start-up hook lets the constructors after it run.
//!
//! ```text
//!  image start                         +offset                                  image end
//!  │ code │ read-only data: … {magic, fingerprint, type, value} … │ writable data │
//! ```
//!
//! Address randomisation moves the image as a whole, so an offset from its start means the same thing in every process
//! that runs the same file. Only read-only parts are believed: what nobody can write, nobody can scribble on.

use crate::error::Result;
use core::any::TypeId;
use core::ffi::{c_int, c_void};
use core::fmt;
use core::marker::PhantomData;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

/// What tells two versions of an executable apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExeIdentity {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of the contents, in nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// The identity of the file that this process runs ([`/proc/self/exe`]), also after it was deleted or replaced on disk.
/// Fails where `/proc` is missing.
///
/// [`/proc/self/exe`]: https://man7.org/linux/man-pages/man5/proc_pid_exe.5.html
pub fn identity() -> Result<ExeIdentity> {
    let stat = rustix::fs::stat(c"/proc/self/exe")?;
    let mtime_ns = (stat.st_mtime as i64).wrapping_mul(1_000_000_000).wrapping_add(stat.st_mtime_nsec as i64);
    Ok(ExeIdentity { dev: stat.st_dev, ino: stat.st_ino, size: stat.st_size as u64, mtime_ns })
}

/// The addresses, from start to before end, of the main executable's image: `(0, 0)` if they cannot be found.
pub fn image() -> (usize, usize) {
    let image = main_image();
    (image.start, image.end)
}

/// The main executable as its program headers describe it. Not by the linker's `__executable_start` and `_end`: in a
/// shared library these are missing, or mean the library, depending on the linker.
struct Image {
    start: usize,
    end: usize,
    /// What is added to an address of the file to get one of memory.
    bias: usize,
    headers: &'static [libc::Elf64_Phdr],
}

fn main_image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let mut image = Image { start: 0, end: 0, bias: 0, headers: &[] };
        // SAFETY: the callback matches the pointer that is passed along, and keeps it no longer than the call.
        unsafe { libc::dl_iterate_phdr(Some(take_first), (&raw mut image).cast()) };
        image
    })
}

/// Takes down the first object of `dl_iterate_phdr`, which is the main executable, and ends the walk.
unsafe extern "C" fn take_first(info: *mut libc::dl_phdr_info, _size: usize, image: *mut c_void) -> c_int {
    // SAFETY: the C library passes a valid description, and `main_image` a pointer to its own local.
    let (info, image) = unsafe { (&*info, &mut *image.cast::<Image>()) };
    if info.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: the program headers lie in the image of the main executable, which is never unloaded nor changed.
    image.headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    image.bias = info.dlpi_addr as usize;
    let loaded = || image.headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let page_mask = !(crate::mapping::page_size() - 1);
    let start = loaded().map(|header| image.bias.wrapping_add(header.p_vaddr as usize) & page_mask).min();
    let end = loaded().map(|header| image.bias.wrapping_add((header.p_vaddr + header.p_memsz) as usize)).max();
    (image.start, image.end) = (start.unwrap_or(0), end.unwrap_or(0));
    1
}

impl Image {
    /// Whether the range lies in memory of the image that is mapped, and read-only once the program runs: a segment
    /// without write permission, or what the loader protects after relocating it. In a program linked without that
    /// protection, any segment.
    fn is_constant(&self, address: usize, len: usize) -> bool {
        let protected = self.headers.iter().any(|header| header.p_type == libc::PT_GNU_RELRO);
        self.headers.iter().any(|header| {
            let trusted = match header.p_type {
                libc::PT_LOAD => header.p_flags & libc::PF_R != 0 && (header.p_flags & libc::PF_W == 0 || !protected),
                kind => kind == libc::PT_GNU_RELRO,
            };
            let start = self.bias.wrapping_add(header.p_vaddr as usize);
            let inside = address.checked_sub(start).and_then(|skipped| (header.p_memsz as usize).checked_sub(skipped));
            trusted && inside.is_some_and(|room| len <= room)
        })
    }
}

/// A constant of the executable that another process running the same file can find by its [`offset`](Self::offset).
///
/// Meant as a `static`, or as a promoted constant, which may depend on type parameters:
///
/// ```
/// use tenfold_sys::executable::Exported;
///
/// fn entry<T: std::fmt::Display + Default>() -> &'static Exported<fn() -> String> {
///     const { &Exported::new(7, || T::default().to_string()) }
/// }
/// let offset = entry::<i32>().offset().expect("lies in the main executable");
/// let found = Exported::<fn() -> String>::at(offset, 7).expect("the same executable");
/// assert_eq!(found.value()(), "0");
/// assert!(Exported::<fn() -> String>::at(offset, 8).is_none(), "another fingerprint");
/// assert!(Exported::<fn() -> i32>::at(offset, 7).is_none(), "another type");
/// ```
///
/// Why believing an offset is sound enough to be safe: [`at`](Self::at) looks only at memory of the main executable that
/// is mapped and constant, so the reads are of valid bytes that nobody changes; it wants the alignment, a magic number
/// that is private to this module, the caller's fingerprint, and the [`TypeId`] of `T` in their places. All four are
/// found together where the compiler has laid out an `Exported<T>` of this executable, and nowhere else but by a forger
/// who embeds 32 chosen bytes in the program itself. A damaged offset, a foreign executable, another type or another
/// version of the protocol are `None`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Exported<T> {
    magic: u64,
    fingerprint: u64,
    of: TypeId,
    value: T,
}

const MAGIC: u64 = 0x7e1d_f01d_9a3c_55e1;

impl<T: Copy + Send + Sync + 'static> Exported<T> {
    /// An exported value; the fingerprint stands for whatever both sides must agree on.
    pub const fn new(fingerprint: u64, value: T) -> Self {
        Self { magic: MAGIC, fingerprint, of: TypeId::of::<T>(), value }
    }

    /// Where it lies, counted from the start of the executable's image; `None` if that is not in the constant part of
    /// the main executable (a shared library, the heap, a `static` that is mutable inside).
    pub fn offset(&'static self) -> Option<u64> {
        let address = core::ptr::from_ref(self) as usize;
        let image = main_image();
        image.is_constant(address, size_of::<Self>()).then(|| (address - image.start) as u64)
    }

    /// The exported value at the offset, if there is one with this type and fingerprint in this executable.
    pub fn at(offset: u64, fingerprint: u64) -> Option<&'static Self> {
        let image = main_image();
        let address = image.start.checked_add(usize::try_from(offset).ok()?)?;
        let pointer = core::ptr::with_exposed_provenance::<Self>(address);
        if !pointer.is_aligned() || !image.is_constant(address, size_of::<Self>()) {
            return None;
        }
        // SAFETY: aligned, inside one mapped segment that is constant while the program runs; any bytes are a u64, and a
        // TypeId is only compared, which any bytes survive.
        let head = unsafe { ((*pointer).magic, (*pointer).fingerprint, (&raw const (*pointer).of).read()) };
        // SAFETY: the magic number, the fingerprint and the type are in place, so the compiler put an `Exported<T>` here
        // (see the type's documentation), and constant memory of the main executable is 'static.
        (head == (MAGIC, fingerprint, TypeId::of::<T>())).then(|| unsafe { &*pointer })
    }

    /// The value.
    pub fn value(&self) -> T {
        self.value
    }
}

impl<T> fmt::Debug for Exported<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exported").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// A function out of nothing: the value of a zero-sized function type, which has no bytes to send. Any other `F` is a
/// compile error.
///
/// # Safety
/// A value of `F` has existed in a process that runs this executable (and was `Send`, `Sync` and `'static`, if it is
/// used elsewhere): then the type is inhabited and holding a second copy of a `Copy` value gives away nothing.
pub const unsafe fn conjure<F: Copy + 'static>() -> F {
    const { assert_no_captures::<F>() };
    // SAFETY: a zero-sized value has no bytes, so any aligned address holds one; the caller vouches that the type is
    // inhabited.
    unsafe { core::ptr::NonNull::<F>::dangling().read() }
}

const fn assert_no_captures<F>() {
    assert!(
        size_of::<F>() == 0,
        "the function captures variables, or is a pointer: another process cannot see what is behind; pass them as arguments"
    );
}

/// Proof that a function which captures nothing has existed in this process. It can be turned into an [`Exported`]
/// entry, by which another process of the same executable calls the function: see [`entry`](Self::entry). Everything
/// about it is safe, so that the layers above need no `unsafe`.
///
/// ```compile_fail
/// let captured = 3;
/// tenfold_sys::executable::Function::of(move || captured);
/// ```
#[derive(Debug)]
pub struct Function<F>(PhantomData<F>);

impl<F> Clone for Function<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Function<F> {}

impl<F: Copy + Send + Sync + 'static> Function<F> {
    /// Takes note of the function. One that captures variables is a compile error.
    pub fn of(_function: F) -> Self {
        const { assert_no_captures::<F>() };
        Self(PhantomData)
    }

    /// The function.
    pub fn get(self) -> F {
        // SAFETY: `of` was given a value, and it alone makes a `Function`.
        unsafe { conjure() }
    }

    /// The entry by which a process of the same executable runs [`Trampoline::call`] of `T` on this function: hand its
    /// [`Exported::offset`] over, look it up with [`Exported::at`], and [`Entry::call`] it there.
    ///
    /// ```
    /// use tenfold_sys::executable::{Entry, Exported, Function, Trampoline};
    ///
    /// struct OfNumber;
    /// impl<F: Fn(i64) -> i64 + Copy + Send + Sync + 'static> Trampoline<F> for OfNumber {
    ///     type Context = Vec<i64>;
    ///     type Output = ();
    ///     const FINGERPRINT: u64 = 1;
    ///     fn call(function: F, numbers: &mut Vec<i64>) {
    ///         numbers.iter_mut().for_each(|n| *n = function(*n));
    ///     }
    /// }
    ///
    /// let offset = Function::of(|n| n * n).entry::<OfNumber>().offset().expect("in the executable");
    /// // … in the other process:
    /// let entry = Exported::<Entry<Vec<i64>, ()>>::at(offset, 1).expect("the same executable").value();
    /// let mut numbers = vec![1, 2, 3];
    /// entry.call(&mut numbers);
    /// assert_eq!(numbers, [1, 4, 9]);
    /// ```
    pub fn entry<T: Trampoline<F>>(self) -> &'static Exported<Entry<T::Context, T::Output>> {
        const { &Exported::new(T::FINGERPRINT, Entry { call: call_conjured::<F, T> }) }
    }
}

/// What is to be done with a function in the other process.
pub trait Trampoline<F>: 'static {
    /// What the other process passes in.
    type Context: ?Sized + 'static;
    /// What it gets back.
    type Output: 'static;
    /// The fingerprint of the exported entry.
    const FINGERPRINT: u64;

    /// Calls the function.
    fn call(function: F, context: &mut Self::Context) -> Self::Output;
}

/// A function with its [`Trampoline`], made by [`Function::entry`] alone.
pub struct Entry<C: ?Sized, O> {
    call: fn(&mut C) -> O,
}

impl<C: ?Sized, O> Entry<C, O> {
    /// Calls the function through its trampoline.
    pub fn call(&self, context: &mut C) -> O {
        (self.call)(context)
    }
}

impl<C: ?Sized, O> Clone for Entry<C, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: ?Sized, O> Copy for Entry<C, O> {}

impl<C: ?Sized, O> fmt::Debug for Entry<C, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entry")
    }
}

fn call_conjured<F: Copy + Send + Sync + 'static, T: Trampoline<F>>(context: &mut T::Context) -> T::Output {
    // SAFETY: reached through an `Entry`, and one for `F` comes from `Function::<F>::entry`, whose `self` proves a value
    // of `F`: in this process or, by the offset, in one that runs the same executable.
    T::call(unsafe { conjure() }, context)
}

/// Runs the constructors of the main executable that come after `hook` in its `.init_array`, with the arguments that the
/// C library would pass. For a hook that never returns to `main`'s start-up: code of the program may rely on them. Does
/// nothing if `hook` is not an entry there, or in a statically linked executable at a fixed address (whose table cannot
/// be found).
///
/// # Safety
/// Called by `hook` itself, at most once, while the C library runs it as a constructor, and the hook never returns (or
/// each later constructor would run twice).
pub unsafe fn run_constructors_after(hook: extern "C" fn()) {
    type Constructor = extern "C" fn(c_int, *const *const libc::c_char, *const *const libc::c_char);
    let entries = init_array();
    let Some(own) = entries.iter().position(|&entry| entry == hook as *const () as usize) else {
        return;
    };
    let arguments = leaked_arguments();
    let count = c_int::try_from(arguments.len() - 1).unwrap_or(c_int::MAX);
    // SAFETY: `environ` is the C library's own, whose value is only copied.
    let environment = unsafe { environ };
    // Some linkers frame the table with 0 or -1.
    for &entry in entries[own + 1..].iter().filter(|&&entry| entry != 0 && entry != usize::MAX) {
        // SAFETY: an entry of this executable's table of constructors, which take these arguments or fewer; the caller
        // vouches that it has not run.
        unsafe { core::mem::transmute::<usize, Constructor>(entry)(count, arguments.as_ptr(), environment) };
    }
}

unsafe extern "C" {
    static environ: *const *const libc::c_char;
}

/// The addresses of the main executable's constructors, in the order in which they run.
fn init_array() -> &'static [usize] {
    const DT_INIT_ARRAY: u64 = 25;
    const DT_INIT_ARRAYSZ: u64 = 27;
    let image = main_image();
    let Some(dynamic) = image.headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC) else {
        return &[];
    };
    let table = image.bias.wrapping_add(dynamic.p_vaddr as usize) as *const [u64; 2];
    // SAFETY: the dynamic section of the main executable: pairs of tag and value, as many as its header says, mapped for
    // the life of the process and unchanged since the loader relocated it.
    let pairs = unsafe { core::slice::from_raw_parts(table, dynamic.p_memsz as usize / size_of::<[u64; 2]>()) };
    let value = |tag: u64| pairs.iter().take_while(|pair| pair[0] != 0).find(|pair| pair[0] == tag).map(|pair| pair[1]);
    let (Some(array), Some(bytes)) = (value(DT_INIT_ARRAY), value(DT_INIT_ARRAYSZ)) else {
        return &[];
    };
    let array = image.bias.wrapping_add(array as usize) as *const usize;
    // SAFETY: the table of constructors as the dynamic section describes it, relocated before any of them runs and
    // constant from then on.
    unsafe { core::slice::from_raw_parts(array, bytes as usize / size_of::<usize>()) }
}

/// The arguments of this process as C has them, null at the end, for ever.
fn leaked_arguments() -> &'static [*const libc::c_char] {
    let arguments = std::env::args_os().filter_map(|argument| CString::new(argument.into_vec()).ok());
    let pointers = arguments.map(|argument| CString::into_raw(argument).cast_const());
    pointers.chain([core::ptr::null()]).collect::<Vec<_>>().leak()
}

#[cfg(test)]
mod tests {
    use super::*;

    static NUMBER: Exported<u64> = Exported::new(11, 42);
    static FUNCTION: Exported<fn() -> u32> = Exported::new(11, crate::process::pid);

    #[test]
    fn the_image_holds_our_code_and_data() {
        let (start, end) = image();
        for address in [image as *const () as usize, &raw const NUMBER as usize] {
            assert!((start..end).contains(&address));
        }
        let boxed = Box::new(1);
        assert!(!(start..end).contains(&(&raw const *boxed as usize)));
        assert_eq!(identity().expect("identity"), identity().expect("identity"));
    }

    #[test]
    fn an_exported_value_is_found_by_its_offset() {
        let offset = NUMBER.offset().expect("offset");
        assert_eq!(Exported::<u64>::at(offset, 11).map(Exported::value), Some(42));
        let offset = FUNCTION.offset().expect("offset");
        let function = Exported::<fn() -> u32>::at(offset, 11).expect("found").value();
        assert_eq!(function(), crate::process::pid());
    }

    #[test]
    fn what_is_not_exported_is_not_found() {
        let offset = NUMBER.offset().expect("offset");
        assert!(Exported::<u64>::at(offset, 12).is_none());
        assert!(Exported::<i64>::at(offset, 11).is_none());
        assert!(Exported::<u64>::at(u64::MAX, 11).is_none());
        let (start, end) = image();
        let size = (end - start) as u64;
        let found: Vec<u64> = (0..size + 100).filter(|&at| Exported::<u64>::at(at, 11).is_some()).collect();
        assert_eq!(found, [offset]);
        let leaked: &'static Exported<u64> = Box::leak(Box::new(NUMBER));
        assert_eq!(leaked.offset(), None);
    }

    #[test]
    fn functions_come_back() {
        fn double(x: u32) -> u32 {
            2 * x
        }
        assert_eq!(Function::of(double).get()(4), 8);
        assert_eq!(Function::of(|x: u32| x + 1).get()(4), 5);
        // SAFETY: `double` exists.
        let conjured = unsafe { conjure::<fn_item::Of>() };
        assert_eq!(conjured.0, [(); 3]);
    }

    mod fn_item {
        #[derive(Clone, Copy)]
        pub(super) struct Of(pub(super) [(); 3]);
    }

    #[test]
    fn the_constructors_include_those_of_this_program() {
        // std takes down the arguments in one.
        assert!(!init_array().is_empty());
        let (start, end) = image();
        assert!(init_array().iter().all(|entry| (start..end).contains(entry)));
    }
}
