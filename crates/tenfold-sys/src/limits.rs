//! What this process may use: resource limits, memory, processors.

use crate::error::Result;
use rustix::process::{Resource as Kernel, Rlimit};
use std::path::{Path, PathBuf};

/// A resource with a limit a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `RLIMIT_AS`: bytes of address space, every mapping counted.
    AddressSpace,
    /// `RLIMIT_DATA`: bytes of private writable memory.
    Data,
    /// `RLIMIT_FSIZE`: how large a file may get, memory files included.
    FileSize,
    /// `RLIMIT_NOFILE`: one more than the highest descriptor.
    OpenFiles,
    /// `RLIMIT_CORE`: bytes of a core dump.
    Core,
}

impl Resource {
    fn kernel(self) -> Kernel {
        match self {
            Self::AddressSpace => Kernel::As,
            Self::Data => Kernel::Data,
            Self::FileSize => Kernel::Fsize,
            Self::OpenFiles => Kernel::Nofile,
            Self::Core => Kernel::Core,
        }
    }
}

/// The soft and the hard limit ([`getrlimit`]), `None` for unlimited. Does not block.
///
/// [`getrlimit`]: https://man7.org/linux/man-pages/man2/getrlimit.2.html
pub fn get(resource: Resource) -> (Option<u64>, Option<u64>) {
    let limit = rustix::process::getrlimit(resource.kernel());
    (limit.current, limit.maximum)
}

/// Sets the soft limit of this process ([`setrlimit`]) and leaves the hard one. `EINVAL` when it would exceed the hard
/// limit.
///
/// [`setrlimit`]: https://man7.org/linux/man-pages/man2/getrlimit.2.html
pub fn set_soft(resource: Resource, soft: Option<u64>) -> Result<()> {
    let maximum = rustix::process::getrlimit(resource.kernel()).maximum;
    rustix::process::setrlimit(resource.kernel(), Rlimit { current: soft, maximum })
}

/// Bytes that the machine can still give without swapping (`MemAvailable` of [`/proc/meminfo`]), `None` where that is
/// not told.
///
/// [`/proc/meminfo`]: https://man7.org/linux/man-pages/man5/proc_meminfo.5.html
pub fn memory_available() -> Option<u64> {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least memory limit, in bytes, of the [control groups] that this process is in, their ancestors included; `None`
/// for none. Reads a few small files.
///
/// [control groups]: https://docs.kernel.org/admin-guide/cgroup-v2.html
pub fn cgroup_memory_limit() -> Option<u64> {
    least_cgroup_limit(&std::fs::read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup"))
}

fn least_cgroup_limit(own_groups: &str, mount: &Path) -> Option<u64> {
    own_groups.lines().filter_map(|line| least_limit_of_group(line, mount)).min()
}

/// The least limit on the way from the group of a line `id:controllers:/path` up to the root of its hierarchy. In a
/// container the path may be the host's and not exist here; then what counts is the mount's own root, on the way too.
fn least_limit_of_group(line: &str, mount: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, file): (PathBuf, _) = match controllers {
        "" => (mount.to_path_buf(), "memory.max"),
        v1 if v1.split(',').any(|controller| controller == "memory") => (mount.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let group = root.join(path.trim_start_matches('/'));
    let on_the_way = group.ancestors().take_while(|directory| directory.starts_with(&root));
    // Version 1 writes "unlimited" as the largest multiple of a page.
    let limits =
        on_the_way.filter_map(|directory| std::fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok());
    limits.filter(|&limit: &u64| limit < 1 << 62).min()
}

/// How many processors this process may use, by its affinity and its cgroup's quota; at least 1.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, core::num::NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forked_test::forked;
    use crate::process::exit_now;

    #[test]
    fn a_soft_limit_can_be_set_and_lifted() {
        let (_, hard) = get(Resource::Core);
        forked(|| {
            let lowered = set_soft(Resource::Core, Some(0)).is_ok() && get(Resource::Core) == (Some(0), hard);
            let lifted = set_soft(Resource::Core, hard).is_ok() && get(Resource::Core) == (hard, hard);
            exit_now(i32::from(!(lowered && lifted)));
        })
        .join();
        for resource in [Resource::AddressSpace, Resource::Data, Resource::FileSize, Resource::OpenFiles] {
            let (soft, hard) = get(resource);
            assert!(soft.unwrap_or(u64::MAX) <= hard.unwrap_or(u64::MAX));
        }
    }

    #[test]
    fn this_machine_has_memory_and_processors() {
        assert!(memory_available() > Some(0));
        assert!(cpus() >= 1);
        assert_ne!(cgroup_memory_limit(), Some(0));
    }

    #[test]
    fn meminfo() {
        assert_eq!(parse_meminfo("MemTotal: 9 kB\nMemAvailable:    12 kB\n"), Some(12 * 1024));
        assert_eq!(parse_meminfo("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let mount = std::env::temp_dir().join(format!("tenfold-cgroup-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = mount.join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        };
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "5000\n");
        write("memory.max", "9000\n");
        write("memory/c/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/memory.limit_in_bytes", "4000\n");
        assert_eq!(least_cgroup_limit("0::/a/b\n", &mount), Some(5000));
        assert_eq!(least_cgroup_limit("0::/not/here\n", &mount), Some(9000));
        assert_eq!(least_cgroup_limit("3:cpu,memory:/c\n1:cpu:/\n", &mount), Some(4000));
        assert_eq!(least_cgroup_limit("1:cpu:/a\nnonsense\n", &mount), None);
        std::fs::remove_dir_all(&mount).expect("clean up");
    }
}
