// SPDX-License-Identifier: GPL-2.0
/*
 * A process cannot tell, by anything but time, that somebody reads its
 * /proc/PID/maps, smaps, smaps_rollup or numa_maps, or asks by PROCMAP_QUERY:
 * a file that it has unmapped and closed is closed, whoever looked at it.
 *
 * -n N makes N rounds with each kind of reader in Rust, and a thousandth of that in C,
 * where one at a low priority may hold up a round for seconds, because umount() waits for
 * a grace period. -k FILE does so with readers of FILE only, which may be "query".
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <linux/fs.h>
#include <linux/membarrier.h>
#include <linux/posix_types.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include "proc-maps.h"

#define TIMEOUT		600	/* seconds for each test */
#define MAPPINGS	64
#define MORE		400
#define BUFFER_PAGES	64
#define PAGES_THERE	4	/* of a buffer, before the page that is slow */
#define FORCED_ROUNDS	200
#define DESCRIPTORS	4000
#define MEMORY_TRIES	3
#define KILLS		25	/* of a reader that has worked for START, and STEP more each time */
#define START		5	/* ms */
#define STEP		7
#define SLACK		2
#define LOSSES		40	/* of its CPU, after START and 1 ms more each time */
#define SEVERAL_BUFFERS	5000	/* mappings, of which a read gives as much as it may */
#define WAKE_UPS	400	/* on the reader's CPU, each after PAUSE ns */
#define PAUSE		1000000
#define MEMORY		(512UL << 20)
#define SCHED		"/sys/kernel/debug/sched/"
#define WHERE		"/tmp/where"
#define MAPPED		WHERE "/mapped"

static int rounds = 12;
static const char *kind_of_file;

/* 64 mappings of one page each of the file, which has a lock and is open for writing */
static int map_file(int map)
{
	char *at = (char *)SPOT;
	int fd;

	if (!map)
		return munmap(at, MAPPINGS * PAGE) ? errno : 0;
	fd = open(MAPPED, O_RDWR | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB))
		return errno;
	for (int i = 0; i < MAPPINGS; i++) {
		if (mmap(at + i * PAGE, PAGE, i & 1 ? PROT_READ : PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0) == MAP_FAILED)
			return errno;
	}
	return close(fd) ? errno : 0;
}

/* Who hears of it when the file is closed; the latter is -1 where there is no fanotify */
static int inotify = -1, fanotify = -1;

