//! The anonymous file that backs the shared heap.
//!
//! It has no name, so nothing is left behind whoever is killed. Its size only grows: `F_SEAL_SHRINK` makes sure that no
//! process can turn another's mapped page into a `SIGBUS`. Killed here: a half-done [`MemoryFile::allocate`] leaves
//! pages allocated that nobody uses; allocating them again is free.

use crate::error::{Errno, Result, retry};
use core::sync::atomic::{AtomicU32, Ordering};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

/// What makes a file the same file: its device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

impl FileIdentity {
    /// The identity of the open file `fd` ([`fstat`]). Does not block.
    ///
    /// [`fstat`]: https://man7.org/linux/man-pages/man2/fstat.2.html
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self { dev: stat.st_dev, ino: stat.st_ino })
    }
}

/// An open, nameless file, close-on-exec, and the identity it had when it was opened: programs that become daemons
/// close every descriptor they find, and the number is then reused.
#[derive(Debug)]
pub struct MemoryFile {
    fd: OwnedFd,
    identity: FileIdentity,
}

impl MemoryFile {
    /// A new empty memory file ([`memfd_create`], sealed against shrinking); `name` shows in `/proc/PID/maps` only.
    ///
    /// Where a kernel or filter refuses memfds (`ENOSYS`, `EPERM`, `EACCES`), it is an unlinked file in the directory
    /// for temporary files, without a seal.
    ///
    /// # Errors
    /// Those of the calls: too many open files, no memory, no place for temporary files. A name with a NUL is `EINVAL`.
    ///
    /// [`memfd_create`]: https://man7.org/linux/man-pages/man2/memfd_create.2.html
    pub fn create(name: &str) -> Result<Self> {
        match rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING) {
            Ok(fd) => {
                rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK)?;
                Self::from_fd(fd)
            }
            Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => Self::create_unlinked(&std::env::temp_dir()),
            Err(error) => Err(error),
        }
    }

    /// The fallback of [`create`](Self::create): a file in `directory` that has no name from birth, or, where the file
    /// system cannot do that, loses its name at once.
    fn create_unlinked(directory: &Path) -> Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        // O_EXCL with O_TMPFILE: nobody can give the file a name later either.
        let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(fd) = retry(|| rustix::fs::open(directory, flags, mode)) {
            return Self::from_fd(fd);
        }
        static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
        loop {
            let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
            let name = format!(".tenfold-{}-{}-{attempt}", crate::process::pid(), crate::clock::now());
            let path = directory.join(name);
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            match retry(|| rustix::fs::open(&path, flags, mode)) {
                Ok(fd) => {
                    rustix::fs::unlink(&path)?;
                    return Self::from_fd(fd);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes over an open file, for instance one inherited from the parent. Fails only where `fstat` does.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let identity = FileIdentity::of(fd.as_fd())?;
        Ok(Self { fd, identity })
    }

    /// Makes the range usable, its pages zero where they are new, and grows the file to its end if need be
    /// ([`fallocate`] with mode 0). May block for as long as the kernel takes to clear the pages.
    ///
    /// A stream of signals cannot starve it: the kernel undoes an interrupted call, so the range is then allocated in
    /// smaller and smaller pieces.
    ///
    /// # Errors
    /// `ENOSPC`, or `EFBIG` beyond `RLIMIT_FSIZE` (then the kernel also sends `SIGXFSZ`, which kills by default: check
    /// [`limits`](crate::limits) first). The part before the failure may stay allocated.
    ///
    /// [`fallocate`]: https://man7.org/linux/man-pages/man2/fallocate.2.html
    pub fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        const SMALLEST_PIECE: u64 = 64 * 1024;
        let end = offset.checked_add(len).ok_or(Errno::FBIG)?;
        let (mut at, mut piece) = (offset, len);
        loop {
            match rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), at, piece.min(end - at)) {
                Ok(()) => {
                    at += piece.min(end - at);
                    if at == end {
                        return Ok(());
                    }
                }
                Err(Errno::INTR) => piece = (piece / 2).max(SMALLEST_PIECE),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sets the file's length; what is beyond its pages reads as zeros and costs no memory
    /// ([ftruncate(2)](https://man7.org/linux/man-pages/man2/ftruncate.2.html)).
    ///
    /// # Errors
    /// `EFBIG` beyond the limits of the file system; `EPERM` when shrinking a sealed file. Beyond
    /// `RLIMIT_FSIZE` the kernel sends `SIGXFSZ`: check that limit first.
    pub fn set_len(&self, len: u64) -> Result<()> {
        rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&self.fd, len))
    }

    /// Gives the memory of the range back; it reads as zero from then on, also through mappings, and the size stays
    /// ([`fallocate`] with `FALLOC_FL_PUNCH_HOLE`). May block briefly. `EOPNOTSUPP` where the file system cannot.
    ///
    /// [`fallocate`]: https://man7.org/linux/man-pages/man2/fallocate.2.html
    pub fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        retry(|| rustix::fs::fallocate(&self.fd, mode, offset, len))
    }

    /// Fills `buf` from `offset` on ([`pread`]). `ENODATA` if the file ends before.
    ///
    /// [`pread`]: https://man7.org/linux/man-pages/man2/pread.2.html
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match retry(|| rustix::io::pread(&self.fd, &mut buf[done..], offset + done as u64))? {
                0 => return Err(Errno::NODATA),
                n => done += n,
            }
        }
        Ok(())
    }

    /// Writes all of `buf` at `offset` ([`pwrite`]). `ENOSPC`, `EFBIG` or `EIO` when the kernel takes only a part.
    ///
    /// [`pwrite`]: https://man7.org/linux/man-pages/man2/pwrite.2.html
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match retry(|| rustix::io::pwrite(&self.fd, &buf[done..], offset + done as u64))? {
                0 => return Err(Errno::IO),
                n => done += n,
            }
        }
        Ok(())
    }

    /// The size of the file in bytes.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks whether a heap's file is empty")]
    pub fn len(&self) -> Result<u64> {
        Ok(rustix::fs::fstat(&self.fd)?.st_size as u64)
    }

    /// Whether the descriptor still names the file that it named at first. One `fstat`; does not block.
    pub fn is_still_ours(&self) -> bool {
        FileIdentity::of(self.as_fd()) == Ok(self.identity)
    }

    /// The number of the descriptor.
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The identity of the file, as it was when this value was made.
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }
}

