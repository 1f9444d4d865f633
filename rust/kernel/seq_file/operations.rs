// SPDX-License-Identifier: GPL-2.0

//! Sequential files that iterate.
//!
//! C header: [`include/linux/seq_file.h`](srctree/include/linux/seq_file.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/seq_file.html>

use super::SeqFile;
use crate::{
    bindings,
    error::{to_result, Result},
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::Mutex,
    task::cond_resched,
    time::{msecs_to_jiffies, Jiffies, Msecs},
    uaccess::{faults, UserPtr},
};
use core::{
    marker::PhantomData,
    pin::Pin,
    ptr::{addr_of_mut, null_mut},
};

/// The index of a record in a [`SeqFile`]: a `loff_t` whose meaning is the file's own.
///
/// `seq_file` gives [`Operations::start`] zero for the first record, and otherwise a value that the
/// file itself has set.
pub type Index = bindings::loff_t;

/// A sequential file whose records are produced one after the other.
///
/// `seq_file` fills its buffer in chunks. For each it calls `start`, then `show` and `next` in
/// turn, then `stop`, all on one thread and with the lock of the [`SeqFile`] held. Each lifetime is
/// a type:
///
/// ```text
///   open                                                     release
///    |--------------------- Self and State ---------------------|
///        start                   stop
///          |------ Session -------|          references
///             |---- Cursor ----|             locks, borrowed from the references
/// ```
///
/// A cursor is a record until it is shown, which turns it into what `next` goes on from. Whichever
/// of the two is left at the end of a chunk is dropped first, then the session, and then `stop` is
/// called.
///
/// # Examples
///
/// A file of one line:
///
/// ```
/// use kernel::seq_file::{Index, Operations, SeqFile};
///
/// struct Answer(u64);
///
/// impl Operations for Answer {
///     type State = ();
///     type Session = u64;
///     type Cursor<'s> = &'s u64;
///     type AfterShow<'s> = ();
///
///     fn start(&self, index: Index) -> Result<Option<u64>> {
///         Ok((index == 0).then_some(self.0))
///     }
///
///     fn first<'s>(
///         &self,
///         _state: &mut (),
///         session: &'s mut u64,
///         _index: &mut Index,
///     ) -> Result<Option<Self::Cursor<'s>>> {
///         Ok(Some(session))
///     }
///
///     fn next<'s>(
///         &self,
///         _state: &mut (),
///         _shown: Self::AfterShow<'s>,
///         index: &mut Index,
///     ) -> Result<Option<Self::Cursor<'s>>> {
///         *index += 1;
///         Ok(None)
///     }
///
///     fn show<'s>(
///         &self,
///         _state: &mut (),
///         m: &SeqFile,
///         number: Self::Cursor<'s>,
///     ) -> Result<Self::AfterShow<'s>> {
///         let mut line = m.line();
///         line.put_decimal(*number);
///         line.finish();
///         Ok(())
///     }
/// }
///
/// let file = Answer(42);
/// assert_eq!(file.start(0)?, Some(42));
/// assert_eq!(file.start(1)?, None);
/// # Ok::<(), Error>(())
/// ```
pub trait Operations: Sized + Send + Sync + 'static {
    /// What changes from one chunk to the next, protected by the lock of the [`SeqFile`].
    type State: Send;

    /// What is held from `start` to `stop` and may sleep when it is dropped.
    type Session;

    /// A record, and what keeps it from changing. It is dropped before the session.
    type Cursor<'s>;

    /// What is left of a cursor when its record has been shown. It is dropped before the session.
    type AfterShow<'s>;

    /// Begins a chunk at `index`. Returns [`None`] at the end of the file.
    fn start(&self, index: Index) -> Result<Option<Self::Session>>;

    /// Finds the first record of a chunk that begins at `index`, and sets `index` to what follows
    /// it.
    ///
    /// Returns [`None`] if there is no record at `index` or after it.
    fn first<'s>(
        &self,
        state: &mut Self::State,
        session: &'s mut Self::Session,
        index: &mut Index,
    ) -> Result<Option<Self::Cursor<'s>>>;

    /// Goes on to the record at `index`, and sets `index` to what follows it.
    ///
    /// `index` has to change, whether there is another record or not.
    fn next<'s>(
        &self,
        state: &mut Self::State,
        shown: Self::AfterShow<'s>,
        index: &mut Index,
    ) -> Result<Option<Self::Cursor<'s>>>;

    /// Prints the record.
    ///
    /// A record that does not fit is found and printed again later, into a larger buffer.
    fn show<'s>(
        &self,
        state: &mut Self::State,
        m: &SeqFile,
        cursor: Self::Cursor<'s>,
    ) -> Result<Self::AfterShow<'s>>;

    /// Ends a chunk, also one that could not be started.
    #[inline]
    fn stop(&self, _state: &mut Self::State) {}
}

