// SPDX-License-Identifier: GPL-2.0

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/uaccess.h>

__rust_helper const struct inode *rust_helper_file_user_inode(const struct file *file)
{
	return file_user_inode(file);
}

__rust_helper const struct path *rust_helper_file_user_path(const struct file *file)
{
	return file_user_path(file);
}

/*
 * Short for get_vma_name(), for the memory that most processes have most of,
 * if it has no anon_vma_name().
 */
__rust_helper bool rust_helper_vma_is_unnamed(struct vm_area_struct *vma)
{
	return !vma->vm_file && !vma->vm_ops && vma->vm_mm &&
	       !vma_is_initial_heap(vma) && !vma_is_initial_stack(vma) &&
	       !arch_vma_name(vma);
}

__rust_helper unsigned long
rust_helper_vma_kernel_pagesize(struct vm_area_struct *vma)
{
	return vma_kernel_pagesize(vma);
}

__rust_helper int rust_helper_copy_struct_from_user(void *dst, size_t ksize,
						    const void __user *src,
						    size_t usize)
{
	return copy_struct_from_user(dst, ksize, src, usize);
}

#ifdef CONFIG_NUMA
__rust_helper bool rust_helper_vma_is_initial_heap(const struct vm_area_struct *vma)
{
	return vma_is_initial_heap(vma);
}

__rust_helper bool rust_helper_vma_is_initial_stack(const struct vm_area_struct *vma)
{
	return vma_is_initial_stack(vma);
}
#endif
