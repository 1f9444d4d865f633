// SPDX-License-Identifier: GPL-2.0
/*
 * However /proc/PID/maps, smaps, smaps_rollup or numa_maps is read - by bytes,
 * by pieces of odd sizes, from any offset, through bad buffers, by several
 * readers at once - the C and the Rust code have to give the same bytes, the
 * same return values and the same errors, and they have to add up to what one
 * plain read of the file gives.
 *
 * Each test makes its calls once for each implementation and writes all that
 * the kernel answered into a log; the logs are then compared.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <poll.h>
#include <pthread.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "proc-maps.h"
#include "proc-maps-quiet.h"

#define TIMEOUT	600	/* seconds for each test */

static char buffer[1 << 20];

struct session {
	enum maps_impl impl;
	int fd;
	int reads;		/* how often read(2) was called by Rust */
	int short_reads;	/* and gave less than it has to */
	struct text log;	/* every call with its result and data */
	struct text got;	/* what consecutive reads gave */
};

static ssize_t note(struct session *s, const char *call, size_t arg, ssize_t ret,
		    const void *data)
{
	int err = errno;
	char line[128];

	snprintf(line, sizeof(line), "\n%s %zu = %zd %s\n", call, arg, ret,
		 ret < 0 ? strerrorname_np(err) : "");
	text_append(&s->log, line, strlen(line));
	if (ret > 0 && data)
		text_append(&s->log, data, ret);
	return ret;
}

#define MAX_READ	(256UL << 10)
#define MAX_TIME	0.01	/* seconds */

/*
 * A read of C ends with the first buffer of records. One of Rust ends when there is
 * less room than a page, of the destination or of 256 KiB, when it has worked for
 * 10 ms, or at the end of the file, and where the destination is not there. Whenever
 * there is room for a page and more to be read, the next one follows. From @off, or
 * from where @fd stands if that is negative.
 */
static ssize_t read_pages(struct session *s, int fd, char *to, size_t size, off_t off)
{
	bool is_short = false;
	size_t done = 0;
	double since;
	ssize_t n;

	do {
		since = maps_now();
		n = off < 0 ? read(fd, to + done, size - done) :
			      pread(fd, to + done, size - done, off + done);
		since = maps_now() - since;
		if (n <= 0)
			return done ?: n;
		done += n;
		if (s->impl == MAPS_C)
			continue;
		s->reads++;
		s->short_reads += is_short || n > MAX_READ;
		is_short = n + PAGE <= MAX_READ && since < MAX_TIME;
	} while (size - done >= PAGE);
	return done;
}

static ssize_t do_read(struct session *s, int fd, size_t size)
{
	ssize_t n = note(s, "read", size, read_pages(s, fd, buffer, size, -1), buffer);

	if (n > 0)
		text_append(&s->got, buffer, n);
	return n;
}

static void read_rest(struct session *s)
{
	while (do_read(s, s->fd, sizeof(buffer)) > 0)
		;
}

/* The same numbers in every run */
static unsigned int seed;

static unsigned int pseudo_random(void)
{
	seed = seed * 1103515245 + 12345;
	return seed >> 8;
}

struct subject {
	struct target target;
	const char *file;
	struct session session[2];
	struct text whole;	/* what one plain read gives */
};

FIXTURE(maps_read)
{
	struct subject subject;
};

struct layout {
	const char *file;
	size_t many;	/* mappings */
	int deep;	/* folders above a file */
};

FIXTURE_VARIANT(maps_read)
{
	struct layout layout;
};

/* few enough bytes to try every offset */
FIXTURE_VARIANT_ADD(maps_read, small) {
	.layout = { .file = "maps", .many = 12 },
};

/* many buffers */
FIXTURE_VARIANT_ADD(maps_read, large) {
	.layout = { .file = "maps", .many = 2000 },
};

/* records that do not fit in the buffer, between others that do */
FIXTURE_VARIANT_ADD(maps_read, deep) {
	.layout = { .file = "maps", .many = 12, .deep = 12 },
};

/* fewer here, where each takes a walk of its page tables and a page of text */
FIXTURE_VARIANT_ADD(maps_read, smaps_small) {
	.layout = { .file = "smaps", .many = 4 },
};

FIXTURE_VARIANT_ADD(maps_read, smaps_large) {
	.layout = { .file = "smaps", .many = 80 },
};

FIXTURE_VARIANT_ADD(maps_read, smaps_deep) {
	.layout = { .file = "smaps", .many = 4, .deep = 12 },
};

FIXTURE_VARIANT_ADD(maps_read, smaps_rollup) {
	.layout = { .file = "smaps_rollup", .many = 12 },
};

FIXTURE_VARIANT_ADD(maps_read, numa_small) {
	.layout = { .file = "numa_maps", .many = 12 },
};

FIXTURE_VARIANT_ADD(maps_read, numa_large) {
	.layout = { .file = "numa_maps", .many = 700 },
};

FIXTURE_VARIANT_ADD(maps_read, numa_deep) {
	.layout = { .file = "numa_maps", .many = 12, .deep = 12 },
};