/// What a [`SeqFile`] has as its private data.
///
/// `file` may be used by several threads at once. The fields `chunk` and `state` are only used by
/// the thread that holds `turn`.
///
/// # Invariants
///
/// While there may be a chunk, `chunk` is the pointer to a value that only the thread that holds
/// `turn` uses.
#[pin_data]
struct Private<T: Operations> {
    chunk: *mut Chunk<T>,
    state: T::State,
    file: T,
    /// Held for all of a `read(2)` and all of an `lseek(2)`, so that the chunks of a read follow
    /// each other whatever other threads do with the file. Taken before the lock of the
    /// [`SeqFile`], so no thread has to wait for that lock.
    #[pin]
    turn: Mutex<()>,
}

/// What there is from `start` to `stop`. It is on the stack of the reader.
///
/// # Invariants
///
/// If `cursor` or `shown` is not [`None`] then `session` is not [`None`] either, and is borrowed by
/// it. All are [`None`] except between `start` and `stop`.
struct Chunk<T: Operations> {
    cursor: Option<T::Cursor<'static>>,
    shown: Option<T::AfterShow<'static>>,
    session: Option<T::Session>,
}

impl SeqFile {
    /// The most that one read gives, in bytes.
    ///
    /// Other threads that read or seek by the same open file have to wait meanwhile. This is 64
    /// pages, after which there is little left to gain: a call costs what a few lines cost.
    const MAX_READ: usize = 256 << 10;

    /// After how long a read ends at the end of a chunk, for the same reason.
    const MAX_TIME: Msecs = 10;

    /// Opens `file` as a sequential file that iterates by the `T` that `open` makes, from the state
    /// that it says how to make.
    ///
    /// `open` is called when all memory has been allocated.
    ///
    /// Context: Process context, may sleep. Errors: `ENOMEM`, or what `open` returns.
    ///
    /// Mirrors `__seq_open_private`.
    ///
    /// # Safety
    ///
    /// `inode` and `file` must be those of a file that is being opened and that no other thread can
    /// use yet. If this succeeds, its `release` operation must call [`SeqFile::release_iter`] with
    /// the same `T`, and until then nothing else may change its private data. The code of `T` must
    /// not be unloaded while the file is open.
    pub unsafe fn open_iter<T: Operations, I: Init<T::State>>(
        inode: *mut bindings::inode,
        file: *mut bindings::file,
        open: impl FnOnce() -> Result<(T, I)>,
    ) -> Result {
        let private = KBox::<Private<T>>::new_uninit(GFP_KERNEL_ACCOUNT)?;

        // SAFETY: The caller promises that the file is being opened, and that the table, which is
        // part of the code of `T`, outlives it.
        to_result(unsafe { bindings::seq_open(file, Table::<T>::OPERATIONS) })?;

        let (opened, state) = match open() {
            Ok(opened) => opened,
            Err(error) => {
                // SAFETY: `seq_open` succeeded, and no other thread uses the file yet.
                unsafe { bindings::seq_release(inode, file) };
                return Err(error);
            }
        };

        // INVARIANT: There is no chunk.
        let private = private.write_pin_init(try_pin_init!(Private {
            chunk: null_mut(),
            state <- state,
            file: opened,
            turn <- new_mutex!((), "seq_file::turn"),
        }? Error));
        let private = match private {
            Ok(private) => private,
            Err(error) => {
                // SAFETY: As above.
                unsafe { bindings::seq_release(inode, file) };
                return Err(error);
            }
        };

        // SAFETY: `seq_open` has made a `struct seq_file` the private data of the file, and no
        // other thread uses it yet. The box is not moved out of until `release_iter` drops it.
        unsafe {
            (*(*file).private_data.cast::<bindings::seq_file>()).private =
                KBox::into_raw(Pin::into_inner_unchecked(private)).cast();
        }

        Ok(())
    }

