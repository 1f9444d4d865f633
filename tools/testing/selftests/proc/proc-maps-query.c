// SPDX-License-Identifier: GPL-2.0
/*
 * PROCMAP_QUERY on a descriptor that the C code serves and on one that the Rust
 * code serves: for the same argument both have to give the same result and
 * errno and to write the same bytes. Where the outcome can be told from the
 * text of /proc/PID/maps, or is documented, it also has to be that.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <elf.h>
#include <poll.h>
#include <pthread.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "proc-maps.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif

#define TIMEOUT		600	/* seconds for each test */

/* PROC_MAPS_QUERY_SEED and PROC_MAPS_QUERY_CALLS in the environment replace them */
#define FUZZ_SEED	20250923UL
#define FUZZ_CALLS	500000UL	/* on each descriptor */
#define FUZZ_SECONDS	120	/* which is enough, unless a number was asked for */

#define FLAGS		0x3fU	/* all there are */
#define PERMISSIONS	(PROCMAP_QUERY_VMA_READABLE | PROCMAP_QUERY_VMA_WRITABLE | \
			 PROCMAP_QUERY_VMA_EXECUTABLE | PROCMAP_QUERY_VMA_SHARED)
#define COVERING	0
#define NEXT		PROCMAP_QUERY_COVERING_OR_NEXT_VMA
#define FILE_BACKED	PROCMAP_QUERY_FILE_BACKED_VMA

#define GATE		0xffffffffff600000UL

/*
 * The memory that arguments and buffers are in, with nothing mapped around
 * each part of it. What is read-only there can be written through an alias.
 */
#define RW_SIZE		(3 * PAGE)

static struct {
	char *rw;
	char *rw_end;
	char *ro;
	char *ro_end;
	char *ro_alias;
	char *hole;
} arena;

static char rw_before[RW_SIZE], rw_after_c[RW_SIZE];