/* A file that can be executed, but is no program */
static void make_file(void)
{
	static const char text[PAGE] = "none";
	int fd;

	if (mount("none", WHERE, "tmpfs", 0, NULL))
		maps_die("mount");
	fd = open(MAPPED, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
	if (fd < 0 || write(fd, text, PAGE) != PAGE || close(fd))
		maps_die(MAPPED);
	if (inotify_add_watch(inotify, MAPPED, IN_CLOSE_WRITE) < 0)
		maps_die("inotify_add_watch");
	if (fanotify >= 0 &&
	    fanotify_mark(fanotify, FAN_MARK_ADD, FAN_CLOSE_WRITE, AT_FDCWD, MAPPED))
		maps_die("fanotify_mark");
}

/* What somebody else has noticed of a reader */
struct noticed {
	int lock;	/* EWOULDBLOCK from flock */
	int text;	/* ETXTBSY from execve */
	int lease;	/* EAGAIN from F_SETLEASE */
	int mount;	/* EBUSY from umount */
	int close;	/* no event that it was closed */
	int who;	/* an event that names somebody else */
};

static int sum(const struct noticed *n)
{
	return n->lock + n->text + n->lease + n->mount + n->close + n->who;
}

static void log_noticed(struct __test_metadata *_metadata, const struct noticed *n)
{
	TH_LOG("flock %d, execve %d, F_SETLEASE %d, umount %d, no event %d, other %d",
	       n->lock, n->text, n->lease, n->mount, n->close, n->who);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Some time, which differs from one round to the next */
static void spin(int round)
{
	for (int i = 0; i < round % 50 * 400; i++)
		asm volatile("" : : : "memory");
}

/* Returns how many processes but @pid have closed the file by fanotify; *@closed counts all */
static int read_events(pid_t pid, int *closed)
{
	struct fanotify_event_metadata event;
	int others = 0;
	char buf[512];

	*closed = 0;
	while (read(inotify, buf, sizeof(buf)) > 0)
		++*closed;
	while (fanotify >= 0 && read(fanotify, &event, sizeof(event)) == sizeof(event)) {
		others += event.pid != pid;
		close(event.fd);
	}
	return others;
}

/* Call this before the file is unmapped. */
static void forget_events(void)
{
	int closed;

	read_events(0, &closed);
}

static void check_events(struct noticed *n, pid_t pid)
{
	int closed;

	n->who += read_events(pid, &closed);
	n->close += !closed;
}

/* Nobody has the file open any more. */
static void check_closed(struct noticed *n)
{
	char *const none[] = { NULL };
	int fd;

	execve(MAPPED, none, none);
	if (errno != ENOEXEC && errno != ETXTBSY)
		maps_die("execve");
	n->text += errno == ETXTBSY;
	fd = open(MAPPED, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		maps_die(MAPPED);
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK)
			maps_die("flock");
		n->lock++;
	}
	if (fcntl(fd, F_SETLEASE, F_WRLCK)) {
		if (errno != EAGAIN)
			maps_die("F_SETLEASE");
		n->lease++;
	}
	close(fd);
}

/* Another file takes its place */
static void check_mount(struct noticed *n)
{
	/* those that fanotify has not told yet keep the mount */
	forget_events();
	if (umount2(WHERE, 0)) {
		if (errno != EBUSY)
			maps_die("umount");
		n->mount++;
		if (umount2(WHERE, MNT_DETACH))
			maps_die("umount");
	}
	make_file();
}

static const char *prepare(void)
{
	const char *cannot = maps_cannot_test() ?: private_tmp();

	if (cannot)
		return cannot;
	if (mkdir(WHERE, 0700) && errno != EEXIST)
		maps_die(WHERE);
	inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (inotify < 0)
		maps_die("inotify");
	fanotify = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY);
	make_file();
	return NULL;
}

/*
 * A reader whose buffer has a page that is there only when somebody says so,
 * behind some that are there. It may read what was on its way, but does not wait.
 */
struct slow_reader {
	pthread_t thread;
	char *buf;
	int uffd;
	int fd;
	int done;	/* an eventfd */
	int state;	/* 1 when it is about to read */
	ssize_t n;
};

