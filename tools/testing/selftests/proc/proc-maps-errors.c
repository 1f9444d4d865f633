// SPDX-License-Identifier: GPL-2.0
/*
 * What goes wrong when /proc/PID/maps, smaps, smaps_rollup or numa_maps is
 * opened or read has to go wrong in the same way whether the C or the Rust code
 * serves it, and has to leave nothing behind: each situation is made many
 * times, and after that the kernel may not hold on to the tasks, address spaces
 * and buffers of those runs.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include "proc-maps.h"
#include "proc-maps-quiet.h"

#define TIMEOUT		600	/* seconds for each test */
#define LEAK		400	/* KiB: as many mm_structs with their page tables are more */

/* What is different between the files */
struct facts {
	const char *file;
	int times;		/* to make a situation */
	int large;		/* mappings of a large target */
	bool one_record;	/* about the whole process */
	const char *lost;	/* a read when the address space is gone */
	const char *query;	/* PROCMAP_QUERY then */
};

static const struct facts maps_facts = {
	.file = "maps", .times = 400, .large = 60000,
	.lost = "nothing", .query = "ESRCH",
};

static const struct facts smaps_facts = {
	.file = "smaps", .times = 150, .large = 6000,
	.lost = "nothing", .query = "ENOTTY",
};

static const struct facts smaps_rollup_facts = {
	.file = "smaps_rollup", .times = 150, .large = 20000, .one_record = true,
	.lost = "ESRCH", .query = "ENOTTY",
};

static const struct facts numa_maps_facts = {
	.file = "numa_maps", .times = 150, .large = 20000,
	.lost = "nothing", .query = "ENOTTY",
};

/* Of the file that is tested; each test is a process of its own */
static const struct facts *facts;

static bool is_maps(void)
{
	return !strcmp(facts->file, "maps");
}

/* A situation that was made once: how, by which code, and what happened */
struct run {
	enum maps_impl impl;
	int arg;
	struct text log;
};

typedef void (*situation_t)(struct run *run);

static ssize_t note(struct run *run, const char *what, ssize_t ret)
{
	const char *how = ret < 0 ? strerrorname_np(errno) :
			  ret ? "something" : "nothing";

	text_append(&run->log, what, strlen(what));
	text_append(&run->log, " gave ", 6);
	text_append(&run->log, how, strlen(how));
	text_append(&run->log, "\n", 1);
	return ret;
}

static ssize_t note_read(struct run *run, const char *what, int fd)
{
	char buf[300];

	return note(run, what, read(fd, buf, sizeof(buf)));
}

/*
 * Make the situation many times, one in ten with C too. It always goes as it
 * went the first time with C; @expect says what has to have happened there.
 */
static void repeat(struct __test_metadata *_metadata, situation_t situation,
		   int arg, int times, const char *const *expect)
{
	struct text first = {};
	struct run run = { .arg = arg };
	long before = 0, after;

	times = maps_times(times);
	for (int i = 0; i < times; i++) {
		/* caches are warm by then */
		if (i == times / 10)
			before = maps_kernel_memory();
		for (run.impl = MAPS_C; run.impl <= MAPS_RUST; run.impl++) {
			if (run.impl == MAPS_C && i % 10)
				continue;
			run.log.len = 0;
			situation(&run);
			if (!first.len)
				text_append(&first, run.log.data, run.log.len);
			ASSERT_TRUE(text_same("C", &first,
					      maps_impl_name[run.impl], &run.log))
				TH_LOG("case %d, time %d", arg, i);
		}
	}
	after = maps_kernel_memory();
	EXPECT_GT(LEAK, after - before)
		TH_LOG("case %d: the kernel keeps %ld KiB", arg, after - before);
	for (; *expect; expect++) {
		EXPECT_TRUE(text_has(&first, *expect))
			TH_LOG("case %d: no \"%s\" in:\n%.*s", arg, *expect,
			       (int)first.len, first.data);
	}
	text_free(&first);
	text_free(&run.log);
}

FIXTURE(maps_errors)
{
	struct target target;
};

FIXTURE_VARIANT(maps_errors)
{
	const struct facts *facts;
};

FIXTURE_VARIANT_ADD(maps_errors, maps) {
	.facts = &maps_facts,
};

FIXTURE_VARIANT_ADD(maps_errors, smaps) {
	.facts = &smaps_facts,
};

FIXTURE_VARIANT_ADD(maps_errors, smaps_rollup) {
	.facts = &smaps_rollup_facts,
};

