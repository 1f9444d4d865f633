// SPDX-License-Identifier: GPL-2.0
/*
 * Allocations and copies to and from user space are made to fail, one after the
 * other until all of a system call were, while /proc/PID/maps, smaps,
 * smaps_rollup or numa_maps is opened, read, sought, queried and closed. Each
 * failure has to be reported with the same error whether the C or the Rust code
 * serves the file, or not at all if there is a way around it. What is read
 * afterwards is complete, and nothing stays locked, referenced or allocated.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <dirent.h>
#include <glob.h>
#include <linux/elf.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/param.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "proc-maps.h"
#include "proc-maps-quiet.h"

#define TIMEOUT		300	/* seconds for each test */
#define PATIENCE	20	/* seconds for what should happen at once */
#define MAX_FAULTS	4000	/* of one sequence of calls */
#define LARGE		(128 * 1024)
#define ROUNDS		400	/* of calls when leaks of memory are looked for */
#define TRIES		4
#define LEAK		16	/* KiB: as many objects of 64 bytes are more */

#define ELF_AT		(SPOT - 64 * PAGE)
#define ID_SIZE		20

/* What can be made to fail, as bits of a mask */
enum kind {
	SLAB,
	PAGES,
	COPY,
	KINDS,
};

static const struct {
	const char *name;
	int error;
} kinds[KINDS] = {
	[SLAB] = { "failslab", ENOMEM },
	[PAGES] = { "fail_page_alloc", ENOMEM },
	[COPY] = { "fail_usercopy", EFAULT },
};

/* What is different between the files */
struct facts {
	const char *file;
	bool one_record;	/* about the whole process */
	/*
	 * Allocations of open() beyond those that it has in both: the single_open()
	 * of C makes a table of operations.
	 */
	int more[2];
};

enum {
	MAPS,
	SMAPS,
	SMAPS_ROLLUP,
	NUMA_MAPS,
};

static const struct facts all_facts[] = {
	[MAPS] = { .file = "maps" },
	[SMAPS] = { .file = "smaps" },
	[SMAPS_ROLLUP] = {
		.file = "smaps_rollup", .one_record = true, .more = { [MAPS_C] = 1 },
	},
	[NUMA_MAPS] = { .file = "numa_maps" },
};

/* Of the file that is tested; each test is a process of its own */
static const struct facts *facts;

/* The file as it is when nothing fails */
static struct text whole;

static bool is_maps(void)
{
	return !strcmp(facts->file, "maps");
}

/*
 * The attributes of fault injection. With fail-nth it does not matter how
 * probable a failure is; with make-it-fail all allocations fail.
 */
static struct setting {
	enum kind kind;
	const char *file, *value;
	char saved[32];
} settings[] = {
	{ SLAB, "ignore-gfp-wait", "N" },
	{ SLAB, "cache-filter", "Y" },
	{ SLAB, "verbose", "0" },
	{ SLAB, "interval", "1" },
	{ SLAB, "space", "0" },
	{ SLAB, "times", "1000000000" },
	{ SLAB, "task-filter", "Y" },
	{ SLAB, "probability", "100" },
	{ PAGES, "ignore-gfp-wait", "N" },
	{ PAGES, "ignore-gfp-highmem", "N" },
	{ PAGES, "min-order", "20" },
	{ PAGES, "verbose", "0" },
	{ PAGES, "interval", "1" },
	{ PAGES, "space", "0" },
	{ PAGES, "times", "1000000000" },
	{ PAGES, "task-filter", "Y" },
	{ PAGES, "probability", "100" },
	{ COPY, "verbose", "0" },
	{ COPY, "times", "1000000000" },
	{ COPY, "probability", "0" },
};

static int fail_nth, make_it_fail;
static long left[KINDS];
static int armed;

static const char *attribute(enum kind kind, const char *file)
{
	static char path[128];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", kinds[kind].name, file);
	return path;
}

/* How often @kind may still fail, or 0 if it cannot */
static long times_left(enum kind kind)
{
	int fd = open(attribute(kind, "times"), O_RDONLY | O_CLOEXEC);
	char number[32] = {};

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || read(fd, number, sizeof(number) - 1) <= 0)
		maps_die(kinds[kind].name);
	close(fd);
	return atol(number);
}

/*
 * May allocations from slabs fail? Those of kmemleak may not: it makes one for
 * each that others make, and does without where it fails. With it the caches are
 * chosen one by one, but for those that stand for more than one.
 */
static void set_slabs(bool fail)
{
	glob_t caches;

	if (!maps_has_kmemleak) {
		if (fail && write_file(attribute(SLAB, "cache-filter"), "N"))
			maps_die("cache-filter");
		return;
	}
	if (glob("/sys/kernel/slab/*/failslab", 0, NULL, &caches))
		maps_die("/sys/kernel/slab");
	for (size_t i = 0; i < caches.gl_pathc; i++) {
		const char *cache = caches.gl_pathv[i];
		int err = write_file(cache, fail && !strstr(cache, "/kmemleak_") ? "1" : "0");

		if (err && err != EINVAL)
			maps_die(cache);
	}
	globfree(&caches);
}

