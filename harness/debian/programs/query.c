// SPDX-License-Identifier: GPL-2.0
/* Prints the mappings of a process as PROCMAP_QUERY tells them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char path[64], name[4096], id[64];
	struct procmap_query q;
	uint64_t at = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/maps", argc > 1 ? argv[1] : "self");
	fd = open(path, O_RDONLY);
	if (fd < 0) {
		perror(path);
		return 1;
	}
	for (;;) {
		memset(&q, 0, sizeof(q));
		q.size = sizeof(q);
		q.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA;
		q.query_addr = at;
		q.vma_name_addr = (uintptr_t)name;
		q.vma_name_size = sizeof(name);
		q.build_id_addr = (uintptr_t)id;
		q.build_id_size = sizeof(id);
		if (ioctl(fd, PROCMAP_QUERY, &q))
			break;
		printf("%llx-%llx %llx %llx %u:%u %llu page %llu %s ", q.vma_start, q.vma_end, q.vma_flags,
		       q.vma_offset, q.dev_major, q.dev_minor, q.inode, q.vma_page_size,
		       q.vma_name_size ? name : "-");
		for (unsigned int n = 0; n < q.build_id_size; n++)
			printf("%02x", (unsigned char)id[n]);
		puts("");
		at = q.vma_end;
	}
	if (errno != ENOENT) {
		perror("PROCMAP_QUERY");
		return 1;
	}
	return 0;
}
