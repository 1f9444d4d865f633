// SPDX-License-Identifier: GPL-2.0
/*
 * What /proc/PID/smaps, smaps_rollup and numa_maps say about pages has to be
 * the same whether the C or the Rust code serves them. A target process brings
 * memory into some state and sleeps while all files are read and compared. Each
 * layout also says what has to be counted where, so that it is known to be in
 * that state.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <linux/fs.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include "proc-smaps-diff.h"

#ifndef MADV_COLD
#define MADV_COLD		20
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT		1
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE		0x08
#endif
#ifndef __NR_mseal
#define __NR_mseal		462
#endif

#define HUGE_PAGE	0x200000UL	/* what a PMD maps */
#define MIB		0x100000UL
#define GIB		0x40000000UL
#define TIB		0x10000000000UL
#define FAR		0x100000000000UL /* room for what does not fit at SPOT */
/* the Nth of several places that are apart, so that their mappings do not merge */
#define NEAR(n)		(SPOT + (n) * 0x100000UL)

#define PATIENCE	60	/* seconds until something has to have come about */

#define RAM_DISK	"/dev/ram0"
#define SWAP_MAGIC	"SWAPSPACE2"
#define KSM		"/sys/kernel/mm/ksm/"
#define THP		"/sys/kernel/mm/transparent_hugepage/"

/* 0 or an errno, for what has to work ... */
static int must(long result)
{
	return result < 0 ? errno : 0;
}

/* ... and for what this kernel or machine may not have */
static int may(long result)
{
	return result < 0 ? -errno : 0;
}

static int place(unsigned long at, size_t len, int prot, int flags, int fd,
		 off_t off)
{
	void *p = mmap((void *)at, len, prot, flags | MAP_FIXED_NOREPLACE, fd,
		       off);

	return p == MAP_FAILED ? errno : 0;
}