/* Why @kind cannot be made to fail, or NULL */
static const char *set_up_faults(enum kind kind)
{
	static char why[128];

	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	make_it_fail = open("/proc/thread-self/make-it-fail", O_RDWR | O_CLOEXEC);
	if (fail_nth < 0 || make_it_fail < 0)
		return "no fault injection in this kernel";
	if (access(attribute(kind, "times"), R_OK | W_OK)) {
		snprintf(why, sizeof(why), "%s: %s", kinds[kind].name, strerror(errno));
		return why;
	}

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		struct setting *s = &settings[i];
		const char *path = attribute(s->kind, s->file);
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 && errno == ENOENT && s->kind != kind)
			continue;
		if (fd < 0 || read(fd, s->saved, sizeof(s->saved) - 1) <= 0 ||
		    write_file(path, s->value))
			maps_die(path);
		close(fd);
	}
	set_slabs(kind == SLAB);
	if (kind == PAGES && write_file(attribute(PAGES, "min-order"), "0"))
		maps_die("min-order");
	for (int i = 0; i < KINDS; i++)
		left[i] = times_left(i);
	return NULL;
}

static void restore_settings(void)
{
	for (size_t i = ARRAY_SIZE(settings); i-- > 0;) {
		if (settings[i].saved[0])
			write_file(attribute(settings[i].kind, settings[i].file),
				   settings[i].saved);
	}
}

/* How long it lasts once something has failed */
enum duration {
	ONCE,
	ON,	/* all allocations fail from then on */
};

/* Have the @n-th fail that may fail; with 0 all allocations do from now on. */
static void arm(enum duration duration, int n)
{
	char number[16];
	int len = snprintf(number, sizeof(number), "%d", n);

	armed = n;
	if ((duration == ON && pwrite(make_it_fail, "1", 1, 0) != 1) ||
	    pwrite(fail_nth, number, len, 0) != len)
		maps_die("fail-nth");
}

/*
 * No more failures from here. Gives which kinds there were. What is done here
 * copies from and to user space itself: a failure of that is none of the call.
 */
static int disarm(void)
{
	char number[16] = {};
	ssize_t n = pread(fail_nth, number, sizeof(number) - 1, 0);
	int mask = 0;

	if (n < 0 && errno != EFAULT)
		maps_die("fail-nth");
	while (pwrite(fail_nth, "0", 1, 0) != 1) {
		if (errno != EFAULT)
			maps_die("fail-nth");
	}
	if (pwrite(make_it_fail, "0", 1, 0) != 1)
		maps_die("make-it-fail");

	for (int i = 0; i < KINDS; i++) {
		long now = times_left(i);

		if (now != left[i])
			mask |= 1 << i;
		left[i] = now;
	}
	if (armed && (n <= 0 || atoi(number)))
		return 0;
	if (armed && !mask)
		maps_die("something else was made to fail");
	return mask;
}

/* The target: a program of its own, whose mm belongs to its user namespace */

static int make_elf(const char *path)
{
	struct {
		struct elf64_hdr header;
		struct elf64_phdr segment;
		struct elf64_note note;
		char name[4];
		unsigned char id[ID_SIZE];
	} elf = {
		.header = {
			.e_ident = ELFMAG "\x02\x01\x01",
			.e_type = ET_DYN,
			.e_version = EV_CURRENT,
			.e_phoff = offsetof(typeof(elf), segment),
			.e_ehsize = sizeof(elf.header),
			.e_phentsize = sizeof(elf.segment),
			.e_phnum = 1,
		},
		.segment = {
			.p_type = PT_NOTE,
			.p_offset = offsetof(typeof(elf), note),
			.p_filesz = sizeof(elf) - offsetof(typeof(elf), note),
			.p_align = 4,
		},
		.note = { 4, ID_SIZE, 3 /* NT_GNU_BUILD_ID */ },
		.name = "GNU",
	};
	int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	int err;

	memset(elf.id, 0xb1, sizeof(elf.id));
	if (fd < 0)
		return errno;
	err = write(fd, &elf, sizeof(elf)) != sizeof(elf) || ftruncate(fd, PAGE) ||
	      mmap((void *)ELF_AT, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE,
		   fd, 0) == MAP_FAILED ? errno : 0;
	close(fd);
	return err;
}

enum work {
	FORK,	/* write-locks each VMA */
	UNMAP,	/* changes and unmaps VMAs */
};

static int work(int what)
{
	pid_t pid;

	if (what == UNMAP)
		return mprotect((void *)SPOT, 100 * PAGE, PROT_READ | PROT_WRITE) ||
		       munmap((void *)SPOT, 100 * PAGE) ? errno : 0;
	pid = fork();
	if (!pid)
		_exit(0);
	return pid < 0 || waitpid(pid, NULL, 0) != pid ? errno : 0;
}

static int be_target(const char *file, int in, int out)
{
	int what, result;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t i = 0; i < ARRAY_SIZE(all_facts); i++) {
		if (!strcmp(all_facts[i].file, file))
			facts = &all_facts[i];
	}
	if (!facts)
		return 1;
	result = (is_maps() ? 0 : target_share_no_pages()) ?: make_elf("/tmp/elf") ?:
		 map_many(100) ?: map_deep_file(10);
	while (write(out, &result, sizeof(result)) > 0 &&
	       read(in, &what, sizeof(what)) == sizeof(what))
		result = work(what);
	return 0;
}

