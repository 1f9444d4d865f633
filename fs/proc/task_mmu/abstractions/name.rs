// SPDX-License-Identifier: GPL-2.0

//! What the lines of `/proc/PID/maps` and the answers to `PROCMAP_QUERY` say of a VMA.

use core::{marker::PhantomData, ops::Range, ptr::NonNull};
use kernel::{
    bindings, error::from_err_ptr, mm::virt::VmaRef, page::PAGE_SHIFT, prelude::*, seq_file::Line,
};

#[cfg(CONFIG_PER_VMA_LOCK)]
use kernel::mm::MmWithUser;

/// Returns the major number of a device.
///
/// Mirrors `MAJOR`.
#[inline]
pub(crate) fn major(device: bindings::dev_t) -> u32 {
    device >> bindings::MINORBITS
}

/// Returns the minor number of a device.
///
/// Mirrors `MINOR`.
#[inline]
pub(crate) fn minor(device: bindings::dev_t) -> u32 {
    device & ((1 << bindings::MINORBITS) - 1)
}

/// The file that a VMA maps.
///
/// # Invariants
///
/// The pointer is that of a file that stays open for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct VmaFile<'a>(NonNull<bindings::file>, PhantomData<&'a VmaRef>);

impl<'a> VmaFile<'a> {
    /// Returns the file of `vma`, if it has one.
    #[inline]
    pub(crate) fn of(vma: &'a VmaRef) -> Option<Self> {
        // SAFETY: By the type invariants the VMA is valid and cannot change.
        let file = unsafe { (*vma.as_ptr()).vm_file };

        // INVARIANT: The VMA, which is locked for `'a`, keeps the file open.
        NonNull::new(file).map(|file| Self(file, PhantomData))
    }

    /// Returns the address of the `struct file`, to be compared.
    #[inline]
    pub(crate) fn address(self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Returns the number of the inode that is shown to users.
    #[inline]
    pub(crate) fn inode(self) -> u64 {
        self.device_and_inode().1
    }

    /// Returns the device and the number of the inode that is shown to users.
    ///
    /// Mirrors `file_user_inode`.
    #[inline]
    pub(crate) fn device_and_inode(self) -> (bindings::dev_t, u64) {
        // SAFETY: By the type invariants the file is valid, and it keeps its inode alive.
        unsafe {
            let inode = bindings::file_user_inode(self.0.as_ptr());
            ((*(*inode).i_sb).s_dev, (*inode).i_ino as u64)
        }
    }

    /// Writes `MAJOR:MINOR INODE ` to a line.
    // On the way to each line about another file than the one before.
    #[inline(always)]
    pub(crate) fn print_inode(self, line: &mut Line<'_>) {
        let (device, inode) = self.device_and_inode();

        line.put_hexadecimal(u64::from(major(device)), 2);
        line.put(b":");
        line.put_hexadecimal(u64::from(minor(device)), 2);
        line.put(b" ");
        line.put_decimal(inode);
        line.put(b" ");
    }

    /// Returns the path that is shown to users.
    ///
    /// Mirrors `file_user_path`.
    #[inline]
    pub(crate) fn path(self) -> VmaPath<'a> {
        // SAFETY: By the type invariants the file is valid.
        let path = unsafe { bindings::file_user_path(self.0.as_ptr()) };

        // INVARIANT: By the type invariants the file is open for `'a`.
        VmaPath(path, PhantomData)
    }

    /// Takes a reference, which outlives the lock of the VMA.
    #[inline]
    pub(crate) fn get(self) -> FileRef {
        // SAFETY: By the type invariants the file is valid. INVARIANT: This count is ours.
        unsafe { bindings::get_file(self.0.as_ptr()) };
        FileRef(self.0)
    }
}

/// A file that is kept open.
///
/// # Invariants
///
/// Owns a reference count on the file.
pub(crate) struct FileRef(NonNull<bindings::file>);

