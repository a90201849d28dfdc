//! The nursery: a single-threaded process that forks all others.
//!
//! It is exec'd once a family, by whoever needs it first, so it holds nothing of anybody's state;
//! what it forks starts in well under a millisecond. It sleeps on one futex word, the *bell*, which
//! requests and the deaths of its children both move.
//!
//! ```text
//!  requester                              nursery
//!  slot's word WANTED ┐
//!  summary bit        ├─ bell + 1 ──────▶ fork; the child adopts the slot; WANTED off
//!  wait on the record ┘                   child died: sweep ─▶ record ─▶ whoever joins; reap
//! ```
//!
//! *Killed here:* its children die with it, but for those that outlive the root. The next one who
//! needs a process finds it dead and makes another, which looks at all slots for what is wanted.
//! A child that was forked but not yet announced exits by itself, since its parent is gone.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::collections::HashMap;

use tenfold_shm::heap::{BlockId, SLOTS};
use tenfold_shm::kill_point::{KillPoint, reach};
use tenfold_shm::participant::{self, Forked, Identity};
use tenfold_shm::process_record::{ProcessRecord, RECORD_CELL};
use tenfold_shm::{Handle, Heap};
use tenfold_sys::clock::{self, Deadline};
use tenfold_sys::process::{self, ExitStatus, Pid, PidFd};
use tenfold_sys::{Errno, futex, procfs, signals};

use crate::launch::{LaunchError, LaunchSpec, prepare};
use crate::places::{self, Service, flag};
use crate::process::LastWords;
use crate::start_hook::{self, CANNOT_START, Role, SingleThreaded};
use crate::{child, children, ending, function, pool, warden};

/// Nurseries in a row that may die before they serve.
const FAILURES_MAX: u64 = 3;
/// A warden that dies earlier than this died young.
const YOUNG: Duration = Duration::from_secs(1);
/// How often to look around while there is no warden.
const UNWATCHED: Duration = Duration::from_millis(100);
/// How long to wait for a nursery that is stopped.
const STOPPED_MAX: Duration = Duration::from_secs(2);
/// Roster entries that one bit of the summary stands for.
const ENTRIES_A_BIT: u32 = SLOTS / 64;
/// Signals from the keyboard: for the program, not for its helpers.
pub(crate) const KEYBOARD: [i32; 3] = [SIGINT, SIGQUIT, SIGTSTP];
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGCHLD: i32 = 17;
const SIGTSTP: i32 = 20;

/// Makes sure that the family has a nursery that lives, or is about to.
///
/// # Errors
/// If none can be made.
pub(crate) fn ensure(heap: Heap) -> Result<(), LaunchError> {
    loop {
        let word = Service::Nursery.word(heap);
        let before = word.load(Ordering::Acquire);
        if let Some(who) = Identity::from_bits(before as u32) {
            if lives(heap, who) {
                return Ok(());
            }
            bury(heap, who)?;
        }
        let me = participant::me(heap)?;
        note_root(heap);
        let claimed = participant::claim(heap, me)?;
        places::flags(heap, claimed).store(flag::STARTED | flag::NURSERY, Ordering::Release);
        let mine = u64::from(claimed.bits());
        if word.compare_exchange(before, mine, Ordering::AcqRel, Ordering::Acquire).is_err() {
            participant::abandon(heap, claimed);
            continue;
        }
        reach(KillPoint::NurseryClaimed);
        return match start_hook::exec(heap, Role::Nursery, claimed) {
            Ok(pid) => {
                participant::announce_pid(heap, claimed, pid);
                children::remember(claimed, pid, None);
                Ok(())
            }
            Err(error) => {
                let _ = word.compare_exchange(mine, 0, Ordering::AcqRel, Ordering::Acquire);
                participant::abandon(heap, claimed);
                Err(error.into())
            }
        };
    }
}