/*
 * The target's parent. It may have no more than one child with namespaces of
 * its own. The pid namespace of the target goes when the last reference to its
 * struct pid does, and its user namespace when its tasks, credentials and mm are
 * gone too: so another child like that tells that there are no references.
 */
enum care {
	START,
	END,
	OTHER_PID,	/* 0 or errno; ENOSPC while the namespace is there */
	OTHER_USER,
};

static struct target target;
static char target_fds[2][16];
static bool target_stuck;	/* and cannot be killed */

static int keep(const void *arg)
{
	if (unshare(CLONE_NEWUSER))
		return errno;
	return write_file("/proc/self/uid_map", "0 0 1") ?:
	       write_file("/proc/self/setgroups", "deny") ?:
	       write_file("/proc/self/gid_map", "0 0 1") ?:
	       write_file("/proc/sys/user/max_user_namespaces", "1") ?:
	       write_file("/proc/sys/user/max_pid_namespaces", "1");
}

static pid_t fork_to(unsigned long namespaces)
{
	return syscall(SYS_clone, namespaces | SIGCHLD, NULL, NULL, NULL, 0);
}

static int care(int what)
{
	static pid_t pid;
	pid_t other;

	if (what == START) {
		pid = fork_to(CLONE_NEWUSER | CLONE_NEWPID);
		if (!pid) {
			execl("/proc/self/exe", "proc-maps-faults", "--target", facts->file,
			      target_fds[0], target_fds[1], NULL);
			_exit(1);
		}
		return pid < 0 ? -errno : pid;
	}
	if (what == END)
		return kill(pid, SIGKILL) || waitpid(pid, NULL, 0) != pid ? errno : 0;

	other = fork_to(what == OTHER_PID ? CLONE_NEWPID : CLONE_NEWUSER);
	if (!other)
		_exit(0);
	return other < 0 || waitpid(other, NULL, 0) != other ? errno : 0;
}

/* What @t says in time, or ETIME */
static int reply_soon(struct target *t)
{
	struct pollfd from = { .fd = t->from, .events = POLLIN };

	return poll(&from, 1, PATIENCE * 1000) == 1 ? target_reply(t) : ETIME;
}

static int do_soon(struct target *t, int what)
{
	if (write(t->to, &what, sizeof(what)) != sizeof(what))
		maps_die("write to target");
	return reply_soon(t);
}

FIXTURE(maps_faults)
{
	struct target keeper;
	int lowest;	/* descriptor of those that the test opens */
};

FIXTURE_VARIANT(maps_faults)
{
	const struct facts *facts;
	enum kind kind;
};

FIXTURE_VARIANT_ADD(maps_faults, maps_slab) {
	.facts = &all_facts[MAPS],
	.kind = SLAB,
};

FIXTURE_VARIANT_ADD(maps_faults, maps_pages) {
	.facts = &all_facts[MAPS],
	.kind = PAGES,
};

FIXTURE_VARIANT_ADD(maps_faults, maps_copy) {
	.facts = &all_facts[MAPS],
	.kind = COPY,
};

FIXTURE_VARIANT_ADD(maps_faults, smaps_slab) {
	.facts = &all_facts[SMAPS],
	.kind = SLAB,
};

FIXTURE_VARIANT_ADD(maps_faults, smaps_pages) {
	.facts = &all_facts[SMAPS],
	.kind = PAGES,
};

FIXTURE_VARIANT_ADD(maps_faults, smaps_copy) {
	.facts = &all_facts[SMAPS],
	.kind = COPY,
};

FIXTURE_VARIANT_ADD(maps_faults, smaps_rollup_slab) {
	.facts = &all_facts[SMAPS_ROLLUP],
	.kind = SLAB,
};

FIXTURE_VARIANT_ADD(maps_faults, smaps_rollup_pages) {
	.facts = &all_facts[SMAPS_ROLLUP],
	.kind = PAGES,
};

FIXTURE_VARIANT_ADD(maps_faults, smaps_rollup_copy) {
	.facts = &all_facts[SMAPS_ROLLUP],
	.kind = COPY,
};

FIXTURE_VARIANT_ADD(maps_faults, numa_maps_slab) {
	.facts = &all_facts[NUMA_MAPS],
	.kind = SLAB,
};

FIXTURE_VARIANT_ADD(maps_faults, numa_maps_pages) {
	.facts = &all_facts[NUMA_MAPS],
	.kind = PAGES,
};

FIXTURE_VARIANT_ADD(maps_faults, numa_maps_copy) {
	.facts = &all_facts[NUMA_MAPS],
	.kind = COPY,
};

/* Where a call puts what it reads */
static char data[4 * LARGE];

