// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the mistake that its argument names, for a sanitizer to report; without one
 * it only starts and ends.
 */
#include <pthread.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

static int shared;
static pthread_barrier_t both;

static void *race(void *unused)
{
	pthread_barrier_wait(&both);
	for (int n = 0; n < 1000; n++)
		shared++;
	return NULL;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	char *volatile p = malloc(10);
	pthread_t threads[2];

	if (!strcmp(what, "address")) {
		free(p);
		return p[argc];
	}
	if (!strcmp(what, "undefined"))
		printf("%d\n", 1 << (30 + argc));
	if (!strcmp(what, "leak")) {
		p = NULL;
		return 0;
	}
	if (!strcmp(what, "thread")) {
		pthread_barrier_init(&both, NULL, 2);
		for (int n = 0; n < 2; n++)
			pthread_create(&threads[n], NULL, race, NULL);
		for (int n = 0; n < 2; n++)
			pthread_join(threads[n], NULL);
	}
	free(p);
	return 0;
}