static int build(const void *arg)
{
	const struct layout *layout = arg;
	int err = maps_tells_of_pages(layout->file) ? target_share_no_pages() : 0;

	err = err ?: map_new_file("/tmp/two\nlines") ?: map_many(layout->many);
	if (layout->deep && !err)
		err = map_deep_file(layout->deep) ?: map_new_file("/tmp/next") ?:
		      map_deep_file(layout->deep / 2);
	return err;
}

FIXTURE_SETUP(maps_read)
{
	const struct layout *layout = &variant->layout;
	const char *cannot = maps_cannot_test_file(layout->file) ?: private_tmp();
	struct text *whole = &self->subject.whole;

	if (cannot)
		SKIP(return, "%s", cannot);
	self->subject.file = layout->file;
	ASSERT_EQ(0, target_start(&self->subject.target, build, NULL, layout));
	maps_read_quiet(_metadata, whole, self->subject.target.pid, layout->file);
	if (!strcmp(layout->file, "smaps_rollup")) {
		ASSERT_TRUE(text_has(whole, " [rollup]\nRss: "));
		return;
	}
	ASSERT_LT(layout->many, text_lines(whole));
	ASSERT_TRUE(text_has(whole, "/tmp/two\\012lines\n"));
	if (layout->deep)
		ASSERT_LT(layout->deep * 1021 * 3 / 2, whole->len);
}

static void session_reopen(struct __test_metadata *_metadata,
			   struct subject *subject, struct session *s)
{
	close(s->fd);
	s->fd = maps_open_file(subject->target.pid, subject->file, s->impl);
	ASSERT_LE(0, s->fd);
}

FIXTURE_TEARDOWN(maps_read)
{
	target_stop(&self->subject.target);
	text_free(&self->subject.whole);
	for (int i = 0; i < 2; i++) {
		text_free(&self->subject.session[i].log);
		text_free(&self->subject.session[i].got);
	}
}

typedef void (*way_t)(struct __test_metadata *_metadata,
		      struct subject *subject, struct session *s);

/* Go the same way with both implementations */
static void both(struct __test_metadata *_metadata,
		 struct subject *subject, way_t way)
{
	for (int i = MAPS_C; i <= MAPS_RUST; i++) {
		struct session *s = &subject->session[i];

		s->impl = i;
		s->fd = maps_open_file(subject->target.pid, subject->file, i);
		ASSERT_LE(0, s->fd);
		seed = 1;
		way(_metadata, subject, s);
		close(s->fd);
		ASSERT_LT(0, s->log.len);
		/* now and then the scheduler has work for a task that returns to user space */
		EXPECT_GE(2 + s->reads / 50, s->short_reads);
	}
	EXPECT_TRUE(text_same("C", &subject->session[MAPS_C].log,
			      "Rust", &subject->session[MAPS_RUST].log));
}

/* What was read since the last time is the whole file */
static void expect_whole(struct __test_metadata *_metadata,
			 struct subject *subject, struct session *s,
			 const char *how, size_t arg)
{
	EXPECT_TRUE(text_same("whole file", &subject->whole,
			      maps_impl_name[s->impl], &s->got))
		TH_LOG("%s %zu", how, arg);
	s->got.len = 0;
}

static void by_sizes(struct __test_metadata *_metadata,
		     struct subject *subject, struct session *s)
{
	static const size_t sizes[] = {
		1, 3, 7, 13, 61, 509, 4095, 4096, 4097, 65536, 1 << 20,
	};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		session_reopen(_metadata, subject, s);
		while (do_read(s, s->fd, sizes[i]) > 0)
			;
		/* the end stays the end */
		EXPECT_EQ(0, do_read(s, s->fd, sizes[i]));
		expect_whole(_metadata, subject, s, "by", sizes[i]);
	}
	/* a size of its own for each call, and empty reads between */
	for (int i = 0; i < 5; i++) {
		session_reopen(_metadata, subject, s);
		do {
			EXPECT_EQ(0, do_read(s, s->fd, 0));
		} while (do_read(s, s->fd, 1 + pseudo_random() % 9000) > 0);
		expect_whole(_metadata, subject, s, "by random sizes", i);
	}
}

TEST_F_TIMEOUT(maps_read, sizes, TIMEOUT)
{
	both(_metadata, &self->subject, by_sizes);
}

static void pread_one(struct __test_metadata *_metadata,
		      struct subject *subject, struct session *s,
		      size_t size, size_t off)
{
	ssize_t n = note(s, "pread from", off, read_pages(s, s->fd, buffer, size, off),
			 buffer);

	if (off >= subject->whole.len) {
		EXPECT_EQ(0, n);
		return;
	}
	ASSERT_LT(0, n);
	ASSERT_GE(subject->whole.len - off, n);
	EXPECT_EQ(0, memcmp(subject->whole.data + off, buffer, n))
		TH_LOG("pread of %zu from %zu gave %zd", size, off, n);
}