// SAFETY: Any thread may use a file that it has a reference to, and drop the reference.
unsafe impl Send for FileRef {}

impl FileRef {
    /// Returns a raw pointer to the file.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut bindings::file {
        self.0.as_ptr()
    }
}

impl Drop for FileRef {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference count is ours.
        unsafe { bindings::fput(self.0.as_ptr()) };
    }
}

/// What the last column of `/proc/PID/maps` says of a VMA.
pub(crate) enum VmaName<'a> {
    /// The path of the file.
    Path(VmaPath<'a>),
    /// A text that stands between these two others.
    Text(&'static [u8], &'a CStr, &'static [u8]),
}

/// The path of a file that a VMA maps.
///
/// # Invariants
///
/// The pointer is that of the path of a file that is open for `'a`.
pub(crate) struct VmaPath<'a>(*const bindings::path, PhantomData<&'a VmaRef>);

/// What the text of a path depends on, at some moment: a C `struct d_path_seq`.
#[derive(Default)]
pub(crate) struct PathSeq(bindings::d_path_seq);

/// Returns whether the memory has been given a name.
///
/// Mirrors `anon_vma_name`.
#[inline]
fn has_anon_name(vma: &VmaRef) -> bool {
    #[cfg(CONFIG_ANON_VMA_NAME)]
    // SAFETY: By the type invariants the VMA is valid and cannot change.
    return !unsafe { (*vma.as_ptr()).anon_name }.is_null();

    #[cfg(not(CONFIG_ANON_VMA_NAME))]
    {
        let _ = vma;
        false
    }
}

impl<'a> VmaName<'a> {
    /// Returns the name of `vma`, if it has one.
    ///
    /// Mirrors `get_vma_name`.
    #[inline]
    pub(crate) fn of(vma: &'a VmaRef) -> Option<Self> {
        // SAFETY: By the type invariants the VMA is valid and cannot change.
        if !has_anon_name(vma) && unsafe { bindings::vma_is_unnamed(vma.as_ptr()) } {
            return None;
        }

        let mut path = core::ptr::null();
        let mut name: *const c_char = core::ptr::null();
        let mut format: *const c_char = core::ptr::null();

        // SAFETY: By the type invariants the VMA is valid and cannot change.
        unsafe { bindings::get_vma_name(vma.as_ptr(), &mut path, &mut name, &mut format) };

        if !path.is_null() {
            // INVARIANT: The VMA, which is locked for `'a`, keeps its file open.
            return Some(Self::Path(VmaPath(path, PhantomData)));
        }
        if name.is_null() {
            return None;
        }
        // SAFETY: The name is a string, and part of the VMA or of what it keeps alive.
        let name = unsafe { CStr::from_char_ptr(name) };
        if format.is_null() {
            return Some(Self::Text(b"", name, b""));
        }
        // SAFETY: The format is a string constant with one `%s`.
        let format: &'static [u8] = unsafe { CStr::from_char_ptr(format) }.to_bytes();
        let mut parts = format.splitn(2, |&c| c == b'%');
        let before = parts.next().unwrap_or_default();
        let after = parts.next().and_then(|rest| rest.strip_prefix(b"s"));
        Some(Self::Text(before, name, after.unwrap_or_default()))
    }

    /// Returns the name that memory has been given, which `vma` has instead of the path of its
    /// file.
    #[inline]
    pub(crate) fn of_memory(vma: &'a VmaRef) -> Option<Self> {
        has_anon_name(vma).then(|| Self::of(vma)).flatten()
    }

