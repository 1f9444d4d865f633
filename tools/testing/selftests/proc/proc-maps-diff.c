// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/PID/maps has to read the same, byte for byte, whether the C or the
 * Rust code serves it. A target process builds an address space of some kind,
 * then sleeps while both are read and compared. Each layout also says what has
 * to stand in the text, so that nothing is compared that is not there.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <pthread.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include "proc-maps.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif

#define MANY		65000
#define TIMEOUT		300	/* seconds for each test */

/*
 * A build function returns 0, a positive errno when it failed, a negative one
 * when this kernel or machine does not have what it takes.
 */

static void *map(unsigned long addr, size_t len, int prot, int flags, int fd,
		 off_t off)
{
	return mmap((void *)addr, len, prot,
		    flags | (addr ? MAP_FIXED_NOREPLACE : 0), fd, off);
}

static int build_plain(void)
{
	if (sbrk(1 << 20) == (void *)-1)
		return errno;
	/* a heap of several mappings */
	if (mprotect((void *)(((unsigned long)sbrk(0) & ~(PAGE - 1)) - 16 * PAGE),
		     PAGE, PROT_READ))
		return errno;
	if (map(SPOT, PAGE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0) == MAP_FAILED)
		return errno;
	return 0;
}

static int build_anonymous(void)
{
	for (int i = 0; i < 16; i++) {
		int flags = i < 8 ? MAP_PRIVATE : MAP_SHARED;

		if (map(SPOT + 2 * i * PAGE, PAGE, i & 7, flags | MAP_ANONYMOUS,
			-1, 0) == MAP_FAILED)
			return errno;
	}
	return 0;
}

static int build_file(void)
{
	const off_t far = 0x123456789000;
	int fd = open("/tmp/a-file", O_CREAT | O_EXCL | O_RDWR, 0600);

	if (fd < 0 || ftruncate(fd, far + 16 * PAGE))
		return errno;
	for (int i = 0; i < 16; i++) {
		if (map(SPOT + i * PAGE, PAGE, i & 7,
			i < 8 ? MAP_PRIVATE : MAP_SHARED, fd,
			i & 1 ? far : i * PAGE) == MAP_FAILED)
			return errno;
	}
	close(fd);
	return 0;
}

static int build_deleted(void)
{
	int err = map_new_file("/tmp/gone") ?:
		  map_new_file("/tmp/stays (deleted)") ?:
		  map_new_file("/tmp/before");

	if (err)
		return err;
	if (unlink("/tmp/gone") || rename("/tmp/before", "/tmp/after"))
		return errno;
	return 0;
}

static const char *const odd_names[] = {
	"two words", " lead", "trail ", "new\nline", "\n", "back\\slash",
	"\\012", "\\", "tab\there", "\x1b[1m", "\xc3\xa9\xff\x80", "a\"b",
	"[heap]", "a\n\n\\\n b", "%s%n",
};

static int build_names(void)
{
	char name[5 + NAME_MAX + 1] = "/tmp/";
	int err;

	for (size_t i = 0; i < ARRAY_SIZE(odd_names); i++) {
		snprintf(name + 5, sizeof(name) - 5, "%s", odd_names[i]);
		err = map_new_file(name);
		if (err)
			return err;
	}
	memset(name + 5, 'x', NAME_MAX);
	return map_new_file(name);
}

/*
 * Records that take several times the buffer a reader starts with, of paths
 * longer than PATH_MAX.
 */
static int build_deep(void)
{
	const int depths[] = { 1, 4, 16, 40 };
	int err;

	for (size_t i = 0; i < ARRAY_SIZE(depths); i++) {
		err = map_deep_file(depths[i]);
		if (err)
			return err;
	}
	return 0;
}