FIXTURE_SETUP(maps_faults)
{
	const char *cannot = maps_cannot_test_file(variant->facts->file) ?: private_tmp();
	int to[2], from[2], err, pid;

	facts = variant->facts;
	if (cannot)
		SKIP(return, "%s", cannot);
	cannot = set_up_faults(variant->kind);
	if (cannot)
		SKIP(return, "%s", cannot);

	ASSERT_EQ(0, pipe(to));
	ASSERT_EQ(0, pipe(from));
	snprintf(target_fds[0], sizeof(target_fds[0]), "%d", to[0]);
	snprintf(target_fds[1], sizeof(target_fds[1]), "%d", from[1]);
	err = target_start(&self->keeper, keep, care, NULL);
	if (err)
		SKIP(return, "own namespaces: %s", strerror(err));
	pid = target_do(&self->keeper, START);
	ASSERT_LT(0, pid)
		TH_LOG("target: %s", strerror(-pid));
	target.pid = pid;
	target.to = to[1];
	target.from = from[0];
	close(to[0]);
	close(from[1]);
	ASSERT_EQ(0, reply_soon(&target));
	/* for a page fault of the test itself pages are not to fail */
	ASSERT_EQ(0, mlockall(MCL_CURRENT));
	maps_read_quiet(_metadata, &whole, target.pid, facts->file);
	if (!facts->one_record)
		ASSERT_LT(2 * PAGE, whole.len);
	ASSERT_GT(sizeof(data), whole.len);
	/* above all that are needed until the end */
	do {
		self->lowest = dup(0);
		ASSERT_LT(0, self->lowest);
	} while (self->lowest < MAX(self->keeper.to, self->keeper.from));
}

/* All that there was of the target is given back, now or soon. */
FIXTURE_TEARDOWN(maps_faults)
{
	double end;
	int err;

	/* of an assertion that failed, or the first message comes without a cause */
	_metadata->trigger = 0;
	/* what a test that was aborted has left open */
	if (self->lowest)
		close_range(self->lowest, ~0U, 0);
	if (target.pid && !target_stuck) {
		EXPECT_EQ(0, do_soon(&target, UNMAP))
			TH_LOG("a VMA or mmap_lock is still locked");
		EXPECT_EQ(0, do_soon(&self->keeper, END))
			TH_LOG("the target does not die");
		close(target.to);
		close(target.from);

		end = maps_now() + PATIENCE;
		while ((err = umount("/tmp") ? errno : 0) == EBUSY && maps_now() < end)
			usleep(10000);
		EXPECT_EQ(0, err)
			TH_LOG("the memory of the target is still there: %s", strerror(err));
		for (int what = OTHER_PID; what <= OTHER_USER; what++) {
			while ((err = do_soon(&self->keeper, what)) == ENOSPC &&
			       maps_now() < end)
				usleep(10000);
			EXPECT_EQ(0, err)
				TH_LOG("%s of the target is referenced: %s",
				       what == OTHER_PID ? "struct pid" : "mm, task or pid",
				       strerror(err));
		}
	}
	restore_settings();
	if (!target_stuck)
		target_stop(&self->keeper);
	text_free(&whole);
}

static int open_file(enum maps_impl impl)
{
	return maps_open_file(target.pid, facts->file, impl);
}

/* The position of a descriptor; lseek(2) would have seq_file go there. */
static size_t position(int fd)
{
	char path[64];
	struct text info = {};
	size_t pos;
	int fdinfo;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	fdinfo = open(path, O_RDONLY | O_CLOEXEC);
	if (fdinfo < 0 || text_read(&info, fdinfo))
		maps_die(path);
	close(fdinfo);
	text_append(&info, "", 1);
	if (sscanf(info.data, "pos: %zu", &pos) != 1)
		maps_die(path);
	text_free(&info);
	return pos;
}

/* What happened in a sequence of calls, one line for each thing that failed */
struct story {
	struct text log;
	int errors[KINDS];	/* calls that returned the error of that kind */
	int kept[KINDS];	/* failures that no call returned */
};

/*
 * Was the outcome of a call, an errno or 0, right for what has failed? Without
 * a failure there is no error. A failed copy is an error unless something was
 * copied before, which the caller tells by @partly.
 */
static void judge(struct __test_metadata *_metadata, struct story *story,
		  int mask, int err, bool partly)
{
	bool copy = mask & 1 << COPY && (err != ENOMEM || mask == 1 << COPY);
	enum kind kind = copy ? COPY : mask & 1 << SLAB ? SLAB : PAGES;
	char line[64];

	if (!mask) {
		ASSERT_EQ(0, err)
			TH_LOG("without a failure: %s", strerror(err));
		return;
	}
	if (err) {
		ASSERT_EQ(kinds[kind].error, err)
			TH_LOG("%s: %s", kinds[kind].name, strerror(err));
	} else if (kind == COPY) {
		ASSERT_TRUE(partly);
	}
	story->errors[kind] += !!err;
	story->kept[kind] += !err;
	snprintf(line, sizeof(line), "%s %s\n", kinds[kind].name,
		 err ? strerrorname_np(err) : "nothing");
	text_append(&story->log, line, strlen(line));
}

/* How a file is read */
struct shape {
	size_t size;	/* of a piece */
	int pieces;	/* for one call */
};