static int place_anon(unsigned long at, size_t pages)
{
	return place(at, pages * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int advise(unsigned long at, size_t pages, int advice)
{
	return must(madvise((void *)at, pages * PAGE, advice));
}

/* Writes to each page, and to each something else, so that none are equal */
static void touch(unsigned long at, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		__atomic_store_n((unsigned long *)(at + i * PAGE), at + i * PAGE,
				 __ATOMIC_RELAXED);
}

static void look(unsigned long at, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		(void)__atomic_load_n((char *)(at + i * PAGE), __ATOMIC_RELAXED);
}

static int place_touched(unsigned long at, size_t pages)
{
	int err = place_anon(at, pages);

	if (!err)
		touch(at, pages);
	return err;
}

static int new_memfd(size_t pages, unsigned int flags)
{
	int fd = memfd_create("object", MFD_CLOEXEC | flags);

	if (fd >= 0 && ftruncate(fd, pages * PAGE)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Bits of an entry of pagemap */
enum {
	PAGEMAP_SOFT_DIRTY = 55,
	PAGEMAP_UFFD_WP = 57,
	PAGEMAP_PRESENT = 63,
};

/* How many of the pages have @bit in /proc/self/pagemap? */
static size_t pagemap_count(unsigned long at, size_t pages, int bit)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t count = 0;
	unsigned long entry;

	if (fd < 0)
		return -1;
	for (size_t i = 0; i < pages; i++) {
		if (pread(fd, &entry, sizeof(entry),
			  (at / PAGE + i) * sizeof(entry)) != sizeof(entry))
			maps_die("pagemap");
		count += entry >> bit & 1;
	}
	close(fd);
	return count;
}

static int pagemap_is(unsigned long at, size_t pages, int bit, size_t count)
{
	size_t found = pagemap_count(at, pages, bit);

	if (found != count)
		fprintf(stderr, "# %zu of %zu pages at %lx have bit %d in pagemap, not %zu\n",
			found, pages, at, bit, count);
	return found == count ? 0 : EINVAL;
}

/* How many are in memory, mapped or not? */
static size_t in_core(unsigned long at, size_t pages)
{
	unsigned char vec[512];
	size_t count = 0;

	while (pages) {
		size_t some = pages < sizeof(vec) ? pages : sizeof(vec);

		if (mincore((void *)at, some * PAGE, vec))
			maps_die("mincore");
		for (size_t i = 0; i < some; i++)
			count += vec[i] & 1;
		at += some * PAGE;
		pages -= some;
	}
	return count;
}

/* Swaps out all that was touched; some pages may be busy for a moment. */
static int swap_out(unsigned long at, size_t pages)
{
	int err = 0, tries = 0;

	while (!err) {
		if (madvise((void *)at, pages * PAGE, MADV_PAGEOUT))
			return errno == EINVAL ? -errno : errno;
		if (!in_core(at, pages))
			break;
		usleep(10000);
		err = tries++ < PATIENCE * 100 ? 0 : ETIMEDOUT;
	}
	return err;
}

/* A process with the same memory that stays as long as this one */
static int partner(int (*run)(void))
{
	pid_t parent = getpid();
	int ready[2], err;

	if (pipe2(ready, O_CLOEXEC))
		return errno;
	switch (fork()) {
	case -1:
		return errno;
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		err = run ? run() : 0;
		if (write(ready[1], &err, sizeof(err)) != sizeof(err))
			_exit(1);
		while (1)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &err, sizeof(err)) != sizeof(err))
		err = ECHILD;
	close(ready[0]);
	return err;
}

/* Private anonymous memory */

static int build_anon(void)
{
	int err;

	/* pages, the zero page and nothing, then pages that cannot be reached */
	err = place_touched(NEAR(0), 16) ?: place_anon(NEAR(1), 64) ?:
	      place_touched(NEAR(2), 32);
	if (err)
		return err;
	look(NEAR(1), 32);
	touch(NEAR(1) + 8 * PAGE, 8);
	err = must(mprotect((void *)NEAR(2), 32 * PAGE, PROT_NONE));
	if (err)
		return err;
	return pagemap_is(NEAR(1), 64, PAGEMAP_PRESENT, 32);
}

static int build_forked(void)
{
	int err = place_touched(NEAR(0), 64) ?: partner(NULL);

	if (err)
		return err;
	touch(NEAR(0), 16);
	return 0;
}

/* File pages that are not shmem: ramfs has clean ones where nothing was written */

static int touch_third_file(void)
{
	touch(NEAR(2), 16);
	return 0;
}

static int place_file(unsigned long at, const char *name, size_t pages,
		      size_t written, int flags)
{
	static char data[PAGE] = "data";
	int fd = open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	int err;

	if (fd < 0 || ftruncate(fd, pages * PAGE))
		return errno;
	for (size_t i = 0; i < written; i++) {
		if (write(fd, data, PAGE) != PAGE)
			return errno;
	}
	err = place(at, pages * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	close(fd);
	if (!err)
		look(at, pages);
	return err;
}

static int build_file(void)
{
	int err;

	if (mkdir("/tmp/ram", 0700) ||
	    mount("none", "/tmp/ram", "ramfs", 0, NULL))
		return errno == ENODEV ? -errno : errno;
	err = place_file(NEAR(0), "/tmp/ram/private", 64, 32, MAP_PRIVATE) ?:
	      place_file(NEAR(1), "/tmp/ram/shared", 64, 32, MAP_SHARED) ?:
	      place_file(NEAR(2), "/tmp/ram/two", 16, 0, MAP_SHARED) ?:
	      partner(touch_third_file);
	if (err)
		return err;
	/* only now, or the partner would share what was copied */
	touch(NEAR(0), 8);
	touch(NEAR(1) + 40 * PAGE, 8);
	look(NEAR(2), 16);
	return 0;
}

/* The page cache of a block device has large folios. */
static int build_file_huge(void)
{
	int fd = open(RAM_DISK, O_RDONLY | O_CLOEXEC);
	int err;

	if (fd < 0)
		return -errno;
	err = place(SPOT, 8 * MIB, PROT_READ, MAP_PRIVATE, fd, 0) ?:
	      place(SPOT + 16 * MIB, 8 * MIB, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (err)
		return err;
	err = may(madvise((void *)SPOT, 8 * MIB, MADV_HUGEPAGE)) ?:
	      may(madvise((void *)(SPOT + 16 * MIB), 8 * MIB, MADV_NOHUGEPAGE));
	if (err)
		return err;
	look(SPOT, 1);
	look(SPOT + 2 * HUGE_PAGE, 1);
	look(SPOT + 16 * MIB + 2 * HUGE_PAGE + 8 * PAGE, 16);
	return 0;
}

/* Shared memory */

static int build_shmem(void)
{
	int fd = new_memfd(64, 0), err;

	if (fd < 0)
		return errno;
	err = place(NEAR(0), 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ?:
	      place(NEAR(1), 64 * PAGE, PROT_READ, MAP_SHARED, fd, 0) ?:
	      place(NEAR(2), 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) ?:
	      place(NEAR(3), 64 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	close(fd);
	if (err)
		return err;
	touch(NEAR(0), 48);
	/* the pages stay in the object, but not in the page table */
	err = advise(NEAR(0), 16, MADV_DONTNEED);
	if (err)
		return err;
	/* by writing, since a read would map its neighbours, too */
	touch(NEAR(2), 8);
	touch(NEAR(3), 64);
	return must(munmap((void *)(NEAR(3) + 16 * PAGE), 16 * PAGE));
}

/* A shmem object of which half is swapped out, mapped in every way */
static int build_shmem_swapped(void)
{
	int fd = new_memfd(256, 0), err;

	if (fd < 0)
		return errno;
	err = place(NEAR(0), 256 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (err)
		return err;
	touch(NEAR(0), 256);
	err = swap_out(NEAR(0) + 64 * PAGE, 128) ?:
	      place(NEAR(4), 256 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) ?:
	      place(NEAR(8), 256 * PAGE, PROT_READ, MAP_SHARED, fd, 0) ?:
	      place(NEAR(12), 256 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0) ?:
	      place(NEAR(16), 50 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd,
		    100 * PAGE) ?:
	      place(NEAR(20), 20 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd,
		    10 * PAGE);
	close(fd);
	if (err)
		return err;
	/* copies of pages in memory and of swapped ones, which come back */
	touch(NEAR(4), 16);
	touch(NEAR(4) + 64 * PAGE, 8);
	/* and copies that are swapped out themselves */
	return swap_out(NEAR(4) + 8 * PAGE, 8);
}

#define HOLES_STEP	(33 * MIB)
#define HOLES_RUN	512

/*
 * A sparse object of 4 GiB: where it is mapped private, most of what is swapped
 * lies where the process has no page table at any level.
 */
static int build_shmem_holes(void)
{
	unsigned long at;
	int fd = new_memfd(4 * GIB / PAGE, 0), err;

	if (fd < 0)
		return errno;
	err = place(FAR, 4 * GIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ?:
	      place(FAR + TIB, 4 * GIB, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_NORESERVE, fd, 0) ?:
	      place(FAR + 2 * TIB + 5 * PAGE, GIB, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_NORESERVE, fd, GIB + 100 * PAGE);
	close(fd);
	if (err)
		return err;
	for (at = FAR; at < FAR + 4 * GIB; at += HOLES_STEP)
		touch(at, 1);
	touch(FAR + GIB, HOLES_RUN);
	for (at = FAR; at < FAR + 4 * GIB; at += HOLES_STEP) {
		err = swap_out(at, 1);
		if (err)
			return err;
	}
	err = swap_out(FAR + GIB, HOLES_RUN);
	if (err)
		return err;
	/* 93 of 125 stay out */
	for (at = FAR; at < FAR + 4 * GIB; at += 4 * HOLES_STEP)
		look(at, 1);
	/* one more comes back, another page is new */
	touch(FAR + TIB + HOLES_STEP, 1);
	touch(FAR + TIB + 5 * MIB, 1);
	return 0;
}

/* Swapped anonymous memory */

static int build_swapped(void)
{
	int err;

	err = place_touched(NEAR(0), 64) ?: swap_out(NEAR(0), 64) ?:
	      partner(NULL) ?:
	      place_touched(NEAR(1), 64) ?: swap_out(NEAR(1), 64) ?:
	      place_touched(NEAR(2), 16) ?: swap_out(NEAR(2), 16);
	if (err)
		return err;
	look(NEAR(0), 8);
	look(NEAR(1), 8);
	return must(mprotect((void *)NEAR(2), 16 * PAGE, PROT_NONE));
}

/* A huge page goes as a whole where swap has room for it in one piece. */
static int build_swapped_huge(void)
{
	int err = place_anon(SPOT, 2 * HUGE_PAGE / PAGE) ?:
		  may(madvise((void *)SPOT, 2 * HUGE_PAGE, MADV_HUGEPAGE));

	if (err)
		return err;
	touch(SPOT, 1);
	touch(SPOT + HUGE_PAGE, 1);
	return swap_out(SPOT, HUGE_PAGE / PAGE);
}

/* Pages of the same content that KSM has merged */
static int build_ksm(void)
{
	const long merged = 64 + 48;
	long now = 0;
	int err;

	err = place_anon(NEAR(0), 64) ?: place_anon(NEAR(1), 64) ?:
	      place_touched(NEAR(2), 16);
	if (err)
		return err;
	for (size_t i = 0; i < 64; i++) {
		memset((void *)(NEAR(0) + i * PAGE), 0x5a, PAGE);
		/* two of each, but for the last sixteen pages */
		memset((void *)(NEAR(1) + i * PAGE), 1 + (i < 48 ? i / 2 : i), PAGE);
	}
	err = may(madvise((void *)NEAR(0), 64 * PAGE, MADV_MERGEABLE)) ?:
	      may(madvise((void *)NEAR(1), 64 * PAGE, MADV_MERGEABLE)) ?:
	      may(madvise((void *)NEAR(2), 16 * PAGE, MADV_MERGEABLE));
	if (err)
		return err;
	err = write_file(KSM "run", "1");
	if (err)
		return err;
	/* not pages_sharing, which counts those of dead processes for a while */
	for (int i = 0; i < PATIENCE * 100 && now < merged; i++) {
		usleep(10000);
		now = number_file("/proc/self/ksm_merging_pages", -1);
	}
	/* stops, but leaves them merged */
	err = write_file(KSM "run", "0");
	if (err)
		return err;
	return now < merged ? ETIMEDOUT : 0;
}

/* Huge pages that are transparent */

static int no_huge_pages(void)
{
	return access(THP "enabled", F_OK) || file_has(THP "enabled", "[never]") ?
	       -EOPNOTSUPP : 0;
}

/* Large folios of one size each, which page table entries map */

static const int large_kb[] = { 16, 32, 64, 128, 256, 512, 1024 };

#define LARGE(n)	(SPOT + (n) * 4 * MIB)
#define LARGE_ANON	LARGE(0)
#define LARGE_SHMEM	LARGE(ARRAY_SIZE(large_kb))
#define LARGE_SWAPPED	LARGE(2 * ARRAY_SIZE(large_kb))

/* Says in @file when new memory has folios of that size. */
static int set_large(int kb, const char *file, const char *when)
{
	char path[128];

	snprintf(path, sizeof(path), THP "hugepages-%dkB/%s", kb, file);
	return access(path, F_OK) ? -EOPNOTSUPP : write_file(path, when);
}

/* As the kernel has them by default */
static void set_no_large(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(large_kb); i++) {
		set_large(large_kb[i], "enabled", "never");
		set_large(large_kb[i], "shmem_enabled", "never");
	}
	set_large(2048, "enabled", "inherit");
	set_large(2048, "shmem_enabled", "inherit");
}

static long large_allocated(int kb, const char *what)
{
	char path[128];

	snprintf(path, sizeof(path), THP "hugepages-%dkB/stats/%s", kb, what);
	return number_file(path, -1);
}

/* Writes to 2 MiB from @at on, which get folios of that size */
static int touch_large(unsigned long at, int kb, const char *file, const char *counter)
{
	long before = large_allocated(kb, counter);
	int err = set_large(kb, file, "always");

	if (err)
		return err;
	touch(at, HUGE_PAGE / PAGE);
	return set_large(kb, file, "never") ?:
	       (large_allocated(kb, counter) - before == 2048 / kb ? 0 : EINVAL);
}

/*
 * Of each size: anonymous, in two parts, of which the first pages are written to after a
 * fork, and others unmapped by the other process, and shared, of which the other process
 * maps a part, see expect_large(). The last is swapped out in part.
 */
static int make_large(void)
{
	int err = set_large(2048, "enabled", "never") ?:
		  set_large(2048, "shmem_enabled", "never");

	for (size_t i = 0; i < ARRAY_SIZE(large_kb) && !err; i++) {
		unsigned long at = LARGE_ANON + i * 4 * MIB;

		err = place_anon(at, HUGE_PAGE / PAGE) ?:
		      touch_large(at, large_kb[i], "enabled", "anon_fault_alloc") ?:
		      must(munmap((void *)(at + 5 * PAGE), 3 * PAGE));
		at = LARGE_SHMEM + i * 4 * MIB;
		err = err ?: place(at, HUGE_PAGE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0) ?:
		      touch_large(at, large_kb[i], "shmem_enabled", "shmem_alloc");
	}
	return err ?: place_anon(LARGE_SWAPPED, HUGE_PAGE / PAGE) ?:
	       touch_large(LARGE_SWAPPED, 64, "enabled", "anon_fault_alloc") ?:
	       swap_out(LARGE_SWAPPED, 72);
}

static int look_at_large(void)
{
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(large_kb) && !err; i++) {
		look(LARGE_SHMEM + i * 4 * MIB + 16 * PAGE, 16);
		err = must(munmap((void *)(LARGE_ANON + i * 4 * MIB + 65 * PAGE), 2 * PAGE));
	}
	return err;
}

static int build_large(void)
{
	int err = make_large();

	set_no_large();
	err = err ?: partner(look_at_large);
	for (size_t i = 0; i < ARRAY_SIZE(large_kb) && !err; i++)
		touch(LARGE_ANON + i * 4 * MIB + 8 * PAGE, 8);
	return err;
}

static int place_huge(unsigned long at, size_t count)
{
	int err = place_anon(at, count * HUGE_PAGE / PAGE);

	return err ?: advise(at, count * HUGE_PAGE / PAGE, MADV_HUGEPAGE);
}

/* khugepaged leaves it alone; what is huge stays so */
static int keep_as_it_is(unsigned long at, size_t count)
{
	return advise(at, count * HUGE_PAGE / PAGE, MADV_NOHUGEPAGE);
}

static int build_huge(void)
{
	int err = no_huge_pages() ?: place_huge(SPOT, 8) ?:
		  place_huge(SPOT + 32 * MIB, 4) ?: place_huge(SPOT + 64 * MIB, 2) ?:
		  place_huge(SPOT + 96 * MIB, 1) ?:
		  must(mlock((void *)(SPOT + 96 * MIB), HUGE_PAGE));

	if (err)
		return err;
	/* six pages, of which the second and third lose parts; a zero page; none */
	for (int i = 0; i < 6; i++)
		touch(SPOT + i * HUGE_PAGE, 1);
	look(SPOT + 6 * HUGE_PAGE, 1);
	for (int i = 0; i < 4; i++)
		touch(SPOT + 32 * MIB + i * HUGE_PAGE, 1);
	/* split by unmapping the middle of both */
	for (int i = 0; i < 2; i++)
		touch(SPOT + 64 * MIB + i * HUGE_PAGE, 1);
	err = advise(SPOT + HUGE_PAGE + 7 * PAGE, 1, MADV_DONTNEED) ?:
	      advise(SPOT + 2 * HUGE_PAGE + MIB, MIB / PAGE, MADV_DONTNEED) ?:
	      must(munmap((void *)(SPOT + 65 * MIB), 2 * MIB)) ?:
	      keep_as_it_is(SPOT, 8);
	if (err)
		return err;
	return pagemap_is(SPOT + 6 * HUGE_PAGE, 512, PAGEMAP_PRESENT, 512);
}

static int build_huge_forked(void)
{
	int err = no_huge_pages() ?: place_huge(SPOT, 3);

	if (err)
		return err;
	for (int i = 0; i < 3; i++)
		touch(SPOT + i * HUGE_PAGE, 1);
	err = partner(NULL) ?:
	      advise(SPOT + HUGE_PAGE, 100, MADV_DONTNEED) ?:
	      keep_as_it_is(SPOT, 3);
	if (err)
		return err;
	/* copies one small page, and maps what is left of the huge one so */
	touch(SPOT + 2 * HUGE_PAGE, 1);
	return 0;
}

static int build_huge_shmem(void)
{
	int fd, err;

	if (mkdir("/tmp/huge", 0700))
		return errno;
	if (mount("none", "/tmp/huge", "tmpfs", 0, "huge=always"))
		return -errno;
	fd = open("/tmp/huge/file", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 8 * HUGE_PAGE))
		return errno;
	err = place(SPOT, 8 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ?:
	      place(SPOT + 32 * MIB, 8 * HUGE_PAGE, PROT_READ, MAP_SHARED, fd, 0) ?:
	      place(SPOT + 64 * MIB, 8 * HUGE_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE, fd, 0) ?:
	      /* here a huge page does not fit */
	      place(SPOT + 96 * MIB + PAGE, 2 * HUGE_PAGE, PROT_READ, MAP_SHARED,
		    fd, 6 * HUGE_PAGE);
	close(fd);
	if (err)
		return err;
	for (int i = 0; i < 4; i++)
		touch(SPOT + 2 * i * HUGE_PAGE, 1);
	look(SPOT + 32 * MIB, 1);
	look(SPOT + 32 * MIB + 2 * HUGE_PAGE, 1);
	touch(SPOT + 64 * MIB + 4 * HUGE_PAGE, 8);
	look(SPOT + 96 * MIB + PAGE, 1);
	return advise(SPOT + 6 * HUGE_PAGE, 1, MADV_DONTNEED);
}

/* Huge pages that are reserved */

static int touch_huge_shared(void)
{
	touch(SPOT + 64 * MIB, 1);
	return 0;
}

static int build_hugetlb(void)
{
	int fd = new_memfd(4 * HUGE_PAGE / PAGE, MFD_HUGETLB), err;

	if (fd < 0)
		return -errno;
	err = place(SPOT, 5 * HUGE_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE, -1, 0) ?:
	      place(SPOT + 32 * MIB, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_NORESERVE, fd, 0) ?:
	      place(SPOT + 64 * MIB, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_NORESERVE, fd, 2 * HUGE_PAGE);
	close(fd);
	if (err)
		return err == ENOMEM ? -err : err;
	/* with holes */
	touch(SPOT, 1);
	touch(SPOT + 2 * HUGE_PAGE, 1);
	touch(SPOT + 32 * MIB + HUGE_PAGE, 1);
	touch(SPOT + 64 * MIB, 1);
	err = partner(touch_huge_shared);
	if (err)
		return err;
	/* this one is not shared by fork */
	touch(SPOT + 4 * HUGE_PAGE, 1);
	return 0;
}

static int touch_hugetlb_table(void)
{
	touch(FAR, 1);
	return 0;
}

/* Where two processes map the same GiB, they share a page table. */
static int build_hugetlb_table(void)
{
	int fd = new_memfd(GIB / PAGE, MFD_HUGETLB), err;

	if (fd < 0)
		return -errno;
	err = place(FAR, GIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		    fd, 0);
	close(fd);
	if (err)
		return err == ENOMEM ? -err : err;
	touch(FAR, 1);
	touch(FAR + 77 * HUGE_PAGE, 1);
	return partner(touch_hugetlb_table);
}

/* Locked memory */

static int touch_locked_shmem(void)
{
	touch(NEAR(2), 16);
	return 0;
}

static int build_locked(void)
{
	int err = place_touched(NEAR(0), 32) ?: place_anon(NEAR(1), 64) ?:
		  place(NEAR(2), 16 * PAGE, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0) ?:
		  place(NEAR(3), 16 * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) ?:
		  partner(touch_locked_shmem) ?:
		  must(mlock((void *)NEAR(0), 32 * PAGE)) ?:
		  must(syscall(__NR_mlock2, NEAR(1), 64 * PAGE, MLOCK_ONFAULT)) ?:
		  must(mlock((void *)NEAR(2), 16 * PAGE));

	if (err)
		return err;
	/* the partner shared these */
	touch(NEAR(0), 32);
	touch(NEAR(1) + 8 * PAGE, 8);
	return 0;
}

/* Memory that another thread pages, or could */

static int uffd = -1;

static int uffd_open(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	if (uffd < 0)
		return -errno;
	return may(ioctl(uffd, UFFDIO_API, &api));
}

static int uffd_register(unsigned long at, size_t pages, __u64 mode)
{
	struct uffdio_register reg = {
		.range = { at, pages * PAGE },
		.mode = mode,
	};

	return may(ioctl(uffd, UFFDIO_REGISTER, &reg));
}

static int uffd_write_protect(unsigned long at, size_t pages)
{
	struct uffdio_writeprotect wp = {
		.range = { at, pages * PAGE },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	return must(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
}

static int build_uffd_missing(void)
{
	struct uffdio_copy copy = { .len = 8 * PAGE };
	struct uffdio_poison poison = {};
	int err = uffd_open(UFFD_FEATURE_POISON | UFFD_FEATURE_MINOR_SHMEM) ?:
		  place_anon(NEAR(0), 64) ?: place_touched(NEAR(1), 8) ?:
		  place(NEAR(2), 64 * PAGE, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (err)
		return err;
	touch(NEAR(2), 32);
	err = uffd_register(NEAR(0), 64, UFFDIO_REGISTER_MODE_MISSING) ?:
	      uffd_register(NEAR(2), 64, UFFDIO_REGISTER_MODE_MINOR);
	if (err)
		return err;
	copy.dst = NEAR(0) + 16 * PAGE;
	copy.src = NEAR(1);
	poison.range.start = NEAR(0) + 32 * PAGE;
	poison.range.len = 4 * PAGE;
	return must(ioctl(uffd, UFFDIO_COPY, &copy)) ?:
	       must(ioctl(uffd, UFFDIO_POISON, &poison));
}

static int build_uffd_wp(void)
{
	int err = uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			    UFFD_FEATURE_WP_UNPOPULATED) ?:
		  place_anon(NEAR(0), 64) ?:
		  place(NEAR(1), 64 * PAGE, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (err)
		return err;
	touch(NEAR(0), 32);
	touch(NEAR(1), 32);
	/* pages and markers; those of shmem stay when the page goes */
	return uffd_register(NEAR(0), 64, UFFDIO_REGISTER_MODE_WP) ?:
	       uffd_register(NEAR(1), 64, UFFDIO_REGISTER_MODE_WP) ?:
	       uffd_write_protect(NEAR(0) + 16 * PAGE, 32) ?:
	       uffd_write_protect(NEAR(1), 48) ?:
	       advise(NEAR(1), 8, MADV_DONTNEED) ?:
	       pagemap_is(NEAR(0), 64, PAGEMAP_UFFD_WP, 32) ?:
	       pagemap_is(NEAR(1), 64, PAGEMAP_UFFD_WP, 48);
}

/* Markers hide what is swapped out of the object behind them. */
static int build_uffd_wp_swapped(void)
{
	int fd = new_memfd(64, 0), err;

	if (fd < 0)
		return errno;
	err = uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			UFFD_FEATURE_WP_UNPOPULATED) ?:
	      place(NEAR(0), 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ?:
	      place(NEAR(1), 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0) ?:
	      place_touched(NEAR(2), 64);
	close(fd);
	if (err)
		return err;
	touch(NEAR(0), 64);
	return uffd_register(NEAR(0), 64, UFFDIO_REGISTER_MODE_WP) ?:
	       uffd_register(NEAR(1), 64, UFFDIO_REGISTER_MODE_WP) ?:
	       uffd_register(NEAR(2), 64, UFFDIO_REGISTER_MODE_WP) ?:
	       uffd_write_protect(NEAR(0), 16) ?:
	       uffd_write_protect(NEAR(1), 32) ?:
	       uffd_write_protect(NEAR(2), 16) ?:
	       swap_out(NEAR(0), 64) ?: swap_out(NEAR(2), 64) ?:
	       pagemap_is(NEAR(0), 64, PAGEMAP_UFFD_WP, 16) ?:
	       pagemap_is(NEAR(1), 64, PAGEMAP_UFFD_WP, 32) ?:
	       pagemap_is(NEAR(2), 64, PAGEMAP_UFFD_WP, 16);
}

static int build_uffd_wp_hugetlb(void)
{
	const size_t pages = 4 * HUGE_PAGE / PAGE;
	int err = uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
			    UFFD_FEATURE_WP_UNPOPULATED) ?:
		  place(SPOT, pages * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (err)
		return err == ENOMEM ? -err : err;
	touch(SPOT, 1);
	touch(SPOT + 2 * HUGE_PAGE, 1);
	return uffd_register(SPOT, pages, UFFDIO_REGISTER_MODE_WP) ?:
	       uffd_write_protect(SPOT, pages) ?:
	       pagemap_is(SPOT, pages, PAGEMAP_UFFD_WP, pages);
}

#ifdef UFFDIO_REGISTER_MODE_RWP
static int build_uffd_rwp(void)
{
	struct uffdio_rwprotect rwp = {
		.range = { NEAR(0), 8 * PAGE },
		.mode = UFFDIO_RWPROTECT_MODE_RWP,
	};
	int err = uffd_open(UFFD_FEATURE_RWP) ?: place_touched(NEAR(0), 32);

	return err ?: uffd_register(NEAR(0), 32, UFFDIO_REGISTER_MODE_RWP) ?:
	       must(ioctl(uffd, UFFDIO_RWPROTECT, &rwp));
}
#endif

/* What was written to or looked at since someone asked to know */

static int build_soft_dirty(void)
{
	int err = place_touched(NEAR(0), 64) ?: write_file("/proc/self/clear_refs", "4");

	if (err)
		return err;
	touch(NEAR(0), 16);
	err = place_touched(NEAR(1), 16);
	if (err)
		return err;
	/* where the kernel does not track it, nothing or everything is dirty */
	return pagemap_count(NEAR(0), 64, PAGEMAP_SOFT_DIRTY) == 16 ? 0 :
	       -EOPNOTSUPP;
}

static int build_referenced(void)
{
	/* changing the protection makes the CPU forget what it knows */
	int err = place_touched(NEAR(0), 64) ?:
		  write_file("/proc/self/clear_refs", "1") ?:
		  must(mprotect((void *)NEAR(0), 64 * PAGE, PROT_READ));

	if (err)
		return err;
	look(NEAR(0) + 16 * PAGE, 16);
	return 0;
}

static int build_lazy_free(void)
{
	int err = place_touched(NEAR(0), 64) ?: place_touched(NEAR(1), 16) ?:
		  advise(NEAR(0), 64, MADV_FREE) ?:
		  /* has what was put off done at once */
		  advise(NEAR(1), 1, MADV_COLD);

	if (err)
		return err;
	touch(NEAR(0), 8);
	return 0;
}

static int build_guard(void)
{
	int err = place_touched(NEAR(0), 64) ?: place_anon(NEAR(1), 64) ?:
		  place(NEAR(2), 64 * PAGE, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (err)
		return err;
	touch(NEAR(2), 64);
	return may(madvise((void *)(NEAR(0) + 8 * PAGE), 16 * PAGE, MADV_GUARD_INSTALL)) ?:
	       may(madvise((void *)NEAR(1), 64 * PAGE, MADV_GUARD_INSTALL)) ?:
	       may(madvise((void *)(NEAR(2) + 60 * PAGE), 4 * PAGE, MADV_GUARD_INSTALL));
}

static int build_pkey(void)
{
	int err = place_touched(NEAR(0), 16) ?: place_touched(NEAR(1), 16);
	int keys[2];

	if (err)
		return err;
	for (int i = 0; i < 2; i++) {
		keys[i] = pkey_alloc(0, i ? PKEY_DISABLE_ACCESS : 0);
		if (keys[i] < 0)
			return -errno;
		err = must(pkey_mprotect((void *)NEAR(i), 16 * PAGE,
					 PROT_READ | PROT_WRITE, keys[i]));
		if (err)
			return err;
	}
	return 0;
}

/* Memory policies */

static int bind_to(unsigned long at, size_t pages, int mode, unsigned long nodes)
{
	return may(syscall(__NR_mbind, at, pages * PAGE, mode, nodes ? &nodes : NULL,
			   8 * sizeof(nodes), 0));
}

static int no_two_nodes(void)
{
	return access("/sys/devices/system/node/node1", F_OK) ? -ENODEV : 0;
}

static int build_policies(void)
{
	static const struct {
		int mode;
		unsigned long nodes;
	} policies[] = {
		{ MPOL_BIND, 2 }, { MPOL_INTERLEAVE, 3 }, { MPOL_PREFERRED, 2 },
		{ MPOL_PREFERRED_MANY, 3 }, { MPOL_LOCAL, 0 },
		{ MPOL_BIND | MPOL_F_STATIC_NODES, 2 },
		{ MPOL_INTERLEAVE | MPOL_F_RELATIVE_NODES, 3 },
		{ MPOL_WEIGHTED_INTERLEAVE, 3 },
	};
	int err = no_two_nodes();

	for (size_t i = 0; !err && i < ARRAY_SIZE(policies); i++) {
		err = place_anon(NEAR(i), 16) ?:
		      bind_to(NEAR(i), 16, policies[i].mode, policies[i].nodes);
		if (!err)
			touch(NEAR(i), 16);
	}
	/* from another node than its policy would have it */
	return err ?: place_anon(NEAR(8), 16) ?:
	       bind_to(NEAR(8), 16, MPOL_BIND, 2) ?:
	       (touch(NEAR(8), 16), bind_to(NEAR(8), 16, MPOL_DEFAULT, 0));
}

/* The policy of a shmem object is that of all who map it. */
static int build_shmem_policy(void)
{
	int fd = new_memfd(64, 0), err;

	if (fd < 0)
		return errno;
	err = no_two_nodes() ?:
	      place(NEAR(0), 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ?:
	      bind_to(NEAR(0), 32, MPOL_BIND, 2) ?:
	      place(NEAR(1), 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ?:
	      place(NEAR(2), 24 * PAGE, PROT_READ, MAP_SHARED, fd, 40 * PAGE) ?:
	      place(NEAR(3), 16 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (err)
		return err;
	touch(NEAR(1), 64);
	return 0;
}

static int set_policy(int mode, unsigned long nodes)
{
	return may(syscall(__NR_set_mempolicy, mode, &nodes, 8 * sizeof(nodes)));
}

static int build_task_policy(void)
{
	return no_two_nodes() ?: set_policy(MPOL_PREFERRED, 2) ?:
	       place_touched(NEAR(0), 16) ?: place_anon(NEAR(1), 16) ?:
	       bind_to(NEAR(1), 16, MPOL_BIND, 1);
}

static int thread_task_policy(void)
{
	return set_policy(MPOL_INTERLEAVE, 3);
}

/* Flags that something else than the pages has */
static int build_flags(void)
{
	static const int advice[] = {
		MADV_DONTFORK, MADV_WIPEONFORK, MADV_DONTDUMP, MADV_SEQUENTIAL,
		MADV_RANDOM, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_MERGEABLE,
	};
	int err = 0;

	for (size_t i = 0; !err && i < ARRAY_SIZE(advice); i++)
		err = place_touched(NEAR(i), 4) ?:
		      may(madvise((void *)NEAR(i), 4 * PAGE, advice[i]));
	return err ?: place_touched(NEAR(8), 4) ?:
	       may(syscall(__NR_mseal, NEAR(8), 4 * PAGE, 0)) ?:
	       -place(NEAR(9), 4 * PAGE, PROT_READ | PROT_WRITE,
		      MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0) ?:
	       place(NEAR(10), 4 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) ?:
	       place(NEAR(11), 4 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
}

/* Pages of the kernel, some of which are not counted */
static int build_special(void)
{
	unsigned int params[30] = {};	/* struct io_uring_params */
	unsigned long aio = 0;
	void *ring;
	int fd, err;

	if (syscall(__NR_io_setup, 8, &aio))
		return -errno;
	look(aio, 1);
	fd = syscall(__NR_io_uring_setup, 4, params);
	if (fd < 0)
		return -errno;
	/* this one goes where it wants to */
	ring = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (ring == MAP_FAILED)
		return errno;
	look((unsigned long)ring, 1);
	fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno;
	err = place(NEAR(0), 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	if (!err)
		touch(NEAR(0), 8);
	return err;
}

/* Pages that do not count, and copies of some of them, which do */
static int build_pfnmap(void)
{
	/* what may be mapped of it depends on the machine */
	int fd = open("/dev/mem", O_RDWR | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = place(NEAR(0), 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0xf0000) ?:
	      place(NEAR(1), 16 * PAGE, PROT_READ, MAP_SHARED, fd, 0xf0000);
	close(fd);
	if (err)
		return -err;
	touch(NEAR(0) + 4 * PAGE, 3);
	return 0;
}

/* Memory that crosses many page tables, a little in each of some of them */

#define SPARSE_STEP	97

static void touch_sparsely(unsigned long at)
{
	for (size_t i = 0; i < 256 * MIB / PAGE; i += SPARSE_STEP)
		touch(at + i * PAGE, 1);
}

static int build_sparse(void)
{
	const unsigned long small = FAR, shared = FAR + GIB + 3 * PAGE;
	int err = place_anon(small, 256 * MIB / PAGE) ?:
		  place(shared, 256 * MIB, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0) ?:
		  place_anon(FAR + 2 * GIB - 7 * PAGE, 256 * MIB / PAGE);

	if (err)
		return err;
	/* where they are not known, they are not used */
	madvise((void *)small, 256 * MIB, MADV_NOHUGEPAGE);
	touch_sparsely(small);
	touch_sparsely(shared);
	/* runs over the ends of page tables, and nothing in some of them */
	madvise((void *)(FAR + 2 * GIB - 7 * PAGE), 256 * MIB, MADV_NOHUGEPAGE);
	for (int i = 0; i < 64; i++)
		touch(FAR + 2 * GIB - 7 * PAGE + 2 * i * HUGE_PAGE, 14);
	return 0;
}

static int build_sparse_huge(void)
{
	int err = no_huge_pages() ?: place_huge(FAR, 128);

	if (err)
		return err;
	for (int i = 0; i < 128; i += 11)
		touch(FAR + i * HUGE_PAGE, 1);
	return advise(FAR + 22 * HUGE_PAGE + 9 * PAGE, 1, MADV_DONTNEED) ?:
	       keep_as_it_is(FAR, 128);
}

/*
 * Mappings of few pages at the end, at the start and over the boundary of page
 * tables, and where there is no page table at some level.
 */
static int build_small(void)
{
	static const size_t sizes[] = { 1, 2, 3, 63, 64, 65, 511, 512, 513 };
	unsigned long at = FAR + HUGE_PAGE;
	int err;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (size_t before = 0; before < 3; before++, at += 4 * HUGE_PAGE) {
			unsigned long start = at - before * sizes[i] / 2 * PAGE;

			err = place_anon(start, sizes[i]);
			if (err)
				return err;
			madvise((void *)start, sizes[i] * PAGE, MADV_NOHUGEPAGE);
			/* the page table of the last page lies before that of the first */
			touch(start + (sizes[i] - 1) * PAGE, 1);
			touch(start, sizes[i]);
		}
	}
	err = place(FAR + TIB, 2 * TIB, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (err)
		return err;
	madvise((void *)(FAR + TIB), 2 * TIB, MADV_NOHUGEPAGE);
	touch(FAR + 3 * TIB - PAGE, 1);
	touch(FAR + TIB + 2 * GIB, 1);
	/* a page in the same, another page table, PMD table and PUD table */
	return mprotect((void *)(FAR + TIB + 2 * GIB + PAGE), 2 * PAGE, PROT_READ) ||
	       mprotect((void *)(FAR + TIB + 2 * GIB + 4 * MIB), 8 * PAGE, PROT_READ) ||
	       mprotect((void *)(FAR + TIB + 5 * GIB), 8 * PAGE, PROT_READ) ||
	       mprotect((void *)(FAR + TIB + 600 * GIB), 8 * PAGE, PROT_READ) ? errno : 0;
}

static int build_reserved(void)
{
	static const unsigned long at[] = {
		0, PAGE, 2 * GIB, 511 * GIB + 3 * HUGE_PAGE, 512 * GIB - PAGE,
		512 * GIB, 777 * GIB, TIB - PAGE,
	};
	int err = place(FAR, TIB, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) ?:
		  place(FAR + 2 * TIB, TIB, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (err)
		return err;
	madvise((void *)(FAR + 2 * TIB), TIB, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++)
		touch(FAR + 2 * TIB + at[i], 1);
	return 0;
}

/* What an entry of smaps has to say: KiB, or what else the number is */
struct amount {
	unsigned long at;	/* 0: in smaps_rollup */
	const char *name;
	unsigned long min;
	unsigned long max;
};

#define ANY	(~0UL)

/* A word in VmFlags or in numa_maps; not there where it begins with '!' */
struct word {
	unsigned long at;
	const char *word;
	const char *name;	/* of a mapping whose address is not known */
};

/* What a layout needs from the machine */
struct needs {
	int huge_pages;
	bool swap;
	bool ksm;
};

FIXTURE(smaps_diff)
{
	struct target target;
	struct text text[MAPS_FILES];
};

FIXTURE_VARIANT(smaps_diff)
{
	int (*build)(void);
	int (*thread)(void);
	struct amount amounts[24];
	bool large;	/* see expect_large() */
	struct word flags[16];
	struct word numa[16];
	struct word numa_thread[4];	/* instead of numa for the second thread */
	struct needs needs;
};

FIXTURE_VARIANT_ADD(smaps_diff, anon) {
	.build = build_anon,
	.amounts = {
		{ NEAR(0), "Size", 64, 64 }, { NEAR(0), "Rss", 64, 64 },
		{ NEAR(0), "Pss", 64, 64 }, { NEAR(0), "Private_Dirty", 64, 64 },
		{ NEAR(0), "Anonymous", 64, 64 },
		/* the zero page does not count */
		{ NEAR(1), "Size", 256, 256 }, { NEAR(1), "Rss", 32, 32 },
		{ NEAR(2), "Rss", 128, 128 },
		{ 0, "Pss_Anon", 64 + 32 + 128, ANY },
	},
	.flags = {
		{ NEAR(0), "rd" }, { NEAR(0), "wr" }, { NEAR(2), "!rd" },
	},
	.numa = {
		{ NEAR(0), "anon=16" }, { NEAR(0), "dirty=16" },
		{ NEAR(1), "anon=8" }, { NEAR(2), "anon=32" },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, forked) {
	.build = build_forked,
	.amounts = {
		{ NEAR(0), "Rss", 256, 256 },
		{ NEAR(0), "Pss", 64 + 96, 64 + 96 },
		{ NEAR(0), "Shared_Dirty", 192, 192 },
		{ NEAR(0), "Private_Dirty", 64, 64 },
	},
	.numa = { { NEAR(0), "anon=64" }, { NEAR(0), "mapmax=2" } },
};

FIXTURE_VARIANT_ADD(smaps_diff, file) {
	.build = build_file,
	.amounts = {
		{ NEAR(0), "Rss", 256, 256 }, { NEAR(0), "Anonymous", 32, 32 },
		{ NEAR(0), "Private_Clean", 128, 128 },
		{ NEAR(0), "Private_Dirty", 128, 128 },
		{ NEAR(1), "Rss", 256, 256 }, { NEAR(1), "Anonymous", 0, 0 },
		{ NEAR(1), "Private_Clean", 96, 96 },
		{ NEAR(1), "Private_Dirty", 160, 160 },
		{ NEAR(2), "Rss", 64, 64 }, { NEAR(2), "Pss", 32, 32 },
		{ NEAR(2), "Shared_Dirty", 64, 64 },
		{ 0, "Pss_File", 224 + 256 + 32, ANY },
	},
	.flags = { { NEAR(0), "!sh" }, { NEAR(1), "sh" } },
	.numa = {
		{ NEAR(0), "file=/tmp/ram/private" }, { NEAR(0), "anon=8" },
		{ NEAR(0), "dirty=32" }, { NEAR(0), "mapped=64" },
		{ NEAR(1), "dirty=40" }, { NEAR(2), "mapmax=2" },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, file_huge) {
	.build = build_file_huge,
	.amounts = {
		{ SPOT, "FilePmdMapped", 2048, ANY }, { SPOT, "Rss", 4096, ANY },
		{ SPOT + 16 * MIB, "FilePmdMapped", 0, 0 },
		{ SPOT + 16 * MIB, "Rss", 64, ANY },
		{ 0, "Pss_File", 2048, ANY },
	},
	.numa = { { SPOT, "mapmax=2" } },
};

FIXTURE_VARIANT_ADD(smaps_diff, shmem) {
	.build = build_shmem,
	.amounts = {
		{ NEAR(0), "Rss", 128, 128 }, { NEAR(1), "Rss", 0, 0 },
		{ NEAR(2), "Rss", 32, 32 }, { NEAR(2), "Anonymous", 32, 32 },
		{ NEAR(3), "Rss", 64, 64 }, { NEAR(3), "Size", 64, 64 },
		{ NEAR(3) + 32 * PAGE, "Rss", 128, 128 },
		{ 0, "Pss_Shmem", 128 + 64 + 128, ANY },
	},
	.flags = {
		{ NEAR(0), "sh" }, { NEAR(1), "!wr" }, { NEAR(2), "!sh" },
	},
	.numa = { { NEAR(0), "dirty=32" }, { NEAR(2), "anon=8" } },
};

FIXTURE_VARIANT_ADD(smaps_diff, shmem_swapped) {
	.build = build_shmem_swapped,
	.amounts = {
		{ NEAR(0), "Swap", 480, 480 }, { NEAR(0), "SwapPss", 0, 0 },
		{ NEAR(4), "Swap", 480 + 32, 480 + 32 },
		{ NEAR(4), "SwapPss", 32, 32 }, { NEAR(4), "Rss", 64, 64 },
		{ NEAR(8), "Swap", 480, 480 }, { NEAR(8), "Rss", 0, 0 },
		{ NEAR(12), "Swap", 480, 480 }, { NEAR(16), "Swap", 200, 200 },
		{ NEAR(20), "Swap", 0, 0 },
		{ 0, "Swap", 4 * 480 + 32 + 200, ANY },
	},
	.flags = {
		{ NEAR(0), "sh" }, { NEAR(4), "wr" }, { NEAR(4), "!sh" },
		{ NEAR(8), "!wr" }, { NEAR(12), "!wr" },
	},
	.needs = { .swap = true },
};

FIXTURE_VARIANT_ADD(smaps_diff, shmem_holes) {
	.build = build_shmem_holes,
	.amounts = {
		{ FAR, "Swap", 4 * 604, 4 * 604 },
		{ FAR + TIB, "Swap", 4 * 604, 4 * 604 },
		{ FAR + TIB, "Rss", 8, 8 },
		{ FAR + 2 * TIB + 5 * PAGE, "Swap", 4 * 435, 4 * 435 },
		{ FAR + 2 * TIB + 5 * PAGE, "Rss", 0, 0 },
	},
	.needs = { .swap = true },
};

FIXTURE_VARIANT_ADD(smaps_diff, swapped) {
	.build = build_swapped,
	.amounts = {
		{ NEAR(0), "Swap", 224, 224 }, { NEAR(0), "SwapPss", 112, 112 },
		{ NEAR(0), "Rss", 32, 32 },
		{ NEAR(1), "Swap", 224, 224 }, { NEAR(1), "SwapPss", 224, 224 },
		{ NEAR(1), "Rss", 32, 32 },
		{ NEAR(2), "Swap", 64, 64 }, { NEAR(2), "Rss", 0, 0 },
		{ 0, "Swap", 512, ANY }, { 0, "SwapPss", 400, ANY },
	},
	.numa = { { NEAR(0), "swapcache=8" } },
	.needs = { .swap = true },
};

FIXTURE_VARIANT_ADD(smaps_diff, swapped_huge) {
	.build = build_swapped_huge,
	.amounts = {
		{ SPOT, "Swap", 2048, 2048 }, { SPOT, "SwapPss", 2048, 2048 },
		{ SPOT, "AnonHugePages", 2048, 2048 },
	},
	.needs = { .swap = true },
};

FIXTURE_VARIANT_ADD(smaps_diff, ksm) {
	.build = build_ksm,
	.amounts = {
		{ NEAR(0), "KSM", 256, 256 }, { NEAR(0), "Rss", 256, 256 },
		{ NEAR(0), "Pss", 4, 4 },
		{ NEAR(1), "KSM", 192, 192 }, { NEAR(1), "Pss", 160, 160 },
		{ NEAR(2), "KSM", 0, 0 },
		{ 0, "KSM", 448, ANY },
	},
	.flags = { { NEAR(0), "mg" }, { NEAR(2), "mg" } },
	.numa = { { NEAR(0), "mapmax=64" }, { NEAR(1), "mapmax=2" } },
	.needs = { .ksm = true },
};

FIXTURE_VARIANT_ADD(smaps_diff, huge) {
	.build = build_huge,
	.amounts = {
		{ SPOT, "Size", 8 * 2048, 8 * 2048 },
		{ SPOT, "AnonHugePages", 4 * 2048, 4 * 2048 },
		{ SPOT, "Rss", 4 * 2048 + 2044 + 1024, 4 * 2048 + 2044 + 1024 },
		{ SPOT + 32 * MIB, "AnonHugePages", 4 * 2048, 4 * 2048 },
		{ SPOT + 32 * MIB, "THPeligible", 1, 1 },
		{ SPOT + 64 * MIB, "Rss", 1024, 1024 },
		{ SPOT + 64 * MIB, "AnonHugePages", 0, 0 },
		{ SPOT + 67 * MIB, "Rss", 1024, 1024 },
		{ SPOT + 96 * MIB, "AnonHugePages", 2048, 2048 },
		{ SPOT + 96 * MIB, "Locked", 2048, 2048 },
		{ 0, "AnonHugePages", 9 * 2048, ANY },
	},
	.flags = {
		{ SPOT, "nh" }, { SPOT + 32 * MIB, "hg" },
		{ SPOT + 96 * MIB, "lo" },
	},
	.numa = { { SPOT, "anon=2815" }, { SPOT + 32 * MIB, "anon=2048" } },
};

FIXTURE_VARIANT_ADD(smaps_diff, large) {
	.build = build_large,
	.large = true,
	.amounts = {
		{ LARGE_SWAPPED, "Swap", 72 * 4, 72 * 4 },
		{ LARGE_SWAPPED, "Rss", 2048 - 72 * 4, 2048 - 72 * 4 },
		{ 0, "Pss_Shmem", 7 * 2048 - (3 * 64 + 128 + 256 + 512 + 1024) / 2, ANY },
	},
	.numa = {
		{ LARGE(2), "anon=5" }, { LARGE(2), "mapmax=2" },
		{ LARGE(2) + 8 * PAGE, "anon=504" }, { LARGE(2) + 8 * PAGE, "dirty=504" },
		{ LARGE(2) + 28 * MIB, "dirty=512" }, { LARGE(2) + 28 * MIB, "mapmax=2" },
	},
	.needs.swap = true,
};

FIXTURE_VARIANT_ADD(smaps_diff, huge_forked) {
	.build = build_huge_forked,
	.amounts = {
		{ SPOT, "AnonHugePages", 2048, 2048 },
		{ SPOT, "Rss", 3 * 2048 - 400, 3 * 2048 - 400 },
		{ SPOT, "Pss", 1024 + 824 + 1022 + 4, 1024 + 824 + 1022 + 4 },
		{ SPOT, "Private_Dirty", 4, 4 },
	},
	.numa = { { SPOT, "mapmax=2" } },
};

FIXTURE_VARIANT_ADD(smaps_diff, huge_shmem) {
	.build = build_huge_shmem,
	.amounts = {
		{ SPOT, "ShmemPmdMapped", 3 * 2048, 3 * 2048 },
		{ SPOT + 32 * MIB, "ShmemPmdMapped", 2 * 2048, 2 * 2048 },
		{ SPOT + 32 * MIB, "Pss", 2048, 2048 },
		{ SPOT + 64 * MIB, "Anonymous", 32, 32 },
		{ SPOT + 96 * MIB + PAGE, "Rss", 4, ANY },
		{ SPOT + 96 * MIB + PAGE, "ShmemPmdMapped", 0, 0 },
		{ 0, "ShmemPmdMapped", 5 * 2048, ANY },
	},
	.numa = {
		{ SPOT, "file=/tmp/huge/file" }, { SPOT + 32 * MIB, "mapmax=2" },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, hugetlb) {
	.build = build_hugetlb,
	.amounts = {
		{ SPOT, "Rss", 0, 0 }, { SPOT, "KernelPageSize", 2048, 2048 },
		{ SPOT, "Private_Hugetlb", 2048, 2048 },
		{ SPOT, "Shared_Hugetlb", 4096, 4096 },
		{ SPOT + 32 * MIB, "Private_Hugetlb", 2048, 2048 },
		{ SPOT + 64 * MIB, "Shared_Hugetlb", 2048, 2048 },
		{ SPOT + 64 * MIB, "Private_Hugetlb", 0, 0 },
		{ 0, "Shared_Hugetlb", 6144, ANY },
		{ 0, "Private_Hugetlb", 4096, ANY },
	},
	.flags = { { SPOT, "ht" } },
	.numa = {
		{ SPOT, "huge" }, { SPOT, "anon=3" },
		{ SPOT, "kernelpagesize_kB=2048" }, { SPOT + 64 * MIB, "mapmax=2" },
	},
	.needs = { .huge_pages = 8 },
};

FIXTURE_VARIANT_ADD(smaps_diff, hugetlb_table) {
	.build = build_hugetlb_table,
	.amounts = {
		{ FAR, "Size", 1024 * 1024, 1024 * 1024 },
		{ FAR, "Shared_Hugetlb", 4096, 4096 },
		{ FAR, "Private_Hugetlb", 0, 0 },
	},
	.numa = { { FAR, "huge" }, { FAR, "dirty=2" } },
	.needs = { .huge_pages = 2 },
};

FIXTURE_VARIANT_ADD(smaps_diff, locked) {
	.build = build_locked,
	.amounts = {
		{ NEAR(0), "Locked", 128, 128 },
		{ NEAR(1), "Locked", 32, 32 }, { NEAR(1), "Rss", 32, 32 },
		{ NEAR(2), "Rss", 64, 64 }, { NEAR(2), "Locked", 32, 32 },
		{ NEAR(3), "Rss", 64, 64 }, { NEAR(3), "Locked", 32, 32 },
		{ 0, "Locked", 128 + 32 + 32 + 32, ANY },
	},
	.flags = {
		{ NEAR(0), "lo" }, { NEAR(0), "!lf" }, { NEAR(1), "lo" },
		{ NEAR(1), "lf" }, { NEAR(2), "lo" }, { NEAR(3), "lo" },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, uffd_missing) {
	.build = build_uffd_missing,
	.amounts = {
		{ NEAR(0), "Rss", 32, 32 }, { NEAR(2), "Rss", 128, 128 },
	},
	.flags = {
		{ NEAR(0), "um" }, { NEAR(0), "!uw" }, { NEAR(2), "ui" },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, uffd_wp) {
	.build = build_uffd_wp,
	.amounts = {
		{ NEAR(0), "Rss", 128, 128 }, { NEAR(1), "Rss", 96, 96 },
	},
	.flags = { { NEAR(0), "uw" }, { NEAR(0), "!um" }, { NEAR(1), "uw" } },
};

FIXTURE_VARIANT_ADD(smaps_diff, uffd_wp_swapped) {
	.build = build_uffd_wp_swapped,
	.amounts = {
		{ NEAR(0), "Swap", 256, 256 }, { NEAR(1), "Swap", 128, 128 },
		{ NEAR(2), "Swap", 256, 256 },
	},
	.flags = { { NEAR(0), "uw" }, { NEAR(1), "uw" }, { NEAR(2), "uw" } },
	.needs = { .swap = true },
};

FIXTURE_VARIANT_ADD(smaps_diff, uffd_wp_hugetlb) {
	.build = build_uffd_wp_hugetlb,
	.amounts = {
		{ SPOT, "Private_Hugetlb", 4096, 4096 },
		{ SPOT, "Shared_Hugetlb", 0, 0 },
	},
	.flags = { { SPOT, "uw" }, { SPOT, "ht" } },
	.needs = { .huge_pages = 4 },
};

#ifdef UFFDIO_REGISTER_MODE_RWP
FIXTURE_VARIANT_ADD(smaps_diff, uffd_rwp) {
	.build = build_uffd_rwp,
	.amounts = { { NEAR(0), "Rss", 128, 128 } },
	.flags = { { NEAR(0), "ur" } },
};
#endif

FIXTURE_VARIANT_ADD(smaps_diff, soft_dirty) {
	.build = build_soft_dirty,
	.amounts = { { NEAR(0), "Rss", 256, 256 } },
	.flags = { { NEAR(0), "!sd" }, { NEAR(1), "sd" } },
};

FIXTURE_VARIANT_ADD(smaps_diff, referenced) {
	.build = build_referenced,
	.amounts = {
		{ NEAR(0), "Rss", 256, 256 }, { NEAR(0), "Referenced", 64, 64 },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, lazy_free) {
	.build = build_lazy_free,
	.amounts = {
		{ NEAR(0), "Rss", 256, 256 }, { NEAR(0), "LazyFree", 224, 224 },
		{ NEAR(0), "Private_Clean", 224, 224 },
		{ NEAR(1), "LazyFree", 0, 0 }, { 0, "LazyFree", 224, ANY },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, guard) {
	.build = build_guard,
	.amounts = {
		{ NEAR(0), "Rss", 192, 192 }, { NEAR(1), "Rss", 0, 0 },
		{ NEAR(2), "Rss", 240, 240 },
	},
	.flags = { { NEAR(0), "gu" }, { NEAR(1), "gu" }, { NEAR(2), "gu" } },
};

FIXTURE_VARIANT_ADD(smaps_diff, pkey) {
	.build = build_pkey,
	.amounts = {
		{ NEAR(0), "ProtectionKey", 1, 1 },
		{ NEAR(1), "ProtectionKey", 2, 2 },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, policies) {
	.build = build_policies,
	.numa = {
		{ NEAR(0), "bind:1" }, { NEAR(0), "N1=16" },
		{ NEAR(1), "interleave:0-1" }, { NEAR(1), "N0=8" },
		{ NEAR(1), "N1=8" }, { NEAR(2), "prefer:1" }, { NEAR(2), "N1=16" },
		{ NEAR(3), "(many):0-1" }, { NEAR(4), "local" },
		{ NEAR(5), "bind=static:1" }, { NEAR(6), "interleave=relative:0-1" },
		{ NEAR(7), "weighted" }, { NEAR(8), "default" },
		{ NEAR(8), "N1=16" },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, shmem_policy) {
	.build = build_shmem_policy,
	.numa = {
		{ NEAR(0), "bind:1" }, { NEAR(0) + 32 * PAGE, "default" },
		{ NEAR(1), "bind:1" }, { NEAR(1), "N1=" },
		{ NEAR(2), "default" },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, task_policy) {
	.build = build_task_policy,
	.thread = thread_task_policy,
	.numa = {
		{ NEAR(0), "prefer:1" }, { NEAR(0), "N1=16" },
		{ NEAR(1), "bind:0" },
	},
	.numa_thread = {
		{ NEAR(0), "interleave:0-1" }, { NEAR(1), "bind:0" },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, flags) {
	.build = build_flags,
	.flags = {
		{ NEAR(0), "dc" }, { NEAR(1), "wf" }, { NEAR(2), "dd" },
		{ NEAR(3), "sr" }, { NEAR(4), "rr" }, { NEAR(5), "hg" },
		{ NEAR(6), "nh" }, { NEAR(7), "mg" }, { NEAR(8), "sl" },
		{ NEAR(9), "dp" }, { NEAR(10), "nr" }, { NEAR(11), "gd" },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, special) {
	.build = build_special,
	.amounts = { { NEAR(0), "Rss", 32, 32 } },
	.flags = {
		{ .name = " /[aio] (deleted)\n", .word = "dc" },
		{ .name = " anon_inode:[io_uring]\n", .word = "mm" },
#ifdef __x86_64__
		{ .name = " [vvar_vclock]\n", .word = "pf" },
#endif
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, pfnmap) {
	.build = build_pfnmap,
	.amounts = {
		{ NEAR(0), "Rss", 12, 12 }, { NEAR(0), "Anonymous", 12, 12 },
		{ NEAR(0), "Private_Dirty", 12, 12 }, { NEAR(1), "Rss", 0, 0 },
		{ 0, "Pss_Anon", 12, ANY },
	},
	.flags = { { NEAR(0), "pf" }, { NEAR(1), "pf" } },
};

FIXTURE_VARIANT_ADD(smaps_diff, sparse) {
	.build = build_sparse,
	.amounts = {
		{ FAR, "Size", 256 * 1024, 256 * 1024 },
		{ FAR, "Rss", 676 * 4, 676 * 4 },
		{ FAR + GIB + 3 * PAGE, "Rss", 676 * 4, 676 * 4 },
		{ FAR + 2 * GIB - 7 * PAGE, "Rss", 64 * 14 * 4, 64 * 14 * 4 },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, sparse_huge) {
	.build = build_sparse_huge,
	.amounts = {
		{ FAR, "AnonHugePages", 11 * 2048, 11 * 2048 },
		{ FAR, "Rss", 12 * 2048 - 4, 12 * 2048 - 4 },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, small) {
	.build = build_small,
	.amounts = {
		{ FAR + HUGE_PAGE, "Rss", 4, 4 },
		{ FAR + 45 * HUGE_PAGE - 63 * PAGE, "Rss", 63 * 4, 63 * 4 },
		{ FAR + 53 * HUGE_PAGE - 32 * PAGE, "Rss", 64 * 4, 64 * 4 },
		{ FAR + TIB + 2 * GIB + PAGE, "Rss", 0, 0 },
		{ FAR + TIB + 600 * GIB, "Size", 32, 32 },
	},
};

FIXTURE_VARIANT_ADD(smaps_diff, reserved) {
	.build = build_reserved,
	.amounts = {
		{ FAR, "Size", 1UL << 30, 1UL << 30 }, { FAR, "Rss", 0, 0 },
		{ FAR + 2 * TIB, "Size", 1UL << 30, 1UL << 30 },
		{ FAR + 2 * TIB, "Rss", 32, 32 },
	},
};

/*
 * What the machine is put back to. A test that runs out of time is killed and
 * cannot clean up, so the next one does, and the program at its end.
 */
static struct {
	pid_t main;
	long ksm_run;
	long huge_pages;
	bool swapping;
} before;

/* From another mount namespace than swapon's, its path has no /dev. */
static bool ram_disk_swaps(void)
{
	return file_has("/proc/swaps", "/ram0 ");
}

static void __attribute__((constructor)) remember(void)
{
	before.main = getpid();
	before.ksm_run = number_file(KSM "run", -1);
	before.huge_pages = number_file(HUGE_PAGES, -1);
	before.swapping = ram_disk_swaps();
}

static void put_back(void)
{
	int fd;

	if (before.ksm_run >= 0 && number_file(KSM "run", -1) != before.ksm_run)
		number_file(KSM "run", before.ksm_run);
	if (before.huge_pages >= 0 &&
	    number_file(HUGE_PAGES, -1) != before.huge_pages)
		number_file(HUGE_PAGES, before.huge_pages);
	set_no_large();
	if (before.swapping || !ram_disk_swaps())
		return;
	if (swapoff(RAM_DISK))
		perror("# swapoff " RAM_DISK);
	/* gives the memory back, and what comes next finds the disk empty */
	fd = open(RAM_DISK, O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		__u64 range[2] = {};

		if (!ioctl(fd, BLKGETSIZE64, &range[1]))
			ioctl(fd, BLKDISCARD, range);
		close(fd);
	}
}

static void __attribute__((destructor)) put_back_at_end(void)
{
	if (getpid() == before.main)
		put_back();
}

/* Why there is no swap on the RAM disk now, or NULL */
static const char *start_swap(void)
{
	static const char empty[PAGE];
	static struct {
		char boot[1024];
		unsigned int version;
		unsigned int last_page;
		char rest[PAGE - 1024 - 8 - 10];
		char magic[10];
	} head;
	const char *why = NULL;
	__u64 size;
	int fd;

	if (before.swapping)
		return RAM_DISK " is in use";
	fd = open(RAM_DISK, O_RDWR | O_EXCL | O_CLOEXEC);
	if (fd < 0)
		return errno == EBUSY ? RAM_DISK " is in use" : "no " RAM_DISK;
	if (ioctl(fd, BLKGETSIZE64, &size) || size < 32 * MIB)
		why = RAM_DISK " is too small";
	else if (pread(fd, &head, PAGE, 0) != PAGE ||
		 (memcmp(&head, empty, PAGE) &&
		  memcmp(head.magic, SWAP_MAGIC, sizeof(head.magic))))
		why = RAM_DISK " has something on it";
	if (!why) {
		memset(&head, 0, sizeof(head));
		head.version = 1;
		head.last_page = size / PAGE - 1;
		memcpy(head.magic, SWAP_MAGIC, sizeof(head.magic));
		if (pwrite(fd, &head, PAGE, 0) != PAGE || fsync(fd))
			why = "writing to " RAM_DISK " fails";
	}
	close(fd);
	if (!why && swapon(RAM_DISK, 0))
		why = "swapon of " RAM_DISK " fails";
	return why;
}

/* Why the machine cannot give what is needed, or NULL */
static const char *prepare(const struct needs *needs)
{
	const long huge_pages = before.huge_pages + needs->huge_pages;

	if (needs->ksm && before.ksm_run < 0)
		return "no KSM";
	if (needs->huge_pages) {
		if (before.huge_pages < 0)
			return "no " HUGE_PAGES;
		number_file(HUGE_PAGES, huge_pages);
		if (number_file(HUGE_PAGES, -1) < huge_pages)
			return "not enough memory for huge pages";
	}
	return needs->swap ? start_swap() : NULL;
}

static int stay_on_cpu(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	if (cpu < 0)
		return errno;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return must(sched_setaffinity(0, sizeof(set), &set));
}

static int (*build_there)(void);

/* What is put off until a CPU has enough of it is put off in one place. */
static int build_on_cpu(void)
{
	return stay_on_cpu() ?: build_there();
}

FIXTURE_SETUP(smaps_diff)
{
	const struct layout layout = {
		.build = build_on_cpu,
		.thread = variant->thread,
	};
	const char *cannot = maps_cannot_test();
	int err;

	if (!cannot)
		cannot = maps_file_built(SMAPS) ? private_tmp() : "no smaps in this kernel";
	if (cannot)
		SKIP(return, "%s", cannot);
	put_back();
	cannot = prepare(&variant->needs);
	if (cannot) {
		put_back();
		SKIP(return, "%s", cannot);
	}

	build_there = variant->build;
	err = target_of_threads(&self->target, &layout);
	/* there is no teardown where the setup does not succeed */
	if (err) {
		target_stop(&self->target);
		put_back();
	}
	if (err < 0)
		SKIP(return, "this kernel cannot: %s", strerror(-err));
	ASSERT_EQ(0, err)
		TH_LOG("%s", strerror(err));
}

FIXTURE_TEARDOWN(smaps_diff)
{
	target_stop(&self->target);
	put_back();
	for (int file = 0; file < MAPS_FILES; file++)
		text_free(&self->text[file]);
}

/* Compares all files and keeps what was read. */
static void compare_all(struct __test_metadata *_metadata,
			struct text *text, const char *dir)
{
	for (int file = 0; file < MAPS_FILES; file++)
		compare_file(_metadata, dir, file, &text[file]);
}

/*
 * From the line that begins with @first to the next that begins with @last, as
 * a string, which the caller frees. NULL where there is none
 */
static char *lines_between(const struct text *text, const char *first,
			   const char *last)
{
	const char *const end = text->data + text->len;
	const char *from = NULL, *next;

	for (const char *line = text->data; line < end; line = next) {
		size_t len;

		next = memchr(line, '\n', end - line);
		next = next ? next + 1 : end;
		len = next - line;
		if (!from && len > strlen(first) &&
		    !memcmp(line, first, strlen(first)))
			from = line;
		if (from && len > strlen(last) && !memcmp(line, last, strlen(last)))
			return strndup(from, next - from);
	}
	return NULL;
}

static char *smaps_entry(const struct text *text, unsigned long at)
{
	char first[32];

	snprintf(first, sizeof(first), "%08lx-", at);
	return lines_between(text, first, "VmFlags:");
}

static char *smaps_entry_of(const struct text *text, const char *name)
{
	const char *line = memmem(text->data, text->len, name, strlen(name));

	while (line && line > text->data && line[-1] != '\n')
		line--;
	return line ? smaps_entry(text, strtoul(line, NULL, 16)) : NULL;
}

/* The number after "NAME:" at the start of a line */
static bool entry_number(const char *entry, const char *name,
			 unsigned long *number)
{
	const size_t len = strlen(name);

	for (const char *line = entry; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, len) && line[len] == ':')
			return sscanf(line + len + 1, "%lu", number) == 1;
	}
	return false;
}

/* Is there @word in the line? Where that ends with '=', a number follows. */
static bool line_has_word(const char *line, const char *word)
{
	const size_t len = strlen(word);

	for (const char *at = line; (at = strstr(at, word)); at++) {
		if (at == line || at[-1] != ' ')
			continue;
		if (at[len] == ' ' || at[len] == '\n' || word[len - 1] == '=')
			return true;
	}
	return false;
}

static void expect_amount(struct __test_metadata *_metadata,
			  const struct text *text, const struct amount *amount)
{
	unsigned long number = 0;
	char *in = amount->at ? smaps_entry(&text[SMAPS], amount->at) :
				strndup(text[SMAPS_ROLLUP].data,
					text[SMAPS_ROLLUP].len);
	bool found = in && entry_number(in, amount->name, &number);

	EXPECT_TRUE(found && number >= amount->min && number <= amount->max)
		TH_LOG("%s is %lu, not in %lu..%lu, at %lx:\n%s", amount->name,
		       number, amount->min, amount->max, amount->at, in ?: "");
	free(in);
}

static void expect_word(struct __test_metadata *_metadata, char *in,
			const char *line, const struct word *word)
{
	const bool wanted = word->word[0] != '!';

	EXPECT_TRUE(line && line_has_word(line, word->word + !wanted) == wanted)
		TH_LOG("'%s' is not so at %lx:\n%s", word->word, word->at, in ?: "");
	free(in);
}

static void expect_flag(struct __test_metadata *_metadata,
			const struct text *text, const struct word *word)
{
	char *in = word->name ? smaps_entry_of(&text[SMAPS], word->name) :
				smaps_entry(&text[SMAPS], word->at);

	expect_word(_metadata, in, in ? strstr(in, "VmFlags:") : NULL, word);
}

static void expect_numa(struct __test_metadata *_metadata,
			const struct text *text, const struct word *word)
{
	char first[32], *in;

	if (!maps_file_built(NUMA_MAPS))
		return;
	snprintf(first, sizeof(first), "%08lx ", word->at);
	in = lines_between(&text[NUMA_MAPS], first, "");
	expect_word(_metadata, in, in, word);
}

/* What smaps and numa_maps say of what the layout has made at fixed addresses */
static void print_entries(const struct text *text)
{
	for (int file = 0; file < MAPS_FILES; file++) {
		const char *line = text[file].data, *end = line + text[file].len, *next;
		bool ours = false;

		if (file != SMAPS && file != NUMA_MAPS)
			continue;
		for (; line < end; line = next) {
			unsigned long at;
			char after;

			next = memchr(line, '\n', end - line);
			next = next ? next + 1 : end;
			if (sscanf(line, "%lx%c", &at, &after) == 2 && strchr("- ", after))
				ours = at >= SPOT && at < FAR + 16 * TIB;
			if (ours)
				printf("@ %.*s", (int)(next - line), line);
		}
	}
	fflush(stdout);
}

/* What build_large() has made, by the size of the folios */
static void expect_large(struct __test_metadata *_metadata, const struct text *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(large_kb); i++) {
		const unsigned long at = LARGE_ANON + i * 4 * MIB, rest = at + 8 * PAGE;
		const unsigned long shmem = LARGE_SHMEM + i * 4 * MIB;
		/* a read maps the neighbours in 64 KiB, and of a shmem folio all pages */
		const unsigned long both = large_kb[i] > 64 ? large_kb[i] : 64;
		const unsigned long alone = 2048 - both;
		const struct amount amounts[] = {
			{ at, "Rss", 20, 20 }, { at, "Pss", 10, 10 },
			{ rest, "Rss", 2016, 2016 }, { rest, "Pss", 988 + 40, 988 + 40 },
			{ rest, "Private_Dirty", 40, 40 }, { rest, "Shared_Dirty", 1976, 1976 },
			{ shmem, "Rss", 2048, 2048 },
			{ shmem, "Pss", alone + both / 2, alone + both / 2 },
			{ shmem, "Shared_Dirty", both, both },
		};

		for (size_t n = 0; n < ARRAY_SIZE(amounts); n++)
			expect_amount(_metadata, text, &amounts[n]);
	}
}

TEST_F_TIMEOUT(smaps_diff, process, TIMEOUT)
{
	char dir[64];

	snprintf(dir, sizeof(dir), "/proc/%d", self->target.pid);
	compare_all(_metadata, self->text, dir);
	if (getenv("PROC_SMAPS_PRINT"))
		print_entries(self->text);
	for (int i = 0; variant->amounts[i].name; i++)
		expect_amount(_metadata, self->text, &variant->amounts[i]);
	if (variant->large)
		expect_large(_metadata, self->text);
	for (int i = 0; variant->flags[i].word; i++)
		expect_flag(_metadata, self->text, &variant->flags[i]);
	for (int i = 0; variant->numa[i].word; i++)
		expect_numa(_metadata, self->text, &variant->numa[i]);
}

TEST_F_TIMEOUT(smaps_diff, second_thread, TIMEOUT)
{
	const struct word *numa = variant->numa_thread[0].word ?
				  variant->numa_thread : variant->numa;
	char dir[64];

	snprintf(dir, sizeof(dir), "/proc/%d/task/%d", self->target.pid,
		 *second_tid);
	compare_all(_metadata, self->text, dir);
	for (int i = 0; numa[i].word; i++)
		expect_numa(_metadata, self->text, &numa[i]);
}

TEST_HARNESS_MAIN