static int build_memfd(void)
{
	const char *const names[] = { "plain", "two words\nand lines", "" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		int fd = memfd_create(names[i], 0);

		if (fd < 0)
			return -errno;
		if (map(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ||
		    map_fd(fd))
			return errno;
		close(fd);
	}
	return 0;
}

static int build_shmem(void)
{
	int id = shmget(0x4d415053, PAGE, IPC_CREAT | IPC_EXCL | 0600);
	void *at;

	if (id < 0)
		return -errno;
	at = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	if (at == (void *)-1)
		return errno;
	if (map(SPOT, 4 * PAGE, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		return errno;
	memset((void *)SPOT, 1, 4 * PAGE);
	return mprotect((void *)(SPOT + PAGE), PAGE, PROT_READ) ? errno : 0;
}

static int build_hugetlb(void)
{
	int fd = memfd_create("huge", MFD_HUGETLB);
	size_t len = 1 << 21;
	char *p;

	if (fd < 0)
		return -errno;
	if (map(0, len, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED)
		return errno == ENOMEM ? -ENOMEM : errno;
	close(fd);
	p = map(0, 2 * len, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (p == MAP_FAILED)
		return errno == ENOMEM ? -ENOMEM : errno;
	p[0] = 1;
	return mprotect(p, len, PROT_READ) ? errno : 0;
}

static int build_anon_name(void)
{
	char longest[80];

	memset(longest, 'n', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	for (int i = 0; i < 2; i++) {
		unsigned long at = SPOT + i * 0x1000000;

		if (map(at, 8 * PAGE, PROT_READ | PROT_WRITE,
			MAP_ANONYMOUS | (i ? MAP_SHARED : MAP_PRIVATE), -1, 0) == MAP_FAILED)
			return errno;
		if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, PAGE, "a pool"))
			return errno == EINVAL ? -EINVAL : errno;
		if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at + 2 * PAGE,
			  2 * PAGE, longest) ||
		    prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at + 6 * PAGE, PAGE, ""))
			return errno;
	}
	return 0;
}

static int build_addresses(void)
{
	const unsigned long at[] = {
		0x10000, 0x123000, 0xfffff000, 0x100000000, 0xffffffff000,
		0x700000000000,
	};

	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		if (map(at[i], 0x1000, i & 1, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			0) == MAP_FAILED)
			return errno;
	}
	return 0;
}

static int build_five_levels(void)
{
	if (map(1UL << 52, 0x1000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		0) == MAP_FAILED)
		return errno == ENOMEM ? -ENOMEM : errno;
	return 0;
}

static int build_many(void)
{
	return map_many(MANY);
}

static int build_chroot(void)
{
	if (mkdir("/tmp/jail", 0700) || unshare(CLONE_NEWNS) ||
	    mount("none", "/tmp/jail", "tmpfs", 0, NULL))
		return -errno;
	if (chroot("/tmp/jail") || chdir("/"))
		return errno;
	return map_new_file("/in jail");
}

static int build_detached_mount(void)
{
	int err;

	if (mkdir("/tmp/away", 0700) ||
	    mount("none", "/tmp/away", "tmpfs", 0, NULL))
		return -errno;
	err = map_new_file("/tmp/away/file on it");
	if (err)
		return err;
	return umount2("/tmp/away", MNT_DETACH) ? errno : 0;
}

static int build_overlay(void)
{
	const char *const dirs[] = {
		"/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/merged",
	};
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		if (mkdir(dirs[i], 0700))
			return errno;
	}
	for (int i = 0; i < 2; i++) {
		fd = open(i ? "/tmp/lower/b" : "/tmp/lower/a",
			  O_CREAT | O_EXCL | O_RDWR, 0600);
		if (fd < 0 || ftruncate(fd, PAGE))
			return errno;
		close(fd);
	}
	if (mount("none", "/tmp/merged", "overlay", 0,
		  "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"))
		return -errno;

	/* read only from below; copied up after it was mapped; new above */
	for (int i = 0; i < 2; i++) {
		fd = open(i ? "/tmp/merged/b" : "/tmp/merged/a", O_RDONLY);
		if (fd < 0 || map_fd(fd))
			return errno;
		close(fd);
	}
	fd = open("/tmp/merged/b", O_RDWR);
	if (fd < 0 || write(fd, "x", 1) != 1 || map_fd(fd))
		return errno;
	close(fd);
	return map_new_file("/tmp/merged/c");
}