static void by_offsets(struct __test_metadata *_metadata,
		       struct subject *subject, struct session *s)
{
	size_t end = subject->whole.len + 50;
	size_t step = end < 8192 ? 1 : 41;

	if (end < 65536) {
		const size_t stops = maps_times(end / step);

		for (size_t i = 0; i < stops; i++)
			pread_one(_metadata, subject, s, 100, i * end / stops);
		for (size_t i = stops; i; i--)
			pread_one(_metadata, subject, s, 1, i * end / stops - 1);
	}
	for (int i = 0; i < maps_times(400); i++)
		pread_one(_metadata, subject, s, 1 + pseudo_random() % 9000,
			  pseudo_random() % end);
	/* none of that has moved the descriptor's own position */
	read_rest(s);
	expect_whole(_metadata, subject, s, "after pread", 0);
}

TEST_F_TIMEOUT(maps_read, offsets, TIMEOUT)
{
	both(_metadata, &self->subject, by_offsets);
}

static void by_seeks(struct __test_metadata *_metadata,
		     struct subject *subject, struct session *s)
{
	const long len = subject->whole.len;
	const struct {
		long off;
		int whence;
	} seeks[] = {
		{ 0, SEEK_SET }, { 1, SEEK_SET }, { len / 2, SEEK_SET },
		{ 0, SEEK_CUR }, { 10, SEEK_CUR }, { -30, SEEK_CUR },
		{ -len, SEEK_CUR }, { len - 1, SEEK_SET }, { 0, SEEK_CUR },
		{ len, SEEK_SET }, { 0, SEEK_CUR }, { 1, SEEK_CUR },
		{ len / 3, SEEK_SET }, { len + 1, SEEK_SET }, { 7, SEEK_CUR },
		{ len + 100000, SEEK_SET }, { 5, SEEK_SET },
		{ LONG_MAX, SEEK_SET }, { 1, SEEK_CUR }, { 3, SEEK_SET },
		{ -1, SEEK_SET }, { 0, SEEK_CUR }, { LONG_MIN, SEEK_SET },
		{ LONG_MIN, SEEK_CUR }, { 0, SEEK_END }, { -5, SEEK_END },
		{ 5, SEEK_END }, { 0, SEEK_DATA }, { 0, SEEK_HOLE },
		{ 0, 77 }, { 0, SEEK_CUR },
	};

	for (size_t i = 0; i < ARRAY_SIZE(seeks); i++) {
		off_t at;

		at = note(s, "lseek", i,
			  lseek(s->fd, seeks[i].off, seeks[i].whence), NULL);
		if (seeks[i].whence == SEEK_SET && seeks[i].off >= 0)
			EXPECT_EQ(seeks[i].off, at);
		if (at < 0)
			continue;
		s->got.len = 0;
		do_read(s, s->fd, 100);
		do_read(s, s->fd, 100);
		ASSERT_GE(at < len ? len - at : 0, s->got.len);
		if (at < len)
			EXPECT_EQ(0, memcmp(subject->whole.data + at, s->got.data,
					    s->got.len));
	}
	for (int i = 0; i < 100; i++) {
		off_t to = pseudo_random() % len;

		EXPECT_EQ(to, note(s, "lseek to", to, lseek(s->fd, to, SEEK_SET), NULL));
		s->got.len = 0;
		text_append(&s->got, subject->whole.data, to);
		if (i % 10)
			do_read(s, s->fd, 1 + pseudo_random() % 500);
		else
			read_rest(s);
		EXPECT_EQ(0, memcmp(subject->whole.data, s->got.data, s->got.len));
	}
	EXPECT_EQ(0, lseek(s->fd, 0, SEEK_SET));
	s->got.len = 0;
	read_rest(s);
	expect_whole(_metadata, subject, s, "after lseek", 0);
}

TEST_F_TIMEOUT(maps_read, seeks, TIMEOUT)
{
	both(_metadata, &self->subject, by_seeks);
}

/* Read to where only @good bytes can be written, after @before were read. */
static void read_faulting(struct __test_metadata *_metadata,
			  struct subject *subject, struct session *s,
			  char *edge, size_t before, size_t good)
{
	int short_reads;
	ssize_t n;

	session_reopen(_metadata, subject, s);
	if (before)
		do_read(s, s->fd, before);
	short_reads = s->short_reads;
	n = note(s, "read up to a fault", good,
		 read_pages(s, s->fd, edge - good, PAGE + good, -1), edge - good);
	/* it ends where the destination is not there */
	s->short_reads = short_reads;
	EXPECT_EQ(!good, n < 0);
	if (n > 0)
		text_append(&s->got, edge - good, n);
	read_rest(s);
	expect_whole(_metadata, subject, s, "with a fault after", good);
}

static void by_faults(struct __test_metadata *_metadata,
		      struct subject *subject, struct session *s)
{
	size_t step = subject->whole.len < 8192 ? 1 : 101;
	char *pages;

