// SPDX-License-Identifier: GPL-2.0
/*
 * A process cannot tell, by anything but time, that somebody reads its
 * /proc/PID/maps, smaps, smaps_rollup or numa_maps, or asks by PROCMAP_QUERY:
 * a file that it has unmapped and closed is closed, whoever looked at it.
 *
 * -n N makes N rounds with each kind of reader in Rust, and a tenth of that in C.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <linux/fs.h>
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
#define BUFFER_PAGES	64
#define PAGES_THERE	4	/* of a buffer, before the page that is slow */
#define FORCED_ROUNDS	200
#define DESCRIPTORS	4000
#define MEMORY_TRIES	3
#define KILLS		7
#define MEMORY		(512UL << 20)
#define WHERE		"/tmp/where"
#define MAPPED		WHERE "/mapped"

static int rounds = 12;

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

/* Some time, which differs from one round to the next */
static void spin(int round)
{
	for (int i = 0; i < round % 50 * 400; i++)
		asm volatile("" : : : "memory");
}

/* Call this before the file is unmapped, or with @watch from there when it has been. */
static void watch_events(int watch[2])
{
	watch[0] = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (watch[0] < 0 || inotify_add_watch(watch[0], MAPPED, IN_CLOSE_WRITE) < 0)
		maps_die("inotify");
	watch[1] = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY);
	if (watch[1] >= 0 &&
	    fanotify_mark(watch[1], FAN_MARK_ADD, FAN_CLOSE_WRITE, AT_FDCWD, MAPPED))
		maps_die("fanotify_mark");
}

static void check_events(struct noticed *n, int watch[2], pid_t pid)
{
	struct fanotify_event_metadata event;
	char buf[512];

	n->close += read(watch[0], buf, sizeof(buf)) <= 0;
	close(watch[0]);
	if (watch[1] < 0)
		return;
	while (read(watch[1], &event, sizeof(event)) == sizeof(event)) {
		n->who += event.pid != pid;
		close(event.fd);
	}
	close(watch[1]);
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

static void start_slowly(struct slow_reader *r, int fd)
{
	r->uffd = slow_buffer(&r->buf, PAGES_THERE);
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

	for (int i = 0; i < 400; i++) {
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
		int watch[2];

		ASSERT_EQ(0, target_do(&self->target, 1));
		watch_events(watch);
		start_slowly(&reader, fd);
		spin(i);
		ASSERT_EQ(0, target_do(&self->target, 0));
		waits += waits_for_page(&reader);
		check_events(&noticed, watch, self->target.pid);
		check_closed(&noticed);
		if (i % 8 == 0)
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
	start_slowly(&reader, fd);
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

/* What a reader does until it is killed */
struct kind {
	const char *file;	/* or "query" */
	size_t size;
	int policy;
	int nice;
	bool beside_busy;
};

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

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
	ASSERT_EQ(0, target_start(&self->target, build_many, map_file, NULL));
}

FIXTURE_TEARDOWN(maps_rounds)
{
	target_stop(&self->target);
}

/* No late close is allowed, of whatever kind the reader is. */
TEST_F_TIMEOUT(maps_rounds, file, 48 * 3600)
{
	static const size_t sizes[] = { PAGE, 1 << 20, 64 << 20 };
	int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1;
	pid_t busy = variant->beside_busy ? start_busy(cpu) : 0;

	if (cpu)
		pin(0);
	for (int i = 0; i < 2 * 5 * 3; i++) {
		const char *file = files[i / 2 % 5];
		bool is_query = !strcmp(file, "query");
		enum maps_impl impl = i & 1;
		struct kind kind = {
			.file = file, .size = sizes[i / 10], .policy = variant->policy,
			.nice = variant->nice,
		};
		struct noticed noticed = {};
		pid_t reader;
		int fd;

		/* C has the file open while it reads the build ID */
		if (is_query && impl == MAPS_C)
			continue;
		fd = maps_open_file(self->target.pid, is_query ? "maps" : file, impl);
		if (fd < 0 && errno == ENOENT)
			continue;
		ASSERT_LE(0, fd);
		reader = start_kind(&kind, fd, cpu);
		for (int round = 0; round < (impl == MAPS_C ? rounds / 10 + 1 : rounds); round++) {
			int watch[2];

			ASSERT_EQ(0, target_do(&self->target, 1));
			watch_events(watch);
			spin(round);
			ASSERT_EQ(0, target_do(&self->target, 0));
			check_events(&noticed, watch, self->target.pid);
			check_closed(&noticed);
			if (round % 8 == 0)
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

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* In seconds, until the file of a target that is killed is closed, the last of its memory */
static double time_to_free(const struct kind *kind, enum maps_impl impl, int cpu)
{
	struct target target;
	int watch[2], fd;
	double since;
	pid_t reader;
	struct pollfd poll_fd;

	if (target_start(&target, build_large, map_file, NULL))
		maps_die("target");
	watch_events(watch);
	fd = maps_open_file(target.pid, kind->file, impl);
	if (fd < 0)
		maps_die(kind->file);
	reader = start_kind(kind, fd, cpu);
	/* it gets to the middle, at its pace */
	usleep(200000 + rand() % 100000);
	since = maps_now();
	target_kill(&target);
	poll_fd.fd = watch[0];
	poll_fd.events = POLLIN;
	if (poll(&poll_fd, 1, 300000) != 1)
		maps_die("it is not freed");
	since = maps_now() - since;
	stop_pid(reader);
	close(watch[0]);
	if (watch[1] >= 0)
		close(watch[1]);
	close(fd);
	target_stop(&target);
	return since;
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

/* A slow reader keeps the memory of a process that is gone no longer than C does. */
TEST_F_TIMEOUT(maps_last_user, killed, TIMEOUT)
{
	int cpu = sysconf(_SC_NPROCESSORS_ONLN) - 1;
	pid_t busy = start_busy(cpu);

	if (cpu)
		pin(0);
	for (int i = 0; i < 4; i++) {
		struct kind kind = { .file = files[i], .size = PAGE, .policy = SCHED_IDLE };
		double took[2][KILLS];

		if (access("/proc/self/smaps", R_OK))
			continue;
		for (int n = 0; n < KILLS; n++) {
			took[MAPS_C][n] = time_to_free(&kind, MAPS_C, cpu);
			took[MAPS_RUST][n] = time_to_free(&kind, MAPS_RUST, cpu);
		}
		for (int impl = MAPS_C; impl <= MAPS_RUST; impl++)
			qsort(took[impl], KILLS, sizeof(double), by_value);
		TH_LOG("%s: C %.0f ms (%.0f to %.0f), Rust %.0f ms (%.0f to %.0f)", kind.file,
		       1e3 * took[MAPS_C][KILLS / 2], 1e3 * took[MAPS_C][0],
		       1e3 * took[MAPS_C][KILLS - 1], 1e3 * took[MAPS_RUST][KILLS / 2],
		       1e3 * took[MAPS_RUST][0], 1e3 * took[MAPS_RUST][KILLS - 1]);
		EXPECT_GE(1.25 * took[MAPS_C][KILLS / 2] + 0.1, took[MAPS_RUST][KILLS / 2]);
	}
	stop_pid(busy);
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

static int by_size(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
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
	if (argc > 2 && !strcmp(argv[1], "-n")) {
		rounds = atoi(argv[2]);
		argv[2] = argv[0];
		argc -= 2;
		argv += 2;
	}
	return test_harness_run(argc, argv);
}