static void arena_make(void)
{
	int fd = memfd_create("arena", MFD_CLOEXEC);
	char *all = mmap(NULL, RW_SIZE + 4 * PAGE, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (fd < 0 || ftruncate(fd, PAGE) || all == MAP_FAILED)
		maps_die("arena");
	arena.rw = all + PAGE;
	arena.rw_end = arena.rw + RW_SIZE;
	arena.hole = arena.rw_end;
	arena.ro = arena.hole + PAGE;
	arena.ro_end = arena.ro + PAGE;
	arena.ro_alias = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (arena.ro_alias == MAP_FAILED ||
	    mprotect(arena.rw, RW_SIZE, PROT_READ | PROT_WRITE) ||
	    mmap(arena.ro, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		maps_die("arena");
	close(fd);
	memset(arena.rw, 0xa5, RW_SIZE);
	memset(arena.ro_alias, 0xa5, PAGE);
}

/* As much of it as there is memory for; NULL for zeroes */
static void arena_put(char *to, const void *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char byte = data ? ((const char *)data)[i] : 0;

		if (to + i >= arena.rw && to + i < arena.rw_end)
			to[i] = byte;
		else if (to + i >= arena.ro && to + i < arena.ro_end)
			arena.ro_alias[to + i - arena.ro] = byte;
		else if (i && !((unsigned long)(to + i) % PAGE))
			break;
	}
}

/* A descriptor of each kind for the same file */
struct pair {
	int fd[2];
	int result[2];	/* 0 or an errno */
};

static void pair_open(struct __test_metadata *_metadata, struct pair *pair, pid_t pid)
{
	for (int i = MAPS_C; i <= MAPS_RUST; i++) {
		pair->fd[i] = maps_open(pid, i);
		ASSERT_LE(0, pair->fd[i]);
	}
}

static void pair_close(struct pair *pair)
{
	close(pair->fd[MAPS_C]);
	close(pair->fd[MAPS_RUST]);
}

static int call(int fd, unsigned long cmd, const void *arg)
{
	int ret = ioctl(fd, cmd, arg);

	/* nothing but 0 is a success */
	return ret < 0 ? errno : ret ? -ret : 0;
}

/*
 * Make the call with both, each finding the same memory. True where all that
 * they did was the same; what Rust wrote is still there then.
 */
static bool call_both(struct pair *pair, unsigned long cmd, const void *arg)
{
	memcpy(rw_before, arena.rw, RW_SIZE);
	pair->result[MAPS_C] = call(pair->fd[MAPS_C], cmd, arg);
	memcpy(rw_after_c, arena.rw, RW_SIZE);
	memcpy(arena.rw, rw_before, RW_SIZE);
	pair->result[MAPS_RUST] = call(pair->fd[MAPS_RUST], cmd, arg);
	return pair->result[MAPS_C] == pair->result[MAPS_RUST] &&
	       !memcmp(rw_after_c, arena.rw, RW_SIZE);
}

static void print_query(const char *what, const void *at)
{
	struct procmap_query q;

	memcpy(&q, at, sizeof(q));
	fprintf(stderr, "# %s: size %#llx flags %#llx addr %#llx",
		what, q.size, q.query_flags, q.query_addr);
	fprintf(stderr, " name %#x at %#llx build ID %#x at %#llx\n",
		q.vma_name_size, q.vma_name_addr, q.build_id_size, q.build_id_addr);
	fprintf(stderr, "#   vma %#llx-%#llx flags %#llx page size %#llx",
		q.vma_start, q.vma_end, q.vma_flags, q.vma_page_size);
	fprintf(stderr, " offset %#llx dev %u:%u inode %llu\n",
		q.vma_offset, q.dev_major, q.dev_minor, q.inode);
}

static void print_difference(const struct pair *pair, const void *arg)
{
	const char *at = arg;

	fprintf(stderr, "# argument at %p, memory %p-%p, read-only %p-%p\n",
		arg, arena.rw, arena.rw_end, arena.ro, arena.ro_end);
	if (at >= arena.rw && at + sizeof(struct procmap_query) <= arena.rw_end) {
		print_query("before", rw_before + (at - arena.rw));
		print_query("C", rw_after_c + (at - arena.rw));
		print_query("Rust", at);
	} else if (at >= arena.ro && at + sizeof(struct procmap_query) <= arena.ro_end) {
		print_query("read-only", at);
	}
	fprintf(stderr, "# C gave %s, Rust %s\n",
		strerrorname_np(pair->result[MAPS_C]) ?: "an odd result",
		strerrorname_np(pair->result[MAPS_RUST]) ?: "an odd result");
	for (size_t i = 0; i < RW_SIZE; i++) {
		if (rw_after_c[i] == arena.rw[i])
			continue;
		fprintf(stderr, "# byte %#zx: before %#x, C %#x, Rust %#x\n", i,
			(unsigned char)rw_before[i], (unsigned char)rw_after_c[i],
			(unsigned char)arena.rw[i]);
		break;
	}
}

/* The target's mappings, as the text of its maps file has them */
struct mapping {
	unsigned long start;
	unsigned long end;
	unsigned long offset;
	unsigned long inode;
	unsigned int major;
	unsigned int minor;
	unsigned int flags;
	unsigned int page_size;
	size_t name_size;	/* with the final zero; none without a name */
	char *name;
	int build_id_size;	/* -1: not known */
};

#define MAPPINGS	256
#define LONG_NAME	(3 * PATH_MAX)

struct model {
	size_t count;
	struct mapping map[MAPPINGS];
	size_t fixed;	/* how many of the addresses do not come from mappings */
	size_t addresses;
	unsigned long address[8 * MAPPINGS];
};

static void model_free(struct model *model)
{
	for (size_t i = 0; i < model->count; i++)
		free(model->map[i].name);
	memset(model, 0, sizeof(*model));
}

#define BUILD_ID_FILE	"/build-id-"	/* and how many bytes it has */

static void parse_line(struct __test_metadata *_metadata, struct mapping *map,
		       const char *line, size_t len)
{
	static const char letters[] = "rwx";
	int name = 0, fields;
	char perm[5], *id;

	fields = sscanf(line, "%lx-%lx %4s %lx %x:%x %lu%n", &map->start,
			&map->end, perm, &map->offset, &map->major,
			&map->minor, &map->inode, &name);
	ASSERT_EQ(7, fields);
	for (int i = 0; i < 3; i++) {
		if (perm[i] == letters[i])
			map->flags |= 1 << i;
	}
	if (perm[3] == 's')
		map->flags |= PROCMAP_QUERY_VMA_SHARED;

	map->name = malloc(len);
	ASSERT_NE(NULL, map->name);
	while (name < len && line[name] == ' ')
		name++;
	while (name < len) {
		if (len - name >= 4 && !memcmp(line + name, "\\012", 4)) {
			map->name[map->name_size++] = '\n';
			name += 4;
		} else {
			map->name[map->name_size++] = line[name++];
		}
	}
	if (map->name_size)
		map->name[map->name_size++] = '\0';
	else
		map->name[0] = '\0';
	map->page_size = strncmp(map->name, "/anon_hugepage", 14) ? PAGE : 2 << 20;

	id = strstr(map->name, BUILD_ID_FILE);
	map->build_id_size = id ? atoi(id + strlen(BUILD_ID_FILE)) :
			     map->inode && !strstr(map->name, "/tmp/") ? -1 : 0;
}

static void add_address(struct model *model, unsigned long address)
{
	/* neighbours have some in common */
	for (size_t i = model->addresses; i > 0 && i + 16 > model->addresses; i--) {
		if (model->address[i - 1] == address)
			return;
	}
	if (model->addresses < ARRAY_SIZE(model->address))
		model->address[model->addresses++] = address;
}

/* Returns what the file says of @target, and addresses worth a query. */
static void model_make(struct __test_metadata *_metadata, struct model *model,
		       const struct target *target)
{
	static const unsigned long others[] = {
		0, 1, PAGE - 1, PAGE, 0xfff1234567UL,
		/* where user space ends, with four and with five levels */
		(1UL << 47) - PAGE - 1, (1UL << 47) - PAGE, (1UL << 47) - PAGE + 1,
		(1UL << 47) - 1, 1UL << 47, (1UL << 47) + 1, (1UL << 48) - 1, 1UL << 48,
		(1UL << 56) - PAGE - 1, (1UL << 56) - PAGE, (1UL << 56) - 1,
		1UL << 56, (1UL << 57) - 1, 1UL << 57,
		0xffff000000000000UL, LONG_MAX, 1UL << 63, (1UL << 63) + 1,
		GATE - PAGE, GATE - 1, GATE, GATE + 1, GATE + PAGE - 1, GATE + PAGE,
		-PAGE - 1, -PAGE, -PAGE + 1, -2UL, -1UL,
	};
	struct text text = {};
	int fd = maps_open(target->pid, MAPS_C);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, text_read(&text, fd));
	close(fd);
	text_append(&text, "", 1);

	model_free(model);
	for (char *line = text.data, *nl; (nl = strchr(line, '\n')); line = nl + 1) {
		struct mapping *map = &model->map[model->count];

		*nl = '\0';
		/* the gate is in the file, but no query finds it */
		if (strstr(line, "[vsyscall]"))
			continue;
		parse_line(_metadata, map, line, nl - line);
		model->count++;
		ASSERT_GT(MAPPINGS, model->count);
	}
	text_free(&text);

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		add_address(model, others[i]);
	model->fixed = model->addresses;
	for (size_t i = 0; i < model->count; i++) {
		const struct mapping *map = &model->map[i];
		unsigned long gap = i + 1 < model->count ? map[1].start - map->end : PAGE;

		add_address(model, map->start - 1);
		add_address(model, map->start);
		add_address(model, map->start + (map->end - map->start) / 2 + 3);
		add_address(model, map->end - 1);
		add_address(model, map->end);
		if (gap)
			add_address(model, map->end + gap / 2);
	}
	ASSERT_GT(ARRAY_SIZE(model->address), model->addresses);
}

/* What a query has to find, NULL for nothing */
static const struct mapping *model_find(const struct model *model,
					unsigned long address, unsigned int flags)
{
	for (size_t i = 0; i < model->count; i++) {
		const struct mapping *map = &model->map[i];
		unsigned int wanted = flags & PERMISSIONS;

		if (map->end <= address)
			continue;
		if (!(flags & NEXT) && map->start > address)
			return NULL;
		if ((map->flags & wanted) == wanted &&
		    (map->inode || !(flags & FILE_BACKED)))
			return map;
		if (!(flags & NEXT))
			return NULL;
	}
	return NULL;
}

/* An ELF file that is a note with a build ID of that many bytes */
static int make_elf(const char *folder, int id_size)
{
	struct {
		struct {
			unsigned char ident[EI_NIDENT];
			u_int16_t type, machine;
			u_int32_t version;
			u_int64_t entry, phoff, shoff;
			u_int32_t flags;
			u_int16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
		} header;
		struct {
			u_int32_t type, flags;
			u_int64_t offset, vaddr, paddr, filesz, memsz, align;
		} segment;
		struct {
			u_int32_t namesz, descsz, type;
			char name[4];
			unsigned char id[20];
		} note;
	} elf = {
		.header = {
			.ident = {
				ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3,
				ELFCLASS64, ELFDATA2LSB, EV_CURRENT,
			},
			.type = ET_DYN,
			.version = EV_CURRENT,
			.ehsize = sizeof(elf.header),
			.phoff = offsetof(typeof(elf), segment),
			.phentsize = sizeof(elf.segment),
			.phnum = 1,
		},
		.segment = {
			.type = PT_NOTE,
			.offset = offsetof(typeof(elf), note),
			/* a note is aligned */
			.filesz = 16 + (id_size + 3) / 4 * 4,
			.align = 4,
		},
		.note = { 4, id_size, NT_GNU_BUILD_ID, "GNU" },
	};
	char path[64];
	int fd, err;

	for (int i = 0; i < id_size; i++)
		elf.note.id[i] = 0xd0 + i;
	snprintf(path, sizeof(path), "%s" BUILD_ID_FILE "%d", folder, id_size);
	fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);
	if (fd < 0)
		return errno;
	err = write(fd, &elf, sizeof(elf)) != sizeof(elf) || ftruncate(fd, 3 * PAGE) ?
	      errno : 0;
	close(fd);
	return err;
}

static char *cursor = (char *)SPOT;

/* The next mapping, @gap pages above the one before */
static char *place(size_t gap, size_t pages, int prot, int flags, int fd, off_t off)
{
	char *at = cursor + gap * PAGE, *got;

	got = mmap(at, pages * PAGE, prot, flags | MAP_FIXED_NOREPLACE, fd, off);
	if (got != MAP_FAILED)
		cursor = at + pages * PAGE;
	return got == MAP_FAILED ? NULL : got;
}

