// SPDX-License-Identifier: GPL-2.0

//! An address space for KUnit tests.

use super::MmWithUser;
use crate::{
    bindings,
    cpu::CpuId,
    cpumask::{Cpumask, CpumaskVar},
    error::{to_result, Error, Result},
    kunit::in_kunit_test,
    prelude::*,
    processor::cpu_relax,
    sync::{
        aref::ARef,
        atomic::{Acquire, Atomic, Relaxed, Release},
        Arc,
    },
    time::{delay::fsleep, Delta, Instant, Monotonic},
    types::NotThreadSafe,
    workqueue,
};
use core::{ops::Range, ptr::NonNull};

pub use bindings::{PROT_NONE, PROT_READ, PROT_WRITE};

/// An address space without any mappings at first, attached to the thread that runs the test.
///
/// KUnit detaches it when the test ends.
pub struct TestMm {
    mm: ARef<MmWithUser>,
    // The mappings are made in the address space of the current thread.
    _nts: NotThreadSafe,
}

impl TestMm {
    /// Makes an address space and attaches it to the thread of the test.
    ///
    /// Errors: `EINVAL` outside a test, or `ENOMEM`.
    pub fn attach() -> Result<Self> {
        if !in_kunit_test() {
            return Err(EINVAL);
        }

        // SAFETY: This is the thread of a test, which is a kernel thread made for it.
        to_result(unsafe { bindings::kunit_attach_mm() })?;

        Ok(Self {
            mm: current!().mm().ok_or(ENOMEM)?.into(),
            _nts: NotThreadSafe,
        })
    }

    /// Maps private anonymous memory at exactly these addresses, with `PROT_*` protection bits,
    /// instead of what is mapped there.
    pub fn map(&self, range: Range<usize>, prot: u32) -> Result {
        self.map_with(range, prot, 0)
    }

    /// Like [`TestMm::map`], with pages for all of it, that can be written to and are not huge.
    pub fn populate(&self, range: Range<usize>) -> Result {
        let prot = bindings::PROT_READ | bindings::PROT_WRITE;
        self.map_with(range, prot, bindings::MAP_POPULATE | bindings::MAP_STACK)
    }

    /// Maps private anonymous memory that grows down when what is below it is used.
    #[cfg(not(CONFIG_STACK_GROWSUP))]
    pub fn map_stack(&self, range: Range<usize>) -> Result {
        let prot = bindings::PROT_READ | bindings::PROT_WRITE;
        self.map_with(range, prot, bindings::MAP_GROWSDOWN)
    }

    /// Grows the stack that is above `addr` down to it, like a page fault there.
    #[cfg(not(CONFIG_STACK_GROWSUP))]
    pub fn grow_stack(&self, addr: usize) -> Result {
        // SAFETY: The address space is alive. `mmap_lock` is not held by this thread before, nor
        // after this: it is released by `expand_stack` if that fails.
        unsafe {
            bindings::mmap_read_lock(self.mm.as_raw());
            if bindings::expand_stack(self.mm.as_raw(), addr).is_null() {
                return Err(ENOMEM);
            }
            bindings::mmap_read_unlock(self.mm.as_raw());
        }
        Ok(())
    }

    fn map_with(&self, range: Range<usize>, prot: u32, flags: u32) -> Result {
        let flags = flags | bindings::MAP_PRIVATE | bindings::MAP_ANONYMOUS | bindings::MAP_FIXED;

        // SAFETY: The current thread has an address space, all arguments are checked.
        let address = unsafe {
            bindings::vm_mmap(
                core::ptr::null_mut(),
                range.start,
                range.len(),
                prot as usize,
                flags as usize,
                0,
            )
        };

        // An error is a negative number in place of the address.
        if address == range.start {
            Ok(())
        } else {
            Err(Error::from_errno(address as c_int))
        }
    }

    /// Unmaps these addresses.
    pub fn unmap(&self, range: Range<usize>) -> Result {
        // SAFETY: The current thread has an address space, all arguments are checked.
        to_result(unsafe { bindings::vm_munmap(range.start, range.len()) })
    }

    /// Gives these addresses a flag that others do not have (`MADV_DONTFORK`), so that a VMA that
    /// they are a part of is split. The VMA goes on to exist as the part that has the flag.
    #[cfg(CONFIG_ADVISE_SYSCALLS)]
    pub fn set_flag(&self, range: Range<usize>) -> Result {
        self.advise(range, bindings::MADV_DONTFORK)
    }

    /// Takes that flag from these addresses again, so that they are merged with what is beside them
    /// and has the same protection.
    #[cfg(CONFIG_ADVISE_SYSCALLS)]
    pub fn clear_flag(&self, range: Range<usize>) -> Result {
        self.advise(range, bindings::MADV_DOFORK)
    }