static int slow_buffer(char **buf, size_t there)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	*buf = mmap(NULL, BUFFER_PAGES * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (uffd < 0 || *buf == MAP_FAILED)
		maps_die("userfaultfd");
	madvise(*buf, BUFFER_PAGES * PAGE, MADV_NOHUGEPAGE);
	memset(*buf, 1, there * PAGE);
	reg.range.start = (unsigned long)*buf + there * PAGE;
	reg.range.len = (BUFFER_PAGES - there) * PAGE;
	if (ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
		maps_die("UFFDIO_REGISTER");
	return uffd;
}

static void *read_slowly(void *arg)
{
	struct slow_reader *r = arg;
	uint64_t one = 1;

	__atomic_store_n(&r->state, 1, __ATOMIC_RELEASE);
	r->n = pread(r->fd, r->buf, BUFFER_PAGES * PAGE, 0);
	if (write(r->done, &one, sizeof(one)) != sizeof(one))
		maps_die("eventfd");
	return NULL;
}

/* The first pages @there of the buffer can be written to, the others have to be waited for. */
static void start_slowly(struct slow_reader *r, int fd, size_t there)
{
	r->uffd = slow_buffer(&r->buf, there);
	r->done = eventfd(0, EFD_CLOEXEC);
	r->fd = fd;
	r->state = 0;
	if (pthread_create(&r->thread, NULL, read_slowly, r))
		maps_die("pthread_create");
	while (!__atomic_load_n(&r->state, __ATOMIC_ACQUIRE))
		continue;
}

/* Returns whether it waits for the page, and not if it has read */
static bool waits_for_page(struct slow_reader *r)
{
	struct pollfd fds[] = { { .fd = r->done, .events = POLLIN },
				{ .fd = r->uffd, .events = POLLIN } };

	if (poll(fds, 2, -1) < 1)
		maps_die("poll");
	return !(fds[0].revents & POLLIN);
}

static void end_slowly(struct slow_reader *r)
{
	/* all that wait for it go on */
	close(r->uffd);
	pthread_join(r->thread, NULL);
	close(r->done);
	munmap(r->buf, BUFFER_PAGES * PAGE);
}

FIXTURE(maps_trace)
{
	struct target target;
};

FIXTURE_VARIANT(maps_trace)
{
	const char *file;
};

FIXTURE_VARIANT_ADD(maps_trace, maps) { .file = "maps" };
FIXTURE_VARIANT_ADD(maps_trace, smaps) { .file = "smaps" };
FIXTURE_VARIANT_ADD(maps_trace, numa_maps) { .file = "numa_maps" };

/* Enough lines after those of the file that a reader comes to the slow page */
static int build_many(const void *arg)
{
	char *at = (char *)SPOT + (2 * MAPPINGS) * PAGE;

	for (int i = 0; i < MORE; i++) {
		if (mmap(at + i * PAGE, PAGE, i & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE |
			 MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
			return errno;
	}
	return 0;
}

FIXTURE_SETUP(maps_trace)
{
	char path[64];
	const char *cannot;

	snprintf(path, sizeof(path), "/proc/self/%s", variant->file);
	cannot = access(path, R_OK) ? path : prepare();
	if (cannot)
		SKIP(return, "%s", cannot);
	ASSERT_EQ(0, target_start(&self->target, build_many, map_file, NULL));
}

FIXTURE_TEARDOWN(maps_trace)
{
	target_stop(&self->target);
}

/*
 * The target unmaps the file while the reader is at it, or has been. A reader that
 * has the file open then would have it open until it gets its page.
 */
TEST_F_TIMEOUT(maps_trace, slow_buffer, TIMEOUT)
{
	struct noticed noticed = {};
	int waits = 0, fd;

	fd = maps_open_file(self->target.pid, variant->file, MAPS_RUST);
	ASSERT_LE(0, fd);
	for (int i = 0; i < FORCED_ROUNDS; i++) {
		struct slow_reader reader;

		ASSERT_EQ(0, target_do(&self->target, 1));
		forget_events();
		start_slowly(&reader, fd, PAGES_THERE);
		spin(i);
		ASSERT_EQ(0, target_do(&self->target, 0));
		waits += waits_for_page(&reader);
		check_events(&noticed, self->target.pid);
		check_closed(&noticed);
		check_mount(&noticed);
		end_slowly(&reader);
		EXPECT_LT(0, reader.n);
	}
	EXPECT_EQ(0, waits) TH_LOG("it has waited for a page after the first");
	EXPECT_EQ(0, sum(&noticed))
		log_noticed(_metadata, &noticed);
	close(fd);
}

/* Nothing is lost of what did not get to the slow page. */
TEST_F_TIMEOUT(maps_trace, nothing_is_lost, TIMEOUT)
{
	struct text whole = {}, got = {};
	struct slow_reader reader;
	int fd;

	if (strcmp(variant->file, "maps"))
		SKIP(return, "the others may say something else each time");
	fd = maps_open_file(self->target.pid, variant->file, MAPS_RUST);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, text_read(&whole, fd));
	start_slowly(&reader, fd, PAGES_THERE);
	EXPECT_FALSE(waits_for_page(&reader));
	end_slowly(&reader);
	ASSERT_LT(0, reader.n);
	EXPECT_GE(PAGES_THERE * PAGE, reader.n);
	ASSERT_EQ(reader.n, lseek(fd, reader.n, SEEK_SET));
	text_append(&got, whole.data, reader.n);
	ASSERT_EQ(0, text_read(&got, fd));
	EXPECT_TRUE(text_same("at once", &whole, "in two", &got));
	text_free(&whole);
	text_free(&got);
	close(fd);
}

/* A line that is longer than a page, and many after it */
static int map_long_line(void)
{
	char path[2000] = "/tmp", name[252];
	int fd;

	/* each newline is shown as four characters */
	memset(name, '\n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	for (int i = 0; i < 5; i++) {
		strcat(strcat(path, "/"), name);
		if (mkdir(path, 0755))
			return errno;
	}
	strcat(path, "/file");
	fd = open(path, O_CREAT | O_RDWR, 0644);
	if (fd < 0 || mmap((char *)SPOT - PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE,
			   fd, 0) == MAP_FAILED)
		return errno;
	close(fd);
	return build_many(NULL);
}

/*
 * A line longer than a page makes all that is copied at once longer than a page. The
 * reader copies to the page that it has not got:
 *
 *	[ page ][ page ][ page ][ ....
 *	[ copied first ][ copied next ]
 */
TEST_F_TIMEOUT(maps_trace, slow_buffer_after_a_long_line, TIMEOUT)
{
	struct text whole = {};
	int fd;

	ASSERT_EQ(0, map_long_line());
	fd = maps_open_file(getpid(), variant->file, MAPS_RUST);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, text_read(&whole, fd));
	for (size_t there = 2; there < 8; there++) {
		struct slow_reader reader;

		start_slowly(&reader, fd, there);
		EXPECT_FALSE(waits_for_page(&reader)) TH_LOG("with %zu pages", there);
		end_slowly(&reader);
		EXPECT_LT(PAGE, reader.n);
		EXPECT_GE(there * PAGE, reader.n);
	}
	text_free(&whole);
	close(fd);
}

/* What a reader does until it is killed */
struct kind {
	const char *file;	/* or "query" */
	size_t size;
	int policy;
	int nice;
	bool beside_busy;
};

#ifdef PROCMAP_QUERY
static void query_all(int fd)
{
	static char name[PATH_MAX], build_id[64];
	struct procmap_query q = {
		.size = sizeof(q),
		.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
	};

	do {
		q.query_addr = q.vma_end;
		q.vma_name_addr = (unsigned long)name;
		q.vma_name_size = sizeof(name);
		q.build_id_addr = (unsigned long)build_id;
		q.build_id_size = sizeof(build_id);
	} while (!ioctl(fd, PROCMAP_QUERY, &q));
}
#else
static void query_all(int fd)
{
}
#endif

static pid_t start_busy(int cpu)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(cpu);
		for (;;)
			continue;
	}
	return pid;
}

