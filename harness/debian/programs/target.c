// SPDX-License-Identifier: GPL-2.0
/*
 * A process with all kinds of mappings and several threads, for clients to look at.
 *
 * target quiet    maps, says `ready PID`, waits; one page more at each SIGUSR1
 * target busy     the same, while threads map, unmap and protect memory
 * target many N   N mappings of their own, then waits
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define PAGE 4096UL
#define THREADS 6

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static char *map(size_t size, int prot, int flags, int fd)
{
	char *p = mmap(NULL, size, prot, flags, fd, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

/* Memory of which every nth page is written. */
static char *anon(size_t size, size_t nth)
{
	char *p = map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	for (size_t at = 0; nth && at < size; at += nth * PAGE)
		p[at] = 1;
	return p;
}

static int file(const char *name, size_t size)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || ftruncate(fd, size))
		die(name);
	for (size_t at = 0; at < size; at += 4 * PAGE)
		if (pwrite(fd, "x", 1, at) != 1)
			die("pwrite");
	return fd;
}

static void all_kinds(void)
{
	char name[64], dir[] = "/var/tmp/target.XXXXXX";
	char *p;
	int fd, id;

	anon(16 * MIB, 3);
	anon(16 * MIB, 0);
	/* large, and not a part of a core dump */
	p = anon(1024 * MIB, 50000);
	madvise(p, 1024 * MIB, MADV_DONTDUMP);
	p = anon(8 * MIB, 0);
	madvise(p, 8 * MIB, MADV_HUGEPAGE);
	memset(p, 1, 5 * MIB);
	p = anon(MIB, 1);
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, MIB, "named by prctl");
	p = anon(2 * MIB, 1);
	madvise(p, 2 * MIB, MADV_PAGEOUT);
	p = anon(MIB, 1);
	mlock(p, 8 * PAGE);
	p = anon(MIB, 2);
	/* many small ones out of one */
	for (size_t at = 0; at < MIB; at += 2 * PAGE)
		mprotect(p + at, PAGE, PROT_READ);
	madvise(anon(MIB, 1), MIB, MADV_DONTFORK);
	madvise(anon(MIB, 1), MIB, MADV_FREE);
	map(4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	memset(map(MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1), 1, MIB / 2);

	if (!mkdtemp(dir))
		die(dir);
	for (int n = 0; n < 40; n++) {
		snprintf(name, sizeof(name), "%s/file %d", dir, n);
		fd = file(name, 64 * PAGE);
		p = map(64 * PAGE, PROT_READ | PROT_WRITE, n & 1 ? MAP_SHARED : MAP_PRIVATE, fd);
		for (size_t at = 0; at < 64 * PAGE; at += (n + 1) * PAGE)
			p[at] = 2;
		close(fd);
		if (n % 5 == 4)
			unlink(name);
	}
	snprintf(name, sizeof(name), "%s/new\nline", dir);
	fd = file(name, PAGE);
	map(PAGE, PROT_READ, MAP_PRIVATE, fd);
	close(fd);
	fd = memfd_create("a memfd", 0);
	if (fd < 0 || ftruncate(fd, MIB))
		die("memfd");
	memset(map(MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd), 1, 10 * PAGE);
	id = shmget(IPC_PRIVATE, MIB, IPC_CREAT | 0600);
	if (id < 0)
		die("shmget");
	p = shmat(id, NULL, 0);
	memset(p, 1, 5 * PAGE);
	shmctl(id, IPC_RMID, NULL);
}

static void *idle(void *unused)
{
	for (;;)
		pause();
}

/* What a thread of a busy process calls; probes can be set here. */
__attribute__((noinline)) void work(unsigned int n)
{
	size_t size = (1 + n % 32) * PAGE;
	char *p = anon(size, 1);

	if (n % 3 == 0)
		mprotect(p, PAGE, PROT_READ);
	if (n % 5 == 0)
		madvise(p, size, MADV_DONTNEED);
	munmap(p, size);
}

static void *busy(void *unused)
{
	for (unsigned int n = 0;; n++) {
		work(n);
		if (n % 64 == 0)
			usleep(1000);
	}
	return NULL;
}

static volatile sig_atomic_t more;

static void one_more(int sig)
{
	more++;
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "quiet";
	struct sigaction action = { .sa_handler = one_more };
	pthread_t thread;
	int done = 0;

	sigaction(SIGUSR1, &action, NULL);
	if (!strcmp(how, "many")) {
		size_t count = strtoul(argv[2], NULL, 0);
		char *p = map(count * 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);

		for (size_t n = 0; n < count; n++)
			if (mprotect(p + 2 * n * PAGE, PAGE, PROT_READ | PROT_WRITE))
				die("mprotect");
	} else {
		all_kinds();
	}
	for (int n = 0; n < THREADS; n++)
		if (pthread_create(&thread, NULL, strcmp(how, "busy") ? idle : busy, NULL))
			die("pthread_create");
	usleep(100000);
	printf("ready %d\n", getpid());
	fflush(stdout);
	for (;;) {
		/* threads that wait are not asked, so this one gets the signal */
		while (done < more) {
			map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1);
			done++;
			printf("more %d\n", done);
			fflush(stdout);
		}
		usleep(100000);
	}
}