FIXTURE_VARIANT_ADD(maps_errors, numa_maps) {
	.facts = &numa_maps_facts,
};

FIXTURE_SETUP(maps_errors)
{
	const char *cannot = maps_cannot_test_file(variant->facts->file) ?: private_tmp();

	facts = variant->facts;
	if (cannot)
		SKIP(return, "%s", cannot);
}

FIXTURE_TEARDOWN(maps_errors)
{
	target_stop(&self->target);
}

static pid_t victim;

static int open_victim(enum maps_impl impl)
{
	return maps_open_file(victim, facts->file, impl);
}

static void be_forbidden(struct run *run)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", victim, victim, facts->file);
	fd = maps_open_at(AT_FDCWD, path, O_RDONLY, run->impl);
	note(run, "open of a task's", fd);
	fd = open_victim(run->impl);
	note(run, "open", fd);
	/* no descriptor was taken: the lowest free one is what it was */
	fd = dup(0);
	note(run, "descriptor", fd == run->arg ? 0 : 1);
	close(fd);
}

TEST_F_TIMEOUT(maps_errors, no_permission, TIMEOUT)
{
	static const char *const expect[] = {
		"open of a task's gave EACCES\n", "open gave EACCES\n",
		"descriptor gave nothing\n", NULL,
	};
	int lowest;

	ASSERT_EQ(0, target_start(&self->target, NULL, NULL, NULL));
	victim = self->target.pid;
	ASSERT_EQ(0, setgid(1));
	ASSERT_EQ(0, setuid(1));
	lowest = dup(0);
	close(lowest);
	repeat(_metadata, be_forbidden, lowest, 10 * facts->times, expect);
}

static void open_oddly(struct run *run)
{
	static const int flags[] = {
		O_RDWR, O_WRONLY, O_RDWR | O_TRUNC, O_RDWR | O_APPEND,
		O_RDONLY | O_DIRECT, O_RDONLY | O_DIRECTORY,
		O_RDONLY | O_NOFOLLOW, O_RDONLY | O_NONBLOCK, O_PATH,
		O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_EXCL, O_TMPFILE | O_RDWR,
	};
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", victim, facts->file);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		int fd = maps_open_at(AT_FDCWD, path, flags[i], run->impl);

		snprintf(path, sizeof(path), "flags %#o: open", flags[i]);
		if (note(run, path, fd < 0 ? fd : 0) >= 0) {
			note_read(run, "read", fd);
			note(run, "write", write(fd, "x", 1));
			note(run, "pwrite", pwrite(fd, "x", 1, 100));
			note(run, "lseek", lseek(fd, 20, SEEK_SET));
			note_read(run, "read", fd);
			close(fd);
		}
		snprintf(path, sizeof(path), "/proc/%d/%s", victim, facts->file);
	}
}

TEST_F_TIMEOUT(maps_errors, odd_flags, TIMEOUT)
{
	static const char *const expect[] = {
		"open gave nothing\nread gave something\nwrite gave EINVAL\n",
		"open gave nothing\nread gave EBADF\n", "open gave EEXIST\n",
		NULL,
	};

	ASSERT_EQ(0, target_start(&self->target, NULL, NULL, NULL));
	victim = self->target.pid;
	repeat(_metadata, open_oddly, 0, facts->times, expect);
}

/* Descriptors of a process, read as far as the end, into a line, not at all */
enum depth {
	UNREAD,
	INTO_LINE,
	TO_LINE_END,
	TO_END,
	DEPTHS,
};

static void open_depths(struct run *run, int *fds)
{
	static const char *const names[] = {
		"read nothing", "read into a line", "read a line", "read all",
	};
	char buf[4096], *nl;
	ssize_t n;

	for (int i = 0; i < DEPTHS; i++) {
		fds[i] = open_victim(run->impl);
		if (note(run, "open", fds[i] < 0 ? fds[i] : 0))
			continue;
		n = 0;
		if (i == INTO_LINE)
			n = read(fds[i], buf, 100);
		if (i == TO_LINE_END) {
			n = pread(fds[i], buf, sizeof(buf), 0);
			nl = n > 0 ? memchr(buf, '\n', n) : NULL;
			n = nl ? read(fds[i], buf, nl + 1 - buf) : n;
		}
		if (i == TO_END) {
			while ((n = read(fds[i], buf, sizeof(buf))) > 0)
				;
		}
		note(run, names[i], n);
	}
}