/* A sequence of calls, to be made again and again until nothing fails in it */
struct plan {
	void (*sweep)(struct __test_metadata *_metadata, enum maps_impl impl,
		      const struct plan *plan, struct story *story);
	enum duration duration;
	struct shape shape;	/* sweep_read() */
	bool seek;		/* sweep_jump() */
	ssize_t before;
	off_t to;
	unsigned long addr;	/* sweep_query() */
	bool name, id;

	/* What has to come of it, of the kind that is tested */
	int least, most;	/* calls that return an error, most where not 0 */
	int kept;		/* failures that none returns, at least */
	bool none_kept;
	const int *more;	/* errors that only one implementation has */
	bool goes_on;		/* Rust looks whether there is room for another buffer */
};

/* No lock is held: who changes all VMAs can do that. Text is what it was then. */
static void change_all(struct __test_metadata *_metadata)
{
	int err = do_soon(&target, FORK);

	target_stuck = err == ETIME;
	ASSERT_EQ(0, err)
		TH_LOG("a VMA or mmap_lock is still locked");
	maps_read_quiet(_metadata, &whole, target.pid, facts->file);
}

static bool is_as_planned(const struct plan *plan, enum kind kind, const struct story *s)
{
	return s->errors[kind] >= plan->least && s->kept[kind] >= plan->kept &&
	       (!plan->most || s->errors[kind] <= plan->most) &&
	       (!plan->none_kept || !s->kept[kind]);
}

static bool is_same(const struct plan *plan, const struct story *c, const struct story *rust)
{
	for (int i = 0; i < KINDS; i++) {
		if (c->errors[i] != rust->errors[i])
			return false;
	}
	return plan->more || (c->log.len == rust->log.len &&
			      !memcmp(c->log.data, rust->log.data, c->log.len));
}

/*
 * Have C and Rust do it. They allocate and copy the same in the same order. But
 * that slabs need memory for themselves is a matter of chance, and so is what
 * can fail then: what is unexpected has to happen each time. Where Rust goes on
 * after a buffer that it has read, what fails then is not returned.
 */
static void run(struct __test_metadata *_metadata, enum kind kind, struct plan plan)
{
	struct story stories[2] = {};
	bool good = false;

	for (int try = 0; try < TRIES && !good; try++) {
		good = true;
		for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
			struct story *story = &stories[impl];

			text_free(&story->log);
			memset(story, 0, sizeof(*story));
			plan.sweep(_metadata, impl, &plan, story);
			if (plan.more)
				story->errors[SLAB] -= plan.more[impl];
			good &= is_as_planned(&plan, kind, story);
		}
		if (plan.goes_on)
			good &= kind != COPY || (stories[MAPS_RUST].kept[COPY] > 0 &&
						 stories[MAPS_C].kept[COPY] == 0);
		else if (kind != PAGES)
			good &= is_same(&plan, &stories[MAPS_C], &stories[MAPS_RUST]);
	}
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		EXPECT_TRUE(good)
			TH_LOG("%s: %d errors, at least %d, at most %d; %d kept:\n%.*s",
			       maps_impl_name[impl], stories[impl].errors[kind], plan.least,
			       plan.most, stories[impl].kept[kind],
			       (int)stories[impl].log.len, stories[impl].log.data);
		text_free(&stories[impl].log);
	}
}

/* open(2); the file that comes of it is closed. */
static void sweep_open(struct __test_metadata *_metadata, enum maps_impl impl,
		       const struct plan *plan, struct story *story)
{
	char path[64], old = maps_switch_set(impl == MAPS_RUST ? 'Y' : 'N');
	int lowest = dup(0), mask;

	close(lowest);
	snprintf(path, sizeof(path), "/proc/%d/%s", target.pid, facts->file);
	for (int n = 1; n < MAX_FAULTS; n++) {
		int fd, err;

		arm(plan->duration, n);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		err = fd < 0 ? errno : 0;
		mask = disarm();
		judge(_metadata, story, mask, err, false);
		if (!err) {
			ASSERT_EQ(lowest, fd);
			close(fd);
		}
		if (!mask)
			break;
	}
	ASSERT_EQ(0, mask);
	maps_switch_set(old);
}

/* Each file needs memory of some slab, which in the end needs a page. */
static void open_many(struct __test_metadata *_metadata, enum maps_impl impl)
{
	char path[64], old = maps_switch_set(impl == MAPS_RUST ? 'Y' : 'N');
	const struct rlimit files = { 20000, 20000 };
	static int fds[10000];
	int opened = 0, mask, err;

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	/* so that the table of descriptors is large enough */
	ASSERT_EQ(19999, dup2(0, 19999));
	snprintf(path, sizeof(path), "/proc/%d/%s", target.pid, facts->file);
	arm(ON, 0);
	while (opened < (int)ARRAY_SIZE(fds)) {
		fds[opened] = open(path, O_RDONLY | O_CLOEXEC);
		if (fds[opened] < 0)
			break;
		opened++;
	}
	err = errno;
	mask = disarm();
	maps_switch_set(old);
	ASSERT_GT((int)ARRAY_SIZE(fds), opened);
	EXPECT_EQ(1 << PAGES, mask);
	EXPECT_EQ(ENOMEM, err);
	while (opened--)
		close(fds[opened]);
	fds[0] = open_file(impl);
	ASSERT_LE(0, fds[0]);
	close(fds[0]);
}