    /// Releases what [`SeqFile::open_iter`] has opened.
    ///
    /// Context: Process context, may sleep.
    ///
    /// Mirrors `seq_release_private`.
    ///
    /// # Safety
    ///
    /// `inode` and `file` must be those of a file that `open_iter::<T>` has opened and that is
    /// being released.
    pub unsafe fn release_iter<T: Operations>(
        inode: *mut bindings::inode,
        file: *mut bindings::file,
    ) {
        // SAFETY: By the function's requirements `open_iter` has set both pointers, and being the
        // last user of the file we own the box.
        unsafe {
            let m: *mut bindings::seq_file = (*file).private_data.cast();
            drop(KBox::from_raw((*m).private.cast::<Private<T>>()));
            bindings::seq_release(inode, file);
        }
    }

    /// Calls `f` while no other thread reads or seeks, with a [`Chunk`] for what it reads.
    ///
    /// Errors: `EINTR` if a fatal signal arrives before.
    ///
    /// # Safety
    ///
    /// `file` must have been opened by `open_iter::<T>`, and must stay open until this returns.
    unsafe fn with_chunk<T: Operations, R>(
        file: *mut bindings::file,
        f: impl FnOnce() -> R,
    ) -> Result<R> {
        // SAFETY: By the function's requirements.
        let private = unsafe { Self::private_of::<T>(file) };
        // SAFETY: The field is only ever borrowed immutably.
        let turn = unsafe { &(*private).turn };
        let _guard = turn.lock_killable()?;

        let mut chunk = Chunk::<T> {
            cursor: None,
            shown: None,
            session: None,
        };
        // SAFETY: The field is ours. INVARIANT: The chunk is not touched here until `f` has
        // returned.
        unsafe { (*private).chunk = &mut chunk };
        let result = f();
        // SAFETY: The field is ours. Whatever was started has been stopped.
        unsafe { (*private).chunk = null_mut() };
        Ok(result)
    }

    /// Reads one chunk of records after the other, for as long as a whole buffer of them has room
    /// at the destination. So a large read needs no large buffer, and a reader that reads by pages
    /// gets a chunk for each.
    ///
    /// It ends earlier, with a whole record, when it has read 256 KiB, has worked for 10 ms,
    /// measured in ticks, has a signal or other work pending, or is to let another task run when it
    /// returns to user space. It also ends if the destination of another chunk is not present, and
    /// waiting for it might take long. If this is only noticed while the chunk is copied, the next
    /// read begins with the rest of it.
    ///
    /// Context: Process context, may sleep. Between two chunks, and while one is copied, only the
    /// locks are held that keep other threads from moving the position. Errors: `EINTR` if a fatal
    /// signal arrives before it is this thread's turn, or those of `T`.
    ///
    /// Mirrors `seq_read`.
    ///
    /// # Safety
    ///
    /// `file` must have been opened by `open_iter::<T>`, and must stay open until this returns.
    /// `pos` must be valid. `to` is a user address.
    pub unsafe fn read_iter<T: Operations>(
        file: *mut bindings::file,
        to: *mut c_char,
        size: usize,
        pos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: By the function's requirements `open_iter` has set the pointer.
        let m: *mut bindings::seq_file = unsafe { (*file).private_data.cast() };
        let read_chunks = || {
            let size = size.min(Self::MAX_READ);
            let begin = jiffies();
            let is_late = || jiffies().wrapping_sub(begin) > msecs_to_jiffies(Self::MAX_TIME);
            let mut done = 0;

            loop {
                let at = to.wrapping_add(done);
                let read = {
                    // The first chunk waits for page faults, as every read does.
                    let _no_faults = (done != 0).then(faults::disable);
                    // SAFETY: The file is open. `to` and what follows it is checked when it is
                    // written to.
                    unsafe { bindings::seq_read(file, at, size - done, pos) }
                };
                if read > 0 {
                    done += read as usize;
                } else if done == 0 {
                    return read;
                } else if read != -(bindings::EFAULT as isize)
                    || is_late()
                    || !faults::fault_in_anonymous(UserPtr::from_ptr(at.cast()))
                {
                    // What was read is returned. If an error lasts, the next call returns it.
                    return done as isize;
                }

                // SAFETY: The file is open, and it is this thread's turn.
                if unsafe { (*m).count } != 0 {
                    // Only a part of the chunk has been copied. There is room for the rest.
                    continue;
                }
                let current = current!();
                if size - done < PAGE_SIZE
                    || current.signal_pending()
                    || current.task_work_pending()
                    || current.need_resched_lazy()
                    || is_late()
                    || !faults::is_there(UserPtr::from_ptr(to.wrapping_add(done).cast()), PAGE_SIZE)
                {
                    return done as isize;
                }
                cond_resched();
            }
        };

        // SAFETY: The function's requirements are the same.
        match unsafe { Self::with_chunk::<T, _>(file, read_chunks) } {
            Ok(read) => read,
            Err(error) => error.to_errno() as isize,
        }
    }