static pid_t start_kind(const struct kind *kind, int fd, int cpu)
{
	struct sched_param param = {};
	pid_t pid = fork();
	char *buf;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(cpu);
	if (nice(kind->nice) == -1 || sched_setscheduler(0, kind->policy, &param))
		maps_die("priority");
	buf = mmap(NULL, kind->size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buf == MAP_FAILED)
		maps_die("mmap");
	for (;;) {
		if (!strcmp(kind->file, "query")) {
			query_all(fd);
			continue;
		}
		lseek(fd, 0, SEEK_SET);
		while (read(fd, buf, kind->size) > 0)
			continue;
	}
}

static void stop_pid(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static const char *const files[] = { "maps", "smaps", "numa_maps", "smaps_rollup", "query" };

FIXTURE(maps_rounds)
{
	struct target target;
};

FIXTURE_VARIANT(maps_rounds)
{
	int policy;
	int nice;
	bool beside_busy;
};

FIXTURE_VARIANT_ADD(maps_rounds, normal) { .policy = SCHED_OTHER };
FIXTURE_VARIANT_ADD(maps_rounds, nice) {
	.policy = SCHED_OTHER, .nice = 19, .beside_busy = true
};

FIXTURE_VARIANT_ADD(maps_rounds, idle) { .policy = SCHED_IDLE, .beside_busy = true };

FIXTURE_SETUP(maps_rounds)
{
	const char *cannot = prepare();

	if (cannot)
		SKIP(return, "%s", cannot);
	/*
	 * The reader has another CPU, with what keeps it from running. It has few lines
	 * to read but those of the file.
	 */
	pin(0);
	ASSERT_EQ(0, target_start(&self->target, NULL, map_file, NULL));
}

FIXTURE_TEARDOWN(maps_rounds)
{
	target_stop(&self->target);
}

/* No late close is allowed, of whatever kind the reader is. */
TEST_F_TIMEOUT(maps_rounds, file, 4 * 3600)
{
	static const size_t sizes[] = { PAGE, 1 << 20, 64 << 20 };
	int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1;
	pid_t busy = variant->beside_busy ? start_busy(cpu) : 0;

	for (int i = 0; i < 2 * 5 * 3; i++) {
		const char *file = files[i / 2 % 5];
		bool is_query = !strcmp(file, "query");
		enum maps_impl impl = i & 1;
		int count = impl == MAPS_C ? rounds / 1000 + 2 : rounds;
		struct kind kind = {
			.file = file, .size = sizes[i / 10], .policy = variant->policy,
			.nice = variant->nice,
		};
		struct noticed noticed = {};
		pid_t reader;
		int fd;

		/* C has the file open while it reads the build ID; a query has no buffer */
		if (is_query && (impl == MAPS_C || kind.size != PAGE))
			continue;
		if (kind_of_file && strcmp(kind_of_file, file))
			continue;
		fd = maps_open_file(self->target.pid, is_query ? "maps" : file, impl);
		if (fd < 0 && errno == ENOENT)
			continue;
		ASSERT_LE(0, fd);
		reader = start_kind(&kind, fd, cpu);
		for (int round = 0; round < count; round++) {
			ASSERT_EQ(0, target_do(&self->target, 1));
			forget_events();
			spin(round);
			ASSERT_EQ(0, target_do(&self->target, 0));
			check_events(&noticed, self->target.pid);
			check_closed(&noticed);
			check_mount(&noticed);
		}
		stop_pid(reader);
		close(fd);
		EXPECT_EQ(0, sum(&noticed)) {
			TH_LOG("%s of %s, %zu bytes at a time", maps_impl_name[impl],
			       file, kind.size);
			log_noticed(_metadata, &noticed);
		}
	}
	if (busy)
		stop_pid(busy);
}

/* A target of which it takes long to sum up the memory */
static int build_large(const void *arg)
{
	char *at;
	int err = map_file(1);

	if (err)
		return err;
	at = mmap((char *)SPOT + (2 * MAPPINGS) * PAGE, MEMORY, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (at == MAP_FAILED)
		return errno;
	madvise(at, MEMORY, MADV_NOHUGEPAGE);
	*at = 1;
	return madvise(at, MEMORY, MADV_POPULATE_READ) ? errno : 0;
}

/* In ms, what @pid has had of a CPU */
static double cpu_time(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
		maps_die("clock_gettime");
	return 1e3 * t.tv_sec + t.tv_nsec / 1e6;
}

/* A task that has the CPU before anybody else, from SIGCONT to SIGSTOP */
static pid_t start_urgent(int cpu)
{
	struct sched_param param = { .sched_priority = 1 };
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(cpu);
		if (sched_setscheduler(0, SCHED_FIFO, &param))
			maps_die("SCHED_FIFO");
		raise(SIGSTOP);
		for (;;)
			continue;
	}
	if (waitpid(pid, NULL, WUNTRACED) != pid)
		maps_die("waitpid");
	return pid;
}

/* A reader, and what takes its CPU away */
struct starved {
	pid_t reader;
	pid_t urgent;
	double worked;	/* ms, until it lost its CPU */
};

/* Starts a reader, which loses its CPU when it has worked for @after ms. */
static struct starved starve(const struct kind *kind, int fd, int cpu, int after)
{
	struct starved s;
	double before;

	s.urgent = start_urgent(cpu);
	s.reader = start_kind(kind, fd, cpu);
	while (cpu_time(s.reader) < after)
		continue;
	before = cpu_time(s.urgent);
	kill(s.urgent, SIGCONT);
	while (cpu_time(s.urgent) == before)
		continue;
	s.worked = cpu_time(s.reader);
	return s;
}

static void stop_starved(const struct starved *s)
{
	stop_pid(s->urgent);
	stop_pid(s->reader);
}

/*
 * A reader loses its CPU when it has worked for @after ms, and gets it again when the
 * target is gone. Returns what it works then, in ms, until the file of the target is
 * closed, which is the last of its memory. That is less than 0 if the reader did not
 * keep it.
 */
static double work_to_free(const struct kind *kind, enum maps_impl impl, int cpu, int after)
{
	struct target target;
	struct starved s;
	struct pollfd poll_fd;
	double took;
	int fd;

	if (target_start(&target, build_large, map_file, NULL))
		maps_die("target");
	forget_events();
	fd = maps_open_file(target.pid, kind->file, impl);
	if (fd < 0)
		maps_die(kind->file);
	s = starve(kind, fd, cpu, after);
	target_kill(&target);
	poll_fd.fd = inotify;
	poll_fd.events = POLLIN;
	if (poll(&poll_fd, 1, 20) == 1) {
		took = -1;
	} else {
		kill(s.urgent, SIGSTOP);
		if (poll(&poll_fd, 1, 60000) != 1)
			maps_die("it is not freed");
		took = cpu_time(s.reader) - s.worked;
	}
	stop_starved(&s);
	close(fd);
	target_stop(&target);
	return took;
}

FIXTURE(maps_last_user)
{
};

FIXTURE_SETUP(maps_last_user)
{
	const char *cannot = prepare();

	if (cannot)
		SKIP(return, "%s", cannot);
}

FIXTURE_TEARDOWN(maps_last_user)
{
}

/*
 * A reader that has lost its CPU, wherever it was, keeps the memory of a process that is
 * gone no longer than C does.
 */
TEST_F_TIMEOUT(maps_last_user, killed, TIMEOUT)
{
	int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1;

	if (!cpu)
		SKIP(return, "another CPU has to take the reader's away");
	pin(0);
	for (int i = 0; i < 4; i++) {
		struct kind kind = { .file = files[i], .size = PAGE, .policy = SCHED_IDLE };
		double longest[2] = {};
		int kept[2] = {};

		if (access("/proc/self/smaps", R_OK))
			continue;
		for (int n = 0; n < 2 * KILLS; n++) {
			enum maps_impl impl = n & 1;
			double took = work_to_free(&kind, impl, cpu, START + n / 2 * STEP);

			kept[impl] += took >= 0;
			if (took > longest[impl])
				longest[impl] = took;
		}
		TH_LOG("%s: C kept it %d times, for %.1f ms, Rust %d times, for %.1f ms",
		       kind.file, kept[MAPS_C], longest[MAPS_C], kept[MAPS_RUST],
		       longest[MAPS_RUST]);
		EXPECT_LT(0, kept[MAPS_RUST]);
		EXPECT_GE(longest[MAPS_C] + SLACK, longest[MAPS_RUST]);
	}
}

/*
 * A grace period of RCU, which many system calls wait for, does not wait for a reader
 * that has lost its CPU, wherever it was. What runs before the grace period ends need
 * not be what it waited for: in one of some hundred cases the scheduler lets the reader
 * run by itself. A reader that can be preempted in RCU is waited for in a quarter to a
 * half of all cases.
 */
TEST_F_TIMEOUT(maps_trace, grace_period, TIMEOUT)
{
	struct kind kind = { .file = variant->file, .size = PAGE, .policy = SCHED_IDLE };
	int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1;
	int waits = 0, fd;

	if (!strcmp(variant->file, "smaps"))
		SKIP(return, "it is seldom in RCU when it loses its CPU");
	if (!cpu)
		SKIP(return, "another CPU has to take the reader's away");
	if (!access("/sys/kernel/realtime", F_OK))
		SKIP(return, "with PREEMPT_RT a reader may lose its CPU anywhere");
	pin(0);
	ASSERT_EQ(0, target_do(&self->target, 1));
	fd = maps_open_file(self->target.pid, variant->file, MAPS_RUST);
	ASSERT_LE(0, fd);
	for (int n = 0; n < LOSSES; n++) {
		struct starved s = starve(&kind, fd, cpu, START + n);

		ASSERT_EQ(0, syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
		waits += cpu_time(s.reader) != s.worked;
		stop_starved(&s);
	}
	EXPECT_GE(LOSSES / 10, waits)
		TH_LOG("the reader had to run in %d of %d cases", waits, LOSSES);
	close(fd);
}

static int by_size(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

/* In ns, the median of how late a task runs that wakes up on the reader's CPU */
static long lateness(const struct kind *kind, enum maps_impl impl, int cpu)
{
	int fd = maps_open_file(getpid(), kind->file, impl);
	struct timespec wake, now;
	long late[WAKE_UPS];
	pid_t reader;

	if (fd < 0)
		maps_die(kind->file);
	reader = start_kind(kind, fd, cpu);
	while (cpu_time(reader) < START)
		continue;
	pin(cpu);
	prctl(PR_SET_TIMERSLACK, 1);
	for (int i = 0; i < WAKE_UPS; i++) {
		clock_gettime(CLOCK_MONOTONIC, &wake);
		/* at another moment of the reading each time */
		wake.tv_nsec += PAUSE + i * 977;
		wake.tv_sec += wake.tv_nsec / 1000000000;
		wake.tv_nsec %= 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		late[i] = (now.tv_sec - wake.tv_sec) * 1000000000 + now.tv_nsec - wake.tv_nsec;
	}
	pin(0);
	stop_pid(reader);
	close(fd);
	qsort(late, WAKE_UPS, sizeof(long), by_size);
	return late[WAKE_UPS / 2];
}

/*
 * Where preemption is lazy, a task that is to run on the reader's CPU waits until the
 * reader returns to user space, or for the next tick. With a large buffer it waits no
 * longer than beside a reader in C, which returns after a buffer. If the reader goes on,
 * it waits five times as long. HRTICK would let it run at the end of the reader's slice.
 */
TEST_F_TIMEOUT(maps_trace, lazy_preemption, TIMEOUT)
{
	struct kind kind = { .file = variant->file, .size = 1 << 20, .policy = SCHED_IDLE };
	int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1;
	bool full, hrtick;
	long late[2];

	if (!cpu)
		SKIP(return, "the reader needs a CPU of its own");
	if (access(SCHED "preempt", W_OK))
		SKIP(return, SCHED "preempt: %s", strerror(errno));
	if (!file_has(SCHED "preempt", "lazy"))
		SKIP(return, "this kernel does not preempt lazily");
	full = file_has(SCHED "preempt", "(full)");
	hrtick = !file_has(SCHED "features", "NO_HRTICK ");
	ASSERT_EQ(0, map_many(maps_count(SEVERAL_BUFFERS)));
	pin(0);
	ASSERT_EQ(0, write_file(SCHED "preempt", "lazy"));
	ASSERT_EQ(0, write_file(SCHED "features", "NO_HRTICK"));
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++)
		late[impl] = lateness(&kind, impl, cpu);
	EXPECT_EQ(0, write_file(SCHED "features", hrtick ? "HRTICK" : "NO_HRTICK"));
	EXPECT_EQ(0, write_file(SCHED "preempt", full ? "full" : "lazy"));
	TH_LOG("%s: C %ld us, Rust %ld us", variant->file, late[MAPS_C] / 1000,
	       late[MAPS_RUST] / 1000);
	EXPECT_GE(2 * late[MAPS_C], late[MAPS_RUST]);
}

/* In ms, the quickest of some, until a reader that waits is gone */
static double time_to_die(int fd, bool own_page)
{
	double best = 1e9;

	for (int n = 0; n < 5; n++) {
		int ready[2];
		double since;
		char byte;
		pid_t pid;

		if (pipe2(ready, O_CLOEXEC))
			maps_die("pipe2");
		pid = fork();
		if (!pid) {
			static char buf[PAGE];
			char *slow = buf;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (own_page)
				slow_buffer(&slow, 0);
			if (write(ready[1], "", 1) != 1)
				maps_die("write");
			if (pread(fd, slow, PAGE, 0) < 0)
				maps_die("pread");
			_exit(0);
		}
		close(ready[1]);
		if (read(ready[0], &byte, 1) != 1)
			maps_die("read");
		close(ready[0]);
		usleep(50000);
		if (waitpid(pid, NULL, WNOHANG))
			return -1;	/* it did not wait */
		since = maps_now();
		stop_pid(pid);
		since = 1e3 * (maps_now() - since);
		if (since < best)
			best = since;
	}
	return best;
}

/*
 * A reader is killed while it waits for a page of its own, and while it waits for
 * another one that does, on the same descriptor. What it waits for otherwise is
 * in proc-maps-errors.
 */
TEST_F_TIMEOUT(maps_trace, killed_reader, TIMEOUT)
{
	struct slow_reader reader;
	double took;
	int fd;

	fd = maps_open_file(self->target.pid, variant->file, MAPS_RUST);
	ASSERT_LE(0, fd);
	took = time_to_die(fd, true);
	EXPECT_LE(0, took);
	EXPECT_GE(100, took);

	reader.uffd = slow_buffer(&reader.buf, 0);
	reader.done = eventfd(0, EFD_CLOEXEC);
	reader.fd = fd;
	reader.state = 0;
	ASSERT_EQ(0, pthread_create(&reader.thread, NULL, read_slowly, &reader));
	ASSERT_TRUE(waits_for_page(&reader));
	/* it would wait for ever */
	alarm(60);
	took = time_to_die(fd, false);
	alarm(0);
	EXPECT_LE(0, took);
	EXPECT_GE(100, took);
	end_slowly(&reader);
	close(fd);
}

/* In bytes for each descriptor, and how much more when it has been read */
static void memory_of(pid_t pid, const char *file, enum maps_impl impl, long bytes[2])
{
	static int fds[DESCRIPTORS];
	char buf[64];
	long before, opened;

	before = maps_kernel_memory();
	for (int i = 0; i < DESCRIPTORS; i++) {
		fds[i] = maps_open_file(pid, file, impl);
		if (fds[i] < 0)
			maps_die(file);
	}
	opened = maps_kernel_memory();
	for (int i = 0; i < DESCRIPTORS; i++) {
		if (read(fds[i], buf, sizeof(buf)) <= 0)
			maps_die(file);
	}
	bytes[0] = (opened - before) * 1024 / DESCRIPTORS;
	bytes[1] = (maps_kernel_memory() - before) * 1024 / DESCRIPTORS;
	for (int i = 0; i < DESCRIPTORS; i++)
		close(fds[i]);
}

/* What a descriptor costs, before and after it has been read */
TEST_F_TIMEOUT(maps_trace, memory, TIMEOUT)
{
	struct rlimit limit = { DESCRIPTORS + 100, DESCRIPTORS + 100 };
	long bytes[2][2], tries[2][2][MEMORY_TRIES], more;

	if (maps_has_kmemleak)
		SKIP(return, "kmemleak has an object for each");
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	/*
	 * The first makes the table of descriptors, and dentries. What was closed before is
	 * freed some time later, which is why the median counts.
	 */
	for (int i = -1; i < MEMORY_TRIES; i++) {
		for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
			memory_of(self->target.pid, variant->file, impl, bytes[impl]);
			for (int n = 0; n < 2 && i >= 0; n++)
				tries[impl][n][i] = bytes[impl][n];
		}
	}
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		for (int n = 0; n < 2; n++) {
			qsort(tries[impl][n], MEMORY_TRIES, sizeof(long), by_size);
			bytes[impl][n] = tries[impl][n][MEMORY_TRIES / 2];
		}
	}
	TH_LOG("%s: C %ld, %ld bytes, Rust %ld, %ld", variant->file, bytes[MAPS_C][0],
	       bytes[MAPS_C][1], bytes[MAPS_RUST][0], bytes[MAPS_RUST][1]);
	/* Rust has a mutex more, which is larger where locks are checked */
	more = access("/proc/lockdep_stats", F_OK) ? 64 : 64 + 96;
	for (int i = 0; i < 2; i++)
		EXPECT_GE(bytes[MAPS_C][i] + more + 8, bytes[MAPS_RUST][i]);
}

int main(int argc, char **argv)
{
	while (argc > 2 && (!strcmp(argv[1], "-n") || !strcmp(argv[1], "-k"))) {
		if (argv[1][1] == 'n')
			rounds = atoi(argv[2]);
		else
			kind_of_file = argv[2];
		argv[2] = argv[0];
		argc -= 2;
		argv += 2;
	}
	return test_harness_run(argc, argv);
}
