/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the proc-maps-* and proc-smaps-* tests share: choosing the implementation
 * that serves /proc/PID/maps, smaps, smaps_rollup and numa_maps, a process to
 * look at, and plain reading and comparing.
 */
#ifndef PROC_MAPS_H
#define PROC_MAPS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>

/*
 * On a kernel with one implementation the environment may name another file, which
 * switches nothing. Then that is compared with itself.
 */
#define MAPS_SWITCH	(getenv("PROC_MAPS_SWITCH") ?: "/sys/module/task_mmu/parameters/rust")

#define PAGE		4096UL	/* the layouts are written for it */
/*
 * Where mappings at known addresses go: above the heap of a program that was
 * linked to fixed addresses, which starts at a random place below 1 GiB.
 */
#define SPOT		0x50000000UL

enum maps_impl {
	MAPS_C,
	MAPS_RUST,
};

static const char *const maps_impl_name[] = { "C", "Rust" };

/*
 * The switch, kept open so that a test which has given up its privileges or changed its
 * root can still choose.
 */
static int maps_switch = -1;

static inline void maps_die(const char *what)
{
	fprintf(stderr, "# %s: %s\n", what, strerror(errno));
	abort();
}

/* Why the tests cannot run here, or NULL */
static inline const char *maps_cannot_test(void)
{
	static char why[128];

	if (sysconf(_SC_PAGESIZE) != PAGE)
		return "pages are not 4 KiB";
	if (maps_switch < 0)
		maps_switch = open(MAPS_SWITCH, O_RDWR | O_CLOEXEC);
	if (maps_switch >= 0)
		return NULL;
	snprintf(why, sizeof(why), "%s: %s", MAPS_SWITCH, strerror(errno));
	return why;
}

static inline char maps_switch_set(char value)
{
	char old;

	if (pread(maps_switch, &old, 1, 0) != 1 ||
	    (old != value && pwrite(maps_switch, &value, 1, 0) != 1))
		maps_die(MAPS_SWITCH);
	return old;
}

/*
 * open(2), served by @impl. The switch is put back at once, so that a test
 * which dies does not leave it changed.
 */
static inline int maps_open_at(int dir, const char *path, int flags,
			       enum maps_impl impl)
{
	char old = maps_switch_set(impl == MAPS_RUST ? 'Y' : 'N');
	int fd = openat(dir, path, flags | O_CLOEXEC);
	int err = errno;

	maps_switch_set(old);
	errno = err;
	return fd;
}

/* @file is maps, smaps, smaps_rollup or numa_maps */
static inline int maps_open_file(pid_t pid, const char *file, enum maps_impl impl)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	return maps_open_at(AT_FDCWD, path, O_RDONLY, impl);
}

static inline int maps_open(pid_t pid, enum maps_impl impl)
{
	return maps_open_file(pid, "maps", impl);
}

/* Give back what slab caches keep for later, and what KASAN keeps back */
static inline void maps_shrink_slabs(void)
{
	struct dirent *entry;
	char path[NAME_MAX + 64];
	DIR *dir = opendir("/sys/kernel/slab");
	int fd;

	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", entry->d_name);
		fd = entry->d_name[0] == '.' ? -1 : open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (write(fd, "1", 1) != 1)
			maps_die(path);
		close(fd);
	}
	if (dir)
		closedir(dir);
}

/*
 * Does the kernel look for memory that was lost itself? This is found out before
 * a test takes on a user who may not know.
 */
static bool maps_has_kmemleak;

static void __attribute__((constructor)) maps_look_for_kmemleak(void)
{
	maps_has_kmemleak = !access("/sys/kernel/debug/kmemleak", F_OK);
}

/*
 * KiB that the kernel holds for objects, buffers and page tables. Beside
 * kmemleak, which has an object of its own for each, KASAN holds back what was
 * freed, so that this says nothing: it is 0 there, and kmemleak is to be asked.
 */