	pages = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, pages);
	ASSERT_EQ(0, mprotect(pages + 2 * PAGE, PAGE, PROT_NONE));

	for (size_t good = 0; good < 2 * PAGE && good < subject->whole.len;
	     good += step) {
		read_faulting(_metadata, subject, s, pages + 2 * PAGE, 0, good);
		read_faulting(_metadata, subject, s, pages + 2 * PAGE, 150, good);
	}
	read_faulting(_metadata, subject, s, pages + 2 * PAGE, subject->whole.len / 2, 1);

	/* again and again, then nowhere at all */
	session_reopen(_metadata, subject, s);
	for (int i = 0; i < 20; i++) {
		/* there always is something left */
		do_read(s, s->fd, subject->whole.len / 40);
		EXPECT_EQ(-1, note(s, "read to nowhere", i,
				   read(s->fd, pages + 2 * PAGE, 100), NULL));
		EXPECT_EQ(-1, note(s, "read to the kernel", i,
				   read(s->fd, (void *)-PAGE, 100), NULL));
		EXPECT_EQ(-1, note(s, "pread to nowhere", i,
				   pread(s->fd, pages + 2 * PAGE, 100, 20), NULL));
	}
	read_rest(s);
	expect_whole(_metadata, subject, s, "between faults", 0);
	munmap(pages, 3 * PAGE);
}

TEST_F_TIMEOUT(maps_read, faults, TIMEOUT)
{
	both(_metadata, &self->subject, by_faults);
}

static void by_other_calls(struct __test_metadata *_metadata,
			   struct subject *subject, struct session *s)
{
	struct iovec iov[] = {
		{ buffer, 10 }, { buffer + 10, 0 }, { buffer + 10, 333 },
		{ buffer + 343, 3000 },
	};
	struct epoll_event event = { .events = EPOLLIN };
	struct pollfd poll_fd = { .fd = s->fd, .events = POLLIN | POLLPRI };
	int pipes[2], epoll, number;
	struct stat st;
	ssize_t n;

	ASSERT_EQ(0, pipe(pipes));
	while ((n = note(s, "readv", 0, readv(s->fd, iov, ARRAY_SIZE(iov)), buffer)) > 0)
		text_append(&s->got, buffer, n);
	expect_whole(_metadata, subject, s, "by readv", 0);

	note(s, "preadv", 70, preadv(s->fd, iov, ARRAY_SIZE(iov), 70), buffer);
	note(s, "preadv2", 70, preadv2(s->fd, iov, 2, 70, 0), buffer);
	note(s, "preadv2 nowait", 70, preadv2(s->fd, iov, 2, 70, RWF_NOWAIT), buffer);
	note(s, "preadv2 hipri", 70, preadv2(s->fd, iov, 2, 70, RWF_HIPRI), buffer);
	note(s, "lseek", 0, lseek(s->fd, 0, SEEK_SET), NULL);
	note(s, "splice", 0, splice(s->fd, NULL, pipes[1], NULL, 100, 0), NULL);
	note(s, "sendfile", 0, sendfile(pipes[1], s->fd, NULL, 100), NULL);
	note(s, "write", 0, write(s->fd, "x", 1), NULL);
	note(s, "pwrite", 0, pwrite(s->fd, "x", 1, 0), NULL);
	note(s, "ftruncate", 0, ftruncate(s->fd, 0), NULL);
	note(s, "fsync", 0, fsync(s->fd), NULL);
	note(s, "fallocate", 0, fallocate(s->fd, 0, 0, 1), NULL);
	note(s, "mmap", 0, (ssize_t)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, s->fd, 0), NULL);
	note(s, "FIONREAD", 0, ioctl(s->fd, FIONREAD, &number), NULL);
	note(s, "unknown ioctl", 0, ioctl(s->fd, _IO('f', 250), &number), NULL);
	note(s, "F_GETFL", 0, fcntl(s->fd, F_GETFL), NULL);
	note(s, "poll", poll_fd.events, poll(&poll_fd, 1, 0), NULL);
	note(s, "revents", 0, poll_fd.revents, NULL);
	epoll = epoll_create1(0);
	note(s, "epoll_ctl", 0, epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &event), NULL);
	note(s, "fstat", 0, fstat(s->fd, &st), NULL);
	note(s, "mode", 0, st.st_mode, NULL);
	note(s, "size", 0, st.st_size, NULL);
	note(s, "owner", 0, st.st_uid, NULL);
	close(epoll);
	close(pipes[0]);
	close(pipes[1]);

	read_rest(s);
	expect_whole(_metadata, subject, s, "after other calls", 0);
}

TEST_F(maps_read, other_calls)
{
	both(_metadata, &self->subject, by_other_calls);
}

/* A duplicate, and a child's copy, share the position. */
static void by_sharing(struct __test_metadata *_metadata,
		       struct subject *subject, struct session *s)
{
	int copy = dup(s->fd), result[2];
	ssize_t n;

	ASSERT_LE(0, copy);
	for (int i = 0; do_read(s, i & 1 ? s->fd : copy, 200 + i) > 0; i++)
		;
	expect_whole(_metadata, subject, s, "by two descriptors", 0);
	close(copy);