    /// Makes these pages huge pages, which [`TestMm::populate`] has made.
    #[cfg(all(CONFIG_ADVISE_SYSCALLS, CONFIG_TRANSPARENT_HUGEPAGE))]
    pub fn collapse(&self, range: Range<usize>) -> Result {
        self.advise(range.clone(), bindings::MADV_HUGEPAGE)?;
        self.advise(range, bindings::MADV_COLLAPSE)
    }

    #[cfg(CONFIG_ADVISE_SYSCALLS)]
    fn advise(&self, range: Range<usize>, advice: u32) -> Result {
        // SAFETY: The address space is alive, all arguments are checked.
        to_result(unsafe {
            bindings::do_madvise(self.mm.as_raw(), range.start, range.len(), advice as c_int)
        })
    }

    /// Makes a process that has a copy of this address space, and exits at once.
    pub fn fork(&self) -> Result {
        extern "C" fn exit(_arg: *mut c_void) -> c_int {
            // SAFETY: This is only called by the thread of the new process, which holds nothing.
            unsafe { bindings::do_exit(0) }
        }

        let mut args = bindings::kernel_clone_args {
            // A kernel thread ignores its signals, so that the process is reaped without a wait.
            exit_signal: bindings::SIGCHLD as c_int,
            fn_: Some(exit),
            ..Default::default()
        };
        // SAFETY: The current thread has this address space. The arguments are those of a thread
        // that runs a function of the kernel.
        let pid = unsafe { bindings::kernel_clone(&mut args) };

        if pid < 0 {
            Err(Error::from_errno(pid))
        } else {
            Ok(())
        }
    }

    /// Runs `f` while the VMA at `addr` has as many readers as its reference count can count.
    ///
    /// A thread that changes that VMA meanwhile waits until `f` has returned. Errors: `ENOENT` if
    /// nothing is mapped there.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    pub fn with_too_many_readers<R>(&self, addr: usize, f: impl FnOnce() -> R) -> Result<R> {
        use crate::types::ScopeGuard;

        const OTHERS: i32 = bindings::VM_REFCNT_LIMIT as i32 - 1;
        let guard = self.mm.mmap_read_lock();
        let vma = guard.vma_lookup(addr).ok_or(ENOENT)?;
        // SAFETY: The pointer is that of the reference count of a VMA, which is attached while
        // `mmap_lock` is held, and after that because it has the readers that are added here: a
        // thread that detaches a VMA waits for them. The count is only accessed atomically.
        let count = unsafe { Atomic::from_ptr(&raw mut (*vma.as_ptr()).vm_refcnt.refs.counter) };
        count.add(OTHERS, Relaxed);
        let _readers = ScopeGuard::new(|| count.add(-OTHERS, Relaxed));
        drop(guard);

        Ok(f())
    }

    /// Makes `change`. Errors: those of `change`, or `EAGAIN` if the thread has slept meanwhile.
    pub fn without_sleep(&self, change: impl FnOnce(&TestMm) -> Result) -> Result {
        let slept = times_slept();
        change(self)?;

        if times_slept() == slept {
            Ok(())
        } else {
            Err(EAGAIN)
        }
    }

    /// Makes another address space without any mappings. Errors: `ENOMEM`.
    pub fn another(&self) -> Result<ARef<MmWithUser>> {
        // SAFETY: There are no requirements.
        let mm = NonNull::new(unsafe { bindings::mm_alloc() }).ok_or(ENOMEM)?;

        // SAFETY: No other thread has a pointer to the new one yet, and its only reference is
        // passed on. The other is alive, and its size was set when it was made.
        unsafe {
            (*mm.as_ptr()).__bindgen_anon_1.task_size =
                (*self.mm.as_raw()).__bindgen_anon_1.task_size;
            Ok(ARef::from_raw(mm.cast()))
        }
    }

    /// Runs `change` with the current thread attached to `other` in place of this address space.
    pub fn elsewhere(&self, other: &MmWithUser, change: fn(&TestMm) -> Result) -> Result {
        // SAFETY: This is a kernel thread that is attached to this address space.
        unsafe { bindings::kthread_unuse_mm(self.mm.as_raw()) };
        // SAFETY: It has been detached just now.
        let result = unsafe { attached_to(other.into(), change) };
        // SAFETY: As above, and the reference keeps this address space alive.
        unsafe { bindings::kthread_use_mm(self.mm.as_raw()) };
        result
    }

    /// Starts another thread that will make `change` to this address space when it is told to.
    pub fn writer<F>(&self, change: F) -> Result<Writer>
    where
        F: FnOnce(&TestMm) -> Result + Send + 'static,
    {
        self.writer_of(workqueue::system_unbound(), change)
    }

    /// Like [`TestMm::writer`], with the two threads on different CPUs: the current thread leaves
    /// its CPU to the other one.
    ///
    /// Errors: `ENODEV` if there is no other CPU.
    pub fn writer_on_another_cpu<F>(&self, change: F) -> Result<Writer>
    where
        F: FnOnce(&TestMm) -> Result + Send + 'static,
    {
        let mut cpus = CpumaskVar::new_zero(GFP_KERNEL)?;
        let here = CpuId::current();
        cpus.set(here);
        stay_on(&cpus)?;
        let writer = self.writer_of(workqueue::system(), change)?;
        cpus.setall();
        cpus.clear(here);
        stay_on(&cpus).map_err(|_| ENODEV)?;

        Ok(writer)
    }

    fn writer_of<F>(&self, queue: &workqueue::Queue, change: F) -> Result<Writer>
    where
        F: FnOnce(&TestMm) -> Result + Send + 'static,
    {
        let order = Arc::new(Atomic::new(WAIT), GFP_KERNEL)?;
        let writer = Writer(order.clone());
        let mm = self.mm.clone();

        queue.try_spawn(GFP_KERNEL, move || {
            // A test that fails ends without running its destructors.
            let start = Instant::<Monotonic>::now();
            while order.load(Acquire) == WAIT && start.elapsed() < PATIENCE {
                fsleep(Delta::from_micros(50));
            }
            if order.load(Acquire) == GO {
                // SAFETY: This is a thread of a work queue, which has no address space.
                let result = unsafe { attached_to(mm, change) };
                order.store(result.map_or(FAILED, |()| DONE), Release);
            }
        })?;

        Ok(writer)
    }
}