impl AsFd for MemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exercise(file: &MemoryFile) {
        assert_eq!(file.len(), Ok(0));
        file.allocate(4096, 8192).expect("allocate");
        assert_eq!(file.len(), Ok(12_288));
        file.write_all_at(b"hello", 5000).expect("write");
        let mut back = [1; 7];
        file.read_exact_at(&mut back, 4999).expect("read");
        assert_eq!(&back, b"\0hello\0");
        assert_eq!(file.read_exact_at(&mut back, 12_287), Err(Errno::NODATA));
        file.punch_hole(4096, 4096).expect("punch");
        file.read_exact_at(&mut back, 4999).expect("read");
        assert_eq!(back, [0; 7]);
        assert_eq!(file.len(), Ok(12_288));
        assert!(file.is_still_ours());
        assert!(rustix::io::fcntl_getfd(file.as_fd()).expect("flags").contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn a_memfd_grows_and_cannot_shrink() {
        let file = MemoryFile::create("tenfold-test").expect("create");
        exercise(&file);
        assert_eq!(rustix::fs::ftruncate(file.as_fd(), 0), Err(Errno::PERM));
        assert_eq!(file.allocate(u64::MAX, 2), Err(Errno::FBIG));
    }

    #[test]
    fn the_fallback_works_alike() {
        exercise(&MemoryFile::create_unlinked(&std::env::temp_dir()).expect("create"));
    }

    #[test]
    fn a_reused_descriptor_is_noticed() {
        let file = MemoryFile::create("a").expect("create");
        let other = MemoryFile::create("b").expect("create");
        assert_ne!(file.identity(), other.identity());
        let stolen = MemoryFile { fd: other.fd, identity: file.identity };
        assert!(!stolen.is_still_ours());
    }

    #[test]
    fn a_copy_of_the_descriptor_is_the_same_file() {
        let file = MemoryFile::create("a").expect("create");
        let copy = MemoryFile::from_fd(file.as_fd().try_clone_to_owned().expect("dup")).expect("from_fd");
        assert_eq!(copy.identity(), file.identity());
        assert_ne!(copy.raw_fd(), file.raw_fd());
    }
}