static void read_on(struct run *run, int *fds)
{
	struct procmap_query query = {
		.size = sizeof(query),
		.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
	};

	for (int i = 0; i < DEPTHS; i++) {
		note_read(run, "then read", fds[i]);
		note_read(run, "then read again", fds[i]);
		note(run, "lseek to it", lseek(fds[i], 0, SEEK_CUR));
		note(run, "lseek", lseek(fds[i], 50, SEEK_SET));
		note_read(run, "then read there", fds[i]);
		note(run, "lseek back", lseek(fds[i], 0, SEEK_SET));
		note_read(run, "then read from the start", fds[i]);
		note(run, "query", ioctl(fds[i], PROCMAP_QUERY, &query));
		close(fds[i]);
	}
	fds[0] = open_victim(run->impl);
	note(run, "then open", fds[0]);
	if (fds[0] >= 0)
		note_read(run, "then read", fds[0]);
	close(fds[0]);
}

static int map_some_of_tmp(const void *arg)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);

	if (fd < 0 || ftruncate(fd, 16 * PAGE) ||
	    mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_POPULATE, fd, 0) == MAP_FAILED)
		return errno;
	close(fd);
	return 0;
}

static long free_blocks(void)
{
	struct statfs fs;

	return statfs("/tmp", &fs) ? -1 : fs.f_bfree;
}

/* Good until four more were made */
static const char *join(const char *before, const char *what, const char *after)
{
	static char lines[4][128];
	static int next;
	char *line = lines[next++ % ARRAY_SIZE(lines)];

	snprintf(line, sizeof(lines[0]), "%s%s%s", before, what, after);
	return line;
}

/* Zombie or gone: descriptors that are open keep nothing of its memory. */
static void lose_process(struct run *run)
{
	long blocks = free_blocks();
	struct target target;
	int fds[DEPTHS];

	if (target_start(&target, map_some_of_tmp, NULL, NULL))
		maps_die("target");
	victim = target.pid;
	open_depths(run, fds);
	note(run, "memory before", free_blocks() - blocks + 16);
	if (run->arg)
		target_stop(&target);
	else
		target_kill(&target);
	note(run, "memory after", free_blocks() - blocks);
	read_on(run, fds);
	target_stop(&target);
}

TEST_F_TIMEOUT(maps_errors, zombie, TIMEOUT)
{
	const char *const expect[] = {
		"memory before gave nothing\n", "memory after gave nothing\n",
		facts->one_record ? "then open gave ESRCH\n" :
				    "then open gave something\nthen read gave nothing\n",
		join("then read gave ", facts->lost, "\n"),
		join("query gave ", facts->query, "\n"), NULL,
	};

	repeat(_metadata, lose_process, 0, facts->times, expect);
}

TEST_F_TIMEOUT(maps_errors, exited, TIMEOUT)
{
	static const char *const expect[] = {
		"memory before gave nothing\n", "memory after gave nothing\n",
		"then read gave ESRCH\n", "then open gave ENOENT\n",
		"lseek gave ESRCH\n", NULL,
	};

	repeat(_metadata, lose_process, 1, facts->times, expect);
}

static void read_kthread(struct run *run)
{
	int fds[DEPTHS];

	open_depths(run, fds);
	read_on(run, fds);
}

TEST_F_TIMEOUT(maps_errors, kernel_thread, TIMEOUT)
{
	const char *const expect[] = {
		join("then read gave ", facts->lost, "\n"),
		join("query gave ", facts->query, "\n"),
		"then open gave something\n", NULL,
	};
	static const char *const not_opened[] = {
		"open gave ESRCH\n", "then open gave ESRCH\n", NULL,
	};
	struct text status = {};
	int fd = open("/proc/2/status", O_RDONLY);

	if (fd < 0 || text_read(&status, fd) || !text_has(&status, "Kthread:\t1"))
		SKIP(return, "process 2 is no kernel thread here");
	victim = 2;
	repeat(_metadata, read_kthread, 0, facts->times,
	       facts->one_record ? not_opened : expect);
}

/* This program, run again to be another one */
static int again(const char *what, const char *arg)
{
	execl("/proc/self/exe", "proc-maps-errors", what, arg, NULL);
	return errno;
}

static int exec_in_target(int cmd)
{
	return again("--pause", NULL);
}

static int share_memory(void *arg)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* so that only the one that executes holds the target's pipes */
	close_range(3, ~0U, 0);
	while (1)
		pause();
	return 0;
}

/* With a second process on its address space, which so outlives the exec */
static int build_shared_memory(const void *arg)
{
	static char stack[16384];

	return clone(share_memory, stack + sizeof(stack), CLONE_VM, NULL) < 0 ?
	       errno : 0;
}