static void name_memory(char *at, size_t pages, const char *name)
{
	/* not every kernel has names */
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, pages * PAGE, name);
}

static int open_new(const char *path)
{
	int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 && ftruncate(fd, 16 * PAGE))
		maps_die(path);
	return fd;
}

static bool place_file(const char *path, int open_flags, int prot, int flags, off_t off)
{
	int fd = open(path, open_flags | O_CLOEXEC);
	bool good = fd >= 0 && place(1, 2, prot, flags, fd, off);

	close(fd);
	return good;
}

#define OVERLAY		"/tmp/merged"

#define R	PROT_READ
#define RW	(PROT_READ | PROT_WRITE)
#define RX	(PROT_READ | PROT_EXEC)

static int build_mappings(const void *arg)
{
	const int private = MAP_PRIVATE | MAP_ANONYMOUS;
	const int shared = MAP_SHARED | MAP_ANONYMOUS;
	const bool overlay = *(const bool *)arg;
	char long_name[80] = {};
	bool good = true;
	char *at;
	int fd;

	memset(long_name, '%', sizeof(long_name) - 1);
	for (int prot = 0; prot < 8; prot++) {
		good &= !!place(prot, 1 + prot, prot, private, -1, 0);
		good &= !!place(1, 1, prot, shared, -1, 0);
	}
	/* no gap between these */
	good &= place(512, 1, R, private, -1, 0) && place(0, 1, RW, private, -1, 0) &&
		place(0, 1, PROT_NONE, private, -1, 0) && place(0, 2, R, shared, -1, 0);

	at = place(3, 2, RW, private, -1, 0);
	name_memory(at, 2, "two words");
	at = place(0, 1, RW, private, -1, 0);
	name_memory(at, 1, long_name);
	at = place(1, 4, RW, shared, -1, 0);
	name_memory(at + PAGE, 2, "%s%n of shmem");
	good &= !!place(300, 4, RW, private | MAP_GROWSDOWN, -1, 0);

	fd = open_new("/tmp/a file");
	good &= fd >= 0;
	close(fd);
	for (int prot = 0; prot < 8; prot++)
		good &= place_file("/tmp/a file", O_RDWR, prot, MAP_PRIVATE, 0) &&
			place_file("/tmp/a file", O_RDWR, prot, MAP_SHARED, 4 * PAGE);
	/* one that may never become writable is still a shared one */
	good &= place_file("/tmp/a file", O_RDONLY, R, MAP_SHARED, 0) &&
		place_file("/tmp/a file", O_RDONLY, RX, MAP_PRIVATE, 1L << 43) &&
		place_file("/dev/zero", O_RDWR, RW, MAP_PRIVATE, 0) &&
		place_file("/dev/zero", O_RDWR, RW, MAP_SHARED, 0);
	for (int size = 1; size <= 20; size += 19) {
		char path[64];

		good &= !make_elf("/tmp", size);
		snprintf(path, sizeof(path), "/tmp" BUILD_ID_FILE "%d", size);
		good &= place_file(path, O_RDONLY, RX, MAP_PRIVATE, 0) &&
			place_file(path, O_RDONLY, R, MAP_PRIVATE, PAGE);
	}
	if (overlay)
		good &= place_file(OVERLAY BUILD_ID_FILE "20", O_RDONLY, RX, MAP_PRIVATE, 0);

	fd = open_new("/tmp/new\nline");
	good &= place(2, 1, R, MAP_SHARED, fd, 0) && !unlink("/tmp/new\nline");
	close(fd);
	fd = memfd_create("memory file", MFD_CLOEXEC);
	good &= !ftruncate(fd, 4 * PAGE) && place(1, 1, R, MAP_PRIVATE, fd, PAGE) &&
		place(1, 2, RW, MAP_SHARED, fd, 0);
	close(fd);

	/* without any reservation there need not be huge pages for it */
	cursor = (char *)(((unsigned long)cursor + (2 << 20)) & -(2UL << 20));
	place(0, 1024, RW, private | MAP_HUGETLB | MAP_NORESERVE, -1, 0);
	place(512, 512, R, shared | MAP_HUGETLB | MAP_NORESERVE, -1, 0);

	/* a break of its own, and paths that are almost or really too long */
	good &= sbrk(3 * PAGE + 5) != (void *)-1;
	return good ? map_deep_file(15) ?: map_deep_file(20) : errno ?: EINVAL;
}

/* What the target can be told to do */
enum order {
	MAP_EDGES,
	CHURN,
	CLEAR,
};

/* Shared with the target: it churns until it is told to stop. */
static struct {
	bool stop;
	unsigned long rounds;
} *churn_state;

#define get(flag)		__atomic_load_n(&(flag), __ATOMIC_SEQ_CST)
#define set(flag, value)	__atomic_store_n(&(flag), value, __ATOMIC_SEQ_CST)

#define REGION		(SPOT + (1UL << 28))
#define REGION_PAGES	512UL

static unsigned long next_random(unsigned long *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int churn(void)
{
	static const int prots[] = { PROT_NONE, R, RW, RX };
	unsigned long state = 1;
	int fd = open_new("/tmp/churned"), err = fd < 0 ? errno : 0;

	while (!get(churn_state->stop) && !err) {
		unsigned long random = next_random(&state);
		size_t page = (random >> 8) % REGION_PAGES;
		size_t pages = 1 + (random >> 24) % 16;
		char *at = (char *)REGION + page * PAGE;
		int prot = prots[(random >> 40) % 4];

		if (pages > REGION_PAGES - page)
			pages = REGION_PAGES - page;
		switch (random % 4) {
		case 0:
			err = munmap(at, pages * PAGE) ? errno : 0;
			break;
		case 1:
			/* where there are gaps it stops at the first */
			mprotect(at, pages * PAGE, prot);
			break;
		case 2:
			if (mmap(at, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS |
				 MAP_FIXED, -1, 0) == MAP_FAILED)
				err = errno;
			break;
		case 3:
			if (mmap(at, pages * PAGE, prot, MAP_PRIVATE | MAP_FIXED,
				 fd, page % 8 * PAGE) == MAP_FAILED)
				err = errno;
			break;
		}
		churn_state->rounds++;
	}
	close(fd);
	return err;
}

static int serve(int order)
{
	static const unsigned long edges[] = {
		0, (1UL << 47) - 2 * PAGE, (1UL << 56) - 2 * PAGE,
	};
	int mapped = 0;
	pid_t pid;

	switch (order) {
	case MAP_EDGES:
		for (size_t i = 0; i < ARRAY_SIZE(edges); i++)
			mapped += mmap((void *)edges[i], PAGE, R,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
				       -1, 0) == (void *)edges[i];
		return mapped;
	case CHURN:
		return churn();
	case CLEAR:
		if (munmap((void *)REGION, REGION_PAGES * PAGE))
			return errno;
		/* takes the lock of each mapping that there is */
		pid = fork();
		if (!pid)
			_exit(0);
		return waitpid(pid, NULL, 0) == pid ? 0 : errno;
	}
	return -1;
}

static bool mount_overlay(void)
{
	return !mkdir("/tmp/lower", 0700) && !mkdir("/tmp/lowest", 0700) &&
	       !mkdir(OVERLAY, 0700) && !make_elf("/tmp/lower", 20) &&
	       !mount("overlay", OVERLAY, "overlay", 0,
		      "lowerdir=/tmp/lower:/tmp/lowest");
}

FIXTURE(maps_query)
{
	struct target target;
	struct pair pair;
};

static struct model model;

FIXTURE_SETUP(maps_query)
{
	const char *cannot = maps_cannot_test() ?: private_tmp();
	bool overlay;

	if (cannot)
		SKIP(return, "%s", cannot);
	overlay = mount_overlay();
	churn_state = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, churn_state);
	arena_make();
	ASSERT_EQ(0, target_start(&self->target, build_mappings, serve, &overlay));
	pair_open(_metadata, &self->pair, self->target.pid);
	model_make(_metadata, &model, &self->target);
	ASSERT_LT(50, model.count);
}

