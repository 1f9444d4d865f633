/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What proc-maps-diff and proc-smaps-diff share: a target of two threads, and
 * comparing what C and Rust say about it in every file that both can serve.
 */
#ifndef PROC_SMAPS_DIFF_H
#define PROC_SMAPS_DIFF_H

#include <pthread.h>
#include "proc-maps.h"

#define TIMEOUT		300	/* seconds for each test */
#define QUIET_TRIES	20

enum maps_file {
	MAPS,
	SMAPS,
	SMAPS_ROLLUP,
	NUMA_MAPS,
	MAPS_FILES,
};

static const char *const maps_file_name[] = {
	"maps", "smaps", "smaps_rollup", "numa_maps",
};

/* Has this kernel got the file? Asks what is configured with it. */
static inline bool maps_file_built(enum maps_file file)
{
	switch (file) {
	case SMAPS:
	case SMAPS_ROLLUP:
		return !access("/proc/self/pagemap", F_OK);
	case NUMA_MAPS:
		return !access("/sys/devices/system/node", F_OK);
	default:
		return true;
	}
}

/* A file, opened with each setting */
struct maps_pair {
	int fd[2];
};

/* False where this kernel does not have the file; no setting makes it appear */
static inline bool pair_open(struct __test_metadata *_metadata,
			     struct maps_pair *pair, const char *dir,
			     enum maps_file file)
{
	bool built = maps_file_built(file);
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, maps_file_name[file]);
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		int fd = maps_open_at(AT_FDCWD, path, O_RDONLY, impl);
		int err = fd < 0 ? errno : 0;

		ASSERT_EQ(built ? 0 : ENOENT, err)
			TH_LOG("%s of %s: %s", path, maps_impl_name[impl],
			       strerror(err));
		pair->fd[impl] = fd;
	}
	return built;
}

static inline void read_again(struct __test_metadata *_metadata,
			      struct text *text, int fd)
{
	text->len = 0;
	ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
	ASSERT_EQ(0, text_read(text, fd));
}

/*
 * Reads both: the texts are the same. Gives that of Rust in @text.
 *
 * C once more after Rust shows whether the target was quiet. It may not be at
 * first: it shares pages with the test, which writes to some and faults in
 * others as it runs.
 */
static inline void pair_compare(struct __test_metadata *_metadata,
				const struct maps_pair *pair, struct text *text)
{
	struct text c = {}, again = {};

	for (int tries = 1; ; tries++) {
		read_again(_metadata, &c, pair->fd[MAPS_C]);
		read_again(_metadata, text, pair->fd[MAPS_RUST]);
		read_again(_metadata, &again, pair->fd[MAPS_C]);
		if (c.len == again.len && !memcmp(c.data, again.data, c.len))
			break;
		if (tries < QUIET_TRIES) {
			usleep(100000);
			continue;
		}
		ASSERT_TRUE(text_same("C", &c, "C again", &again))
			TH_LOG("the target was not quiet");
	}
	close(pair->fd[MAPS_C]);
	close(pair->fd[MAPS_RUST]);
	EXPECT_TRUE(text_same("C", &c, "Rust", text));
	text_free(&c);
	text_free(&again);
}

/* Compares @file of @dir. False where this kernel does not have it. */
static inline bool compare_file(struct __test_metadata *_metadata,
				const char *dir, enum maps_file file,
				struct text *text)
{
	struct maps_pair pair;

	if (!pair_open(_metadata, &pair, dir, file))
		return false;
	pair_compare(_metadata, &pair, text);
	EXPECT_LT(0, text->len)
		TH_LOG("%s/%s is empty", dir, maps_file_name[file]);
	return true;
}

static inline void expect_text(struct __test_metadata *_metadata,
			       const struct text *text, const char *what)
{
	EXPECT_TRUE(text_has(text, what))
		TH_LOG("not in the text: %s", what);
}

/*
 * What a target is to build. Each function returns 0, a positive errno when it
 * failed, a negative one when this kernel or machine does not have what it
 * takes.
 */
struct layout {
	int (*build)(void);
	int (*thread)(void);	/* called by the second thread */
};

/* The second thread of a target, for /proc/PID/task/TID */
static pid_t *second_tid;
static int second_err;

static inline void *second_thread(void *arg)
{
	int (*run)(void) = ((const struct layout *)arg)->thread;

	second_err = run ? run() : 0;
	__atomic_store_n(second_tid, gettid(), __ATOMIC_RELEASE);
	while (1)
		pause();
	return arg;
}

static inline int build_with_thread(const void *arg)
{
	const struct layout *layout = arg;
	pthread_t thread;
	int err;

	err = layout->build();
	if (err)
		return err;
	err = pthread_create(&thread, NULL, second_thread, (void *)layout);
	if (err)
		return err;
	while (!__atomic_load_n(second_tid, __ATOMIC_ACQUIRE))
		usleep(100);
	/* let it reach pause(), with whatever memory it takes on the way */
	usleep(1000);
	return second_err;
}

/* Returns what the functions of @layout returned */
static inline int target_of_threads(struct target *t, const struct layout *layout)
{
	second_tid = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (second_tid == MAP_FAILED)
		maps_die("mmap");
	return target_start(t, build_with_thread, NULL, layout);
}

/* Writes a number where @set is not negative. -1 when that did not work */
static inline long number_file(const char *path, long set)
{
	FILE *f = fopen(path, set < 0 ? "r" : "w");
	long value = -1;

	if (!f)
		return -1;
	if (set >= 0)
		value = fprintf(f, "%ld\n", set) > 0 ? set : -1;
	else if (fscanf(f, "%ld", &value) != 1)
		value = -1;
	if (fclose(f))
		return -1;
	return value;
}

#define HUGE_PAGES	"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

#endif /* PROC_SMAPS_DIFF_H */