    /// Changes the position of a file that is read by [`SeqFile::read_iter`].
    ///
    /// Context: Process context, may sleep. Errors: `EINTR` if a fatal signal arrives before it is
    /// this thread's turn, or those of `T`.
    ///
    /// Mirrors `seq_lseek`.
    ///
    /// # Safety
    ///
    /// `file` must have been opened by `open_iter::<T>`, and must stay open until this returns.
    pub unsafe fn lseek_iter<T: Operations>(
        file: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // SAFETY: The file is open.
        let seek = || unsafe { bindings::seq_lseek(file, offset, whence) };

        // SAFETY: The function's requirements are the same.
        match unsafe { Self::with_chunk::<T, _>(file, seek) } {
            Ok(position) => position,
            Err(error) => error.to_errno().into(),
        }
    }

    /// # Safety
    ///
    /// `file` must have been opened by `open_iter::<T>`.
    unsafe fn private_of<T: Operations>(file: *mut bindings::file) -> *mut Private<T> {
        // SAFETY: By the function's requirements both pointers are those that `open_iter` has set.
        unsafe {
            (*(*file).private_data.cast::<bindings::seq_file>())
                .private
                .cast()
        }
    }

    /// Returns what `open_iter::<T>` was given for `file`.
    ///
    /// # Safety
    ///
    /// `file` must have been opened by `open_iter::<T>`, and must not be released during `'a`.
    pub unsafe fn iter_of<'a, T: Operations>(file: *mut bindings::file) -> &'a T {
        // SAFETY: By the function's requirements. There is no mutable reference to the field
        // `file`, nor to all of the private data.
        unsafe { &(*Self::private_of::<T>(file)).file }
    }
}

/// Returns the number of ticks since some time in the past.
#[inline]
fn jiffies() -> Jiffies {
    // SAFETY: The counter may change at any moment, and is read as a whole.
    unsafe { (&raw const bindings::jiffies).read_volatile() }
}

/// The `struct seq_operations` of a `T`.
struct Table<T>(PhantomData<T>);