    /// Copies the name to `buffer`.
    ///
    /// Errors: `ENAMETOOLONG` if there is no room for the name and a zero byte after it.
    #[inline]
    pub(crate) fn copy_to(&self, buffer: &mut NameBuffer) -> Result {
        let size = buffer.size;
        let memory: *mut u8 = buffer.memory.spare_capacity_mut().as_mut_ptr().cast();

        // INVARIANT: `d_path` puts the path at the end of the buffer, everything else begins at its
        // start.
        buffer.used = match self {
            Self::Path(path) => {
                // SAFETY: By the type invariants the path is valid, and the buffer is of this size.
                let start = from_err_ptr(unsafe {
                    bindings::d_path(path.0, memory.cast(), size as c_int)
                })?;
                start as usize - memory as usize..size
            }
            Self::Text(before, name, after) => {
                let mut end = 0;
                for part in [*before, name.to_bytes(), *after, b"\0"] {
                    if part.len() > size - end {
                        return Err(ENAMETOOLONG);
                    }
                    // SAFETY: There is room for it, as was just checked.
                    unsafe {
                        core::ptr::copy_nonoverlapping(part.as_ptr(), memory.add(end), part.len())
                    };
                    end += part.len();
                }
                0..end
            }
        };

        Ok(())
    }
}

/// Memory for a copy of the name of a VMA.
///
/// # Invariants
///
/// `memory` has room for `size` bytes. The bytes `used` are among them, and initialised.
pub(crate) struct NameBuffer {
    memory: KVec<u8>,
    size: usize,
    used: Range<usize>,
}

impl NameBuffer {
    /// Allocates an empty buffer of `size` bytes.
    ///
    /// Context: Process context, may sleep. Errors: `ENOMEM`.
    #[inline]
    pub(crate) fn new(size: usize) -> Result<Self> {
        // INVARIANT: The memory has just been allocated, and none of it is used.
        Ok(Self {
            memory: KVec::with_capacity(size, GFP_KERNEL)?,
            size,
            used: 0..0,
        })
    }

    /// Returns the name and the zero byte after it, or nothing if there is no name.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants.
        unsafe {
            core::slice::from_raw_parts(self.memory.as_ptr().add(self.used.start), self.used.len())
        }
    }
}

impl VmaName<'_> {
    /// Writes the name at the end of a line.
    #[inline]
    pub(crate) fn print(&self, line: &mut Line<'_>) {
        match self {
            Self::Path(path) => path.print(line, c"\n"),
            Self::Text(before, name, after) => {
                for part in [before, name.to_bytes(), after] {
                    line.put(part);
                }
            }
        }
    }
}

impl VmaPath<'_> {
    /// Writes the path to a line, the characters `escaped` of it in octal digits.
    ///
    /// Mirrors `seq_path`.
    #[inline(always)]
    pub(crate) fn print(&self, line: &mut Line<'_>, escaped: &'static CStr) {
        let fill = |room: *mut u8, size: usize| {
            let size = size.min(c_int::MAX as usize);
            // SAFETY: By the type invariants the path is valid. There is that much room.
            let text = unsafe { bindings::d_path(self.0, room.cast(), size as c_int) };
            // It is at the end of the room, with a zero byte behind it.
            let text = from_err_ptr(text).ok()?.cast::<u8>();
            let len = size - 1 - (text as usize - room as usize);
            // SAFETY: So these are the bytes of the text.
            let bytes = unsafe { core::slice::from_raw_parts(text, len) };
            if !has_any(bytes, escaped.to_bytes()) {
                return Some((text, len));
            }
            // SAFETY: The text may be moved to the start of the room that it is in.
            let end = NonNull::new(unsafe {
                bindings::seq_mangle_path(room.cast(), text.cast(), escaped.as_char_ptr())
            })?;
            Some((room, end.as_ptr() as usize - room as usize))
        };
        // SAFETY: Both texts are in the room, and written.
        unsafe { line.put_by(fill) };
    }

    /// Returns the addresses of the dentry and the mount.
    #[inline]
    pub(crate) fn address(&self) -> (usize, usize) {
        // SAFETY: By the type invariants the path is valid.
        unsafe { ((*self.0).dentry as usize, (*self.0).mnt as usize) }
    }

    /// Returns what the text of the path depends on, to find out later whether it is the same.
    /// Returns [`None`] if it may change at any moment.
    ///
    /// Mirrors `d_path_begin`.
    #[inline]
    pub(crate) fn seq(&self) -> Option<PathSeq> {
        let mut seq = PathSeq::default();

        // SAFETY: By the type invariants the path is valid.
        unsafe { bindings::d_path_begin(self.0, &mut seq.0) }.then_some(seq)
    }

    /// Returns `false` only if the text of the path is what it was at `seq`.
    ///
    /// Mirrors `d_path_retry`.
    #[inline]
    pub(crate) fn has_changed_since(&self, seq: &PathSeq) -> bool {
        // SAFETY: By the type invariants the path is valid.
        unsafe { bindings::d_path_retry(self.0, &seq.0) }
    }
}