static int build_kernel_files(void)
{
	unsigned int params[30] = {};	/* struct io_uring_params */
	unsigned long aio = 0;
	int fd;

	fd = open("/dev/zero", O_RDWR);
	if (fd < 0)
		return errno;
	if (map_fd(fd) ||
	    map(0, PAGE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED)
		return errno;
	close(fd);
	if (syscall(SYS_io_setup, 8, &aio))
		return -errno;
	fd = syscall(SYS_io_uring_setup, 4, params);
	if (fd < 0)
		return -errno;
	if (map(0, PAGE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED)
		return errno;
	close(fd);
	return 0;
}

/* The second thread of a target, for /proc/PID/task/TID/maps */
static pid_t *shared_tid;

static void *second_thread(void *arg)
{
	__atomic_store_n(shared_tid, gettid(), __ATOMIC_RELEASE);
	while (1)
		pause();
	return arg;
}

static int build_with_thread(const void *arg)
{
	int (*const *build)(void) = arg;
	pthread_t thread;
	int err;

	err = (*build)();
	if (err)
		return err;
	err = pthread_create(&thread, NULL, second_thread, NULL);
	if (err)
		return err;
	while (!__atomic_load_n(shared_tid, __ATOMIC_ACQUIRE))
		usleep(100);
	/* let it reach pause(), with whatever memory it takes on the way */
	usleep(1000);
	return 0;
}

static long number_file(const char *path, long set)
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

FIXTURE(maps_diff)
{
	struct target target;
	struct text text;
	long huge_pages;
};

FIXTURE_VARIANT(maps_diff)
{
	int (*build)(void);
	const char *expect[20];
	const char *inside;	/* what a reader in the target's root has to see */
	size_t min_lines;
	size_t min_bytes;
	int huge_pages;
};

FIXTURE_VARIANT_ADD(maps_diff, plain) {
	.build = build_plain,
	.expect = {
		"[heap]\n", "[stack]\n", "[vdso]\n", "50000000-50001000 rw-p ",
#ifdef __x86_64__
		"[vvar]\n",
#endif
	},
};

FIXTURE_VARIANT_ADD(maps_diff, anonymous) {
	.build = build_anonymous,
	.expect = {
		"50000000-50001000 ---p 00000000 00:00 0\x20\n",
		"50002000-50003000 r--p ", "50004000-50005000 -w-p ",
		"50006000-50007000 rw-p ", "50008000-50009000 --xp ",
		"5000a000-5000b000 r-xp ", "5000c000-5000d000 -wxp ",
		"5000e000-5000f000 rwxp ", "50010000-50011000 ---s 00000000 ",
		"50012000-50013000 r--s ", "50014000-50015000 -w-s ",
		"50016000-50017000 rw-s ", "50018000-50019000 --xs ",
		"5001a000-5001b000 r-xs ", "5001c000-5001d000 -wxs ",
		"5001e000-5001f000 rwxs ", "/dev/zero (deleted)\n",
	},
};

FIXTURE_VARIANT_ADD(maps_diff, file) {
	.build = build_file,
	.expect = {
		"50000000-50001000 ---p 00000000 ",
		"50001000-50002000 r--p 123456789000 ",
		"50002000-50003000 -w-p 00002000 ",
		"50007000-50008000 rwxp 123456789000 ",
		"5000e000-5000f000 -wxs 0000e000 ",
		"5000f000-50010000 rwxs 123456789000 ", " /tmp/a-file\n",
	},
};

FIXTURE_VARIANT_ADD(maps_diff, deleted) {
	.build = build_deleted,
	.expect = {
		" /tmp/gone (deleted)\n", " /tmp/stays (deleted)\n",
		" /tmp/after\n",
	},
};

FIXTURE_VARIANT_ADD(maps_diff, names) {
	.build = build_names,
	.expect = {
		" /tmp/two words\n", " /tmp/ lead\n", " /tmp/trail\x20\n",
		" /tmp/new\\012line\n", " /tmp/\\012\n", " /tmp/back\\slash\n",
		" /tmp/\\\n", " /tmp/tab\there\n", " /tmp/\x1b[1m\n",
		" /tmp/\xc3\xa9\xff\x80\n", " /tmp/a\"b\n", " /tmp/[heap]\n",
		" /tmp/a\\012\\012\\\\012 b\n", " /tmp/%s%n\n", "xxxxxxxxxxxx\n",
	},
};

FIXTURE_VARIANT_ADD(maps_diff, deep) {
	.build = build_deep,
	.expect = { "\\012/\\012\\012", "\\012/" DEEP_NAME "\n" },
	.min_bytes = (1 + 4 + 16 + 40) * 1021,
};

FIXTURE_VARIANT_ADD(maps_diff, memfd) {
	.build = build_memfd,
	.expect = {
		" /memfd:plain (deleted)\n",
		" /memfd:two words\\012and lines (deleted)\n",
		" /memfd: (deleted)\n",
	},
};

FIXTURE_VARIANT_ADD(maps_diff, shmem) {
	.build = build_shmem,
	.expect = {
		" /SYSV4d415053 (deleted)\n",
		"50000000-50001000 rw-s 00000000 ",
		"50001000-50002000 r--s 00001000 ",
		"50002000-50004000 rw-s 00002000 ",
	},
};

FIXTURE_VARIANT_ADD(maps_diff, hugetlb) {
	.build = build_hugetlb,
	.expect = {
		" /memfd:huge (deleted)\n", " /anon_hugepage (deleted)\n",
	},
	.huge_pages = 4,
};

FIXTURE_VARIANT_ADD(maps_diff, anon_name) {
	.build = build_anon_name,
	.expect = {
		"50000000-50001000 rw-p 00000000 00:00 0                                  [anon:a pool]\n",
		"50002000-50004000 rw-p 00000000 00:00 0                                  [anon:nnnn",
		" [anon:]\n", " [anon_shmem:a pool]\n", " [anon_shmem:nnnn",
		" [anon_shmem:]\n",
	},
};

FIXTURE_VARIANT_ADD(maps_diff, addresses) {
	.build = build_addresses,
	.expect = {
		"00010000-00011000 ", "00123000-00124000 ",
		"fffff000-100000000 ", "100000000-100001000 ",
		"ffffffff000-100000000000 ", "700000000000-700000001000 ",
	},
};

FIXTURE_VARIANT_ADD(maps_diff, five_levels) {
	.build = build_five_levels,
	.expect = { "10000000000000-10000000001000 " },
};

FIXTURE_VARIANT_ADD(maps_diff, many) {
	.build = build_many,
	.expect = {
		"50000000-50001000 ---p ", "50001000-50002000 r--p ",
		"5fde7000-5fde8000 r--p ",
	},
	.min_lines = MANY,
};

FIXTURE_VARIANT_ADD(maps_diff, chroot) {
	.build = build_chroot,
	.expect = { " /tmp/jail/in jail\n" },
	.inside = " /in jail\n",
};

FIXTURE_VARIANT_ADD(maps_diff, detached_mount) {
	.build = build_detached_mount,
	.expect = { "file on it\n" },
};

FIXTURE_VARIANT_ADD(maps_diff, overlay) {
	.build = build_overlay,
	.expect = { " /tmp/merged/a\n", " /tmp/merged/b\n", " /tmp/merged/c\n" },
};

FIXTURE_VARIANT_ADD(maps_diff, kernel_files) {
	.build = build_kernel_files,
	.expect = {
		" /dev/zero\n", " /dev/zero (deleted)\n", " /[aio] (deleted)\n",
		" anon_inode:[io_uring]\n",
	},
};

FIXTURE_SETUP(maps_diff)
{
	const char *cannot = maps_cannot_test();
	int err;

	if (cannot)
		SKIP(return, "%s", cannot);
	err = private_tmp();
	if (err)
		SKIP(return, "private /tmp: %s", strerror(err));

	self->huge_pages = -1;
	if (variant->huge_pages) {
		self->huge_pages = number_file(HUGE_PAGES, -1);
		if (self->huge_pages < 0)
			SKIP(return, "no " HUGE_PAGES);
		number_file(HUGE_PAGES, self->huge_pages + variant->huge_pages);
	}

	shared_tid = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, shared_tid);
	err = target_start(&self->target, build_with_thread, NULL,
			   &variant->build);
	if (err < 0)
		SKIP(return, "this kernel cannot: %s", strerror(-err));
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(maps_diff)
{
	target_stop(&self->target);
	if (self->huge_pages >= 0)
		number_file(HUGE_PAGES, self->huge_pages);
	text_free(&self->text);
}

/* Read both descriptors: the texts are the same. Gives that of Rust in @text */
static void compare(struct __test_metadata *_metadata, struct text *text,
		    int c_fd, int rust_fd)
{
	struct text c = {}, again = {};

	ASSERT_LE(0, c_fd);
	ASSERT_LE(0, rust_fd);
	ASSERT_EQ(0, text_read(&c, c_fd));
	ASSERT_EQ(0, text_read(text, rust_fd));
	ASSERT_EQ(0, lseek(c_fd, 0, SEEK_SET));
	ASSERT_EQ(0, text_read(&again, c_fd));
	close(c_fd);
	close(rust_fd);

	ASSERT_TRUE(text_same("C", &c, "C again", &again))
		TH_LOG("the target was not quiet");
	EXPECT_TRUE(text_same("C", &c, "Rust", text));
	text_free(&c);
	text_free(&again);
}

static void expect_text(struct __test_metadata *_metadata,
			const struct text *text, const char *what)
{
	EXPECT_TRUE(text_has(text, what))
		TH_LOG("not in the text: %s", what);
}

TEST_F_TIMEOUT(maps_diff, process, TIMEOUT)
{
	pid_t pid = self->target.pid;

	compare(_metadata, &self->text, maps_open(pid, MAPS_C),
		maps_open(pid, MAPS_RUST));
	EXPECT_LE(variant->min_lines, text_lines(&self->text));
	EXPECT_LE(variant->min_bytes, self->text.len);
	for (int i = 0; variant->expect[i]; i++)
		expect_text(_metadata, &self->text, variant->expect[i]);
}

TEST_F_TIMEOUT(maps_diff, second_thread, TIMEOUT)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/maps", self->target.pid,
		 *shared_tid);
	compare(_metadata, &self->text,
		maps_open_at(AT_FDCWD, path, O_RDONLY, MAPS_C),
		maps_open_at(AT_FDCWD, path, O_RDONLY, MAPS_RUST));
}

