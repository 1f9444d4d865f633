// SPDX-License-Identifier: GPL-2.0

#include <linux/mm.h>
#include <linux/mmap_lock.h>

__rust_helper void rust_helper_vma_iter_init(struct vma_iterator *vmi,
					     struct mm_struct *mm,
					     unsigned long addr)
{
	vma_iter_init(vmi, mm, addr);
}

__rust_helper void rust_helper_vma_iter_set(struct vma_iterator *vmi,
					    unsigned long addr)
{
	vma_iter_set(vmi, addr);
}

__rust_helper struct vm_area_struct *
rust_helper_vma_next(struct vma_iterator *vmi)
{
	return vma_next(vmi);
}

__rust_helper struct vm_area_struct *
rust_helper_get_gate_vma(struct mm_struct *mm)
{
	return get_gate_vma(mm);
}

__rust_helper int rust_helper_mmap_lock_is_contended(struct mm_struct *mm)
{
	return mmap_lock_is_contended(mm);
}

#ifdef CONFIG_PER_VMA_LOCK
__rust_helper struct vm_area_struct *
rust_helper_vma_start_read(struct mm_struct *mm, struct vm_area_struct *vma)
{
	return vma_start_read(mm, vma);
}

__rust_helper bool rust_helper_vma_start_read_locked(struct vm_area_struct *vma)
{
	return vma_start_read_locked(vma);
}

__rust_helper bool rust_helper_vma_lock_is_contended(struct vm_area_struct *vma)
{
	return vma_lock_is_contended(vma);
}
#endif
