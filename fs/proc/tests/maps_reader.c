// SPDX-License-Identifier: GPL-2.0
/*
 * A reader of /proc/PID/maps whose address space another thread changes at a
 * chosen step, for KUnit tests.
 *
 * The file is read by its own seq_operations. A probe stops the reader at the
 * step until the writer, a thread on another CPU, has made its change:
 *
 *   reader                       writer
 *     |                            |
 *     | reaches the step           | checks whether it is asked
 *     | -------------------------> |
 *     | spins in the probe         | changes the address space
 *     | <------------------------- |
 *     | goes on                    |
 *
 * The reader spins with interrupts disabled and in an RCU read-side section.
 * So the writer must not wait for a grace period, nor flush the TLB, which it
 * does not as long as the memory is not touched.
 */

#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/maple_tree.h>
#include <linux/mman.h>
#include <linux/mmu_context.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/uio.h>

#include "../internal.h"
#include "maps_reader.h"

#define MAX_SPINS_US	(5 * USEC_PER_SEC)

unsigned long maps_page(unsigned int page)
{
	return SZ_256M + page * PAGE_SIZE;
}

static void map(struct maps_reader *r, unsigned int from, unsigned int to, unsigned long prot)
{
	unsigned long addr = maps_page(from);

	if (vm_mmap(NULL, addr, maps_page(to) - addr, prot,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0) != addr)
		r->error = -ENOMEM;
}

/* Maps private anonymous memory, merged with its neighbours if they are like it. */
void maps_map(struct maps_reader *r, unsigned int from, unsigned int to)
{
	map(r, from, to, PROT_READ | PROT_WRITE);
}

void maps_map_read_only(struct maps_reader *r, unsigned int from, unsigned int to)
{
	map(r, from, to, PROT_READ);
}

void maps_unmap(struct maps_reader *r, unsigned int from, unsigned int to)
{
	int error = vm_munmap(maps_page(from), maps_page(to) - maps_page(from));

	if (error)
		r->error = error;
}

static void advise(struct maps_reader *r, unsigned int from, unsigned int to, int advice)
{
	int error = do_madvise(r->mm, maps_page(from), maps_page(to) - maps_page(from), advice);

	if (error)
		r->error = error;
}

/* Makes a VMA of its own of what is mapped there. */
void maps_mark(struct maps_reader *r, unsigned int from, unsigned int to)
{
	advise(r, from, to, MADV_DONTFORK);
}

/* Merges that with what is beside it. */
void maps_unmark(struct maps_reader *r, unsigned int from, unsigned int to)
{
	advise(r, from, to, MADV_DOFORK);
}

static int writer(void *data)
{
	struct maps_reader *r = data;

	kthread_use_mm(r->mm);
	while (!kthread_should_stop()) {
		/* Pairs with the release in maps_reader_write(). */
		if (smp_load_acquire(&r->asked) != r->done) {
			r->write(r);
			/* Pairs with the acquire in maps_reader_write(). */
			smp_store_release(&r->done, r->done + 1);
		}
		cpu_relax();
		cond_resched();
	}
	kthread_unuse_mm(r->mm);

	return 0;
}

/* Lets the writer do this, and waits for it. */
void maps_reader_write(struct maps_reader *r, void (*write)(struct maps_reader *r))
{
	unsigned int asked = r->asked + 1;

	r->write = write;
	/* Pairs with the acquire in writer(). */
	smp_store_release(&r->asked, asked);
	for (unsigned int us = 0; us < MAX_SPINS_US; us++) {
		/* Pairs with the release in writer(). */
		if (smp_load_acquire(&r->done) == asked)
			return;
		udelay(1);
	}
	r->error = -ETIMEDOUT;
}

/* The first argument of the functions that look up is the iterator. */
static bool is_lookup(struct maps_reader *r, struct pt_regs *regs)
{
	struct ma_state *mas = (struct ma_state *)regs_get_kernel_argument(regs, 0);

	return current == r->task && mas->tree == &r->mm->mm_mt;
}

static bool vma_is_read_locked(struct maps_reader *r)
{
	VMA_ITERATOR(vmi, r->mm, 0);
	struct vm_area_struct *vma;

	for_each_vma(vmi, vma) {
		/* The tree has a reference, too. */
		if (refcount_read(&vma->vm_refcnt) > 1)
			return true;
	}

	return false;
}