static void note_text(struct run *run, const char *what, const struct text *a,
		      const struct text *b)
{
	note(run, what, a->len != b->len || memcmp(a->data, b->data, a->len));
}

static void lose_to_exec(struct run *run)
{
	struct text before = {}, after = {};
	struct target target;
	int fds[DEPTHS], fd, cmd = 0;

	if (target_start(&target, run->arg ? build_shared_memory : NULL,
			 exec_in_target, NULL))
		maps_die("target");
	victim = target.pid;
	open_depths(run, fds);
	fd = open_victim(run->impl);
	if (text_read(&before, fd))
		maps_die("read");
	/* it has executed the other program when its descriptors are closed */
	if (write(target.to, &cmd, sizeof(cmd)) != sizeof(cmd) ||
	    read(target.from, &cmd, sizeof(cmd)))
		maps_die("exec");
	note(run, "lseek before reading it all", lseek(fd, 0, SEEK_SET));
	note(run, "reading it all", text_read(&after, fd));
	/* the others tell of pages that are shared with whoever else runs this */
	if (is_maps() || !run->arg)
		note_text(run, "changes", &before, &after);
	note(run, "size", after.len);
	close(fd);
	read_on(run, fds);
	target_stop(&target);
	text_free(&before);
	text_free(&after);
}

TEST_F_TIMEOUT(maps_errors, exec, TIMEOUT)
{
	const char *const expect[] = {
		"changes gave something\nsize gave nothing\n",
		join("then read gave ", facts->lost, "\n"),
		join("query gave ", facts->query, "\n"),
		"then open gave something\nthen read gave something\n", NULL,
	};

	repeat(_metadata, lose_to_exec, 0, facts->times / 2, expect);
}

TEST_F_TIMEOUT(maps_errors, exec_shared_memory, TIMEOUT)
{
	const char *const expect[] = {
		is_maps() ? "changes gave nothing\nsize gave something\n" :
			    "size gave something\n",
		"then read gave something\n",
		is_maps() ? "query gave nothing\n" : "query gave ENOTTY\n", NULL,
	};

	repeat(_metadata, lose_to_exec, 1, facts->times / 2, expect);
}

/* A process reads of itself, executes another program and reads on. */
static void exec_own(struct run *run)
{
	char buf[4096], number[16], path[64];
	int out[2], fd;
	ssize_t n;
	pid_t pid;

	if (pipe(out))
		maps_die("pipe");
	pid = fork();
	if (!pid) {
		snprintf(path, sizeof(path), "/proc/self/%s", facts->file);
		fd = maps_open_at(AT_FDCWD, path, O_RDONLY, run->impl);
		if (fd < 0 || fcntl(fd, F_SETFD, 0) ||
		    read(fd, buf, run->arg) != run->arg || dup2(out[1], 1) != 1)
			_exit(1);
		close(out[0]);
		snprintf(number, sizeof(number), "%d", fd);
		_exit(again("--read-on", number));
	}
	close(out[1]);
	while ((n = read(out[0], buf, sizeof(buf))) > 0)
		text_append(&run->log, buf, n);
	close(out[0]);
	waitpid(pid, NULL, 0);
}

static int read_on_after_exec(int fd)
{
	struct run run = {};

	note_read(&run, "read", fd);
	note_read(&run, "read again", fd);
	note(&run, "lseek", lseek(fd, 0, SEEK_SET));
	note_read(&run, "read from the start", fd);
	return write(1, run.log.data, run.log.len) < 0;
}

TEST_F_TIMEOUT(maps_errors, own_exec, TIMEOUT)
{
	const char *const unread[] = {
		join("read gave ", facts->lost, "\nread again gave "),
		join("read again gave ", facts->lost, "\n"), NULL,
	};
	/* what is left of a record that was begun is there still */
	const char *const into_line[] = {
		join("read from the start gave ", facts->lost, "\n"),
		strstr(facts->file, "smaps") ? "read gave something\n" :
			"read gave something\nread again gave nothing\n", NULL,
	};

	repeat(_metadata, exec_own, 0, facts->times / 3, unread);
	repeat(_metadata, exec_own, 100, facts->times / 3, into_line);
}

static void open_and_close(struct run *run)
{
	char buf[200];
	int fd = open_victim(run->impl);

	note(run, "open", fd < 0 ? fd : 0);
	for (int i = 0; i < run->arg; i++)
		note(run, "read", read(fd, buf, sizeof(buf)));
	close(fd);
}

