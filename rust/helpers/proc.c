// SPDX-License-Identifier: GPL-2.0

#include <linux/fs.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/uaccess.h>

__rust_helper const struct inode *rust_helper_file_user_inode(const struct file *file)
{
	return file_user_inode(file);
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
__rust_helper void rust_helper_mpol_put(struct mempolicy *pol)
{
	mpol_put(pol);
}
#endif