static void reach(struct maps_reader *r, enum maps_moment moment)
{
	const struct maps_step *step = &r->steps[r->step];

	if (r->step == r->nr_steps || step->at != moment || r->error)
		return;

	/* No writer can change the address space while the reader has mmap_lock. */
	if (rwsem_is_locked(&r->mm->mmap_lock))
		return;

	if (++r->occasions < step->occasion)
		return;

	maps_reader_write(r, step->write);
	if (++r->times >= step->times) {
		r->step++;
		r->occasions = 0;
		r->times = 0;
	}
}

/* The last VMA is unlocked at one of two places. The first that finds it so counts. */
static void reach_unlocked(struct maps_reader *r)
{
	if (r->has_last && !vma_is_read_locked(r)) {
		r->has_last = false;
		reach(r, MAPS_UNLOCKED);
	}
}

static int enter_lock(struct kprobe *p, struct pt_regs *regs)
{
	struct maps_reader *r = container_of(p, struct maps_reader, lock);

	if (current == r->task) {
		r->has_last = true;
		reach_unlocked(r);
	}
	return 0;
}

static int reach_in_find(struct kprobe *p, struct pt_regs *regs)
{
	struct maps_reader *r = container_of(p, struct maps_reader, in_find);

	if (is_lookup(r, regs))
		reach(r, MAPS_IN_FIND);
	return 0;
}

static int enter_find(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	struct maps_reader *r = container_of(get_kretprobe(ri), struct maps_reader, after_find);

	/* Nonzero if the return of this call is of no interest. */
	if (!is_lookup(r, regs))
		return 1;

	reach_unlocked(r);
	return 0;
}

static int reach_after_find(struct kretprobe_instance *ri, struct pt_regs *regs)
{
	reach(container_of(get_kretprobe(ri), struct maps_reader, after_find), MAPS_AFTER_FIND);
	return 0;
}

/*
 * Functions that have a probe with such a handler are not optimized. To patch
 * text all CPUs are interrupted, for which a reader that spins has no time.
 */
static void keep(struct kprobe *p, struct pt_regs *regs, unsigned long flags)
{
}

static void unregister_lock(void *r)
{
	unregister_kprobe(&((struct maps_reader *)r)->lock);
}

static void unregister_in_find(void *r)
{
	unregister_kprobe(&((struct maps_reader *)r)->in_find);
}

static void unregister_find(void *r)
{
	unregister_kprobe(&((struct maps_reader *)r)->find);
}

static void unregister_after_find(void *r)
{
	unregister_kretprobe(&((struct maps_reader *)r)->after_find);
}

/* Lets the writer come at each of these steps, one after the other. */
void maps_reader_follow(struct maps_reader *r, const struct maps_step *steps,
			unsigned int nr_steps)
{
	struct kunit *test = r->test;

	r->steps = steps;
	r->nr_steps = nr_steps;

	r->lock.symbol_name = "lock_next_vma";
	r->lock.pre_handler = enter_lock;
	r->lock.post_handler = keep;
	KUNIT_ASSERT_EQ(test, register_kprobe(&r->lock), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unregister_lock, r), 0);

	/* The function is static, so that the compiler may have no use for it. */
	r->in_find.symbol_name = "mas_next_slot";
	r->in_find.pre_handler = reach_in_find;
	r->in_find.post_handler = keep;
	if (register_kprobe(&r->in_find))
		kunit_skip(test, "there is no %s() to probe", r->in_find.symbol_name);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unregister_in_find, r), 0);

	r->find.symbol_name = "mas_find";
	r->find.post_handler = keep;
	KUNIT_ASSERT_EQ(test, register_kprobe(&r->find), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unregister_find, r), 0);

	r->after_find.kp.symbol_name = "mas_find";
	r->after_find.entry_handler = enter_find;
	r->after_find.handler = reach_after_find;
	KUNIT_ASSERT_EQ(test, register_kretprobe(&r->after_find), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unregister_after_find, r), 0);
}

/* Expects that the writer has come at each step, and had no error. */
void maps_reader_expect_followed(struct maps_reader *r)
{
	KUNIT_EXPECT_EQ(r->test, r->error, 0);
	KUNIT_EXPECT_EQ(r->test, r->step, r->nr_steps);
}

