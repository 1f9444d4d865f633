// SPDX-License-Identifier: GPL-2.0

//! An address space for KUnit tests.

use super::MmWithUser;
use crate::{
    bindings,
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
use core::ops::Range;

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

    /// Like [`TestMm::map`], with pages for all of it, that can be written to.
    pub fn populate(&self, range: Range<usize>) -> Result {
        let prot = bindings::PROT_READ | bindings::PROT_WRITE;
        self.map_with(range, prot, bindings::MAP_POPULATE)
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
        // SAFETY: The address space is alive, all arguments are checked.
        to_result(unsafe {
            bindings::do_madvise(
                self.mm.as_raw(),
                range.start,
                range.len(),
                bindings::MADV_DONTFORK as c_int,
            )
        })
    }

    /// Starts another thread that will make `change` to this address space when it is told to.
    pub fn writer(&self, change: fn(&TestMm) -> Result) -> Result<Writer> {
        let order = Arc::new(Atomic::new(WAIT), GFP_KERNEL)?;
        let writer = Writer(order.clone());
        let mm = self.mm.clone();

        workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
            // A test that fails is ended without its destructors.
            let start = Instant::<Monotonic>::now();
            while order.load(Acquire) == WAIT && start.elapsed() < PATIENCE {
                fsleep(Delta::from_micros(50));
            }
            if order.load(Acquire) == GO {
                order.store(attached_to(mm, change).map_or(FAILED, |()| DONE), Release);
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

/// Runs `change` with the current thread, one of a work queue, attached to `mm`.
fn attached_to(mm: ARef<MmWithUser>, change: fn(&TestMm) -> Result) -> Result {
    let mm = TestMm {
        mm,
        _nts: NotThreadSafe,
    };

    // SAFETY: This is a kernel thread without an address space, and the reference keeps `mm` alive.
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
    /// Has the change made, and returns when it has been.
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

    /// Has the change begun. It may have to wait for a lock of the reader.
    pub fn start(&self) {
        self.0.store(GO, Release);
    }

    /// Returns when the change that was begun has been made, see [`Writer::run`].
    pub fn finish(self) -> Result {
        let start = Instant::<Monotonic>::now();

        while self.0.load(Acquire) == GO {
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