FIXTURE_TEARDOWN(maps_query)
{
	target_stop(&self->target);
	model_free(&model);
}

/* The same with both, and what is expected; else says all there is to say. */
static bool gives(struct pair *pair, unsigned long cmd, const void *arg, int expected)
{
	bool same = call_both(pair, cmd, arg);

	if (same && pair->result[MAPS_RUST] == expected)
		return true;
	print_difference(pair, arg);
	fprintf(stderr, "# expected %s\n", strerrorname_np(expected));
	return false;
}

/* Where a query is put that has nothing special about its place */
#define ARGUMENT	((struct procmap_query *)(arena.rw + 512))

/* Buffers end where the memory ends, unless they claim to be larger. */
static char *buffer_of(size_t size, char *end)
{
	return end - (size < PATH_MAX ? size : PATH_MAX);
}

/* One query, compared with the other implementation and with the model */
static void query_model(struct __test_metadata *_metadata, struct pair *pair,
			unsigned long address, unsigned int flags,
			u_int32_t name_size, u_int32_t id_size)
{
	const struct mapping *map = model_find(&model, address, flags);
	char *name = buffer_of(name_size, arena.rw_end);
	char *id = buffer_of(id_size, arena.rw_end - PATH_MAX - 64);
	struct procmap_query *q = ARGUMENT;
	int expected = map ? 0 : ENOENT;
	size_t room = name_size < PATH_MAX ? name_size : PATH_MAX;

	if (map && name_size && map->name_size > room)
		expected = ENAMETOOLONG;
	if (map && id_size && map->build_id_size > (int)id_size)
		expected = ENAMETOOLONG;

	memset(arena.rw_end - PATH_MAX - 64 - 64, 0xa5, 128 + 64);
	memset(name, 0xa5, room);
	memset(q, 0xa5, sizeof(*q));
	q->size = sizeof(*q);
	q->query_flags = flags;
	q->query_addr = address;
	q->vma_name_size = name_size;
	q->vma_name_addr = name_size ? (unsigned long)name : 0;
	q->build_id_size = id_size;
	q->build_id_addr = id_size ? (unsigned long)id : 0;
	if (map && map->build_id_size < 0 && id_size && expected != ENAMETOOLONG) {
		ASSERT_TRUE(call_both(pair, PROCMAP_QUERY, q))
			print_difference(pair, q);
		return;
	}
	ASSERT_TRUE(gives(pair, PROCMAP_QUERY, q, expected));
	if (expected)
		return;

	ASSERT_TRUE(q->vma_start == map->start && q->vma_end == map->end &&
		    q->vma_flags == map->flags && q->vma_offset == map->offset &&
		    q->inode == map->inode && q->dev_major == map->major &&
		    q->dev_minor == map->minor && q->vma_page_size == map->page_size)
		print_query(map->name, q);
	ASSERT_EQ(name_size ? map->name_size : 0, q->vma_name_size);
	ASSERT_EQ(0, memcmp(map->name, name, q->vma_name_size))
		TH_LOG("name \"%.*s\" instead of \"%s\"", q->vma_name_size, name, map->name);
	ASSERT_EQ(id_size ? map->build_id_size : 0, q->build_id_size);
	for (u_int32_t i = 0; i < q->build_id_size; i++) {
		ASSERT_EQ(0xd0 + i, (unsigned char)id[i])
			TH_LOG("byte %u of the build ID", i);
	}
}

/* Of what comes from the mappings take one in @step. */
static void query_addresses(struct __test_metadata *_metadata, struct pair *pair,
			    size_t step)
{
	static const u_int32_t id_sizes[] = { 0, 1, 19, 20, 64 };

	for (size_t i = 0; i < model.addresses; i += i < model.fixed ? 1 : step) {
		const unsigned long address = model.address[i];

		for (unsigned int flags = 0; flags <= FLAGS; flags++) {
			const struct mapping *map = model_find(&model, address, flags);
			const u_int32_t exact = map ? map->name_size : 0;
			const u_int32_t sizes[] = {
				0, 1, exact > 1 ? exact - 1 : 2, exact ?: 3,
				PATH_MAX, PATH_MAX + 1, UINT32_MAX,
			};

			query_model(_metadata, pair, address, flags, 0, 0);
			query_model(_metadata, pair, address, flags, PATH_MAX, 64);
			if (flags & ~NEXT)
				continue;
			for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
				for (size_t b = 0; b < ARRAY_SIZE(id_sizes); b++)
					query_model(_metadata, pair, address, flags,
						    sizes[s], id_sizes[b]);
			}
		}
		/* these are refused before there is a look at the address */
		for (int bit = 6; bit < 64 && i % 16 == 0; bit++) {
			struct procmap_query q = {
				.size = sizeof(q),
				.query_flags = 1UL << bit | NEXT,
				.query_addr = address,
			};

			memcpy(ARGUMENT, &q, sizeof(q));
			ASSERT_TRUE(gives(pair, PROCMAP_QUERY, ARGUMENT, EINVAL));
		}
	}
}

/* What has to be there, else the test would not be what it claims to be */
static void check_variety(struct __test_metadata *_metadata)
{
	unsigned int kinds = 0, gaps = 0, named = 0, too_long = 0, ids = 0;

	for (size_t i = 0; i < model.count; i++) {
		const struct mapping *map = &model.map[i];

		kinds |= 1 << (map->flags & PERMISSIONS);
		gaps += i && map->start != map[-1].end;
		named += map->name_size > 1 && map->name[0] == '[';
		too_long += map->name_size > PATH_MAX;
		ids += map->build_id_size > 0;
	}
	EXPECT_EQ(0xffff, kinds);
	EXPECT_LT(20, gaps);
	EXPECT_LT(2, named);
	EXPECT_EQ(1, too_long);
	EXPECT_LE(4, ids);
}

TEST_F_TIMEOUT(maps_query, flags_by_address, TIMEOUT)
{
	check_variety(_metadata);
	query_addresses(_metadata, &self->pair, 1);

	/* and with mappings where the address space begins and ends */
	if (target_do(&self->target, MAP_EDGES) > 0) {
		model_make(_metadata, &model, &self->target);
		query_addresses(_metadata, &self->pair, 13);
	} else {
		TH_LOG("no mapping at address 0, nor at the end");
	}
}

/* The same with a query at @at, as much of it as can be written there */
static bool query_gives(struct pair *pair, int expected, void *at,
			const struct procmap_query *q)
{
	arena_put(at, q, sizeof(*q));
	return gives(pair, PROCMAP_QUERY, at, expected);
}

static const struct procmap_query first_mapping = {
	.size = sizeof(first_mapping),
	.query_flags = NEXT,
};

/* Is what is behind a query as it was, in the memory that Rust left? */
static bool kept_behind(const char *from)
{
	return !memcmp(from, rw_before + (from - arena.rw), arena.rw_end - from);
}