/* Paths are shown as seen from the reader's root, not the opener's. */
TEST_F_TIMEOUT(maps_diff, from_inside, TIMEOUT)
{
	pid_t pid = self->target.pid;
	int c = maps_open(pid, MAPS_C);
	int rust = maps_open(pid, MAPS_RUST);
	char path[64];
	int ns, root;

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
	ns = open(path, O_RDONLY);
	ASSERT_LE(0, ns);
	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	root = open(path, O_PATH | O_DIRECTORY);
	ASSERT_LE(0, root);
	ASSERT_EQ(0, setns(ns, CLONE_NEWNS));
	ASSERT_EQ(0, fchdir(root));
	ASSERT_EQ(0, chroot("."));

	compare(_metadata, &self->text, c, rust);
	if (variant->inside)
		expect_text(_metadata, &self->text, variant->inside);
}

static const char gate[] =
	"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

/* The page that is in no mm comes last */
TEST(vsyscall)
{
	const size_t len = strlen(gate);
	struct target target = {};
	const char *cannot = maps_cannot_test();
	struct text text = {};

	if (cannot)
		SKIP(return, "%s", cannot);
	ASSERT_EQ(0, target_start(&target, NULL, NULL, NULL));
	compare(_metadata, &text, maps_open(target.pid, MAPS_C),
		maps_open(target.pid, MAPS_RUST));
	target_stop(&target);
	if (!text_has(&text, "[vsyscall]"))
		SKIP(return, "no vsyscall page in this boot");
	ASSERT_LT(len, text.len);
	EXPECT_EQ(0, memcmp(gate, text.data + text.len - len, len));
	text_free(&text);
}

