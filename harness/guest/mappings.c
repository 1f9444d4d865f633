// SPDX-License-Identifier: GPL-2.0
/*
 * mappings N COMMAND...: makes N anonymous mappings, no two of which can be
 * merged, and runs COMMAND with their process in $MAPPINGS_PID.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
	char pid[16], *end, *area;
	long n, page = sysconf(_SC_PAGESIZE);
	int status;
	pid_t child;

	n = argc > 2 ? strtol(argv[1], &end, 10) : 0;
	if (n < 1 || *end) {
		fprintf(stderr, "usage: mappings N COMMAND...\n");
		return 2;
	}
	area = mmap(NULL, n * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED) {
		perror("mappings: mmap");
		return 1;
	}
	for (long i = 0; i < n; i += 2) {
		if (mprotect(area + i * page, page, PROT_READ)) {
			perror("mappings: mprotect");
			return 1;
		}
	}

	snprintf(pid, sizeof(pid), "%d", getpid());
	setenv("MAPPINGS_PID", pid, 1);
	errno = posix_spawnp(&child, argv[2], NULL, NULL, argv + 2, environ);
	if (errno) {
		perror(argv[2]);
		return 127;
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