static void try_sizes(struct __test_metadata *_metadata, struct pair *pair)
{
	const size_t least = offsetof(struct procmap_query, vma_start);
	struct procmap_query q = first_mapping;
	char *at = (char *)ARGUMENT;

	for (size_t size = 0; size <= sizeof(q) + 16; size++) {
		/* what the size leaves out is not looked at, whatever it is */
		memset(arena.rw, 0xa5, RW_SIZE);
		if (size > sizeof(q))
			arena_put(at + sizeof(q), NULL, size - sizeof(q));
		q.size = size;
		arena_put(at, &q, size < least ? least : size < sizeof(q) ? size : sizeof(q));
		EXPECT_TRUE(gives(pair, PROCMAP_QUERY, at, size < least ? EINVAL : 0))
			TH_LOG("size %zu", size);
		EXPECT_TRUE(kept_behind(at + (size < least ? 8 : size < sizeof(q) ?
						  size : sizeof(q))));
		/* buffers that the size cuts off may be there or not: both the same */
		arena_put(at, NULL, 2 * sizeof(q));
		q.vma_name_size = 100;
		q.vma_name_addr = (unsigned long)arena.rw + PAGE;
		q.build_id_size = 100;
		q.build_id_addr = (unsigned long)arena.rw + 2 * PAGE;
		arena_put(at, &q, sizeof(q));
		EXPECT_TRUE(call_both(pair, PROCMAP_QUERY, at))
			print_difference(pair, at);
		q = first_mapping;
		/* with anything but zeroes behind what the kernel knows */
		for (size_t i = sizeof(q); i < size; i++) {
			q.size = size;
			arena_put(at + sizeof(q), NULL, size - sizeof(q));
			at[i] = 1;
			EXPECT_TRUE(query_gives(pair, E2BIG, at, &q));
		}
		q = first_mapping;
	}

	arena_put(arena.rw, NULL, RW_SIZE);
	q.size = PAGE;
	EXPECT_TRUE(query_gives(pair, 0, arena.rw, &q));
	EXPECT_TRUE(query_gives(pair, 0, arena.rw_end - PAGE, &q));
	EXPECT_TRUE(query_gives(pair, EFAULT, arena.rw_end - PAGE + 8, &q));
	arena.rw[PAGE - 1] = 1;
	EXPECT_TRUE(query_gives(pair, E2BIG, arena.rw, &q));
	arena.rw[PAGE - 1] = 0;
	arena.rw[PAGE] = 1;
	EXPECT_TRUE(query_gives(pair, 0, arena.rw, &q));
	q.size = PAGE + 1;
	EXPECT_TRUE(query_gives(pair, E2BIG, arena.rw, &q));
	q.size = 2 * PAGE;
	EXPECT_TRUE(query_gives(pair, E2BIG, arena.rw, &q));
	q.size = 1UL << 32;
	EXPECT_TRUE(query_gives(pair, E2BIG, arena.rw, &q));
	q.size = (1UL << 32) + sizeof(q);
	EXPECT_TRUE(query_gives(pair, E2BIG, arena.rw, &q));
	q.size = ~0UL;
	EXPECT_TRUE(query_gives(pair, E2BIG, arena.rw, &q));
}

static const char *const nowhere[] = {
	NULL, (char *)8, (char *)-4095, (char *)-PAGE, (char *)0xffffffff81000000UL,
	(char *)0xffff888000000000UL, (char *)(1UL << 63), (char *)GATE,
	(char *)((1UL << 47) - PAGE), (char *)(1UL << 47), (char *)(1UL << 60),
};

static const struct mapping *find_named(const char *name)
{
	for (size_t i = 0; i < model.count; i++) {
		if (strstr(model.map[i].name, name))
			return &model.map[i];
	}
	return NULL;
}

static void try_places(struct __test_metadata *_metadata, struct pair *pair)
{
	const struct mapping *file = find_named("/tmp/a file");
	struct procmap_query q = first_mapping;

	ASSERT_NE(NULL, file);
	for (size_t i = 0; i < ARRAY_SIZE(nowhere); i++) {
		EXPECT_TRUE(gives(pair, PROCMAP_QUERY, nowhere[i], EFAULT))
			TH_LOG("argument at %p", nowhere[i]);
	}
	EXPECT_TRUE(gives(pair, PROCMAP_QUERY, arena.hole, EFAULT));
	EXPECT_TRUE(gives(pair, PROCMAP_QUERY, arena.rw - 4, EFAULT));

	/* unaligned, and running out of the memory */
	memset(arena.rw, 0xa5, RW_SIZE);
	for (size_t off = 1; off < 9; off++)
		EXPECT_TRUE(query_gives(pair, 0, arena.rw + off, &q));
	EXPECT_TRUE(query_gives(pair, 0, arena.rw_end - sizeof(q), &q));
	for (size_t left = 1; left < sizeof(q); left++) {
		char *at = arena.rw_end - left;

		EXPECT_TRUE(query_gives(pair, EFAULT, at, &q));
		if (left < 8)
			continue;
		q.size = 0;
		EXPECT_TRUE(query_gives(pair, EINVAL, at, &q));
		q.size = PAGE + 1;
		EXPECT_TRUE(query_gives(pair, E2BIG, at, &q));
		q.size = left;
		EXPECT_TRUE(query_gives(pair, left < 24 ? EINVAL : 0, at, &q));
		q.size = sizeof(q);
	}
	q.size = sizeof(q) + 8;
	arena_put(arena.rw_end - 4, NULL, 4);
	EXPECT_TRUE(query_gives(pair, EFAULT, arena.rw_end - sizeof(q) - 4, &q));

	/* where it can be read only */
	arena_put(arena.ro, NULL, PAGE);
	q = first_mapping;
	EXPECT_TRUE(query_gives(pair, EFAULT, arena.ro, &q));
	q.query_flags = 1 << 6;
	EXPECT_TRUE(query_gives(pair, EINVAL, arena.ro, &q));
	q.query_flags = 0;
	q.query_addr = -1;
	EXPECT_TRUE(query_gives(pair, ENOENT, arena.ro, &q));
	q = first_mapping;
	q.query_addr = file->start;
	q.vma_name_addr = (unsigned long)arena.rw;
	q.vma_name_size = PATH_MAX;
	EXPECT_TRUE(query_gives(pair, EFAULT, arena.ro, &q));
	/* the name is written before that is known */
	EXPECT_EQ(0, strcmp(file->name, arena.rw));
}