/// Returns whether a text has one of `characters`.
#[inline(always)]
fn has_any(text: &[u8], characters: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;

    let words = text.chunks_exact(core::mem::size_of::<u64>());
    let rest = words.remainder();
    // Zero for such a character. Only such a byte borrows from its highest bit, or one above it.
    words.into_iter().any(|word| {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        characters.iter().any(|&character| {
            let word = word ^ u64::from(character) * ONES;
            word.wrapping_sub(ONES) & !word & 0x80 * ONES != 0
        })
    }) || rest.iter().any(|byte| characters.contains(byte))
}

/// Returns whether memory without a file is part of what the process has had as heap or stack since
/// `execve`.
///
/// Mirrors `vma_is_initial_heap` and `vma_is_initial_stack`.
#[cfg(CONFIG_PER_VMA_LOCK)]
#[inline]
pub(crate) fn is_initial_heap_or_stack(mm: &MmWithUser, range: &Range<usize>) -> bool {
    let mm = mm.as_raw();
    // A process may set them meanwhile. So `READ_ONCE()` is meant.
    //
    // SAFETY: No lock is needed. The `struct mm_struct` is there for as long as it is borrowed, and
    // any value of these aligned words is valid.
    let (start_brk, brk, start_stack) = unsafe {
        (
            (&raw const (*mm).__bindgen_anon_1.start_brk).read_volatile(),
            (&raw const (*mm).__bindgen_anon_1.brk).read_volatile(),
            (&raw const (*mm).__bindgen_anon_1.start_stack).read_volatile(),
        )
    };
    (range.start < brk && range.end > start_brk)
        || (range.start <= start_stack && range.end >= start_stack)
}

/// What a VMA without a file belongs to.
#[cfg(CONFIG_NUMA)]
pub(crate) enum Initial {
    Heap,
    Stack,
}

#[cfg(CONFIG_NUMA)]
impl Initial {
    /// Returns what a VMA has been part of since `execve`.
    ///
    /// Mirrors `vma_is_initial_heap` and `vma_is_initial_stack`.
    #[inline]
    pub(crate) fn of(vma: &VmaRef) -> Option<Self> {
        // SAFETY: By the type invariants the VMA is valid and cannot change. It belongs to an
        // address space, which is pinned: no gate VMA is asked about.
        unsafe {
            if bindings::vma_is_initial_heap(vma.as_ptr()) {
                Some(Self::Heap)
            } else if bindings::vma_is_initial_stack(vma.as_ptr()) {
                Some(Self::Stack)
            } else {
                None
            }
        }
    }
}

/// Returns the offset of a VMA in what it maps, in bytes.
#[inline]
pub(crate) fn offset(vma: &VmaRef) -> u64 {
    // SAFETY: By the type invariants the VMA is valid and cannot change.
    unsafe { ((*vma.as_ptr()).vm_pgoff as u64) << PAGE_SHIFT }
}

/// Returns the size of the pages in which a VMA is changed, in bytes.
///
/// Mirrors `vma_kernel_pagesize`.
#[inline]
pub(crate) fn kernel_page_size(vma: &VmaRef) -> usize {
    // SAFETY: By the type invariants the VMA is valid and cannot change.
    unsafe { bindings::vma_kernel_pagesize(vma.as_ptr()) }
}