	note(s, "lseek", 0, lseek(s->fd, 0, SEEK_SET), NULL);
	ASSERT_EQ(0, pipe2(result, O_NONBLOCK));
	for (int i = 0; i < 10; i++) {
		pid_t child = fork();

		ASSERT_LE(0, child);
		if (!child) {
			n = read(s->fd, buffer, 300);
			n = write(result[1], buffer, n > 0 ? n : 0);
			_exit(0);
		}
		ASSERT_EQ(child, waitpid(child, NULL, 0));
		n = note(s, "child's read", i,
			 read(result[0], buffer, 300), buffer);
		/* nothing was written where the file is at its end */
		if (n > 0)
			text_append(&s->got, buffer, n);
		if (do_read(s, s->fd, 100) <= 0)
			break;
	}
	read_rest(s);
	expect_whole(_metadata, subject, s, "by children", 0);
	close(result[0]);
	close(result[1]);
}

TEST_F(maps_read, sharing)
{
	both(_metadata, &self->subject, by_sharing);
}

/* A process that could not open the file itself goes on with it. */
static void finish_for_other(int sock, const char *file, struct session *s)
{
	char control[CMSG_SPACE(sizeof(int))], byte, path[64];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	pid_t pid;
	int fd;

	if (recv(sock, &pid, sizeof(pid), 0) != sizeof(pid) ||
	    recvmsg(sock, &msg, 0) != 1 || !CMSG_FIRSTHDR(&msg))
		_exit(1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	if (setgid(1) || setuid(1))
		_exit(2);
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	if (open(path, O_RDONLY) >= 0 || errno != EACCES)
		_exit(3);
	s->got.len = 0;
	while (do_read(s, fd, 1000) > 0)
		;
	for (size_t at = 0; at < s->got.len;) {
		ssize_t n = send(sock, s->got.data + at, s->got.len - at, 0);

		if (n <= 0)
			_exit(4);
		at += n;
	}
	_exit(0);
}

static void by_passing(struct __test_metadata *_metadata,
		       struct subject *subject, struct session *s)
{
	char control[CMSG_SPACE(sizeof(int))] = {}, byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int sock[2], status;
	pid_t child;
	ssize_t n;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sock))
		SKIP(return, "socketpair: %s", strerror(errno));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		/* it has to get the descriptor by the message */
		close(s->fd);
		close(sock[0]);
		finish_for_other(sock[1], subject->file, s);
	}
	close(sock[1]);

	do_read(s, s->fd, 700);
	do_read(s, s->fd, 77);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &s->fd, sizeof(int));
	ASSERT_EQ(sizeof(pid_t), send(sock[0], &subject->target.pid, sizeof(pid_t), 0));
	ASSERT_EQ(1, sendmsg(sock[0], &msg, 0));
	session_reopen(_metadata, subject, s);

	while ((n = recv(sock[0], buffer, sizeof(buffer), 0)) > 0)
		text_append(&s->got, buffer, n);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	close(sock[0]);
	expect_whole(_metadata, subject, s, "by another process", 0);
}

TEST_F(maps_read, passing)
{
	both(_metadata, &self->subject, by_passing);
}

#define PIECES	4096

struct piece {
	unsigned long start;
	size_t len;
	char *data;
};

struct sharer {
	int fd;
	size_t pieces;
	struct piece piece[PIECES];
	const struct text *whole;
	size_t wrong;
	size_t calls;
	unsigned int seed;
};

static void *read_pieces(void *arg)
{
	static __thread char buf[1 << 16];
	struct sharer *sharer = arg;
	ssize_t n;

	while ((n = read(sharer->fd, buf, sizeof(buf))) > 0) {
		struct piece *piece = &sharer->piece[sharer->pieces++];

		if (sharer->pieces == PIECES)
			break;
		piece->data = malloc(n);
		memcpy(piece->data, buf, n);
		piece->len = n;
		piece->start = strtoul(buf, NULL, 16);
	}
	return NULL;
}