static void try_buffers(struct __test_metadata *_metadata, struct pair *pair)
{
	const struct mapping *file = find_named("/tmp" BUILD_ID_FILE "20");
	const struct mapping *anon = model_find(&model, SPOT, COVERING);
	struct procmap_query q = { .size = sizeof(q) };

	ASSERT_NE(NULL, file);
	ASSERT_NE(NULL, anon);
	ASSERT_EQ(0, anon->name_size);

	/* a size without an address and the other way */
	for (int i = 1; i < 16; i++) {
		bool consistent = !(i & 1) == !(i & 2) && !(i & 4) == !(i & 8);

		memset(&q, 0, sizeof(q));
		q.size = sizeof(q);
		q.query_addr = file->start;
		q.vma_name_size = i & 1 ? 100 : 0;
		q.vma_name_addr = i & 2 ? (unsigned long)arena.rw + PAGE : 0;
		q.build_id_size = i & 4 ? 100 : 0;
		q.build_id_addr = i & 8 ? (unsigned long)arena.rw + 2 * PAGE : 0;
		EXPECT_TRUE(query_gives(pair, consistent ? 0 : EINVAL, ARGUMENT, &q));
	}

	for (size_t i = 1; i < ARRAY_SIZE(nowhere) + 3; i++) {
		/* unmapped, read-only, or becoming one of them half way */
		const char *bad = i < ARRAY_SIZE(nowhere) ? nowhere[i] :
				  i == ARRAY_SIZE(nowhere) ? arena.hole :
				  i == ARRAY_SIZE(nowhere) + 1 ? arena.rw_end - 5 :
				  arena.ro;

		for (int id = 0; id < 2; id++) {
			memset(&q, 0, sizeof(q));
			q.size = sizeof(q);
			if (id) {
				q.build_id_addr = (unsigned long)bad;
				q.build_id_size = 20;
			} else {
				q.vma_name_addr = (unsigned long)bad;
				q.vma_name_size = 4 * PATH_MAX;
			}
			q.query_addr = file->start;
			EXPECT_TRUE(query_gives(pair, EFAULT, ARGUMENT, &q));
			/* with a good one for the other */
			if (id) {
				q.vma_name_addr = (unsigned long)arena.rw + PAGE;
				q.vma_name_size = PATH_MAX;
			} else {
				q.build_id_addr = (unsigned long)arena.rw + PAGE;
				q.build_id_size = 64;
			}
			EXPECT_TRUE(query_gives(pair, EFAULT, ARGUMENT, &q));
			/* a buffer that nothing is written to is not looked at */
			q.query_addr = anon->start;
			EXPECT_TRUE(query_gives(pair, 0, ARGUMENT, &q));
			EXPECT_EQ(0, ARGUMENT->vma_name_size);
			EXPECT_EQ(0, ARGUMENT->build_id_size);
			q.query_addr = -1;
			EXPECT_TRUE(query_gives(pair, ENOENT, ARGUMENT, &q));
			/* nor is one that is too small */
			q.query_addr = file->start;
			if (id)
				q.build_id_size = 19;
			else
				q.vma_name_size = 3;
			EXPECT_TRUE(query_gives(pair, ENAMETOOLONG, ARGUMENT, &q));
		}
	}

	/* buffers that are the argument itself, or one another */
	for (size_t off = 0; off < 2 * sizeof(q); off++) {
		memset(&q, 0, sizeof(q));
		q.size = sizeof(q);
		q.query_addr = file->start;
		q.vma_name_addr = (unsigned long)(ARGUMENT + 1) - off;
		q.vma_name_size = PATH_MAX;
		q.build_id_addr = q.vma_name_addr + off / 8;
		q.build_id_size = 20;
		EXPECT_TRUE(query_gives(pair, 0, ARGUMENT, &q));
	}
}

static void try_commands(struct __test_metadata *_metadata, struct pair *pair)
{
	for (int bit = 0; bit < 32; bit++) {
		memcpy(ARGUMENT, &first_mapping, sizeof(first_mapping));
		EXPECT_TRUE(gives(pair, PROCMAP_QUERY ^ 1U << bit, ARGUMENT, ENOTTY))
			TH_LOG("bit %d of the command", bit);
	}
	EXPECT_TRUE(gives(pair, 0, NULL, ENOTTY));
	EXPECT_TRUE(gives(pair, _IO('f', 17), NULL, ENOTTY));
}

/* Arguments are judged before there has to be an address space. */
static void try_without_mm(struct __test_metadata *_metadata, struct pair *pair)
{
	struct procmap_query q = first_mapping;

	memset(arena.rw, 0, RW_SIZE);
	EXPECT_TRUE(query_gives(pair, ESRCH, ARGUMENT, &q));
	EXPECT_TRUE(query_gives(pair, ESRCH, arena.ro, &q));
	q.vma_name_size = 1;
	q.vma_name_addr = -1;
	EXPECT_TRUE(query_gives(pair, ESRCH, ARGUMENT, &q));
	q.vma_name_addr = 0;
	EXPECT_TRUE(query_gives(pair, EINVAL, ARGUMENT, &q));
	q = first_mapping;
	q.size = 23;
	EXPECT_TRUE(query_gives(pair, EINVAL, ARGUMENT, &q));
	q.size = PAGE + 1;
	EXPECT_TRUE(query_gives(pair, E2BIG, ARGUMENT, &q));
	q.size = sizeof(q) + 1;
	((char *)(ARGUMENT + 1))[0] = 1;
	EXPECT_TRUE(query_gives(pair, E2BIG, ARGUMENT, &q));
	q.size = sizeof(q);
	q.query_flags = 1 << 6;
	EXPECT_TRUE(query_gives(pair, EINVAL, ARGUMENT, &q));
	EXPECT_TRUE(gives(pair, PROCMAP_QUERY, arena.hole, EFAULT));
	EXPECT_TRUE(gives(pair, PROCMAP_QUERY + 1, ARGUMENT, ENOTTY));
}