static int build_proc_mount(const void *arg)
{
	return mount("none", "/tmp", "proc", 0, NULL) ? errno : 0;
}

/* A process in its own PID namespace, seen from outside and from inside */
TEST(pid_namespace)
{
	static const char *const inside = "/tmp/1/maps";
	struct text seen[2] = {};
	struct target target = {};
	const char *cannot = maps_cannot_test();
	int err;

	if (cannot)
		SKIP(return, "%s", cannot);
	err = private_tmp();
	if (err)
		SKIP(return, "private /tmp: %s", strerror(err));
	if (unshare(CLONE_NEWPID))
		SKIP(return, "PID namespace: %s", strerror(errno));
	/* its /tmp shows the namespace in which it is process 1 */
	ASSERT_EQ(0, target_start(&target, build_proc_mount, NULL, NULL));

	compare(_metadata, &seen[0], maps_open(target.pid, MAPS_C),
		maps_open(target.pid, MAPS_RUST));
	compare(_metadata, &seen[1],
		maps_open_at(AT_FDCWD, inside, O_RDONLY, MAPS_C),
		maps_open_at(AT_FDCWD, inside, O_RDONLY, MAPS_RUST));
	target_stop(&target);
	EXPECT_LT(10, text_lines(&seen[0]));
	EXPECT_TRUE(text_same("outside", &seen[0], "inside", &seen[1]));
	text_free(&seen[0]);
	text_free(&seen[1]);
}

/* A process that reads about itself */
TEST(self)
{
	static const char *const paths[] = {
		"/proc/self/maps", "/proc/thread-self/maps",
	};
	static char buf[2][1 << 16];
	const char *cannot = maps_cannot_test();
	ssize_t n, len[2];

	if (cannot)
		SKIP(return, "%s", cannot);
	/* nothing is allocated between the two, so nothing of it changes */
	memset(buf, 1, sizeof(buf));
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
			int fd = maps_open_at(AT_FDCWD, paths[i], O_RDONLY, impl);

			ASSERT_LE(0, fd);
			len[impl] = 0;
			while ((n = read(fd, buf[impl] + len[impl],
					 sizeof(buf[0]) - len[impl])) > 0)
				len[impl] += n;
			ASSERT_EQ(0, n);
			close(fd);
		}
		ASSERT_LT(100, len[MAPS_C]);
		EXPECT_EQ(len[MAPS_C], len[MAPS_RUST]);
		EXPECT_EQ(0, memcmp(buf[MAPS_C], buf[MAPS_RUST], len[MAPS_C]));
	}
}

TEST_HARNESS_MAIN
