/* SPDX-License-Identifier: GPL-2.0 */
/* What the benchmarks of a process beside readers of it have in common. */
#ifndef WRITERS_H
#define WRITERS_H

#include <sched.h>

#include "bench.h"

#define SAMPLES	(1 << 19)

static const char * const files[] = { "maps", "smaps", "smaps_rollup", "numa_maps" };

static struct samples {
	long ns[SAMPLES];
	int count;
} op_samples;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("two CPUs are needed");
}

static unsigned long random_below(unsigned long limit)
{
	static unsigned long state = 88172645463325252UL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % limit;
}

static int by_size(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

static void sort_samples(void)
{
	qsort(op_samples.ns, op_samples.count, sizeof(op_samples.ns[0]), by_size);
}

static long mean(void)
{
	long sum = 0;

	for (int i = 0; i < op_samples.count; i++)
		sum += op_samples.ns[i];
	return sum / op_samples.count;
}

/* Of sorted samples the nearest rank: of few the last per mille is the longest */
static long quantile(int per_mille)
{
	return op_samples.ns[((long)op_samples.count * per_mille + 999) / 1000 - 1];
}

#endif