/* A process without the right to open the file queries by descriptors it has. */
static void try_as_other(struct __test_metadata *_metadata, struct pair *pair, pid_t of)
{
	struct procmap_query q = first_mapping;
	pid_t pid = fork();
	int status;

	ASSERT_LE(0, pid);
	if (!pid) {
		if (setgid(1) || setuid(1))
			_exit(2);
		if (maps_open(of, MAPS_RUST) >= 0 || errno != EACCES ||
		    maps_open(of, MAPS_C) >= 0 || errno != EACCES)
			_exit(3);
		q.vma_name_size = PATH_MAX;
		q.vma_name_addr = (unsigned long)arena.rw + PAGE;
		memcpy(ARGUMENT, &q, sizeof(q));
		_exit(!gives(pair, PROCMAP_QUERY, ARGUMENT, 0) ||
		      ARGUMENT->vma_start != model.map[0].start);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F_TIMEOUT(maps_query, sizes_and_errors, TIMEOUT)
{
	struct text status = {};
	struct target lost;
	struct pair pair;
	int fd;

	try_sizes(_metadata, &self->pair);
	try_places(_metadata, &self->pair);
	try_buffers(_metadata, &self->pair);
	try_commands(_metadata, &self->pair);
	try_as_other(_metadata, &self->pair, self->target.pid);

	ASSERT_EQ(0, target_start(&lost, NULL, serve, NULL));
	pair_open(_metadata, &pair, lost.pid);
	target_kill(&lost);
	try_without_mm(_metadata, &pair);
	pair_close(&pair);
	/* a zombie's can still be opened */
	pair_open(_metadata, &pair, lost.pid);
	try_without_mm(_metadata, &pair);
	target_stop(&lost);
	try_without_mm(_metadata, &pair);
	pair_close(&pair);

	fd = open("/proc/2/status", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && !text_read(&status, fd) && text_has(&status, "Kthread:\t1")) {
		pair_open(_metadata, &pair, 2);
		try_without_mm(_metadata, &pair);
		pair_close(&pair);
	} else {
		TH_LOG("process 2 is no kernel thread here");
	}
	text_free(&status);
	close(fd);
}

/*
 * Random arguments. What is most likely is a good one, with one thing or
 * another wrong.
 */
struct fuzz {
	unsigned long state;
	unsigned long cmd;
	char *arg;
};

static unsigned long below(struct fuzz *f, unsigned long limit)
{
	return (next_random(&f->state) >> 11) % limit;
}

static bool chance(struct fuzz *f, unsigned int percent)
{
	return below(f, 100) < percent;
}

static char *fuzz_pointer(struct fuzz *f)
{
	switch (below(f, 16)) {
	case 0:
		return arena.rw_end - below(f, 2 * sizeof(struct procmap_query));
	case 1:
		return arena.ro + below(f, PAGE);
	case 2:
		return arena.hole + below(f, PAGE);
	case 3:
		return (char *)nowhere[below(f, ARRAY_SIZE(nowhere))];
	case 4:
		return arena.rw - below(f, 32);
	case 5:
	case 6:
		/* on the argument, before or behind it */
		return f->arg - 64 + below(f, 64 + 2 * sizeof(struct procmap_query));
	default:
		return arena.rw + below(f, RW_SIZE);
	}
}

static unsigned int fuzz_buffer_size(struct fuzz *f)
{
	switch (below(f, 8)) {
	case 0:
		return below(f, 4);
	case 1:
		return UINT32_MAX - below(f, 2);
	case 2:
		return next_random(&f->state);
	case 3:
		return PATH_MAX - 1 + below(f, 3);
	case 4:
		return 19 + below(f, 3);
	default:
		return below(f, 160);
	}
}

static void fuzz_argument(struct fuzz *f)
{
	struct procmap_query q = {};
	unsigned long size = sizeof(q), kind = below(f, 100);

	f->cmd = PROCMAP_QUERY;
	if (chance(f, 1))
		f->cmd ^= 1U << below(f, 32);

	/* filled with anything that was written there before */
	f->arg = arena.rw + 8 * below(f, (RW_SIZE - sizeof(q)) / 8);
	memcpy(&q, f->arg, sizeof(q));
	if (kind < 8)
		f->arg += 1 + below(f, 7);
	else if (kind < 16)
		f->arg = fuzz_pointer(f);

	kind = below(f, 100);
	if (kind < 6)
		size = below(f, sizeof(q) + 1);
	else if (kind < 14)
		size = 24 + below(f, sizeof(q) - 24);
	else if (kind < 22)
		size = sizeof(q) + below(f, 64);
	else if (kind < 25)
		size = below(f, 2 * PAGE + 1);
	else if (kind < 27)
		size = PAGE + below(f, 2);
	else if (kind < 28)
		size = next_random(&f->state);
	q.size = size;

	kind = below(f, 100);
	q.query_flags = below(f, FLAGS + 1);
	if (kind < 50)
		q.query_flags &= NEXT | FILE_BACKED;
	else if (kind < 60)
		q.query_flags |= NEXT;
	else if (kind < 63)
		q.query_flags ^= 1UL << below(f, 64);
	else if (kind < 64)
		q.query_flags = next_random(&f->state);

	kind = below(f, 100);
	q.query_addr = model.address[below(f, model.addresses)];
	if (kind < 30)
		q.query_addr += below(f, 4 * PAGE) - 2 * PAGE;
	else if (kind < 40)
		q.query_addr = next_random(&f->state) >> 17;
	else if (kind < 43)
		q.query_addr = next_random(&f->state);

	if (chance(f, 50)) {
		q.vma_name_size = fuzz_buffer_size(f);
		q.vma_name_addr = (unsigned long)fuzz_pointer(f);
	} else {
		q.vma_name_size = 0;
		q.vma_name_addr = chance(f, 2) ? (unsigned long)fuzz_pointer(f) : 0;
	}
	if (chance(f, 40)) {
		q.build_id_size = fuzz_buffer_size(f);
		q.build_id_addr = (unsigned long)fuzz_pointer(f);
	} else {
		q.build_id_size = 0;
		q.build_id_addr = chance(f, 2) ? (unsigned long)fuzz_pointer(f) : 0;
	}

	if (size > sizeof(q) && size <= 2 * PAGE) {
		arena_put(f->arg + sizeof(q), NULL, size - sizeof(q));
		if (chance(f, 15)) {
			unsigned char byte = 1 + below(f, 255);

			arena_put(f->arg + sizeof(q) + below(f, size - sizeof(q)), &byte, 1);
		}
	}
	arena_put(f->arg, &q, sizeof(q));
}

static unsigned long from_environment(const char *name, unsigned long otherwise)
{
	const char *value = getenv(name);

	return value ? strtoul(value, NULL, 0) : otherwise;
}

TEST_F_TIMEOUT(maps_query, fuzz, TIMEOUT)
{
	static const int expected[] = {
		0, E2BIG, EINVAL, ENOENT, ENAMETOOLONG, EFAULT, ESRCH, ENOTTY,
	};
	const unsigned long seed = from_environment("PROC_MAPS_QUERY_SEED", FUZZ_SEED);
	const unsigned long calls = from_environment("PROC_MAPS_QUERY_CALLS", FUZZ_CALLS);
	const bool asked = getenv("PROC_MAPS_QUERY_CALLS");
	unsigned long counts[ARRAY_SIZE(expected)] = {}, others = 0, i;
	struct fuzz f = { .state = seed ?: 1 };
	struct target lost;
	struct pair gone;
	double begin;

	ASSERT_EQ(0, target_start(&lost, NULL, serve, NULL));
	pair_open(_metadata, &gone, lost.pid);
	target_stop(&lost);

	TH_LOG("seed %lu, %lu calls of each", seed, calls);
	begin = maps_now();
	for (i = 0; i < calls; i++) {
		struct pair *pair = chance(&f, 2) ? &gone : &self->pair;
		size_t which = 0;

		if (!asked && i % 1024 == 0 && maps_now() - begin > FUZZ_SECONDS)
			break;
		fuzz_argument(&f);
		if (!call_both(pair, f.cmd, f.arg)) {
			print_difference(pair, f.arg);
			ASSERT_TRUE(false)
				TH_LOG("seed %lu: call %lu, command %#lx, %s target differs",
				       seed, i, f.cmd, pair == &gone ? "exited" : "quiet");
		}
		while (which < ARRAY_SIZE(expected) &&
		       expected[which] != pair->result[MAPS_RUST])
			which++;
		if (which < ARRAY_SIZE(expected))
			counts[which]++;
		else
			others++;
	}
	TH_LOG("%lu calls of each in %.0f s, %.0f a second", i, maps_now() - begin,
	       2 * i / (maps_now() - begin));
	for (size_t e = 0; e < ARRAY_SIZE(expected); e++) {
		TH_LOG("%s: %lu", expected[e] ? strerrorname_np(expected[e]) : "success",
		       counts[e]);
		if (calls >= 10000)
			EXPECT_LT(0, counts[e]);
	}
	EXPECT_EQ(0, others);
	pair_close(&gone);
}

/* Several threads on one descriptor */
struct sharer {
	int fd;
	unsigned long state;
	unsigned long queries;
	unsigned long found;
	unsigned long reads;
	unsigned long wrong;
	const struct text *whole;	/* of a target that does not change */
};

static bool stop_sharers;

/* Whole lines from the first one on, each above the one before */
static bool lines_plausible(const char *text, size_t len, bool from_start)
{
	const char *end = text + len, *line = text, *nl;
	unsigned long last = 0;

	if (!from_start) {
		line = memchr(text, '\n', len);
		line = line ? line + 1 : end;
	}
	for (; (nl = memchr(line, '\n', end - line)); line = nl + 1) {
		unsigned long from, to;
		char *rest;

		from = strtoul(line, &rest, 16);
		if (*rest != '-')
			return false;
		to = strtoul(rest + 1, &rest, 16);
		if (*rest != ' ' || from >= to || (from | to) % PAGE || to <= last)
			return false;
		last = to;
	}
	return true;
}

static void query_moving(struct sharer *s)
{
	unsigned long random = next_random(&s->state);
	struct procmap_query q = {
		.size = sizeof(q),
		.query_flags = random >> 48 & FLAGS,
		.query_addr = REGION - 8 * PAGE +
			      (random >> 12) % ((REGION_PAGES + 16) * PAGE),
	};
	char name[PATH_MAX];

	if (random & 1)
		q.query_flags = random >> 1 & NEXT;
	if (random & 2) {
		q.vma_name_addr = (unsigned long)name;
		q.vma_name_size = sizeof(name);
	}
	s->queries++;
	if (ioctl(s->fd, PROCMAP_QUERY, &q)) {
		/* there is something above the region, with a long path among it */
		if (errno == ENAMETOOLONG ? !(random & 2) :
		    errno != ENOENT || q.query_flags == NEXT)
			s->wrong++;
		return;
	}
	s->found++;
	if (q.vma_start >= q.vma_end || (q.vma_start | q.vma_end) % PAGE ||
	    q.vma_end <= q.query_addr ||
	    (!(q.query_flags & NEXT) && q.vma_start > q.query_addr) ||
	    (q.query_flags & PERMISSIONS & ~q.vma_flags) ||
	    (q.query_flags & FILE_BACKED && !q.inode) || q.vma_page_size != PAGE)
		s->wrong++;
	if (random & 2 && q.vma_name_size && strlen(name) + 1 != q.vma_name_size)
		s->wrong++;
}

static void *share_moving(void *arg)
{
	static __thread char buf[1 << 16];
	struct sharer *s = arg;

	while (!get(stop_sharers)) {
		unsigned long random = next_random(&s->state) >> 16;
		size_t size = 8192 + random % (sizeof(buf) - 8192);
		ssize_t n;

		for (int i = 0; i < 8; i++)
			query_moving(s);
		if (random & 1) {
			n = pread(s->fd, buf, size, random % 3 ? random % 9000 : 0);
			if (n < 0 || !lines_plausible(buf, n, !(random % 3)))
				s->wrong++;
		} else {
			n = read(s->fd, buf, size);
			if (n < 0 || !lines_plausible(buf, n, false) ||
			    (!n && lseek(s->fd, 0, SEEK_SET)))
				s->wrong++;
		}
		s->reads += n > 0;
	}
	return NULL;
}

static void *share_quiet(void *arg)
{
	struct sharer *s = arg;

	for (int round = 0; round < 50; round++) {
		unsigned long at = 0;

		for (size_t i = 0; i < model.count; i++) {
			const struct mapping *map = &model.map[i];
			struct procmap_query q = {
				.size = sizeof(q),
				.query_flags = NEXT,
				.query_addr = at,
			};

			if (ioctl(s->fd, PROCMAP_QUERY, &q) || q.vma_start != map->start ||
			    q.vma_end != map->end || q.vma_flags != map->flags)
				s->wrong++;
			at = map->end;
			s->queries++;
		}
	}
	return NULL;
}

static void *read_quiet(void *arg)
{
	struct sharer *s = arg;
	static char buf[1 << 16];

	while (!get(stop_sharers)) {
		struct text got = {};
		ssize_t n;

		if (lseek(s->fd, 0, SEEK_SET))
			s->wrong++;
		while ((n = read(s->fd, buf, 1000)) > 0)
			text_append(&got, buf, n);
		if (n || !text_same("before", s->whole, "beside queries", &got))
			s->wrong++;
		text_free(&got);
		s->reads++;
	}
	return NULL;
}

#define SHARERS		4

static void share_quiet_target(struct __test_metadata *_metadata, int fd,
			       enum maps_impl impl)
{
	struct sharer sharers[SHARERS] = {};
	pthread_t threads[SHARERS];
	struct text whole = {};

	ASSERT_EQ(0, text_read(&whole, fd));
	set(stop_sharers, false);
	for (int i = 0; i < SHARERS; i++) {
		sharers[i].fd = fd;
		sharers[i].whole = &whole;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, i ? share_quiet : read_quiet,
					    &sharers[i]));
	}
	for (int i = 1; i < SHARERS; i++)
		pthread_join(threads[i], NULL);
	set(stop_sharers, true);
	pthread_join(threads[0], NULL);
	for (int i = 0; i < SHARERS; i++) {
		EXPECT_EQ(0, sharers[i].wrong)
			TH_LOG("%s, thread %d", maps_impl_name[impl], i);
	}
	EXPECT_LT(0, sharers[0].reads);
	text_free(&whole);
}