static int piece_order(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/*
 * Two threads read from one descriptor. With room for it each read gives whole
 * lines; in the order of their addresses the pieces are the file.
 */
static void by_threads(struct __test_metadata *_metadata,
		       struct subject *subject, struct session *s)
{
	static struct sharer sharers[2];
	static struct piece all[2 * PIECES];
	int both_read = 0;

	for (int round = 0; round < maps_times(150); round++) {
		pthread_t threads[2];
		size_t count = 0;

		ASSERT_EQ(0, lseek(s->fd, 0, SEEK_SET));
		for (int i = 0; i < 2; i++) {
			sharers[i].fd = s->fd;
			sharers[i].pieces = 0;
			ASSERT_EQ(0, pthread_create(&threads[i], NULL,
						    read_pieces, &sharers[i]));
		}
		for (int i = 0; i < 2; i++) {
			pthread_join(threads[i], NULL);
			ASSERT_GT(PIECES, sharers[i].pieces);
			memcpy(all + count, sharers[i].piece,
			       sharers[i].pieces * sizeof(all[0]));
			count += sharers[i].pieces;
		}
		both_read += sharers[0].pieces && sharers[1].pieces;
		qsort(all, count, sizeof(all[0]), piece_order);
		for (size_t i = 0; i < count; i++) {
			text_append(&s->got, all[i].data, all[i].len);
			free(all[i].data);
		}
		expect_whole(_metadata, subject, s, "by two threads, round", round);
	}
	if (subject->whole.len > 16 * PAGE)
		EXPECT_LT(0, both_read) TH_LOG("never read at the same time");
	note(s, "end", 0, 0, NULL);
}

TEST_F_TIMEOUT(maps_read, threads, TIMEOUT)
{
	both(_metadata, &self->subject, by_threads);
}

static void *pread_anywhere(void *arg)
{
	static __thread char buf[1 << 14];
	struct sharer *sharer = arg;

	for (sharer->calls = 0; sharer->calls < maps_times(300); sharer->calls++) {
		size_t off, size;
		ssize_t n;

		sharer->seed = sharer->seed * 1103515245 + 12345;
		off = (sharer->seed >> 8) % sharer->whole->len;
		size = 1 + (sharer->seed >> 4) % (sizeof(buf) - 1);
		n = pread(sharer->fd, buf, size, off);
		if (n <= 0 || n > size || n > sharer->whole->len - off ||
		    memcmp(buf, sharer->whole->data + off, n))
			sharer->wrong++;
	}
	return NULL;
}

/* Two threads, each at its own offset of one descriptor */
static void by_pread_threads(struct __test_metadata *_metadata,
			     struct subject *subject, struct session *s)
{
	static struct sharer sharers[2];
	pthread_t threads[2];

	for (int i = 0; i < 2; i++) {
		sharers[i].fd = s->fd;
		sharers[i].whole = &subject->whole;
		sharers[i].wrong = 0;
		sharers[i].seed = i;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, pread_anywhere,
					    &sharers[i]));
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0, sharers[i].wrong);
		EXPECT_EQ(maps_times(300), sharers[i].calls);
	}
	read_rest(s);
	expect_whole(_metadata, subject, s, "after threads", 0);
}

TEST_F_TIMEOUT(maps_read, pread_threads, TIMEOUT)
{
	both(_metadata, &self->subject, by_pread_threads);
}

/* Which code serves a descriptor is settled when it is opened. */
static void by_flipping(struct __test_metadata *_metadata,
			struct subject *subject, struct session *s)
{
	char old = maps_switch_set('N');

	for (int i = 0; i < 50; i++) {
		session_reopen(_metadata, subject, s);
		maps_switch_set(i & 1 ? 'Y' : 'N');
		do_read(s, s->fd, 500);
		maps_switch_set(i & 1 ? 'N' : 'Y');
		do_read(s, s->fd, 500);
		lseek(s->fd, 1000, SEEK_SET);
		read_rest(s);
		s->got.len = 0;
		lseek(s->fd, 0, SEEK_SET);
		read_rest(s);
		expect_whole(_metadata, subject, s, "with the switch flipped", i);
	}
	maps_switch_set(old);
}

TEST_F(maps_read, flipping)
{
	both(_metadata, &self->subject, by_flipping);
}

#ifdef PROCMAP_QUERY
static int query(struct session *s, int fd, struct procmap_query *q)
{
	int ret = ioctl(fd, PROCMAP_QUERY, q);

	note(s, "query", q->query_addr, ret, NULL);
	if (!ret)
		text_append(&s->log, q, sizeof(*q));
	return ret;
}

static void by_query(struct __test_metadata *_metadata,
		     struct subject *subject, struct session *s)
{
	static char name[PATH_MAX], build_id[64];
	struct procmap_query q, empty = { .size = sizeof(q) };
	size_t found = 0;
	char line[64];

	/* in the middle of a read, which it does not disturb */
	do_read(s, s->fd, 333);

	q = empty;
	if (strcmp(subject->file, "maps")) {
		EXPECT_EQ(-1, query(s, s->fd, &q));
		EXPECT_EQ(ENOTTY, errno);
		read_rest(s);
		expect_whole(_metadata, subject, s, "around a query", 0);
		return;
	}
	q.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA;
	q.vma_name_addr = (unsigned long)name;
	q.vma_name_size = sizeof(name);
	q.build_id_addr = (unsigned long)build_id;
	q.build_id_size = sizeof(build_id);
	while (1) {
		struct procmap_query this = q;

		if (query(s, s->fd, &this)) {
			/* a path may be too long for the ioctl, then without */
			if (errno != ENAMETOOLONG)
				break;
			this = q;
			this.vma_name_addr = 0;
			this.vma_name_size = 0;
			ASSERT_EQ(0, query(s, s->fd, &this));
		}
		text_append(&s->log, name, this.vma_name_size);
		text_append(&s->log, build_id, this.build_id_size);
		snprintf(line, sizeof(line), "%08llx-%08llx ",
			 this.vma_start, this.vma_end);
		EXPECT_TRUE(text_has(&subject->whole, line));
		q.query_addr = this.vma_end;
		found++;
	}
	EXPECT_EQ(ENOENT, errno);
	EXPECT_EQ(text_lines(&subject->whole) - text_has(&subject->whole, "[vsyscall]"),
		  found);