static inline long maps_kernel_memory(void)
{
	static const char *const counts[] = {
		"SUnreclaim:", "KernelStack:", "PageTables:", "VmallocUsed:", "Percpu:",
	};
	char buf[4096], *at;
	long sum = 0;
	ssize_t n;
	int fd;

	if (maps_has_kmemleak)
		return 0;
	/* what is freed after a grace period is free then, or soon */
	for (int i = 0; i < 3; i++) {
		syscall(SYS_membarrier, 1 /* MEMBARRIER_CMD_GLOBAL */, 0, 0);
		usleep(50000);
	}
	maps_shrink_slabs();
	fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		maps_die("/proc/meminfo");
	buf[n] = '\0';
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		at = strstr(buf, counts[i]);
		if (at)
			sum += atol(at + strlen(counts[i]));
	}
	return sum;
}

struct text {
	char *data;
	size_t len;
	size_t cap;
};

static inline void text_append(struct text *t, const void *data, size_t len)
{
	if (t->len + len > t->cap) {
		t->cap = 2 * (t->len + len);
		t->data = realloc(t->data, t->cap);
		if (!t->data)
			maps_die("realloc");
	}
	memcpy(t->data + t->len, data, len);
	t->len += len;
}

static inline void text_free(struct text *t)
{
	free(t->data);
	memset(t, 0, sizeof(*t));
}

/* read(2) until the end: 0 or errno */
static inline int text_read(struct text *t, int fd)
{
	static char buf[1 << 16];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		text_append(t, buf, n);
	return n ? errno : 0;
}

/* How often readers in Rust have met something, -1 if that is not counted */
static inline long maps_counter(const char *name)
{
	struct text text = {};
	long value = -1;
	char what[64];
	char *at;
	int fd;

	text_append(&text, "\n", 1);
	fd = open("/sys/kernel/debug/task_mmu/events", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		text_read(&text, fd);
		close(fd);
	}
	text_append(&text, "", 1);
	snprintf(what, sizeof(what), "\n%s ", name);
	at = strstr(text.data, what);
	if (at)
		value = atol(at + strlen(what));
	text_free(&text);
	return value;
}

static inline size_t text_lines(const struct text *t)
{
	size_t lines = 0;

	for (size_t i = 0; i < t->len; i++)
		lines += t->data[i] == '\n';
	return lines;
}

static inline bool text_has(const struct text *t, const char *what)
{
	return memmem(t->data, t->len, what, strlen(what));
}

static inline void text_print_line(const char *who, const struct text *t,
				   size_t at)
{
	size_t end = at;

	while (at && t->data[at - 1] != '\n')
		at--;
	while (end < t->len && t->data[end] != '\n')
		end++;
	fprintf(stderr, "# %s, byte %zu of %zu: %.*s\n", who, at, t->len,
		(int)(end - at), t->data + at);
}

/* Are both equal? Where not, say what differs first. */
static inline bool text_same(const char *name_a, const struct text *a,
			     const char *name_b, const struct text *b)
{
	size_t at = 0;

	while (at < a->len && at < b->len && a->data[at] == b->data[at])
		at++;
	if (at == a->len && at == b->len)
		return true;

	text_print_line(name_a, a, at);
	text_print_line(name_b, b, at);
	return false;
}

/*
 * A child process that builds an address space and then sleeps, but for what
 * it is told to do: its mappings do not change unless the test wants it.
 */
struct target {
	pid_t pid;
	int to;
	int from;
};

static inline int target_reply(struct target *t)
{
	int result;

	if (read(t->from, &result, sizeof(result)) != sizeof(result)) {
		fprintf(stderr, "# the target died\n");
		abort();
	}
	return result;
}

/* Returns what @build returned; @serve is called for each target_do() */
static inline int target_start(struct target *t, int (*build)(const void *arg),
			       int (*serve)(int cmd), const void *arg)
{
	int to[2], from[2], cmd, result;
	pid_t parent = getpid();

	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		maps_die("pipe2");
	t->pid = fork();
	if (t->pid < 0)
		maps_die("fork");
	if (!t->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent && getppid())
			_exit(1);
		close(to[1]);
		close(from[0]);
		result = build ? build(arg) : 0;
		while (write(from[1], &result, sizeof(result)) > 0 &&
		       read(to[0], &cmd, sizeof(cmd)) == sizeof(cmd))
			result = serve(cmd);
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	t->to = to[1];
	t->from = from[0];
	return target_reply(t);
}