TEST_F_TIMEOUT(maps_errors, close_half_read, TIMEOUT)
{
	static const char *const expect[] = { "open gave nothing\n", NULL };

	ASSERT_EQ(0, target_start(&self->target, NULL, NULL, NULL));
	victim = self->target.pid;
	for (int reads = 0; reads < 3; reads++)
		repeat(_metadata, open_and_close, reads, 10 * facts->times, expect);
}

/* Its mappings: enough to keep it busy for some milliseconds */
#define LARGE	1000

static int large_count(void)
{
	int count = maps_count(facts->large);

	return count < LARGE ? LARGE : count;
}

static int build_large(const void *arg)
{
	/* a line comes before them wherever the program is */
	if (mmap((void *)(SPOT - 16 * PAGE), PAGE, PROT_READ, MAP_PRIVATE |
		 MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
		return errno;
	return (is_maps() ? 0 : target_share_no_pages()) ?: map_many(large_count());
}

/*
 * Readers that wait for a large target, which holds its mmap_lock for writing
 * for long and locks its mappings meanwhile: all of them by a fork, so that a
 * reader waits for its first line; those from SPOT on by madvise(), so that it
 * waits between two lines. Neither changes the text of maps. In smaps numbers
 * are others while the child is there, and it tells the advice; numa_maps says
 * more of a page when it is shared, copied or was used by a reader.
 */
#define TRIES	100
#define MAX_DYING	0.1	/* seconds from SIGKILL until a reader that waits is gone */
#define HITS	5

enum work {
	FORK,
	ADVISE,
};

/* Shared by the test, the target and the reader */
struct scene {
	int begun;		/* works of the target */
	int done;
	bool eager;		/* the reader also reads when there is no work */
	bool stop;
	int passes;		/* of the reader */
	int signals;
	int outlived;		/* works that ended before a killed reader did */
	bool wrong;
};

static struct scene *scene;

#define get(flag)		__atomic_load_n(flag, __ATOMIC_SEQ_CST)
#define set(flag, value)	__atomic_store_n(flag, value, __ATOMIC_SEQ_CST)

static int work(int what)
{
	static bool random;
	pid_t pid;
	int err;

	set(&scene->begun, get(&scene->begun) + 1);
	if (what == FORK) {
		pid = fork();
		if (!pid)
			_exit(0);
		err = pid < 0 ? errno : 0;
	} else {
		random = !random;
		err = madvise((void *)SPOT, large_count() * PAGE,
			      random ? MADV_RANDOM : MADV_SEQUENTIAL);
	}
	set(&scene->done, get(&scene->done) + 1);
	if (what == FORK && !err)
		return waitpid(pid, NULL, 0) != pid;
	return err ? errno : 0;
}

static void count_signal(int sig)
{
	set(&scene->signals, get(&scene->signals) + 1);
}

/*
 * Of smaps the numbers, which tell of pages that the child, the reader and the
 * test share, and which advice was given last: "rr" is "sr".
 */
static void hide_changes(struct text *t)
{
	if (!strstr(facts->file, "smaps"))
		return;
	for (size_t i = 0; i < t->len; i++) {
		if (i && t->data[i] == 'r' && t->data[i - 1] == ' ')
			t->data[i] = 's';
	}
	for (size_t i = 0; i < t->len; i++) {
		if (t->data[i] == ' ' || isdigit(t->data[i]))
			t->data[i] = '0';
	}
}

/* What of a text stays: in numa_maps the mappings from SPOT on, without pages */
static struct text lasting(const struct text *t)
{
	struct text part = *t;
	char line[64], *at;

	if (strcmp(facts->file, "numa_maps"))
		return part;
	snprintf(line, sizeof(line), "\n%lx default\n", SPOT);
	at = memmem(part.data, part.len, line, strlen(line));
	if (at) {
		part.len -= at - part.data;
		part.data = at;
	}
	snprintf(line, sizeof(line), "\n%lx default\n",
		 SPOT + (large_count() - 1) * PAGE);
	at = memmem(part.data, part.len, line, strlen(line));
	if (at)
		part.len = at + strlen(line) - part.data;
	return part;
}

static bool same_lasting(const char *name_a, const struct text *a,
			 const char *name_b, const struct text *b)
{
	const struct text lasting_a = lasting(a), lasting_b = lasting(b);

	return text_same(name_a, &lasting_a, name_b, &lasting_b);
}

static bool reads(int fd, const struct text *expected)
{
	struct text got = {};
	bool good;

	while (got.len < expected->len) {
		static char buf[1 << 16];
		size_t left = expected->len - got.len;
		ssize_t n = read(fd, buf, left < sizeof(buf) ? left : sizeof(buf));

		if (n <= 0)
			break;
		text_append(&got, buf, n);
	}
	hide_changes(&got);
	good = same_lasting("before", expected, "now", &got);
	text_free(&got);
	return good;
}

/* Reads the same text from the start, over and over; never ends by itself */
static pid_t start_reader(int fd, const struct text *text)
{
	pid_t parent = getpid(), pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = count_signal }, NULL);
	while (!get(&scene->stop)) {
		if (!get(&scene->eager) && get(&scene->begun) == get(&scene->done))
			continue;
		if (lseek(fd, 0, SEEK_SET) || !reads(fd, text))
			set(&scene->wrong, true);
		set(&scene->passes, get(&scene->passes) + 1);
	}
	_exit(0);
}