/// Puts on record who the root is, for the warden: its slot alone may one day be another's.
fn note_root(heap: Heap) {
    let root = participant::root(heap).and_then(|slot| participant::roster(slot, heap).identity(slot));
    if let Some(root) = root {
        let word = Service::Root.word(heap);
        let _ = word.compare_exchange(0, root.bits().into(), Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Whether the nursery runs or is being made by a process that runs.
pub(crate) fn lives(heap: Heap, who: Identity) -> bool {
    let entry = participant::roster(who.slot(), heap);
    if !who.is_current(heap) {
        return false;
    }
    // In this order: it may be born between the two looks.
    if !entry.is_birth() && !entry.is_live() {
        return false;
    }
    match (entry.pid(), entry.parent()) {
        // Also when it has been born, a process has no number for a moment; its maker is about to tell it.
        (0, Some(maker)) => {
            let maker_entry = participant::roster(maker.slot(), heap);
            maker.is_current(heap) && participant::is_alive(maker_entry.pid(), maker_entry.start_time())
        }
        (0, None) => false,
        (pid, _) if entry.is_birth() => participant::is_alive(pid, 0),
        (pid, _) => participant::is_alive(pid, entry.start_time()),
    }
}

/// Sweeps a dead nursery, and counts those that died too early.
fn bury(heap: Heap, who: Identity) -> Result<(), LaunchError> {
    let status = children::reap(heap, who);
    let how = status.or_else(|| participant::roster(who.slot(), heap).exit_status());
    let word = Service::Nursery.word(heap);
    if who.is_current(heap) {
        participant::sweep_participant(heap, who, how);
    }
    if Service::NurseryReady.identity(heap) == Some(who) {
        return Ok(());
    }
    // Counted once: by the one that empties the word.
    let mine = u64::from(who.bits());
    if word.compare_exchange(mine, 0, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return Ok(());
    }
    let attempts = Service::NurseryFailures.word(heap).fetch_add(1, Ordering::AcqRel) + 1;
    if attempts < FAILURES_MAX {
        return Ok(());
    }
    Service::NurseryFailures.word(heap).store(0, Ordering::Release);
    let how = match how {
        Some(ExitStatus::Exited(code)) => format!("exit code {code}"),
        Some(ExitStatus::Signaled { signal, .. }) => format!("signal {signal}"),
        None => "in an unknown way".to_owned(),
    };
    Err(LaunchError::NurseryDies { attempts, how })
}

/// Asks the nursery for the process for which `claimed` was claimed and filled, and makes sure that
/// there is one.
///
/// # Errors
/// If there is no nursery and none can be made; the claim stays.
pub(crate) fn ask_for(heap: Heap, claimed: Identity) -> Result<(), LaunchError> {
    places::slot_word(heap, claimed, places::WANTED).store(u64::from(claimed.bits()), Ordering::Release);
    call(heap, claimed)
}

/// Has the nursery look at a slot.
fn call(heap: Heap, claimed: Identity) -> Result<(), LaunchError> {
    let bit = 1 << (claimed.slot() / ENTRIES_A_BIT);
    Service::Wanted.word(heap).fetch_or(bit, Ordering::AcqRel);
    reach(KillPoint::LaunchWanted);
    // One that was asleep at its bell and wakes up lives; that costs less than to ask the system.
    if ring(heap)? { Ok(()) } else { ensure(heap) }
}

/// Asks once more for a process that was asked for a while ago, if the nursery has not come to it.
///
/// # Errors
/// As [`ask_for`].
pub(crate) fn remind(heap: Heap, claimed: Identity) -> Result<(), LaunchError> {
    let wanted = places::slot_word(heap, claimed, places::WANTED).load(Ordering::Acquire);
    if wanted == u64::from(claimed.bits()) { call(heap, claimed) } else { ensure(heap) }
}

/// A process that could not be made has ended: whoever joins it is told why, and nobody makes it later.
pub(crate) fn not_started(heap: Heap, claimed: Identity, reason: String) {
    if !participant::roster(claimed.slot(), heap).is_birth() {
        return;
    }
    let record = ProcessRecord::of(heap, claimed);
    if let Some(record) = record.ok().filter(|record| record.identity() == Some(claimed)) {
        let _ = record.leave_words(&LastWords::NotStarted(reason).encode());
    }
    participant::sweep_participant(heap, claimed, Some(ExitStatus::Exited(CANNOT_START)));
}

/// Rings the nursery's bell; tells whether that woke it.
pub(crate) fn ring(heap: Heap) -> tenfold_shm::Result<bool> {
    let (bell, asleep) = places::bell(heap)?;
    bell.fetch_add(1, Ordering::SeqCst);
    Ok(asleep.load(Ordering::SeqCst) != 0 && futex::wake(bell, 1) > 0)
}

/// Tells a stopped nursery, for which nobody should wait for ever, from a slow one.
///
/// It counts slices of waiting and not time: where the whole program is stopped and goes on, as by Ctrl-Z, time has
/// passed and nobody has waited.
#[derive(Debug, Default)]
pub(crate) struct StopWatch {
    seen: Duration,
}

impl StopWatch {
    /// To be called after each slice of a wait for something that the nursery is to do.
    ///
    /// # Errors
    /// [`LaunchError::NurseryStopped`] if it has been found stopped for a while.
    pub(crate) fn after(&mut self, slice: Duration, heap: Heap) -> Result<(), LaunchError> {
        let nursery = Service::Nursery.identity(heap).filter(|nursery| nursery.is_current(heap));
        let pid = nursery.map_or(0, |nursery| participant::roster(nursery.slot(), heap).pid());
        if pid == 0 || procfs::state(pid) != Ok(b'T') {
            self.seen = Duration::ZERO;
            return Ok(());
        }
        self.seen += slice;
        if self.seen < STOPPED_MAX { Ok(()) } else { Err(LaunchError::NurseryStopped { pid }) }
    }
}

/// A child: who it is, and its record, which outlives its slot.
struct Nursling {
    who: Identity,
    record: Option<BlockId>,
}

/// What the nursery knows of its warden.
#[derive(Default)]
struct Warden {
    pid: Option<Pid>,
    /// When it was forked last.
    since: u64,
    /// Wardens in a row that died young.
    failures: u32,
}

impl Warden {
    /// When to fork the next: at once, but for one that dies young again and again.
    fn due(&self) -> u64 {
        const AT_ONCE: u32 = 5;
        let wait = Duration::from_millis(match self.failures.checked_sub(AT_ONCE) {
            None => 0,
            Some(more) => (10 << more.min(6)).min(500),
        });
        self.since + wait.as_nanos() as u64
    }
}

struct Nursery {
    heap: Heap,
    me: Identity,
    pid: Pid,
    single: SingleThreaded,
    children: HashMap<Pid, Nursling>,
    warden: Warden,
    /// Keyboard signals that the program had not ignored: its children hear them.
    heard: Vec<i32>,
}

/// What the nursery does until it is killed or the family ends.
pub(crate) fn run(heap: Heap, me: Identity) -> ! {
    process::set_name("tenfold-nursery");
    // Its children inherit the hook.
    function::install_panic_hook();
    let single = match SingleThreaded::check() {
        Ok(single) => single,
        Err(threads) => {
            eprintln!(
                "tenfold: a constructor of this program starts a thread before main ({threads} threads run); \
                 processes cannot be forked then. Use the start method Spawn."
            );
            process::exit_now(CANNOT_START);
        }
    };
    let heard: Vec<i32> = KEYBOARD.into_iter().filter(|&signal| !signals::is_ignored(signal)).collect();
    for &signal in &heard {
        // A helper that dies of a Ctrl-C is started again.
        let _ = signals::ignore(signal);
    }
    // Blocked since the exec.
    signals::unblock(&KEYBOARD);
    let Ok((bell, asleep)) = places::bell(heap) else { process::exit_now(CANNOT_START) };
    if signals::on_child_exit(bell).is_err() {
        process::exit_now(CANNOT_START);
    }
    let mut nursery =
        Nursery { heap, me, pid: process::pid(), single, children: HashMap::new(), warden: Warden::default(), heard };
    reach(KillPoint::NurseryStarting);
    nursery.relieve_warden();
    // A predecessor may have died with requests in hand.
    Service::Wanted.word(heap).store(u64::MAX, Ordering::SeqCst);
    Service::NurseryReady.word(heap).store(u64::from(me.bits()), Ordering::Release);
    Service::NurseryFailures.word(heap).store(0, Ordering::Release);
    loop {
        let seen = bell.load(Ordering::SeqCst);
        if heap.has_ended() || nursery.is_alone() {
            nursery.end();
        }
        nursery.serve();
        nursery.reap();
        nursery.keep_warden();
        let next = pool::tend::tend(heap, &mut |spec| nursery.start(spec));
        asleep.store(1, Ordering::SeqCst);
        if bell.load(Ordering::SeqCst) == seen {
            futex::wait(bell, seen, nursery.rest().min(next));
        }
        asleep.store(0, Ordering::SeqCst);
    }
}

impl Nursery {
    /// Whether the root is gone and there is no warden to notice.
    fn is_alone(&self) -> bool {
        self.warden.pid.is_none()
            && Service::Root.identity(self.heap).is_some_and(|root| !ending::is_alive(self.heap, root))
    }

    /// How long to sleep, pools aside: until something happens, unless there is a warden to be made.
    fn rest(&self) -> Deadline {
        if self.warden.pid.is_some() { Deadline::never() } else { Deadline::after(UNWATCHED) }
    }

    /// Forks all that is wanted.
    fn serve(&mut self) {
        let mut summary = Service::Wanted.word(self.heap).swap(0, Ordering::AcqRel);
        while summary != 0 {
            let bit = summary.trailing_zeros();
            summary &= summary - 1;
            for slot in bit * ENTRIES_A_BIT..(bit + 1) * ENTRIES_A_BIT {
                let entry = participant::roster(slot, self.heap);
                let unborn = entry.identity(slot).filter(|_| entry.is_birth() && entry.pid() == 0);
                let Some(claimed) = unborn else { continue };
                let (wanted, bits) = (places::slot_word(self.heap, claimed, places::WANTED), u64::from(claimed.bits()));
                if wanted.load(Ordering::Acquire) != bits {
                    continue;
                }
                if let Err(errno) = self.fork(claimed) {
                    not_started(self.heap, claimed, format!("fork failed: {errno}"));
                }
                // The child may be dead by now, and the slot the next one's, which is wanted too.
                let _ = wanted.compare_exchange(bits, 0, Ordering::AcqRel, Ordering::Acquire);
            }
        }
    }

    fn fork(&mut self, claimed: Identity) -> Result<(), Errno> {
        if self.heap.has_ended() {
            return Err(Errno::SRCH);
        }
        let midwife = places::slot_word(self.heap, claimed, places::MIDWIFE);
        midwife.store(u64::from(self.me.bits()), Ordering::Relaxed);
        self.map_what_it_needs(claimed);
        // The child may be dead before this process runs again, and the slot somebody else's.
        let record = self.record_of(claimed);
        match self.single.fork(self.heap, claimed, false)? {
            Forked::Child => self.become_child(claimed),
            Forked::Parent(pid) => {
                reach(KillPoint::NurseryForked);
                self.announce(claimed, record, pid);
                self.children.insert(pid, Nursling { who: claimed, record });
                participant::tell_start_time(self.heap, claimed, pid);
                Ok(())
            }
        }
    }

    /// Looks at the memory that the child will look at first: what is mapped here need not be mapped
    /// by each child anew.
    fn map_what_it_needs(&self, claimed: Identity) {
        for index in [RECORD_CELL, places::LAUNCH_CELL, places::NAME_CELL] {
            let id = BlockId::from_bits(places::cell(self.heap, claimed, index).load(Ordering::Acquire));
            if let Some(Ok(block)) = id.map(|id| self.heap.block(id)) {
                // If it cannot be mapped here, the child will see.
                let _ = block.view::<AtomicU32>(self.heap, 0);
            }
        }
    }

    /// The id of the record of a process that is to be forked.
    fn record_of(&self, claimed: Identity) -> Option<BlockId> {
        // The handle is gone before the fork, whose child would take it for its own.
        let record = ProcessRecord::of(self.heap, claimed).ok()?;
        (record.identity() == Some(claimed)).then(|| record.handle().id())
    }

    /// Puts a child on record, while it is on its way itself; one that is to outlive the root does that
    /// itself, once nothing can hold it back any more.
    fn announce(&self, claimed: Identity, record: Option<BlockId>, pid: Pid) {
        let outlives = places::flags(self.heap, claimed).load(Ordering::Acquire) & flag::OUTLIVE != 0;
        if outlives || !claimed.is_current(self.heap) {
            return;
        }
        let record = record.and_then(|id| Handle::from_id(self.heap, id).ok());
        if let Some(Ok(record)) = record.map(ProcessRecord::from_handle) {
            record.announce(pid, 0);
        }
    }

    fn become_child(&self, claimed: Identity) -> ! {
        let _ = signals::default(SIGCHLD);
        for &signal in &self.heard {
            let _ = signals::default(signal);
        }
        if places::flags(self.heap, claimed).load(Ordering::Acquire) & flag::OUTLIVE == 0 {
            let _ = process::die_with_parent();
            if process::parent_pid() != self.pid {
                process::exit_now(CANNOT_START);
            }
        }
        child::run(self.heap, claimed)
    }

    /// For the pool: starts a process on somebody's behalf.
    fn start(&mut self, spec: &LaunchSpec<'_>) -> Result<Identity, LaunchError> {
        let (claimed, record) = prepare(self.heap, spec, flag::NURSED)?;
        // A child would take the handle for its own.
        drop(record);
        match self.fork(claimed) {
            Ok(()) => Ok(claimed),
            Err(errno) => {
                participant::abandon(self.heap, claimed);
                Err(LaunchError::Os { call: "fork", errno })
            }
        }
    }

    /// Reaps and sweeps the dead.
    fn reap(&mut self) {
        let mut any = false;
        while let Some((pid, status)) = process::find_dead() {
            any = true;
            if self.warden.pid == Some(pid) {
                self.warden.pid = None;
                let young = clock::now().saturating_sub(self.warden.since) < YOUNG.as_nanos() as u64;
                self.warden.failures = if young { self.warden.failures + 1 } else { 0 };
            }
            self.bury(pid, status);
        }
        if any {
            ending::settle_estates(self.heap);
        }
    }

    /// Sweeps a dead child, and reaps it only then: as long as its slot stands, its number is its own.
    fn bury(&mut self, pid: Pid, status: ExitStatus) {
        if let Some(child) = self.children.remove(&pid) {
            children::bury(self.heap, child.who, child.record, status);
        }
        reach(KillPoint::NurseryBuried);
        let _ = process::reap(pid);
    }

    /// Ends the warden of a former nursery, of whose death this one would not hear.
    fn relieve_warden(&mut self) {
        if let Some(old) = Service::Warden.identity(self.heap).filter(|old| old.is_current(self.heap)) {
            let entry = participant::roster(old.slot(), self.heap);
            if participant::is_alive(entry.pid(), entry.start_time())
                && let Ok(fd) = PidFd::open(entry.pid())
                && fd.signal(ending::SIGKILL).is_ok()
            {
                fd.wait_dead(Deadline::never());
            }
            participant::sweep_participant(self.heap, old, None);
        }
        self.keep_warden();
    }

    /// Forks a warden unless there is one.
    fn keep_warden(&mut self) {
        if self.warden.pid.is_some() || clock::now() < self.warden.due() {
            return;
        }
        let Ok(claimed) = participant::claim(self.heap, self.me) else { return };
        places::flags(self.heap, claimed).store(flag::STARTED | flag::WARDEN, Ordering::Release);
        Service::WardenBellInode.word(self.heap).store(0, Ordering::Release);
        match self.single.fork(self.heap, claimed, false) {
            Ok(Forked::Child) => {
                start_hook::keep_no_descriptors(self.heap, self.single);
                let _ = signals::default(SIGCHLD);
                warden::run(self.heap, claimed, None)
            }
            Ok(Forked::Parent(pid)) => {
                self.warden.pid = Some(pid);
                self.warden.since = clock::now();
                self.children.insert(pid, Nursling { who: claimed, record: None });
            }
            // The next event tries again.
            Err(_) => participant::abandon(self.heap, claimed),
        }
    }

    /// The root is gone: helps the warden to kill what is to end with it, and reaps the children, so
    /// that they do not stay zombies where nobody reaps orphans.
    fn end(&mut self) -> ! {
        self.heap.declare_ended();
        loop {
            let dying = ending::kill_all(self.heap);
            while let Some((pid, status)) = process::find_dead() {
                self.bury(pid, status);
            }
            if dying.is_empty() {
                process::exit_now(0);
            }
            if let Ok((bell, _)) = places::bell(self.heap) {
                futex::wait(bell, bell.load(Ordering::SeqCst), Deadline::after(Duration::from_millis(5)));
            }
        }
    }
}
