// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/PID/maps, smaps, smaps_rollup and numa_maps have to read the same, byte
 * for byte, whether the C or the Rust code serves them. A target process builds
 * an address space of some kind, then sleeps while both are read and compared.
 * Each layout also says what has to stand in maps, so that nothing is compared
 * that is not there. proc-smaps-diff has the layouts that matter for what the
 * other files say about pages.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include "proc-smaps-diff.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif

#define MANY		65000
#define THOUSANDS	2000

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
	return map_many(maps_count(MANY));
}

static int build_thousands(void)
{
	return map_many(THOUSANDS);
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

FIXTURE(maps_diff)
{
	struct target target;
	struct text text[MAPS_FILES];
	long huge_pages;
};

FIXTURE_VARIANT(maps_diff)
{
	int (*build)(void);
	const char *expect[20];
	const char *inside;	/* what a reader in the target's root has to see */
	int many;		/* mappings from SPOT on, if there are to be many */
	size_t min_lines;
	size_t min_bytes;
	int huge_pages;
	bool no_smaps;
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
	},
	.many = MANY,
	/* that would be 60 MB of text; `thousands` has enough of it */
	.no_smaps = true,
};

FIXTURE_VARIANT_ADD(maps_diff, thousands) {
	.build = build_thousands,
	.expect = {
		"50000000-50001000 ---p ", "50001000-50002000 r--p ",
		"507cf000-507d0000 r--p ",
	},
	.min_lines = THOUSANDS,
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

static void clean_up(struct target *target, long huge_pages)
{
	target_stop(target);
	if (huge_pages >= 0)
		number_file(HUGE_PAGES, huge_pages);
}

FIXTURE_SETUP(maps_diff)
{
	const struct layout layout = { .build = variant->build };
	const char *cannot = maps_cannot_test() ?: private_tmp();
	int err;

	if (cannot)
		SKIP(return, "%s", cannot);

	self->huge_pages = -1;
	if (variant->huge_pages) {
		self->huge_pages = number_file(HUGE_PAGES, -1);
		if (self->huge_pages < 0)
			SKIP(return, "no " HUGE_PAGES);
		number_file(HUGE_PAGES, self->huge_pages + variant->huge_pages);
	}

	err = target_of_threads(&self->target, &layout);
	/* there is no teardown where the setup does not succeed */
	if (err)
		clean_up(&self->target, self->huge_pages);
	if (err < 0)
		SKIP(return, "this kernel cannot: %s", strerror(-err));
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(maps_diff)
{
	clean_up(&self->target, self->huge_pages);
	for (int file = 0; file < MAPS_FILES; file++)
		text_free(&self->text[file]);
}

TEST_F_TIMEOUT(maps_diff, process, TIMEOUT)
{
	char dir[64];

	snprintf(dir, sizeof(dir), "/proc/%d", self->target.pid);
	for (int file = 0; file < MAPS_FILES; file++) {
		if (!(file == SMAPS && variant->no_smaps))
			compare_file(_metadata, dir, file, &self->text[file]);
	}
	EXPECT_LE(variant->min_lines, text_lines(&self->text[MAPS]));
	if (variant->many) {
		unsigned long end = SPOT + maps_count(variant->many) * PAGE;
		char last[64];

		snprintf(last, sizeof(last), "%lx-%lx r--p ", end - PAGE, end);
		expect_text(_metadata, &self->text[MAPS], last);
		EXPECT_LT(maps_count(variant->many), text_lines(&self->text[MAPS]));
	}
	EXPECT_LE(variant->min_bytes, self->text[MAPS].len);
	for (int i = 0; variant->expect[i]; i++) {
		expect_text(_metadata, &self->text[MAPS], variant->expect[i]);
		/* it has the lines of maps */
		if (self->text[SMAPS].len)
			expect_text(_metadata, &self->text[SMAPS],
				    variant->expect[i]);
	}
}

TEST_F_TIMEOUT(maps_diff, second_thread, TIMEOUT)
{
	char dir[64];

	snprintf(dir, sizeof(dir), "/proc/%d/task/%d", self->target.pid,
		 *second_tid);
	for (int file = 0; file < MAPS_FILES; file++) {
		if (!(file == SMAPS && variant->no_smaps))
			compare_file(_metadata, dir, file, &self->text[file]);
	}
}

/* Paths are shown as seen from the reader's root, not the opener's. */
TEST_F_TIMEOUT(maps_diff, from_inside, TIMEOUT)
{
	struct maps_pair pair[MAPS_FILES];
	pid_t pid = self->target.pid;
	bool built[MAPS_FILES];
	char path[64];
	int ns, root;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	for (int file = 0; file < MAPS_FILES; file++)
		built[file] = !(file == SMAPS && variant->no_smaps) &&
			      pair_open(_metadata, &pair[file], path, file);

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
	ns = open(path, O_RDONLY);
	ASSERT_LE(0, ns);
	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	root = open(path, O_PATH | O_DIRECTORY);
	ASSERT_LE(0, root);
	ASSERT_EQ(0, setns(ns, CLONE_NEWNS));
	ASSERT_EQ(0, fchdir(root));
	ASSERT_EQ(0, chroot("."));

	for (int file = 0; file < MAPS_FILES; file++) {
		if (!built[file])
			continue;
		pair_compare(_metadata, &pair[file], &self->text[file]);
		if (variant->inside && (file == MAPS || file == SMAPS))
			expect_text(_metadata, &self->text[file],
				    variant->inside);
	}
}

static const char gate[] =
	"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

static bool ends_with(const struct text *text, const char *what)
{
	const size_t len = strlen(what);

	return text->len >= len &&
	       !memcmp(text->data + text->len - len, what, len);
}

/* The page that is in no mm comes last in the files that have it */
TEST(vsyscall)
{
	struct target target = {};
	const char *cannot = maps_cannot_test();
	struct text text[MAPS_FILES] = {};
	bool built[MAPS_FILES];
	char dir[64];

	if (cannot)
		SKIP(return, "%s", cannot);
	ASSERT_EQ(0, target_start(&target, NULL, NULL, NULL));
	snprintf(dir, sizeof(dir), "/proc/%d", target.pid);
	for (int file = 0; file < MAPS_FILES; file++)
		built[file] = compare_file(_metadata, dir, file, &text[file]);
	target_stop(&target);
	if (!text_has(&text[MAPS], "[vsyscall]"))
		SKIP(return, "no vsyscall page in this boot");

	ASSERT_LT(strlen(gate), text[MAPS].len);
	EXPECT_TRUE(ends_with(&text[MAPS], gate));
	if (built[SMAPS]) {
		expect_text(_metadata, &text[SMAPS], gate);
		EXPECT_TRUE(ends_with(&text[SMAPS], "VmFlags: ex\x20\n"));
	}
	if (built[SMAPS_ROLLUP])
		EXPECT_FALSE(text_has(&text[SMAPS_ROLLUP], "ffffffffff60"));
	if (built[NUMA_MAPS])
		EXPECT_FALSE(text_has(&text[NUMA_MAPS], "ffffffffff60"));
	for (int file = 0; file < MAPS_FILES; file++)
		text_free(&text[file]);
}

static int build_proc_mount(const void *arg)
{
	return mount("none", "/tmp", "proc", 0, NULL) ? errno : 0;
}

/* A process in its own PID namespace, seen from outside and from inside */
TEST(pid_namespace)
{
	struct text seen[2] = {};
	struct target target = {};
	const char *cannot = maps_cannot_test() ?: private_tmp();
	char dir[64];

	if (cannot)
		SKIP(return, "%s", cannot);
	if (unshare(CLONE_NEWPID))
		SKIP(return, "PID namespace: %s", strerror(errno));
	/* its /tmp shows the namespace in which it is process 1 */
	ASSERT_EQ(0, target_start(&target, build_proc_mount, NULL, NULL));

	snprintf(dir, sizeof(dir), "/proc/%d", target.pid);
	/* maps comes last and stays in `seen` */
	for (int file = MAPS_FILES - 1; file >= 0; file--) {
		compare_file(_metadata, dir, file, &seen[0]);
		compare_file(_metadata, "/tmp/1", file, &seen[1]);
	}
	target_stop(&target);
	EXPECT_LT(10, text_lines(&seen[0]));
	EXPECT_TRUE(text_same("outside", &seen[0], "inside", &seen[1]));
	text_free(&seen[0]);
	text_free(&seen[1]);
}

/*
 * Reads until the end into @buf, which has been touched, so that nothing of
 * this process changes on the way. Its length or -1
 */
static ssize_t read_whole(int fd, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n;

	if (lseek(fd, 0, SEEK_SET))
		return -1;
	while ((n = read(fd, buf + len, size - len)) > 0)
		len += n;
	return n ? -1 : (ssize_t)len;
}

/* A process that reads about itself */
TEST(self)
{
	static const char *const dirs[] = { "/proc/self", "/proc/thread-self" };
	static char buf[3][1 << 16];
	const char *cannot = maps_cannot_test();

	if (cannot)
		SKIP(return, "%s", cannot);
	memset(buf, 1, sizeof(buf));
	for (size_t i = 0; i < ARRAY_SIZE(dirs) * MAPS_FILES; i++) {
		struct maps_pair pair;
		ssize_t len[3];
		int tries = 0;

		if (!pair_open(_metadata, &pair, dirs[i / MAPS_FILES],
			       i % MAPS_FILES))
			continue;
		/* the first time faults in what the next ones find there */
		do {
			ASSERT_GT(QUIET_TRIES, tries++)
				TH_LOG("C differs from C");
			len[0] = read_whole(pair.fd[MAPS_C], buf[0], sizeof(buf[0]));
			len[1] = read_whole(pair.fd[MAPS_RUST], buf[1], sizeof(buf[1]));
			len[2] = read_whole(pair.fd[MAPS_C], buf[2], sizeof(buf[2]));
			ASSERT_LT(0, len[0]);
		} while (len[0] != len[2] || memcmp(buf[0], buf[2], len[0]));
		close(pair.fd[MAPS_C]);
		close(pair.fd[MAPS_RUST]);
		ASSERT_LT(100, len[0]);
		ASSERT_LT(len[0], sizeof(buf[0]));
		EXPECT_EQ(len[0], len[1]);
		EXPECT_EQ(0, memcmp(buf[0], buf[1], len[0]));
	}
}

TEST_HARNESS_MAIN