static char process_state(pid_t pid)
{
	char buf[512] = {}, *at;
	int fd;

	snprintf(buf, sizeof(buf), "/proc/%d/stat", pid);
	fd = open(buf, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, buf, sizeof(buf) - 1) <= 0)
		maps_die(buf);
	close(fd);
	at = strrchr(buf, ')');
	return at ? at[2] : '?';
}

/* Does it sleep in the kernel, counted as load or not? */
static bool is_asleep(pid_t pid)
{
	char state = process_state(pid);

	return state == 'D' || state == 'I';
}

/* How often a reader served by Rust has queued up for a writer's mmap_lock */
static long queued(void)
{
	return maps_counter("vma_walk_fallback_contended");
}

/*
 * Have the target work: true as soon as the reader was seen asleep in the
 * kernel during that, in the queue for mmap_lock if @in_queue, false when the
 * work was done before.
 */
static bool reader_waits(const struct target *target, pid_t reader, int what,
			 bool in_queue)
{
	int round = get(&scene->done);
	long before = in_queue ? queued() : 0;

	if (write(target->to, &what, sizeof(what)) != sizeof(what))
		maps_die("target");
	while (get(&scene->done) == round) {
		if (get(&scene->begun) > round && (!in_queue || queued() > before) &&
		    is_asleep(reader) && get(&scene->done) == round)
			return true;
	}
	return false;
}

FIXTURE(maps_signal)
{
	struct target target;
	struct text whole;
};

FIXTURE_VARIANT(maps_signal)
{
	const struct facts *facts;
};

FIXTURE_VARIANT_ADD(maps_signal, maps) {
	.facts = &maps_facts,
};

FIXTURE_VARIANT_ADD(maps_signal, smaps) {
	.facts = &smaps_facts,
};

FIXTURE_VARIANT_ADD(maps_signal, smaps_rollup) {
	.facts = &smaps_rollup_facts,
};

FIXTURE_VARIANT_ADD(maps_signal, numa_maps) {
	.facts = &numa_maps_facts,
};

/* What the target can do again and again so that the text stays, @i counting */
static enum work keeps_text(int i)
{
	if (is_maps())
		return i & 1 ? ADVISE : FORK;
	return facts->one_record ? FORK : ADVISE;
}

FIXTURE_SETUP(maps_signal)
{
	const char *cannot = maps_cannot_test_file(variant->facts->file);
	int fd;

	facts = variant->facts;
	if (cannot)
		SKIP(return, "%s", cannot);
	scene = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, scene);
	ASSERT_EQ(0, target_start(&self->target, build_large, work, NULL));
	/* it has all of its pages after it has done that once */
	ASSERT_EQ(0, target_do(&self->target, FORK));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, target_do(&self->target, keeps_text(1)))
			TH_LOG("%s", strerror(errno));
	}
	fd = maps_open_file(self->target.pid, facts->file, MAPS_C);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, text_read(&self->whole, fd));
	ASSERT_LT(facts->one_record ? 10 : large_count(), text_lines(&self->whole));
	hide_changes(&self->whole);
	close(fd);
}

FIXTURE_TEARDOWN(maps_signal)
{
	target_stop(&self->target);
	text_free(&self->whole);
}

/*
 * What @rest, which was read from @at on, has to be. In numa_maps what comes
 * before may have got longer or shorter: there the first whole line of @rest
 * tells where that is, and what comes before it is left out of both.
 */
static struct text expected_rest(const struct text *whole, off_t at, struct text *rest)
{
	struct text expected = { .data = whole->data + at, .len = whole->len - at };
	char *line = NULL, *end = NULL, *found = NULL;

