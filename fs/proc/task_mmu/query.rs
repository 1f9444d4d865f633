// SPDX-License-Identifier: GPL-2.0

//! `PROCMAP_QUERY`, the `ioctl` of `/proc/PID/maps` that asks about one VMA.

use crate::{
    abstractions::{
        name::{kernel_page_size, major, minor, offset, FileRef, NameBuffer, VmaFile, VmaName},
        query::{
            cached_build_id,
            copy_to_user,
            flags,
            Fields,
            Query,
            QueryMemory,
            BUILD_ID_SIZE_MAX,
            PATH_MAX, //
        },
    },
    address_space::At,
    walk::{self, Budget},
};
use kernel::{
    mm::{
        virt::{self, vm_flags_t, VmaRef},
        vma_iter::{VmaIter, VmaIterState},
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::aref::ARef,
    uaccess::UserPtr,
};

/// For each flag of a query, the permission of a VMA that it requires or reports.
const PERMISSIONS: [(u64, vm_flags_t); 4] = [
    (flags::READABLE, virt::flags::READ),
    (flags::WRITABLE, virt::flags::WRITE),
    (flags::EXECUTABLE, virt::flags::EXEC),
    (flags::SHARED, virt::flags::MAYSHARE),
];

const ALL_FLAGS: u64 = flags::READABLE
    | flags::WRITABLE
    | flags::EXECUTABLE
    | flags::SHARED
    | flags::COVERING_OR_NEXT
    | flags::FILE_BACKED;

/// Answers the query whose argument is at the user address `arg`, about `mm`.
///
/// What belongs to the VMA is copied while it is locked. Nothing is copied to user space, and no
/// file is read from a disk, before the VMA has been unlocked and the reference to the address
/// space dropped. A reference to the file is only taken if its build ID is not in the page cache.
///
/// Errors: `EFAULT`; `E2BIG` or `EINVAL` for a wrong argument; `ESRCH` if there is no address
/// space; `ENOENT` if no VMA is what was asked for; `ENAMETOOLONG` if its name or build ID is
/// longer than the buffer; `ENOMEM`; `EINTR`.
///
/// Mirrors `do_procmap_query`.
pub(crate) fn answer(mm: Option<&Mm>, arg: UserPtr) -> Result {
    let mut memory = QueryMemory::uninit();
    let query = Query::copy_from_user(arg, &mut memory)?;
    let fields = &mut *query.fields;

    if fields.query_flags & !ALL_FLAGS != 0
        || (fields.vma_name_size != 0) != (fields.vma_name_addr != 0)
        || (fields.build_id_size != 0) != (fields.build_id_addr != 0)
    {
        return Err(EINVAL);
    }

    let mm = mm.and_then(|mm| mm.mmget_not_zero()).ok_or(ESRCH)?;
    if fields.vma_name_size == 0 && fields.build_id_size == 0 {
        let mut state = VmaIterState::new();
        let at = find(VmaIter::new(&mm, &mut state), fields)?;
        describe(at.vma(), fields);
        drop(at.unlock_all());
        // This may sleep for long if it drops the last reference.
        drop(mm);
    } else {
        identify(mm, fields)?;
    }
    query.copy_to_user()
}

/// Answers a query for the name of the VMA, its build ID, or both, which are copied to user space.
#[inline(never)]
fn identify(mm: ARef<MmWithUser>, fields: &mut Fields) -> Result {
    // Before a VMA is locked. If there is no memory, this only matters if the VMA has a name.
    let mut name = match fields.vma_name_size as usize {
        0 => None,
        size => Some(NameBuffer::new(PATH_MAX.min(size))),
    };
    let mut state = VmaIterState::new();
    let mut build_id = [0; BUILD_ID_SIZE_MAX];
    let at = find(VmaIter::new(&mm, &mut state), fields)?;
    let vma = at.vma();
    describe(vma, fields);
    if let Some(buffer) = &mut name {
        fields.vma_name_size = 0;
        if let Some(name) = VmaName::of(vma) {
            let buffer = buffer.as_mut().map_err(|error| *error)?;
            name.copy_to(buffer)?;
            fields.vma_name_size = buffer.bytes().len() as u32;
        }
    }
    let source = match VmaFile::of(vma).filter(|_| fields.build_id_size != 0) {
        None => BuildId::Size(0),
        Some(file) => match cached_build_id(vma, &mut build_id) {
            Err(error) if error == EFAULT => BuildId::In(file.get()),
            known => BuildId::Size(known.unwrap_or(0)),
        },
    };
    drop(at.unlock_all());
    // This may sleep for long if it drops the last reference.
    drop(mm);

    if fields.build_id_size != 0 {
        let size = match source {
            BuildId::Size(size) => size,
            BuildId::In(file) => file.build_id(&mut build_id).unwrap_or(0),
        };
        if size > fields.build_id_size as usize {
            return Err(ENAMETOOLONG);
        }
        fields.build_id_size = size as u32;
    }

    if let Some(Ok(name)) = name.filter(|_| fields.vma_name_size != 0) {
        copy_to_user(
            UserPtr::from_addr(fields.vma_name_addr as usize),
            name.bytes(),
        )?;
    }
    if fields.build_id_size != 0 {
        copy_to_user(
            UserPtr::from_addr(fields.build_id_addr as usize),
            &build_id[..fields.build_id_size as usize],
        )?;
    }
    Ok(())
}

/// Finds the VMA that is asked for.
#[inline(always)]
fn find<'a>(iter: VmaIter<'a>, fields: &Fields) -> Result<At<'a>> {
    let flags = fields.query_flags;
    let required = PERMISSIONS
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .fold(0, |all, (_, permission)| all | permission);
    let any = flags & flags::COVERING_OR_NEXT != 0;
    let address = fields.query_addr as usize;
    let mut at: At<'a> = walk::first(iter, address)?.ok_or(ENOENT)?;
    let mut budget = Budget::FULL;

    loop {
        let vma = at.vma();
        if (flags & flags::FILE_BACKED == 0 || VmaFile::of(vma).is_some())
            && vma.flags() & required == required
            && (any || vma.start() <= address)
        {
            return Ok(at);
        }
        if !any {
            return Err(ENOENT);
        }
        at = walk::next_or_let_go(at, &mut budget)?.ok_or(ENOENT)?;
    }
}

/// What is known of a build ID.
enum BuildId {
    /// It has been copied, and has this size, zero if there is none.
    Size(usize),
    /// It is to be read from this file.
    In(FileRef),
}

/// Fills in what the VMA is, but for its name and build ID.
#[inline(always)]
fn describe(vma: &VmaRef, fields: &mut Fields) {
    fields.vma_start = vma.start() as u64;
    fields.vma_end = vma.end() as u64;
    fields.vma_flags = PERMISSIONS
        .iter()
        .filter(|(_, permission)| vma.flags() & permission != 0)
        .fold(0, |all, (flag, _)| all | flag);
    fields.vma_page_size = kernel_page_size(vma) as u64;

    let file = VmaFile::of(vma);
    let (device, inode) = file.map_or((0, 0), VmaFile::device_and_inode);
    fields.vma_offset = file.map_or(0, |_| offset(vma));
    fields.dev_major = major(device);
    fields.dev_minor = minor(device);
    fields.inode = inode;
}
