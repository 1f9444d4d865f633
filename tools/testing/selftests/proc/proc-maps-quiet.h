/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A target of which smaps, smaps_rollup and numa_maps give the same text each
 * time, whatever the test does.
 */
#ifndef PROC_MAPS_QUIET_H
#define PROC_MAPS_QUIET_H

#include "proc-maps.h"

/* A copy of what is mapped there, in pages of its own */
static inline int replace_by_copy(char *start, size_t len, int prot)
{
	char *copy = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (copy == MAP_FAILED)
		return errno;
	memcpy(copy, start, len);
	return mprotect(copy, len, prot) ||
	       mremap(copy, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, start) == MAP_FAILED ?
	       errno : 0;
}

/*
 * smaps and numa_maps tell how many processes share a page. The target must not
 * share any with the test, or what the test and its children do would change
 * the text: it takes a page of its own for each that it has after the fork.
 */
static inline int target_share_no_pages(void)
{
	static struct text maps;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	int err = fd < 0 ? errno : text_read(&maps, fd);

	close(fd);
	text_append(&maps, "", 1);
	for (char *line = maps.data, *nl; !err && (nl = strchr(line, '\n')); line = nl + 1) {
		unsigned long start, end, inode;
		char perm[5];

		*nl = '\0';
		if (sscanf(line, "%lx-%lx %4s %*x %*x:%*x %lu", &start, &end,
			   perm, &inode) != 4)
			err = EINVAL;
		/* what is called there is not called in the target */
		else if (strstr(line, "[vdso]") || strstr(line, "[vvar"))
			err = munmap((void *)start, end - start) ? errno : 0;
		else if (strstr(line, "[vsyscall]") || perm[0] != 'r' || perm[3] != 'p')
			continue;
		else if (perm[1] == 'w')
			err = madvise((void *)start, end - start, MADV_POPULATE_WRITE) ?
			      errno : 0;
		else if (inode)
			err = replace_by_copy((char *)start, end - start,
					      perm[2] == 'x' ? PROT_READ | PROT_EXEC :
							       PROT_READ);
	}
	return err;
}

static inline bool maps_tells_of_pages(const char *file)
{
	return strcmp(file, "maps");
}

/* Why @file cannot be tested, or NULL */
static inline const char *maps_cannot_test_file(const char *file)
{
	static char why[64];
	const char *cannot = maps_cannot_test();

	snprintf(why, sizeof(why), "/proc/self/%s", file);
	if (!cannot && access(why, F_OK)) {
		snprintf(why, sizeof(why), "%s: %s", file, strerror(errno));
		cannot = why;
	}
	return cannot;
}

#define QUIET_TRIES	50

/*
 * Pages that are on their way to a list of active pages, one of each CPU, get there,
 * and not at some moment later: to drop caches drains those lists. 4 has it say nothing.
 */
static inline void drain_lists_of_pages(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "4", 1) != 1 || write(fd, "1", 1) != 1)
		maps_die("drop_caches");
	close(fd);
}

/* The file as C gives it, once it stays as it is */
static inline void maps_read_quiet(struct __test_metadata *_metadata,
				   struct text *whole, pid_t pid, const char *file)
{
	struct text again = {};
	bool quiet = false;

	if (maps_tells_of_pages(file))
		drain_lists_of_pages();
	for (int i = 0; i < QUIET_TRIES && !quiet; i++) {
		int fd = maps_open_file(pid, file, MAPS_C);

		ASSERT_LE(0, fd);
		whole->len = 0;
		again.len = 0;
		ASSERT_EQ(0, text_read(whole, fd));
		if (maps_tells_of_pages(file))
			usleep(20000);
		ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
		ASSERT_EQ(0, text_read(&again, fd));
		close(fd);
		quiet = whole->len == again.len &&
			!memcmp(whole->data, again.data, again.len);
	}
	ASSERT_TRUE(quiet)
		text_same("once", whole, "again", &again);
	text_free(&again);
}

#endif /* PROC_MAPS_QUIET_H */