	if (!at || strcmp(facts->file, "numa_maps"))
		return expected;
	line = memchr(rest->data, '\n', rest->len);
	if (line)
		end = memchr(line + 1, '\n', rest->data + rest->len - (line + 1));
	if (end)
		found = memmem(whole->data, whole->len, line, end + 1 - line);
	if (found) {
		expected.data = found;
		expected.len = whole->data + whole->len - found;
		rest->len -= line - rest->data;
		rest->data = line;
	}
	return expected;
}

/*
 * Kill a reader that waits: it is gone before what it waits for is there. Who
 * shares its descriptor goes on where it was. Gives that position.
 *
 * Not with C: if the reader dies between two lines (seq_file asks for the
 * second before it gives a byte of the first) m_next() leaves the position
 * where it was, so that seq_file complains and the next reader gets the last
 * line again.
 */
static off_t kill_waiting(struct __test_metadata *_metadata,
			  struct target *target, const struct text *whole,
			  enum work what, bool first_line, bool in_queue)
{
	/* one byte takes the first line only, so that it is this it waits for */
	struct text rest = {}, now, expected, first = { .data = whole->data, .len = 1 };
	bool killed = false;
	off_t at = -1;

	for (int i = 0; i < TRIES && !killed; i++) {
		int fd = maps_open_file(target->pid, facts->file, MAPS_RUST);
		int round = get(&scene->done);
		pid_t reader = start_reader(fd, first_line ? &first : whole);
		double since;
		bool waits;

		waits = reader_waits(target, reader, what, in_queue);
		since = maps_now();
		ASSERT_EQ(0, kill(reader, SIGKILL));
		while (waits && !killed && get(&scene->done) == round) {
			if (in_queue ? process_state(reader) == 'D' :
				       waitpid(reader, NULL, WNOHANG) != reader)
				continue;
			/*
			 * Who has left the queue is gone, though it takes a
			 * moment to exit: unless it has got the lock, because
			 * the work is all but done.
			 */
			if (in_queue)
				usleep(1000);
			killed = get(&scene->done) == round;
		}
		if (killed)
			EXPECT_GE(MAX_DYING, maps_now() - since);
		scene->outlived += waits && !killed;
		waitpid(reader, NULL, 0);
		ASSERT_EQ(0, target_reply(target));

		at = lseek(fd, 0, SEEK_CUR);
		ASSERT_LE(0, at);
		rest.len = 0;
		ASSERT_EQ(0, text_read(&rest, fd));
		hide_changes(&rest);
		now = rest;
		expected = expected_rest(whole, at, &now);
		EXPECT_TRUE(same_lasting("rest of the file", &expected, "Rust", &now));
		close(fd);
	}
	EXPECT_TRUE(killed)
		TH_LOG("no reader died while it waited");
	EXPECT_FALSE(get(&scene->wrong));
	text_free(&rest);
	return at;
}

TEST_F_TIMEOUT(maps_signal, fatal, TIMEOUT)
{
	kill_waiting(_metadata, &self->target, &self->whole, FORK, true, false);
}

TEST_F_TIMEOUT(maps_signal, fatal_in_the_queue, TIMEOUT)
{
	if (queued() < 0)
		SKIP(return, "the kernel does not count what readers meet");
	for (int i = 0; i < HITS; i++)
		kill_waiting(_metadata, &self->target, &self->whole, ADVISE, false, true);
	/* who cannot be killed may still be gone just before the work is done */
	EXPECT_GE(2 * HITS, scene->outlived);
}

TEST_F_TIMEOUT(maps_signal, fatal_between_lines, TIMEOUT)
{
	int between = 0;

	if (facts->one_record)
		SKIP(return, "it has one record");
	for (int i = 0; i < HITS; i++)
		between += kill_waiting(_metadata, &self->target, &self->whole,
					ADVISE, false, false) > 0;
	EXPECT_EQ(HITS, between)
		TH_LOG("it did not wait between two lines");
}

