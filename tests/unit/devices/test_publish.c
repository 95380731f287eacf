/* SPDX-License-Identifier: BSD-3-Clause */
/* Offering doorbell pages: what becomes of a queue, whenever and however the front end answers. */
#include "../support.h"

#include "devices/common/log.h"
#include "devices/common/publish.h"

static struct publisher publisher;
static int result;                   /* of the next publication */
static int answer = 1;               /* at once, before it returns; 1: later */
static enum stats_doorbell answered; /* what the device was told then */
static unsigned nr_published, last_fd;
static uint64_t last_offset;

/* The library's, for this test: what publish.c asks of a connection. */
int bf_backend_publish_doorbell(struct bf_backend *be, unsigned queue, int fd, uint64_t offset)
{
	(void)be;
	nr_published++;
	last_fd = (unsigned)fd;
	last_offset = offset;
	if (answer != 1)
		answered = publisher_answered(&publisher, queue, answer);
	return result;
}

static enum stats_doorbell offer(unsigned queue)
{
	return publisher_offer(&publisher, NULL, queue, publisher_word(&publisher, queue));
}

static int set_up(void **state)
{
	(void)state;
	publisher_init(&publisher, 4, true);
	result = 0;
	answer = 1;
	nr_published = 0;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	publisher_done(&publisher);
	return 0;
}

static void test_not_wanted(void **state)
{
	(void)state;
	publisher_init(&publisher, 4, false);
	assert_null(publisher_word(&publisher, 0));
	assert_int_equal(offer(0), DOORBELL_OFF);
	assert_int_equal(nr_published, 0);
}

static void test_answered_later(void **state)
{
	(void)state;
	assert_int_equal(offer(3), DOORBELL_PENDING);
	assert_int_equal(last_fd, publisher.pages.fd);
	assert_int_equal(last_offset, doorbell_offset(&publisher.pages, 3));
	assert_int_equal(publisher_answered(&publisher, 3, 0), DOORBELL_MAPPED);
	assert_int_equal(offer(2), DOORBELL_PENDING);
	assert_int_equal(publisher_answered(&publisher, 2, -EREMOTEIO), DOORBELL_REFUSED);
}

/* A front end that acknowledges nothing: its answer comes before the publication returns. */
static void test_answered_at_once(void **state)
{
	(void)state;
	answer = 0;
	assert_int_equal(offer(1), DOORBELL_MAPPED);
	assert_int_equal(answered, DOORBELL_MAPPED);
	answer = -EREMOTEIO;
	assert_int_equal(offer(1), DOORBELL_REFUSED);
	answer = 1;
	assert_int_equal(offer(1), DOORBELL_PENDING);
}

static void test_failures(void **state)
{
	(void)state;
	result = -EOPNOTSUPP;
	assert_int_equal(offer(0), DOORBELL_REFUSED);
	result = -ENOBUFS;
	assert_int_equal(offer(0), DOORBELL_REFUSED);
	assert_int_equal(nr_published, 2);
}

/* A page that was rung in an earlier run is silent, and another connection gets other pages. */
static void test_pages(void **state)
{
	uint32_t *word = publisher_word(&publisher, 1);
	unsigned nr_fds = count_fds();

	(void)state;
	*word = 1;
	*doorbell_staggered(word, 1) = 1;
	assert_ptr_equal(publisher_word(&publisher, 1), word);
	assert_false(doorbell_take(word));
	assert_false(doorbell_take(doorbell_staggered(word, 1)));
	publisher_disconnected(&publisher);
	assert_false(doorbell_pages_exist(&publisher.pages));
	assert_int_equal(count_fds(), nr_fds - 1);
	assert_non_null(publisher_word(&publisher, 1));
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_not_wanted), TEST(test_answered_later), TEST(test_answered_at_once),
		TEST(test_failures),   TEST(test_pages),
	};

	log_set_level(BF_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