impl<T: Operations> Table<T> {
    const OPERATIONS: &'static bindings::seq_operations = &bindings::seq_operations {
        start: Some(Self::start),
        next: Some(Self::next),
        stop: Some(Self::stop),
        show: Some(Self::show),
    };

    /// The pointer that `seq_file` expects from `start` and `next`. `seq_file` only passes it on to
    /// the functions of this table, which ignore it, so for a record any pointer that is neither
    /// NULL nor an error is valid.
    fn outcome(private: *mut Private<T>, found: Result<bool>) -> *mut c_void {
        match found {
            Ok(true) => private.cast(),
            Ok(false) => core::ptr::null_mut(),
            Err(error) => error.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// `m` must be a `struct seq_file` opened by `open_iter::<T>`, `pos` its index, and this must
    /// be called within `with_chunk`, and not again before `stop`.
    unsafe extern "C" fn start(m: *mut bindings::seq_file, pos: *mut Index) -> *mut c_void {
        // SAFETY: `m` is valid and its private data is what `open_iter` has set.
        let private = unsafe { (*m).private.cast::<Private<T>>() };
        // SAFETY: The field is only ever borrowed immutably.
        let file = unsafe { &(*private).file };
        // SAFETY: It is this thread's turn, and no other reference to these is alive: they are only
        // made by the functions of this table. `pos` is the index of `m`.
        let (state, index) = unsafe { (&mut (*private).state, &mut *pos) };
        // SAFETY: It is this thread's turn.
        let chunk = unsafe { (*private).chunk };

        let found = file.start(*index).and_then(|session| {
            let Some(session) = session else {
                return Ok(false);
            };

            // SAFETY: As above, and by the type invariants there is no cursor, so that the field is
            // not borrowed. The cursor that will borrow it for what is called `'static` here, and
            // what is left of it, are dropped first, in `stop` at the latest; until then it is
            // neither touched nor moved, see `with_chunk`. `first` has to work for a borrow of any
            // lifetime, so that it cannot keep it elsewhere.
            let session: &'static mut T::Session =
                unsafe { (*addr_of_mut!((*chunk).session)).insert(session) };

            let cursor = file.first(state, session, index)?;
            let found = cursor.is_some();

            // SAFETY: As above. INVARIANT: The session was set just now.
            unsafe { addr_of_mut!((*chunk).cursor).write(cursor) };
            Ok(found)
        });

        Self::outcome(private, found)
    }

    /// # Safety
    ///
    /// Like `start`, between it and `stop`.
    unsafe extern "C" fn next(
        m: *mut bindings::seq_file,
        _v: *mut c_void,
        pos: *mut Index,
    ) -> *mut c_void {
        // SAFETY: `m` is valid and its private data is what `open_iter` has set.
        let private = unsafe { (*m).private.cast::<Private<T>>() };
        // SAFETY: The field is only ever borrowed immutably.
        let file = unsafe { &(*private).file };
        // SAFETY: It is this thread's turn.
        let chunk = unsafe { (*private).chunk };
        // SAFETY: It is this thread's turn, and no other reference to these is alive: they are only
        // made by the functions of this table. `pos` is the index of `m`.
        let (state, shown, index) =
            unsafe { (&mut (*private).state, &mut (*chunk).shown, &mut *pos) };

        let found = match shown.take() {
            None => Ok(false),
            Some(shown) => file.next(state, shown, index).map(|cursor| {
                let found = cursor.is_some();
                // INVARIANT: The session has not been touched.
                //
                // SAFETY: As above. The field is `None` since `show` has taken what was in it, so
                // there is nothing to drop.
                unsafe { addr_of_mut!((*chunk).cursor).write(cursor) };
                found
            }),
        };

        Self::outcome(private, found)
    }

    /// # Safety
    ///
    /// Like `start`, after it. `seq_file` calls this after a `start` that has failed as well.
    unsafe extern "C" fn stop(m: *mut bindings::seq_file, _v: *mut c_void) {
        // SAFETY: `m` is valid and its private data is what `open_iter` has set. It is this
        // thread's turn, and no other reference to these is alive. The cursor and what is left of
        // it are gone when the session, which they borrow, is dropped.
        unsafe {
            let private = (*m).private.cast::<Private<T>>();
            let chunk = (*private).chunk;
            (*chunk).cursor = None;
            (*chunk).shown = None;
            (*chunk).session = None;
            (*private).file.stop(&mut (*private).state);
        }
    }

    /// # Safety
    ///
    /// Like `next`, and the last `start` or `next` has found a record.
    unsafe extern "C" fn show(m: *mut bindings::seq_file, _v: *mut c_void) -> c_int {
        // SAFETY: `m` is valid and its private data is what `open_iter` has set.
        let private = unsafe { (*m).private.cast::<Private<T>>() };
        // SAFETY: The field is only ever borrowed immutably.
        let file = unsafe { &(*private).file };
        // SAFETY: It is this thread's turn.
        let chunk = unsafe { (*private).chunk };
        // SAFETY: It is this thread's turn, and no other reference to these is alive: they are only
        // made by the functions of this table.
        let (state, cursor) = unsafe { (&mut (*private).state, &mut (*chunk).cursor) };
        let Some(cursor) = cursor.take() else {
            return 0;
        };

        // SAFETY: `m` is valid, and while its lock is held no other thread uses it.
        match file.show(state, unsafe { SeqFile::from_raw(m) }, cursor) {
            Ok(shown) => {
                // INVARIANT: The session has not been touched.
                //
                // SAFETY: As above. The field is `None`: `show` is called once for what `start` or
                // `next` has found, and `next` has taken what was in it.
                unsafe { addr_of_mut!((*chunk).shown).write(Some(shown)) };
                0
            }
            Err(error) => error.to_errno(),
        }
    }
}