/* A signal with a handler does not end a read, whatever that waits for. */
TEST_F_TIMEOUT(maps_signal, handled, TIMEOUT)
{
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		int fd = maps_open_file(self->target.pid, facts->file, impl);
		pid_t reader = start_reader(fd, &self->whole);
		int hits = 0, status;

		for (int i = 0; i < TRIES && hits < 2 * HITS; i++) {
			if (reader_waits(&self->target, reader, keeps_text(i), false)) {
				int round = get(&scene->done);

				ASSERT_EQ(0, kill(reader, SIGUSR1));
				usleep(1000);
				hits += get(&scene->done) == round;
			}
			ASSERT_EQ(0, target_reply(&self->target));
		}
		EXPECT_EQ(2 * HITS, hits);

		/* and now without anything to wait for */
		set(&scene->signals, 0);
		set(&scene->passes, 0);
		set(&scene->eager, true);
		while (get(&scene->passes) < 4 || get(&scene->signals) <= 10) {
			ASSERT_EQ(0, kill(reader, SIGUSR1));
			usleep(1000);
		}
		set(&scene->stop, true);
		ASSERT_EQ(reader, waitpid(reader, &status, 0));
		EXPECT_EQ(0, status);
		EXPECT_FALSE(get(&scene->wrong));
		close(fd);
		set(&scene->eager, false);
		set(&scene->stop, false);
	}
}

/* A file, and memory that it takes some milliseconds to look at */
#define MAPPED	"/tmp/mapped"
#define MEMORY	(2UL << 30)
#define TURNS	40

static int map_file(int map)
{
	void *at = (void *)(SPOT - 16 * PAGE);
	int fd;

	if (!map)
		return munmap(at, PAGE) ? errno : 0;
	fd = open(MAPPED, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, PAGE) ||
	    mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
		 fd, 0) == MAP_FAILED)
		return errno;
	return close(fd) ? errno : 0;
}

static int build_memory(const void *arg)
{
	char *at = mmap((void *)SPOT, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (at == MAP_FAILED)
		return errno;
	madvise(at, MEMORY, MADV_NOHUGEPAGE);
	/* without a page of its own nobody would look for others */
	*at = 1;
	return madvise(at, MEMORY, MADV_POPULATE_READ) ? errno : 0;
}

/* Whether somebody has it open, or maps it. A lease wants to be alone with it. */
static bool is_in_use(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool in_use;

	if (fd < 0)
		maps_die(path);
	in_use = fcntl(fd, F_SETLEASE, F_WRLCK);
	if (in_use && errno != EAGAIN)
		maps_die("F_SETLEASE");
	close(fd);
	return in_use;
}

static void read_all(int fd)
{
	char buf[4096];

	lseek(fd, 0, SEEK_SET);
	while (read(fd, buf, sizeof(buf)) > 0)
		continue;
}

/* A file that has been unmapped is not kept open by who looks at something else. */
FIXTURE(smaps_unmapped)
{
	struct target target;
};

FIXTURE_SETUP(smaps_unmapped)
{
	const char *cannot = maps_cannot_test_file("smaps") ?: private_tmp();

	if (cannot)
		SKIP(return, "%s", cannot);
	ASSERT_EQ(0, target_start(&self->target, build_memory, map_file, NULL));
}

FIXTURE_TEARDOWN(smaps_unmapped)
{
	target_stop(&self->target);
}

TEST_F_TIMEOUT(smaps_unmapped, file, TIMEOUT)
{
	double took, since;
	pid_t reader;
	int fd, late;
	bool in_use;

	ASSERT_EQ(0, target_do(&self->target, 1));
	EXPECT_TRUE(is_in_use(MAPPED));
	ASSERT_EQ(0, target_do(&self->target, 0));
	for (enum maps_impl impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		fd = maps_open_file(self->target.pid, "smaps", impl);
		ASSERT_LE(0, fd);
		since = maps_now();
		read_all(fd);
		took = maps_now() - since;
		reader = fork();
		if (!reader) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				read_all(fd);
		}
		late = 0;
		for (int i = 0; i < TURNS; i++) {
			ASSERT_EQ(0, target_do(&self->target, 1));
			/* now and then in its course */
			usleep(1e6 * took * (1 + i * 7 % TURNS / (double)TURNS));
			ASSERT_EQ(0, target_do(&self->target, 0));
			since = maps_now();
			while ((in_use = is_in_use(MAPPED)) && maps_now() - since < took / 4)
				usleep(100);
			late += in_use;
		}
		kill(reader, SIGKILL);
		waitpid(reader, NULL, 0);
		close(fd);
		EXPECT_GE(TURNS / 8, late)
			TH_LOG("%s: in use for more than %.0f ms after it was unmapped, %d times",
			       maps_impl_name[impl], 1e3 * took / 4, late);
	}
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--pause"))
		return pause();
	if (argc == 3 && !strcmp(argv[1], "--read-on"))
		return read_on_after_exec(atoi(argv[2]));
	return test_harness_run(argc, argv);
}