impl core::ops::Deref for TestMm {
    type Target = MmWithUser;

    fn deref(&self) -> &MmWithUser {
        &self.mm
    }
}

/// Lets the current thread run on these CPUs only.
fn stay_on(cpus: &Cpumask) -> Result {
    let task = current!().as_ptr();
    // SAFETY: The current thread exists for as long as it runs, so that no reference is needed. The
    // mask is borrowed until the call returns, which has copied it under the locks of the thread.
    to_result(unsafe { bindings::set_cpus_allowed_ptr(task, cpus.as_raw()) })
}

/// Returns how often the current thread has given up its CPU to wait for something.
fn times_slept() -> usize {
    let task = current!().as_ptr();
    // SAFETY: The current thread exists for as long as it runs, so that no reference is needed. It
    // is the only one that writes to its count, in `__schedule`, so that no lock is needed either.
    unsafe { (*task).nvcsw }
}

/// Runs `change` with the current thread attached to `mm`.
///
/// # Safety
///
/// This is called by a kernel thread without an address space.
unsafe fn attached_to<F>(mm: ARef<MmWithUser>, change: F) -> Result
where
    F: FnOnce(&TestMm) -> Result,
{
    let mm = TestMm {
        mm,
        _nts: NotThreadSafe,
    };

    // SAFETY: By the safety requirements of this function. The reference keeps `mm` alive.
    unsafe { bindings::kthread_use_mm(mm.as_raw()) };
    let result = change(&mm);
    // SAFETY: As above, and `mm` was attached just now.
    unsafe { bindings::kthread_unuse_mm(mm.as_raw()) };
    result
}

/// How long the two threads wait for each other.
const PATIENCE: Delta = Delta::from_secs(10);

const WAIT: i32 = 0;
const GO: i32 = 1;
const DONE: i32 = 2;
const FAILED: i32 = 3;
const GIVE_UP: i32 = 4;

/// A thread that will change an address space, see [`TestMm::writer`].
pub struct Writer(Arc<Atomic<i32>>);

impl Writer {
    /// Lets the thread make the change, and returns when it has.
    ///
    /// This does not sleep, so that it can be called between any two steps of a reader. The change
    /// must not have to wait for a lock of that reader. It cannot be made on a kernel without
    /// preemption that has only one CPU.
    ///
    /// Errors: `EINVAL` if the change failed, `ETIMEDOUT` if it was not done within ten seconds.
    pub fn run(self) -> Result {
        self.start();
        self.finish()
    }

    /// Lets the thread begin the change, which may have to wait for a lock of the reader.
    pub fn start(&self) {
        self.0.store(GO, Release);
    }

    /// Returns whether the change that was begun is over.
    pub fn is_finished(&self) -> bool {
        self.0.load(Acquire) != GO
    }

    /// Waits until the change that was begun has been made, see [`Writer::run`].
    pub fn finish(self) -> Result {
        let start = Instant::<Monotonic>::now();

        while !self.is_finished() {
            if start.elapsed() > PATIENCE {
                return Err(ETIMEDOUT);
            }
            cpu_relax();
        }

        if self.0.load(Acquire) == DONE {
            Ok(())
        } else {
            Err(EINVAL)
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A change that has been started is not stopped.
        let _ = self.0.cmpxchg(WAIT, GIVE_UP, Relaxed);
    }
}