	q = empty;
	q.query_flags = PROCMAP_QUERY_FILE_BACKED_VMA |
			PROCMAP_QUERY_COVERING_OR_NEXT_VMA;
	EXPECT_EQ(0, query(s, s->fd, &q));
	q = empty;
	q.query_addr = SPOT + PAGE;
	q.query_flags = PROCMAP_QUERY_VMA_WRITABLE;
	EXPECT_EQ(-1, query(s, s->fd, &q));
	q.query_flags = 1 << 30;
	EXPECT_EQ(-1, query(s, s->fd, &q));
	q = empty;
	q.size = 1 << 16;
	EXPECT_EQ(-1, query(s, s->fd, &q));
	q.size = 4;
	EXPECT_EQ(-1, query(s, s->fd, &q));
	EXPECT_EQ(-1, note(s, "query from nowhere", 0,
			   ioctl(s->fd, PROCMAP_QUERY, NULL), NULL));

	read_rest(s);
	expect_whole(_metadata, subject, s, "around queries", 0);
}

TEST_F(maps_read, query)
{
	both(_metadata, &self->subject, by_query);
}
#endif

/*
 * The target changes between two reads. In what follows a digit is a page from
 * SPOT on; the letters say how it is mapped, a dot that it is not:
 *
 *	page	0123456789ab
 *		rwr.wwr.xrrw
 */
enum change {
	NOTHING,
	UNMAP_FIRST,
	UNMAP_SECOND,
	UNMAP_ALL,
	UNMAP_PART,
	MERGE_THREE,
	MERGE_LEFT,
	MERGE_RIGHT_PART,
	FILL_GAP_MERGING,
	FILL_GAP,
	SPLIT_LOW,
	SPLIT_HIGH,
	MOVE_UP,
	MOVE_DOWN,
	GROW,
	REPLACE,
	CHANGES,
	RESET,
};

#define AT(page)	((void *)(SPOT + (page) * PAGE))
#define AWAY_UP		0x100
#define AWAY_DOWN	(-0x100)