TEST_F_TIMEOUT(maps_faults, open, TIMEOUT)
{
	static const int paths = 1, objects = 3;	/* file, seq_file, private data */

	for (int duration = ONCE; duration <= ON; duration++)
		run(_metadata, variant->kind, (struct plan){
			.sweep = sweep_open,
			.duration = duration,
			.least = variant->kind == SLAB ? objects :
				 variant->kind == COPY ? paths : 0,
			.most = variant->kind == COPY ? paths : 0,
			.none_kept = variant->kind == SLAB,
			.more = variant->kind == SLAB ? facts->more : NULL,
		});
	for (int impl = MAPS_C; impl <= MAPS_RUST && variant->kind == PAGES; impl++)
		open_many(_metadata, impl);
	change_all(_metadata);
}

static ssize_t read_shape(int fd, char *to, const struct shape *shape)
{
	struct iovec iov[8];

	for (int i = 0; i < shape->pieces; i++) {
		iov[i].iov_base = to + i * shape->size;
		iov[i].iov_len = shape->size;
	}
	return readv(fd, iov, shape->pieces);
}

/* read(2) until the end or an error; then the rest of the file without failures */
static void sweep_read(struct __test_metadata *_metadata, enum maps_impl impl,
		       const struct plan *plan, struct story *story)
{
	struct text got = {};
	int mask;

	for (int n = 1; n < MAX_FAULTS; n++) {
		int fd = open_file(impl), err;
		size_t sum = 0, calls = 0;
		ssize_t len;

		ASSERT_LE(0, fd);
		arm(plan->duration, n);
		while (sum < LARGE && (len = read_shape(fd, data + sum, &plan->shape)) > 0) {
			sum += len;
			calls++;
		}
		err = len < 0 ? errno : 0;
		mask = disarm();
		judge(_metadata, story, mask, err, sum);
		ASSERT_EQ(sum, position(fd));

		got.len = 0;
		text_append(&got, data, sum);
		ASSERT_EQ(0, text_read(&got, fd));
		ASSERT_TRUE(text_same("whole file", &whole, maps_impl_name[impl], &got))
			TH_LOG("failure %d, %zu bytes in %zu calls, then %s", n, sum, calls,
			       err ? strerror(err) : "the end");
		ASSERT_EQ(got.len, position(fd));
		close(fd);
		if (!mask)
			break;
	}
	ASSERT_EQ(0, mask);
	text_free(&got);
}

static int build_many(const void *arg)
{
	return (is_maps() ? 0 : target_share_no_pages()) ?: map_many(*(int *)arg);
}

/* Reading takes one allocation, the buffer, however many records there are. */
static void read_many(struct __test_metadata *_metadata)
{
	int records = maps_count(is_maps() ? 10000 : 2000);
	struct target many = {};
	struct text lines = {};

	ASSERT_EQ(0, target_start(&many, build_many, NULL, &records));
	/* which is shared with that process now, and is to be copied before pages fail */
	memset(data, 0, sizeof(data));
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		int fd = maps_open_file(many.pid, facts->file, impl), mask;
		size_t sum = 0;
		ssize_t len;

		ASSERT_LE(0, fd);
		ASSERT_EQ(1, pread(fd, data, 1, 0));
		arm(ON, 0);
		while ((len = read(fd, data, LARGE)) > 0)
			sum += len;
		mask = disarm();
		EXPECT_EQ(0, len);
		EXPECT_EQ(0, mask);
		lines.len = 0;
		ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
		ASSERT_EQ(0, text_read(&lines, fd));
		EXPECT_EQ(lines.len, sum);
		EXPECT_LT(facts->one_record ? 10 : (size_t)records, text_lines(&lines));
		close(fd);
	}
	target_stop(&many);
	text_free(&lines);
}

