/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Statistics as JSON. Control context; reads counters that queue threads are writing, and touches
 * nothing else of theirs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stats.h"

static const char *const doorbell_words[] = {
	[DOORBELL_OFF] = "off",
	[DOORBELL_PENDING] = "pending",
	[DOORBELL_MAPPED] = "mapped",
	[DOORBELL_REFUSED] = "refused",
};

json_t *stats_queue_json(const struct stats_queue *queue)
{
	const struct bf_virtq_counters *c = &queue->counters;

	return json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "queue",
			 (int)queue->queue, "requests", (json_int_t)c->requests, "kicks",
			 (json_int_t)c->kicks, "doorbells", (json_int_t)c->doorbells, "calls",
			 (json_int_t)c->calls, "suppressed", (json_int_t)c->suppressed, "errors",
			 (json_int_t)c->errors, "wakeups", (json_int_t)queue->wakeups, "doorbell",
			 doorbell_words[queue->doorbell]);
}

static uint64_t look(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void stats_counters_read(struct bf_virtq_counters *to, const struct bf_virtq_counters *from)
{
	to->requests = look(&from->requests);
	to->kicks = look(&from->kicks);
	to->doorbells = look(&from->doorbells);
	to->calls = look(&from->calls);
	to->suppressed = look(&from->suppressed);
	to->errors = look(&from->errors);
}

void stats_counters_add(struct bf_virtq_counters *to, const struct bf_virtq_counters *now,
			const struct bf_virtq_counters *before)
{
	to->requests += now->requests - before->requests;
	to->kicks += now->kicks - before->kicks;
	to->doorbells += now->doorbells - before->doorbells;
	to->calls += now->calls - before->calls;
	to->suppressed += now->suppressed - before->suppressed;
	to->errors += now->errors - before->errors;
}

/* Write @text and a newline to a new file @path. */
static int write_file(const char *path, const char *text)
{
	FILE *file;
	int fd, ret = 0;

	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -errno;
	file = fdopen(fd, "w");
	if (!file) {
		ret = -errno;
		close(fd);
		return ret;
	}
	if (fprintf(file, "%s\n", text) < 0)
		ret = errno ? -errno : -EIO;
	if (fclose(file) && !ret)
		ret = -errno;
	return ret;
}

static int replace_file(const char *path, const char *text)
{
	char *fresh;
	int ret;

	if (asprintf(&fresh, "%s.%ld", path, (long)getpid()) < 0)
		return -ENOMEM;
	unlink(fresh); /* left by a process of the same number that was killed half-way */
	ret = write_file(fresh, text);
	if (!ret && rename(fresh, path))
		ret = -errno;
	if (ret)
		unlink(fresh);
	free(fresh);
	return ret;
}

int stats_write(const char *path, json_t *root)
{
	char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	int ret = text ? replace_file(path, text) : -ENOMEM;

	free(text);
	json_decref(root);
	return ret;
}