static inline int target_do(struct target *t, int cmd)
{
	if (write(t->to, &cmd, sizeof(cmd)) != sizeof(cmd))
		maps_die("write to target");
	return target_reply(t);
}

/* Kill it, but leave the zombie */
static inline void target_kill(struct target *t)
{
	siginfo_t info;

	kill(t->pid, SIGKILL);
	if (waitid(P_PID, t->pid, &info, WEXITED | WNOWAIT))
		maps_die("waitid");
}

static inline void target_stop(struct target *t)
{
	if (t->pid <= 0)
		return;
	kill(t->pid, SIGKILL);
	/* where that was not permitted, it exits because of this */
	close(t->to);
	close(t->from);
	waitpid(t->pid, NULL, 0);
	t->pid = 0;
}

/*
 * Own mount namespace with an empty /tmp: nothing stays behind. NULL, or why that
 * cannot be.
 */
static inline const char *private_tmp(void)
{
	static char why[128];

	if (!unshare(CLONE_NEWNS) &&
	    !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	    !mount("none", "/tmp", "tmpfs", 0, NULL))
		return NULL;
	snprintf(why, sizeof(why), "private /tmp: %s", strerror(errno));
	return why;
}

/* 0 or errno */
static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		err = errno;
	close(fd);
	return err;
}

/* Is @what in the file @path, which is a short one and can be read? */
static inline bool file_has(const char *path, const char *what)
{
	char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text));
	close(fd);
	return n > 0 && memmem(text, n, what, strlen(what));
}

/* Seconds since some time in the past */
static inline double maps_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* What follows builds mappings in a target and returns 0 or an errno. */

static inline int map_fd(int fd)
{
	return mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ?
	       errno : 0;
}

static inline int map_new_file(const char *name)
{
	int fd = open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
	int err;

	if (fd < 0)
		return errno;
	err = ftruncate(fd, PAGE) ? errno : map_fd(fd);
	close(fd);
	return err;
}

/* A number in the environment, or 1 */
static inline int maps_divisor(const char *name)
{
	const char *number = getenv(name);

	return number && atoi(number) > 1 ? atoi(number) : 1;
}

/*
 * Of so many mappings, as many as there are to be: PROC_MAPS_FEWER in the
 * environment divides it, for kernels that check all of an address space after
 * each change of it.
 */
static inline int maps_count(int count)
{
	return count / maps_divisor("PROC_MAPS_FEWER");
}

/*
 * As often as a situation is made of which one time says little: PROC_MAPS_SHORT
 * in the environment divides it.
 */
static inline int maps_times(int times)
{
	return times / maps_divisor("PROC_MAPS_SHORT");
}

/* @count mappings of one page each from SPOT on */
static inline int map_many(size_t count)
{
	if (mmap((void *)SPOT, count * PAGE, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
		return errno;
	for (size_t i = 1; i < count; i += 2) {
		if (mprotect((void *)(SPOT + i * PAGE), PAGE, PROT_READ))
			return errno;
	}
	return 0;
}

#define DEEP_NAME	"at-the-end"

/*
 * A file some folders down, each of them a name of newlines: with the escapes
 * that is 1021 bytes of text each.
 */
static inline int map_deep_file(int depth)
{
	char name[NAME_MAX + 1];

	memset(name, '\n', NAME_MAX);
	name[NAME_MAX] = '\0';
	if (chdir("/tmp"))
		return errno;
	for (int i = 0; i < depth; i++) {
		if ((mkdir(name, 0700) && errno != EEXIST) || chdir(name))
			return errno;
	}
	return map_new_file(DEEP_NAME);
}

#endif /* PROC_MAPS_H */