TEST_F_TIMEOUT(maps_faults, read, TIMEOUT)
{
	const struct {
		struct shape shape;
		bool copies;	/* it is about them */
		enum duration duration;
	} cases[] = {
		{ { PAGE, 1 } },
		{ { LARGE, 1 } },
		/* no memory for the larger buffer that a long line needs either */
		{ { PAGE, 1 }, false, ON },
		{ { LARGE, 1 }, false, ON },
		/* copies that fail after others of the same call, within a line */
		{ { whole.len / 120 + 1, 8 }, true },
		{ { whole.len / 30 + 1, 1 }, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct shape *shape = &cases[i].shape;
		bool more = cases[i].duration == ON && !facts->one_record;
		struct plan plan = {
			.sweep = sweep_read,
			.shape = *shape,
			.duration = cases[i].duration,
			.goes_on = shape->size == LARGE,
		};

		if (cases[i].copies && variant->kind != COPY)
			continue;
		/* the first buffer has no second way to be had */
		if (variant->kind == SLAB)
			plan.least = 1 + more;
		plan.most = plan.goes_on ? 0 : plan.least;
		/* a buffer that is larger than what slabs have */
		if (variant->kind == PAGES)
			plan.least = more;
		if (variant->kind == COPY) {
			plan.least = 1;
			plan.kept = shape->pieces > 1;
		}
		run(_metadata, variant->kind, plan);
		change_all(_metadata);
	}
	if (variant->kind != COPY)
		read_many(_metadata);
}

/*
 * pread(2) or lseek(2) to @to, with some of the file read before or none. A
 * seek that fails goes to the start, a pread() leaves the position.
 */
static void sweep_jump(struct __test_metadata *_metadata, enum maps_impl impl,
		       const struct plan *plan, struct story *story)
{
	bool seek = plan->seek;
	off_t to = plan->to;
	size_t want = seek ? 0 : MIN(1000, whole.len - to);
	struct text got = {};
	int mask;

	for (int n = 1; n < MAX_FAULTS; n++) {
		int fd = open_file(impl), err;
		size_t pos = plan->before;
		ssize_t ret;

		ASSERT_LE(0, fd);
		ASSERT_EQ(plan->before, read(fd, data, plan->before));
		arm(plan->duration, n);
		ret = seek ? lseek(fd, to, SEEK_SET) : pread(fd, data, want, to);
		err = ret < 0 ? errno : 0;
		mask = disarm();
		judge(_metadata, story, mask, err, ret > 0);
		if (seek && err) {
			pos = 0;
		} else if (seek) {
			ASSERT_EQ(to, ret);
			pos = to;
		} else if (!err) {
			ASSERT_LT(0, ret);
			ASSERT_GE((ssize_t)want, ret);
			ASSERT_EQ(0, memcmp(data, whole.data + to, ret));
		}
		ASSERT_EQ(pos, position(fd));

		/* the same again, half of the times, then what comes next */
		if (n & 1) {
			if (seek) {
				ASSERT_EQ(to, lseek(fd, to, SEEK_SET));
				pos = to;
			} else {
				ret = pread(fd, data, want, to);
				ASSERT_LT(0, ret);
				ASSERT_EQ(0, memcmp(data, whole.data + to, ret));
			}
		}
		got.len = 0;
		text_append(&got, whole.data, pos);
		ASSERT_EQ(0, text_read(&got, fd));
		ASSERT_TRUE(text_same("whole file", &whole, maps_impl_name[impl], &got))
			TH_LOG("failure %d, %zd bytes, then to %lld: %s", n, plan->before,
			       (long long)to, err ? strerror(err) : "good");
		close(fd);
		if (!mask)
			break;
	}
	ASSERT_EQ(0, mask);
	text_free(&got);
}

TEST_F_TIMEOUT(maps_faults, jump, TIMEOUT)
{
	const off_t to[] = { 1, whole.len / 2, whole.len - 10 };

	for (size_t i = 0; i < ARRAY_SIZE(to); i++) {
		for (int how = 0; how < 8; how++) {
			struct plan plan = {
				.sweep = sweep_jump,
				.seek = how & 1,
				.duration = how & 2 ? ON : ONCE,
				.before = how & 4 ? 20 : 0,
				.to = to[i],
			};

			if (variant->kind == SLAB)
				plan.least = !plan.before;
			if (variant->kind == COPY)
				plan.least = !plan.seek;
			plan.most = variant->kind == COPY ? plan.least : 0;
			run(_metadata, variant->kind, plan);
		}
	}
	change_all(_metadata);
}

struct answer {
	struct procmap_query fields;
	char name[PATH_MAX];
	char id[ID_SIZE];
};

static struct answer answer;

static void prepare_question(unsigned long addr, bool name, bool id)
{
	memset(&answer, 0x5a, sizeof(answer));
	answer.fields = (struct procmap_query){
		.size = sizeof(answer.fields),
		.query_addr = addr,
		.vma_name_size = name ? sizeof(answer.name) : 0,
		.vma_name_addr = name ? (unsigned long)answer.name : 0,
		.build_id_size = id ? sizeof(answer.id) : 0,
		.build_id_addr = id ? (unsigned long)answer.id : 0,
	};
}

static int ask(int fd)
{
	return ioctl(fd, PROCMAP_QUERY, &answer.fields) ? errno : 0;
}

/* A query that fails leaves the question as it was. */
static void sweep_query(struct __test_metadata *_metadata, enum maps_impl impl,
			const struct plan *plan, struct story *story)
{
	bool has_id = plan->id && plan->addr == ELF_AT;
	struct procmap_query asked;
	static struct answer good;
	int fd = open_file(impl), mask;

	ASSERT_LE(0, fd);
	prepare_question(plan->addr, plan->name, plan->id);
	asked = answer.fields;
	ASSERT_EQ(0, ask(fd));
	ASSERT_LE(answer.fields.vma_start, plan->addr);
	ASSERT_GT(answer.fields.vma_end, plan->addr);
	ASSERT_EQ(has_id ? ID_SIZE : 0U, answer.fields.build_id_size);
	ASSERT_EQ(has_id, answer.id[ID_SIZE - 1] == (char)0xb1);
	good = answer;
	for (int n = 1; n < MAX_FAULTS; n++) {
		int err;

		prepare_question(plan->addr, plan->name, plan->id);
		arm(plan->duration, n);
		err = ask(fd);
		mask = disarm();
		judge(_metadata, story, mask, err, false);
		if (err) {
			ASSERT_EQ(0, memcmp(&asked, &answer.fields, sizeof(asked)));
		} else if (has_id && !answer.fields.build_id_size) {
			/* a file that cannot be read has none */
			ASSERT_NE(0, mask);
		} else {
			ASSERT_EQ(0, memcmp(&good, &answer, sizeof(good)));
		}
		prepare_question(plan->addr, plan->name, plan->id);
		ASSERT_EQ(0, ask(fd));
		ASSERT_EQ(0, memcmp(&good, &answer, sizeof(good)));
		ASSERT_EQ(0U, position(fd));
		if (!mask)
			break;
	}
	ASSERT_EQ(0, mask);
	close(fd);
}

static unsigned long stack_of(const struct text *maps)
{
	char *at = memmem(maps->data, maps->len, "[stack]", 7);

	while (at && at > maps->data && at[-1] != '\n')
		at--;
	return at ? strtoul(at, NULL, 16) : 0;
}

TEST_F_TIMEOUT(maps_faults, query, TIMEOUT)
{
	/* a file, a name that is no file's, neither */
	unsigned long addr[] = { ELF_AT, 0, SPOT };
	static const int none[] = { 0, 0 };

	for (int impl = MAPS_C; impl <= MAPS_RUST && !is_maps(); impl++) {
		int fd = open_file(impl), err;

		ASSERT_LE(0, fd);
		prepare_question(SPOT, true, true);
		arm(ON, 1);
		err = ask(fd);
		EXPECT_EQ(0, disarm());
		EXPECT_EQ(ENOTTY, err);
		close(fd);
	}
	if (!is_maps())
		return;
	addr[1] = stack_of(&whole);
	ASSERT_NE(0UL, addr[1]);
	for (int how = 0; how < 24; how++) {
		struct plan plan = {
			.sweep = sweep_query,
			.addr = addr[how / 8],
			.name = how & 1,
			.id = how & 2,
			.duration = how & 4 ? ON : ONCE,
		};
		int names = plan.name && plan.addr != SPOT;
		int ids = plan.id && plan.addr == ELF_AT;

		/* Rust allocates before it knows that there is no name, and can do without */
		if (plan.name && !names)
			plan.more = none;
		/* the buffer for the name */
		if (variant->kind == SLAB)
			plan.least = names;
		/* the size, the question, the name, the build ID, the answer */
		if (variant->kind == COPY)
			plan.least = 3 + names + ids;
		plan.most = plan.least;
		run(_metadata, variant->kind, plan);
	}
	change_all(_metadata);
}

/* close(2) always succeeds. */
TEST_F_TIMEOUT(maps_faults, close, TIMEOUT)
{
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		for (int how = 0; how < 4; how++) {
			int mask = -1, n;

			for (n = 1; mask && n < MAX_FAULTS; n++) {
				int fd = open_file(impl), err;

				ASSERT_LE(0, fd);
				if (how & 2)
					ASSERT_EQ(10, read(fd, data, 10));
				arm(how & 1 ? ON : ONCE, n);
				err = close(fd);
				mask = disarm();
				ASSERT_EQ(0, err);
				ASSERT_EQ(-1, fcntl(fd, F_GETFD));
			}
			ASSERT_EQ(0, mask);
		}
	}
}