static void stop_writer(void *r)
{
	kthread_stop_put(((struct maps_reader *)r)->writer);
}

static void release_file(void *r)
{
	struct file *file = ((struct maps_reader *)r)->file;

	proc_pid_maps_operations.release(file->f_inode, file);
}

/* Makes an address space without any mappings for the thread of the test. */
struct maps_reader *maps_reader_create(struct kunit *test)
{
	struct proc_maps_private *priv;
	struct proc_inode *inode;
	struct maps_reader *r;
	unsigned int cpu;

	/* The writer needs a CPU of its own. */
	if (num_online_cpus() < 2)
		kunit_skip(test, "there is one CPU only");

	r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r);
	r->test = test;

	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	r->task = current;
	r->mm = current->mm;

	/* As if /proc/PID/maps of this thread had been opened. */
	inode = kunit_kzalloc(test, sizeof(*inode), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, inode);
	inode->pid = task_pid(current);
	r->file = kunit_kzalloc(test, sizeof(*r->file), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r->file);
	r->file->f_inode = &inode->vfs_inode;
	KUNIT_ASSERT_EQ(test, proc_pid_maps_operations.open(&inode->vfs_inode, r->file), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, release_file, r), 0);

	/* A kernel thread has no address space that could be opened. */
	priv = ((struct seq_file *)r->file->private_data)->private;
	KUNIT_ASSERT_NULL(test, priv->lock_ctx.mm);
	mmgrab(r->mm);
	priv->lock_ctx.mm = r->mm;

	cpu = cpumask_first(cpu_online_mask);
	KUNIT_ASSERT_EQ(test, set_cpus_allowed_ptr(current, cpumask_of(cpu)), 0);
	r->writer = kthread_create(writer, r, "maps_writer");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, r->writer);
	kthread_bind(r->writer, cpumask_next(cpu, cpu_online_mask));
	get_task_struct(r->writer);
	wake_up_process(r->writer);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, stop_writer, r), 0);

	return r;
}

/* Reads on, at most this much. */
ssize_t maps_reader_read(struct maps_reader *r, size_t size)
{
	struct kiocb iocb = { .ki_filp = r->file, .ki_pos = r->len };
	struct kvec vec = { .iov_base = r->buf + r->len };
	struct iov_iter iter;
	ssize_t ret;

	vec.iov_len = min(size, sizeof(r->buf) - 1 - r->len);
	iov_iter_kvec(&iter, ITER_DEST, &vec, 1, vec.iov_len);
	ret = seq_read_iter(&iocb, &iter);
	if (ret > 0)
		r->len += ret;

	return ret;
}

/* Reads to the end. */
void maps_reader_read_all(struct maps_reader *r)
{
	ssize_t ret;

	do {
		ret = maps_reader_read(r, sizeof(r->buf));
	} while (ret > 0);

	KUNIT_EXPECT_EQ(r->test, ret, 0);
	KUNIT_EXPECT_LT(r->test, r->len, sizeof(r->buf) - 1);
}

/* Takes the addresses of the line at *text, and moves on to the next one. */
static bool get_line(char **text, unsigned long *start, unsigned long *end)
{
	if (sscanf(*text, "%lx-%lx ", start, end) != 2)
		return false;

	*text = strchrnul(*text, '\n');
	if (**text)
		(*text)++;
	/* The gate VMA is not part of the address space. */
	return *end <= TASK_SIZE;
}

/* Expects that each line ends above the one before. */
void maps_reader_expect_order(struct maps_reader *r)
{
	unsigned long start, end, last = 0;
	char *text = r->buf;

	while (get_line(&text, &start, &end)) {
		KUNIT_EXPECT_GT_MSG(r->test, end, last, "what was read:\n%s", r->buf);
		last = end;
	}
}

/* Returns whether lines that were read cover all these pages. */
bool maps_reader_shows(struct maps_reader *r, unsigned int from, unsigned int to)
{
	unsigned long addr = maps_page(from);
	unsigned long start, end;
	char *text = r->buf;

	while (addr < maps_page(to) && get_line(&text, &start, &end)) {
		if (start <= addr && addr < end)
			addr = end;
	}
	if (addr < maps_page(to))
		kunit_info(r->test, "pages %u to %u are missing:\n%s", from, to, r->buf);

	return addr >= maps_page(to);
}