/* The target's answer, if it comes in time */
static bool replies(struct target *target, int seconds, int *reply)
{
	struct pollfd fd = { .fd = target->from, .events = POLLIN };

	if (poll(&fd, 1, seconds * 1000) != 1)
		return false;
	*reply = target_reply(target);
	return true;
}

static void share_moving_target(struct __test_metadata *_metadata, int fd,
				enum maps_impl impl, struct target *target, int seconds)
{
	struct sharer sharers[SHARERS] = {};
	pthread_t threads[SHARERS];
	int order = CHURN, reply;

	ASSERT_EQ(0, lseek(fd, 0, SEEK_SET));
	set(churn_state->stop, false);
	churn_state->rounds = 0;
	set(stop_sharers, false);
	ASSERT_EQ(sizeof(order), write(target->to, &order, sizeof(order)));
	for (int i = 0; i < SHARERS; i++) {
		sharers[i].fd = fd;
		sharers[i].state = i + 1;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, share_moving, &sharers[i]));
	}
	sleep(seconds);
	set(stop_sharers, true);
	for (int i = 0; i < SHARERS; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0, sharers[i].wrong)
			TH_LOG("%s, thread %d", maps_impl_name[impl], i);
		EXPECT_LT(0, sharers[i].queries);
		EXPECT_LT(0, sharers[i].found);
		EXPECT_LT(sharers[i].found, sharers[i].queries);
		EXPECT_LT(0, sharers[i].reads);
	}
	set(churn_state->stop, true);
	ASSERT_TRUE(replies(target, 60, &reply))
		TH_LOG("%s: the target waits for a lock of a reader", maps_impl_name[impl]);
	ASSERT_EQ(0, reply);
	EXPECT_LT(100, churn_state->rounds);

	/* nobody reads any more: nothing may be locked still */
	order = CLEAR;
	ASSERT_EQ(sizeof(order), write(target->to, &order, sizeof(order)));
	ASSERT_TRUE(replies(target, 60, &reply))
		TH_LOG("%s left a lock behind", maps_impl_name[impl]);
	ASSERT_EQ(0, reply);
}

TEST_F_TIMEOUT(maps_query, shared_descriptor, TIMEOUT)
{
	for (int impl = MAPS_C; impl <= MAPS_RUST; impl++) {
		int fd = self->pair.fd[impl];

		share_quiet_target(_metadata, fd, impl);
		share_moving_target(_metadata, fd, impl, &self->target,
				    impl == MAPS_RUST ? 5 : 2);
	}
}

TEST_HARNESS_MAIN