/* Each failure in the first calls on a file, not looking at what was read */
static void all_once(struct __test_metadata *_metadata, enum maps_impl impl,
		     const struct plan *plan)
{
	struct story story = {};
	int mask = -1;

	sweep_open(_metadata, impl, plan, &story);
	for (int n = 1; mask && n < MAX_FAULTS; n++) {
		int fd = open_file(impl);

		ASSERT_LE(0, fd);
		arm(plan->duration, n);
		pread(fd, data, 100, plan->to);
		pread(fd, data, 100, 0);
		mask = disarm();
		close(fd);
	}
	ASSERT_EQ(0, mask);
	if (is_maps())
		sweep_query(_metadata, impl, plan, &story);
	text_free(&story.log);
}

/*
 * The kernel keeps no memory. What else goes on may take some, but not again
 * and again as much as a leak takes each time.
 */
TEST_F_TIMEOUT(maps_faults, memory, TIMEOUT)
{
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		struct plan plan = { .addr = ELF_AT, .name = true, .id = true };
		long before = 0, grown = LEAK;

		/* caches are warm after the first, shorter try */
		for (int try = 0; try < TRIES && grown >= LEAK; try++) {
			for (int i = try ? 0 : ROUNDS * 3 / 4; i < ROUNDS; i++) {
				plan.duration = i & 1;
				/* the buffer grows now and then */
				plan.to = i & 14 ? 1 : whole.len - 10;
				all_once(_metadata, impl, &plan);
			}
			grown = maps_kernel_memory() - before;
			before += grown;
		}
		EXPECT_GT(LEAK, grown)
			TH_LOG("%s keeps %ld KiB", maps_impl_name[impl], grown);
	}
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "--target"))
		return be_target(argv[2], atoi(argv[3]), atoi(argv[4]));
	return test_harness_run(argc, argv);
}