static int map_pages(int page, int count, int prot)
{
	return mmap(AT(page), count * PAGE, prot,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED;
}

static int move_pages_to(int from, int old_count, int new_count, int to)
{
	int flags = from == to ? 0 : MREMAP_MAYMOVE | MREMAP_FIXED;

	return mremap(AT(from), old_count * PAGE, new_count * PAGE, flags,
		      AT(to)) == MAP_FAILED;
}

static int change(int cmd)
{
	const int r = PROT_READ, w = PROT_READ | PROT_WRITE, x = PROT_EXEC;

	switch (cmd) {
	case NOTHING:
		return 0;
	case UNMAP_FIRST:
		return munmap(AT(0), PAGE);
	case UNMAP_SECOND:
		return munmap(AT(1), PAGE);
	case UNMAP_ALL:
		return munmap(AT(0), 12 * PAGE);
	case UNMAP_PART:
		return munmap(AT(5), 4 * PAGE);
	case MERGE_THREE:
		return mprotect(AT(1), PAGE, r);
	case MERGE_LEFT:
		return mprotect(AT(6), PAGE, w);
	case MERGE_RIGHT_PART:
		return mprotect(AT(10), PAGE, w);
	case FILL_GAP_MERGING:
		return map_pages(3, 1, w);
	case FILL_GAP:
		return map_pages(7, 1, r | x);
	case SPLIT_LOW:
		return mprotect(AT(4), PAGE, PROT_NONE);
	case SPLIT_HIGH:
		return mprotect(AT(5), PAGE, PROT_NONE);
	case MOVE_UP:
		return move_pages_to(4, 2, 2, AWAY_UP);
	case MOVE_DOWN:
		return move_pages_to(4, 2, 2, AWAY_DOWN);
	case GROW:
		return move_pages_to(6, 1, 2, 6);
	case REPLACE:
		return map_pages(1, 10, x);
	case RESET:
		return munmap(AT(AWAY_UP), 2 * PAGE) ||
		       munmap(AT(AWAY_DOWN), 2 * PAGE) ||
		       munmap(AT(0), 12 * PAGE) ||
		       map_pages(0, 1, r) || map_pages(1, 1, w) ||
		       map_pages(2, 1, r) || map_pages(4, 2, w) ||
		       map_pages(6, 1, r) || map_pages(8, 1, x) ||
		       map_pages(9, 2, r) || map_pages(11, 1, w);
	}
	return -1;
}

static int build_changing(const void *arg)
{
	return (maps_tells_of_pages(arg) ? target_share_no_pages() : 0) ?: change(RESET);
}

/* The lines that smaps adds for a mapping begin with a capital letter. */
static bool begins_mapping(const struct text *t, size_t at)
{
	return at < t->len && (!at || t->data[at - 1] == '\n') &&
	       !(t->data[at] >= 'A' && t->data[at] <= 'Z');
}

/*
 * Every mapping ends above the one before. (It need not start above it: a
 * mapping that was given out may have been merged with what follows.)
 */
static bool ends_rise(const struct text *t)
{
	unsigned long last = 0, end;
	size_t at = 0;

	while (at < t->len) {
		const char *dash = memchr(t->data + at, '-', t->len - at);
		const char *nl = memchr(t->data + at, '\n', t->len - at);

		if (!nl)
			return false;
		if (begins_mapping(t, at)) {
			if (!dash || dash > nl)
				return false;
			end = strtoul(dash + 1, NULL, 16);
			if (end <= last)
				return false;
			last = end;
		}
		at = nl + 1 - t->data;
	}
	return true;
}

static size_t find_text(const struct text *t, const char *what)
{
	const char *at = memmem(t->data, t->len, what, strlen(what));

	return at ? at - t->data : t->len;
}

FIXTURE(maps_changes)
{
	struct target target;
	struct session session[2];
	struct text whole;
};

FIXTURE_VARIANT(maps_changes)
{
	const char *file;
	const char *first, *last;	/* what the lines of the mappings begin with */
	size_t step;			/* between stops within a line */
};

FIXTURE_VARIANT_ADD(maps_changes, maps) {
	.file = "maps", .first = "50000000-", .last = "5000b000-", .step = 16,
};

FIXTURE_VARIANT_ADD(maps_changes, smaps) {
	.file = "smaps", .first = "50000000-", .last = "5000b000-", .step = 239,
};

FIXTURE_VARIANT_ADD(maps_changes, numa_maps) {
	.file = "numa_maps", .first = "50000000 ", .last = "5000b000 ", .step = 8,
};

FIXTURE_SETUP(maps_changes)
{
	const char *cannot = maps_cannot_test_file(variant->file);

	if (cannot)
		SKIP(return, "%s", cannot);
	ASSERT_EQ(0, target_start(&self->target, build_changing, change, variant->file));
	/* as much of the target's stack as it will take */
	for (int kind = NOTHING; kind <= RESET; kind++) {
		ASSERT_EQ(0, target_do(&self->target, kind == CHANGES ? RESET : kind));
		ASSERT_EQ(0, target_do(&self->target, RESET));
	}
	for (int i = MAPS_C; i <= MAPS_RUST; i++) {
		self->session[i].fd = maps_open_file(self->target.pid, variant->file, i);
		ASSERT_LE(0, self->session[i].fd);
	}
	maps_read_quiet(_metadata, &self->whole, self->target.pid, variant->file);
}

FIXTURE_TEARDOWN(maps_changes)
{
	target_stop(&self->target);
	text_free(&self->whole);
	for (int i = MAPS_C; i <= MAPS_RUST; i++) {
		text_free(&self->session[i].log);
		text_free(&self->session[i].got);
	}
}

TEST_F_TIMEOUT(maps_changes, between_reads, TIMEOUT)
{
	const bool has_ends = strcmp(variant->file, "numa_maps");
	const struct text *whole = &self->whole;
	size_t from = find_text(whole, variant->first);
	size_t to = find_text(whole, variant->last), stops = 0;

	ASSERT_LT(from, to);
	ASSERT_LT(to, whole->len);

	/* stop at the start of each mapping, and at some places within it */
	for (size_t stop = from; stop <= to + 64; stop++) {
		if (!begins_mapping(whole, stop) && stop % variant->step)
			continue;
		stops++;
		for (int kind = NOTHING; kind < CHANGES; kind++) {
			const struct text *c = &self->session[MAPS_C].got;

			for (int i = MAPS_C; i <= MAPS_RUST; i++) {
				struct session *s = &self->session[i];

				s->log.len = 0;
				s->got.len = 0;
				ASSERT_EQ(0, lseek(s->fd, 0, SEEK_SET));
				while (s->got.len < stop)
					ASSERT_LT(0, do_read(s, s->fd, stop - s->got.len));
				ASSERT_EQ(0, memcmp(whole->data, s->got.data, stop));
				ASSERT_EQ(0, target_do(&self->target, kind));
				read_rest(s);
				ASSERT_EQ(0, target_do(&self->target, RESET));
				if (has_ends)
					EXPECT_TRUE(ends_rise(&s->got))
						TH_LOG("%s: change %d after byte %zu",
						       maps_impl_name[i], kind, stop);
			}
			EXPECT_TRUE(text_same("C", &self->session[MAPS_C].log,
					      "Rust", &self->session[MAPS_RUST].log))
				TH_LOG("change %d after byte %zu", kind, stop);
			/* each of them shows when nothing was read yet, but for an end */
			if (stop == from && (has_ends || kind != GROW))
				EXPECT_EQ(kind != NOTHING, c->len != whole->len ||
					  memcmp(c->data, whole->data, whole->len))
					TH_LOG("change %d did nothing", kind);
		}
	}
	EXPECT_LT(20, stops);
}

TEST_HARNESS_MAIN
