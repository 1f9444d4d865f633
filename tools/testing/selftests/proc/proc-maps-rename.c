// SPDX-License-Identifier: GPL-2.0
/*
 * The paths in /proc/PID/maps while the file is renamed, moved to other mounts
 * and unlinked: each is one that the file had while read(2) was called, and
 * since it was mapped there, and the paths of one read(2) are in the order in
 * which the file had them.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <pthread.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include "proc-maps.h"

#define MAPPINGS	1500
#define ROUNDS		300	/* readings of the whole file by each size */
#define NAMES		1000	/* so many names, then the first again */

/* The number of names that the file has had, and has or is about to get */
static unsigned long had, gets;
/* Whether there are to be no more */
static unsigned long stop;

static unsigned long get(unsigned long *of)
{
	return __atomic_load_n(of, __ATOMIC_SEQ_CST);
}

static void set(unsigned long *of, unsigned long to)
{
	__atomic_store_n(of, to, __ATOMIC_SEQ_CST);
}

/* Names of different lengths, so that a mixture of two shows */
static void file_name(char *name, unsigned long n)
{
	n %= NAMES;
	sprintf(name, "/tmp/file-%04lu-%0*d", n, (int)(1 + n % 90), 0);
}

static int rename_to_next(unsigned long n)
{
	char from[256], to[256];

	file_name(from, n);
	file_name(to, n + 1);
	return rename(from, to);
}

/* The file system that the file is in moves, the file is at its root. */
static void mount_name(char *name, unsigned long n)
{
	n %= NAMES;
	sprintf(name, "/tmp/mount-%04lu-%0*d", n, (int)(1 + n % 90), 0);
}

static int move_to_next(unsigned long n)
{
	char from[256], to[256];
	int err;

	mount_name(from, n);
	mount_name(to, n + 1);
	if (mkdir(to, 0755))
		return -1;
	err = mount(from, to, NULL, MS_MOVE, NULL);
	return err ?: rmdir(from);
}

struct change {
	int (*to_next)(unsigned long n);
	void (*name)(char *name, unsigned long n);
	const char *behind;
};

static const struct change renames = { rename_to_next, file_name, "" };
static const struct change moves = { move_to_next, mount_name, "/file" };

static int build(const void *arg)
{
	const struct change *change = arg;
	char name[256];
	int fd;

	change->name(name, 0);
	if (change->to_next == move_to_next &&
	    (mkdir(name, 0755) || mount("maps", name, "tmpfs", 0, NULL)))
		return errno;
	strcat(name, change->behind);
	fd = open(name, O_CREAT | O_RDWR, 0644);
	if (fd < 0 || ftruncate(fd, PAGE))
		return errno;
	for (int i = 0; i < MAPPINGS; i++) {
		if (mmap((void *)(SPOT + i * PAGE), PAGE, PROT_READ,
			 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
			return errno;
	}
	close(fd);
	return 0;
}

FIXTURE(maps_rename)
{
	struct target target;
	pthread_t changer;
	bool changes;
};

FIXTURE_VARIANT(maps_rename)
{
	const struct change *change;
};

FIXTURE_VARIANT_ADD(maps_rename, renamed) {
	.change = &renames,
};

FIXTURE_VARIANT_ADD(maps_rename, moved) {
	.change = &moves,
};

FIXTURE_SETUP(maps_rename)
{
	const char *cannot = maps_cannot_test() ?: private_tmp();

	if (cannot)
		SKIP(return, "%s", cannot);
	ASSERT_EQ(0, target_start(&self->target, build, NULL, variant->change));
}

FIXTURE_TEARDOWN(maps_rename)
{
	set(&stop, true);
	if (self->changes)
		pthread_join(self->changer, NULL);
	target_stop(&self->target);
}

static void *keep_changing(void *arg)
{
	const struct change *change = arg;

	while (!get(&stop)) {
		unsigned long n = get(&had);

		set(&gets, n + 1);
		if (change->to_next(n))
			maps_die("rename");
		set(&had, n + 1);
	}
	return NULL;
}

/*
 * The first of the names @from to @to that a line ends by; behind @to if there
 * is none
 */
static unsigned long find_name(const struct change *change, const char *line,
			       size_t len, unsigned long from, unsigned long to)
{
	char name[256];

	for (; from <= to; from++) {
		size_t n;

		change->name(name, from);
		strcat(name, change->behind);
		n = strlen(name);
		if (len > n && line[len - n - 1] == ' ' && !memcmp(line + len - n, name, n))
			break;
	}
	return from;
}

/* Returns how many names the file had during one call. */
static int check_read(struct __test_metadata *_metadata, const struct change *change,
		      const char *data, size_t len, unsigned long from, unsigned long to)
{
	unsigned long first = 0, found = 0;
	bool any = false;
	const char *end;

	for (; (end = memchr(data, '\n', len)); len -= end + 1 - data, data = end + 1) {
		if (strtoul(data, NULL, 16) < SPOT ||
		    strtoul(data, NULL, 16) >= SPOT + MAPPINGS * PAGE)
			continue;
		found = find_name(change, data, end - data, from, to);
		ASSERT_LE(found, to) {
			TH_LOG("not one of the names %lu to %lu: %.*s", from, to,
			       (int)(end - data), data);
		}
		if (!any)
			first = found;
		any = true;
		from = found;
	}
	return 1 + found - first;
}

static void read_whole(struct __test_metadata *_metadata, const struct change *change,
		       pid_t pid, enum maps_impl impl, size_t size, int *several)
{
	static char buffer[1 << 19];
	int fd = maps_open(pid, impl);
	ssize_t n;

	ASSERT_LE(0, fd);
	while (true) {
		unsigned long from = get(&had);

		n = read(fd, buffer, size);
		ASSERT_LE(0, n);
		if (!n)
			break;
		*several += check_read(_metadata, change, buffer, n, from, get(&gets)) > 1;
	}
	close(fd);
}

TEST_F_TIMEOUT(maps_rename, while_it_is_read, 300)
{
	const int rounds = maps_times(ROUNDS);
	int several[2] = {};

	ASSERT_EQ(0, pthread_create(&self->changer, NULL, keep_changing,
				    (void *)variant->change));
	self->changes = true;
	for (int i = 0; i < rounds; i++) {
		for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
			read_whole(_metadata, variant->change, self->target.pid, impl,
				   PAGE, &several[impl]);
			read_whole(_metadata, variant->change, self->target.pid, impl,
				   1 << 19, &several[impl]);
		}
	}
	/* it was changed while it was read */
	EXPECT_LT(rounds / 10, several[MAPS_RUST]);
	EXPECT_LT(rounds / 10, several[MAPS_C]);
}

/* One open file, read again after each change */
TEST_F(maps_rename, between_two_reads)
{
	int fd = maps_open(self->target.pid, MAPS_RUST);
	static char buffer[1 << 19];

	ASSERT_LE(0, fd);
	for (unsigned long n = 0; n < 20; n++) {
		ssize_t len = pread(fd, buffer, sizeof(buffer), 0);

		ASSERT_LT(0, len);
		ASSERT_EQ(1, check_read(_metadata, variant->change, buffer, len, n, n));
		ASSERT_EQ(0, variant->change->to_next(n));
	}
	close(fd);
}

/*
 * The file is renamed and then mapped a second time, in this process:
 *
 *	ALONE   ANONYMOUS             AGAIN
 *	[ file ][ 60 mappings of any ][ page n of the file, when it has the name n ]
 */
#define ALONE		((char *)SPOT + 2 * MAPPINGS * PAGE)
#define ANONYMOUS	60
#define AGAIN		(ALONE + (1 + ANONYMOUS) * PAGE)
#define LATER		30	/* so often it is renamed and mapped between the two lines */

struct again {
	const struct change *change;
	int fd;
};

static void *keep_mapping(void *arg)
{
	const struct again *again = arg;

	while (!get(&stop)) {
		unsigned long n = get(&had);

		munmap(AGAIN, PAGE);
		set(&gets, n + 1);
		if (again->change->to_next(n))
			maps_die("rename");
		set(&had, n + 1);
		if (mmap(AGAIN, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, again->fd,
			 (n + 1) % NAMES * PAGE) == MAP_FAILED)
			maps_die("mmap");
	}
	return NULL;
}

/*
 * Returns whether the file was renamed, and mapped again, between the lines of
 * its two mappings. The second one never had a name from before that.
 */
static bool check_again(struct __test_metadata *_metadata, const struct change *change,
			const char *data, size_t len, unsigned long from, unsigned long to)
{
	unsigned long alone = to, named, page;
	const char *end;

	for (; (end = memchr(data, '\n', len)); len -= end + 1 - data, data = end + 1) {
		char *at = (char *)strtoul(data, NULL, 16);

		if (at == ALONE)
			alone = find_name(change, data, end - data, from, to);
		if (at != AGAIN)
			continue;
		/* START-END rw-p OFFSET */
		if (sscanf(data, "%*s %*s %lx", &page) != 1)
			maps_die("line of maps");
		page /= PAGE;
		page = from + (page + NAMES - from % NAMES) % NAMES;
		named = find_name(change, data, end - data, from, to);
		ASSERT_LE(page, named) {
			TH_LOG("mapped after the name %lu was gone: %.*s", named,
			       (int)(end - data), data);
		}
		return alone < page;
	}
	return false;
}

TEST_F_TIMEOUT(maps_rename, mapped_after, 300)
{
	struct again again = { .change = variant->change };
	static char buffer[1 << 16];
	char name[256];

	variant->change->name(name, 0);
	strcat(name, variant->change->behind);
	again.fd = open(name, O_RDWR);
	ASSERT_LE(0, again.fd);
	ASSERT_EQ(0, ftruncate(again.fd, NAMES * PAGE));
	ASSERT_NE(MAP_FAILED, mmap(ALONE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, again.fd, 0));
	for (int i = 1; i <= ANONYMOUS; i++)
		ASSERT_NE(MAP_FAILED, mmap(ALONE + i * PAGE, PAGE, i & 1 ? PROT_READ : PROT_NONE,
					   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, pthread_create(&self->changer, NULL, keep_mapping, &again));
	self->changes = true;
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		int fd = maps_open(getpid(), impl);

		ASSERT_LE(0, fd);
		for (int later = 0; later < LATER;) {
			unsigned long from = get(&had);
			ssize_t n = pread(fd, buffer, sizeof(buffer), 0);

			ASSERT_LT(0, n);
			later += check_again(_metadata, variant->change, buffer, n, from,
					     get(&gets));
		}
		close(fd);
	}
}

int main(int argc, char **argv)
{
	return test_harness_run(argc, argv);
}
