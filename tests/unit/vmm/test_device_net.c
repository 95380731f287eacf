/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * vmm/virtio/device_net.c and net_ctrl_queue.c: what is offered, where queues are, link status, and
 * the control queue on real rings, split and packed.
 */
#include "fake_library.h"

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <sys/eventfd.h>

#define BIT(nr)   bf_bit(nr)
#define V1        BIT(VIRTIO_F_VERSION_1)
#define PACKED    BIT(VIRTIO_F_RING_PACKED)
#define CTRL      (BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX))
#define MQ        BIT(VIRTIO_NET_F_MQ)
#define ANNOUNCE  BIT(VIRTIO_NET_F_GUEST_ANNOUNCE)
#define CMD_GPA   0x40000ull
#define SOON      5000
#define STATUS_AT 6

static struct virtio_net_config read_config(struct device_fixture *f)
{
	struct virtio_net_config c = { 0 };

	assert_int_equal(f->vdev->ops->config_read(f->vdev, 0, &c, f->vdev->config_size), 0);
	return c;
}

static void the_offer_is_theirs_and_ours(void **state)
{
	struct device_fixture *f = *state;
	struct virtio_net_config c;

	lib.features = V1 | BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_CTRL_VLAN) |
		       BIT(VIRTIO_NET_F_RSS);
	assert_int_equal(device_make(f, "net,socket=a,mac=52:54:00:12:34:56,mtu=9000"), 0);
	assert_int_equal(f->vdev->features,
			 V1 | BIT(VIRTIO_NET_F_CSUM) | CTRL | ANNOUNCE | BIT(VIRTIO_NET_F_MAC) |
				 BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
				 BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT(VIRTIO_NET_F_MTU));
	assert_int_equal(f->vdev->nr_queues, 3);
	c = read_config(f);
	assert_memory_equal(c.mac, ((uint8_t[]){ 0x52, 0x54, 0, 0x12, 0x34, 0x56 }), 6);
	assert_int_equal(c.status, VIRTIO_NET_S_LINK_UP);
	assert_int_equal(c.max_virtqueue_pairs, 1);
	assert_int_equal(c.mtu, 9000);
	/* The back end hears only what it offered, of what it serves. */
	assert_int_equal(device_accept(f, f->vdev->features), 0);
	assert_int_equal(lib.sent_features, V1 | BIT(VIRTIO_NET_F_CSUM));
}

/* A back end of hardware may offer a control queue; this one is served here all the same. */
static void what_is_served_here_is_not_accepted_there(void **state)
{
	struct device_fixture *f = *state;

	lib.features = V1 | CTRL | ANNOUNCE | MQ | BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS);
	assert_int_equal(device_make(f, "net,socket=a,queues=2"), 0);
	assert_int_equal(device_accept(f, f->vdev->features), 0);
	assert_int_equal(lib.sent_features, V1 | MQ);
}

static void the_address_is_chosen(void **state)
{
	struct device_fixture *f = *state;
	uint8_t first[6];

	memcpy(lib.config, "\x02\x11\x22\x33\x44\x55", 6);
	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_memory_equal(read_config(f).mac, lib.config, 6);
	vhost_user_device_free(f->device);
	f->device = NULL;

	lib.features &= ~BIT(VIRTIO_NET_F_MAC);
	assert_int_equal(device_make(f, "net,socket=a"), 0);
	memcpy(first, read_config(f).mac, 6);
	assert_int_equal(first[0] & 3, 2); /* locally administered, of one station */
	vhost_user_device_free(f->device);
	f->device = NULL;
	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_memory_not_equal(read_config(f).mac, first, 6);
}

static void the_link_follows_the_back_end(void **state)
{
	struct device_fixture *f = *state;

	lib.config[STATUS_AT] = 0;
	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_int_equal(read_config(f).status, 0);
	lib.config[STATUS_AT] = 3; /* its announcements are not ours */
	lib.fe->config.ops->config_changed(lib.fe->config.opaque);
	assert_int_equal(read_config(f).status, VIRTIO_NET_S_LINK_UP);
	lib.features &= ~BIT(VIRTIO_NET_F_STATUS);
	lib.config[STATUS_AT] = 0;
	lib.fe->config.ops->config_changed(lib.fe->config.opaque);
	assert_int_equal(read_config(f).status, VIRTIO_NET_S_LINK_UP);
}

static void without_config_space_the_link_is_the_connection(void **state)
{
	struct device_fixture *f = *state;

	lib.protocol_features = 0;
	lib.config[STATUS_AT] = 0;
	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_int_equal(lib.nr_config, 0);
	assert_int_equal(read_config(f).status, VIRTIO_NET_S_LINK_UP);
	lib.fail_connect = -ENOENT;
	device_lose(f);
	assert_int_equal(read_config(f).status, 0);
	lib.fail_connect = 0;
	assert_true(device_returns(f, 1, SOON));
	assert_int_equal(read_config(f).status, VIRTIO_NET_S_LINK_UP);
}

/* A back end is there, and nothing goes through: the guest sees no link until it resets the device. */
static void queues_that_cannot_go_on_have_no_link(void **state)
{
	struct device_fixture *f = *state;

	lib.features |= PACKED;
	lib.config[STATUS_AT] = 1;
	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_int_equal(device_accept(f, V1 | PACKED | ANNOUNCE), 0);
	device_enable(f, 0);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	*(uint8_t *)vm_gpa_to_hva(f->vm, f->vdev->queues[0].desc_gpa, 1) = 1;
	device_lose(f);
	assert_true(device_returns(f, 1, SOON));
	assert_int_equal(f->device->state, VHOST_USER_NEEDS_RESET);
	assert_int_equal(read_config(f).status, 0);
	f->vdev->ops->reset(f->vdev);
	assert_int_equal(read_config(f).status, VIRTIO_NET_S_LINK_UP);
}

static void only_the_first_pair_is_enabled_at_first(void **state)
{
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "net,socket=a,queues=2"), 0);
	assert_int_equal(read_config(f).max_virtqueue_pairs, 2);
	assert_int_equal(device_accept(f, V1 | CTRL | MQ), 0);
	assert_true(bf_has(lib.sent_features, VIRTIO_NET_F_MQ));
	for (unsigned i = 0; i < 5; i++)
		device_enable(f, i);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	assert_int_equal(lib.nr_setups, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(lib.setups[i].queue, i);
		assert_int_equal(lib.setups[i].disabled, i >= 2);
	}
	assert_true(loop_has(f->vdev->queues[4].kick_fd));
	/* A ring of the control queue that is reset is not the back end's to stop. */
	lib.diary[0] = '\0';
	assert_int_equal(f->vdev->ops->queue_stop(f->vdev, 4), 0);
	assert_false(loop_has(f->vdev->queues[4].kick_fd));
	assert_int_equal(f->vdev->ops->queue_start(f->vdev, 4), 0);
	assert_true(loop_has(f->vdev->queues[4].kick_fd));
	expect_diary("");
	f->vdev->ops->reset(f->vdev);
	assert_false(loop_has(f->vdev->queues[4].kick_fd));
}

static void without_mq_the_control_queue_is_the_third(void **state)
{
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "net,socket=a,queues=2"), 0);
	assert_int_equal(device_accept(f, V1 | CTRL), 0);
	for (unsigned i = 0; i < 3; i++)
		device_enable(f, i);
	device_enable(f, 4); /* nobody's */
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	assert_int_equal(lib.nr_setups, 2);
	assert_true(loop_has(f->vdev->queues[2].kick_fd));
	assert_false(loop_has(f->vdev->queues[4].kick_fd));
}

static void without_a_control_queue_there_is_none(void **state)
{
	struct device_fixture *f = *state;

	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_int_equal(device_accept(f, V1), 0);
	for (unsigned i = 0; i < 3; i++)
		device_enable(f, i);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	assert_int_equal(lib.nr_setups, 2);
	assert_int_equal(loop_nr(), 1);
}

/* A driver of one command at a time. */

static void *at(struct device_fixture *f, uint64_t gpa)
{
	return vm_gpa_to_hva(f->vm, gpa, 1);
}

/* Three descriptors from index @i on: header, body, answer. */
static void put_split(struct device_fixture *f, const struct virtio_queue *q, unsigned n,
		      const uint64_t gpa[3], const uint32_t len[3])
{
	struct vring_desc *desc = at(f, q->desc_gpa);
	uint16_t *avail = at(f, q->driver_gpa);

	for (unsigned i = 0; i < 3; i++)
		desc[i] = (struct vring_desc){ .addr = gpa[i],
					       .len = len[i],
					       .flags = i < 2 ? VRING_DESC_F_NEXT :
								VRING_DESC_F_WRITE,
					       .next = (uint16_t)(i + 1) };
	avail[2 + n % q->size] = 0;
	__atomic_store_n(&avail[1], (uint16_t)(n + 1), __ATOMIC_RELEASE);
}

static void put_packed(struct device_fixture *f, const struct virtio_queue *q, unsigned n,
		       const uint64_t gpa[3], const uint32_t len[3])
{
	struct vring_packed_desc *desc = at(f, q->desc_gpa);

	for (unsigned i = 3; i-- > 0;) {
		unsigned idx = 3 * n + i;
		bool wrap = !(idx / q->size % 2);
		uint16_t flags = wrap ? 1 << VRING_PACKED_DESC_F_AVAIL :
					1 << VRING_PACKED_DESC_F_USED;

		desc[idx % q->size] = (struct vring_packed_desc){
			.addr = gpa[i], .len = len[i], .id = 1,
			.flags = (uint16_t)(flags | (i < 2 ? VRING_DESC_F_NEXT : VRING_DESC_F_WRITE))
		};
	}
}

static void ring_up(struct device_fixture *f, unsigned queue)
{
	eventfd_write(f->vdev->queues[queue].kick_fd, 1);
	loop_fire(f->vdev->queues[queue].kick_fd);
}

/* The @n-th command since the start; its answer. */
static uint8_t send_command(struct device_fixture *f, unsigned queue, unsigned n,
			    const uint8_t *bytes, uint32_t len)
{
	const struct virtio_queue *q = &f->vdev->queues[queue];
	const uint64_t gpa[3] = { CMD_GPA, CMD_GPA + 0x1000, CMD_GPA + 0x2000 };
	const uint32_t lens[3] = { 2, len - 2, 1 };
	uint8_t *answer = at(f, gpa[2]);
	eventfd_t calls;

	memcpy(at(f, gpa[0]), bytes, 2);
	memcpy(at(f, gpa[1]), bytes + 2, len - 2);
	*answer = 0xee;
	if (bf_has(f->vdev->driver_features, VIRTIO_F_RING_PACKED))
		put_packed(f, q, n, gpa, lens);
	else
		put_split(f, q, n, gpa, lens);
	ring_up(f, queue);
	assert_int_equal(eventfd_read(q->call_fd, &calls), 0);
	return *answer;
}

static void control(struct device_fixture *f, uint64_t features)
{
	static const uint8_t two[] = { 4, 0, 2, 0 }, one[] = { 4, 0, 1, 0 }, many[] = { 4, 0, 3, 0 };
	static const uint8_t promisc[] = { 0, 0, 1 }, mac[] = { 1, 1, 2, 2, 2, 2, 2, 2 };
	unsigned n = 0;

	lib.features |= PACKED;
	lib.config[STATUS_AT] = 1;
	assert_int_equal(device_make(f, "net,socket=a,queues=2,mac=52:54:00:12:34:56"), 0);
	features |= V1 | CTRL | MQ | ANNOUNCE | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR);
	assert_int_equal(device_accept(f, features), 0);
	for (unsigned i = 0; i < 5; i++)
		device_enable(f, i);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	lib.diary[0] = '\0';
	assert_int_equal(send_command(f, 4, n++, two, 4), VIRTIO_NET_OK);
	expect_diary("on,2,3 ");
	assert_int_equal(send_command(f, 4, n++, one, 4), VIRTIO_NET_OK);
	expect_diary("off,2,3 ");
	assert_int_equal(send_command(f, 4, n++, many, 4), VIRTIO_NET_ERR);
	expect_diary("");
	lib.fail_enable = -EREMOTEIO;
	assert_int_equal(send_command(f, 4, n++, two, 4), VIRTIO_NET_ERR);
	lib.fail_enable = 0;
	assert_int_equal(send_command(f, 4, n++, mac, 8), VIRTIO_NET_OK);
	assert_memory_equal(read_config(f).mac, mac + 2, 6);
	/* Round the ring more than once. */
	for (; n < 50; n++)
		assert_int_equal(send_command(f, 4, n, promisc, 3), VIRTIO_NET_OK);
	assert_int_equal(send_command(f, 4, n++, two, 4), VIRTIO_NET_OK);

	/* While the back end is away commands are carried out, and told to the next. */
	lib.fail_connect = -ENOENT;
	device_lose(f);
	assert_int_equal(send_command(f, 4, n++, one, 4), VIRTIO_NET_OK);
	assert_int_equal(send_command(f, 4, n++, two, 4), VIRTIO_NET_OK);
	lib.fail_connect = 0;
	assert_true(device_returns(f, 1, SOON));
	if (!bf_has(features, VIRTIO_F_RING_PACKED))
		assert_false(lib.setups[3].disabled);
	assert_int_equal(read_config(f).status, VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	assert_int_equal(send_command(f, 4, n++, (const uint8_t[]){ 3, 0, 0 }, 3), VIRTIO_NET_ERR);
	f->vdev->ops->reset(f->vdev);
	assert_int_equal(read_config(f).status, VIRTIO_NET_S_LINK_UP);
	assert_int_equal(read_config(f).mac[0], 0x52);
}

static void commands_on_a_split_ring(void **state)
{
	control(*state, 0);
}

static void commands_on_a_packed_ring(void **state)
{
	control(*state, PACKED);
}

static void run_control_queue(struct device_fixture *f)
{
	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_int_equal(device_accept(f, V1 | CTRL), 0);
	device_enable(f, 2);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
}

/* Nobody would hear the answer; and an answer without a command. */
static void chains_without_an_end(void **state)
{
	struct device_fixture *f = *state;
	const struct virtio_queue *q;
	struct vring_desc *desc;
	uint16_t *avail;

	run_control_queue(f);
	q = &f->vdev->queues[2];
	desc = at(f, q->desc_gpa);
	avail = at(f, q->driver_gpa);
	desc[0] = (struct vring_desc){ .addr = CMD_GPA, .len = 3 };
	desc[1] = (struct vring_desc){ .addr = CMD_GPA + 0x1000, .len = 4096,
				       .flags = VRING_DESC_F_WRITE };
	memcpy(at(f, CMD_GPA), (uint8_t[]){ 0, 0, 1 }, 3);
	avail[3] = 1;
	avail[1] = 2;
	ring_up(f, 2);
	assert_int_equal(((uint16_t *)at(f, q->device_gpa))[1], 2);
	assert_int_equal(*(uint8_t *)at(f, CMD_GPA + 0x1000), VIRTIO_NET_ERR);
	/* used: the length that was written, and no more */
	assert_int_equal(((uint32_t *)at(f, q->device_gpa + 4))[1], 0);
	assert_int_equal(((uint32_t *)at(f, q->device_gpa + 4))[3], 1);
	assert_int_equal(f->device->state, VHOST_USER_RUNNING);
}

static void a_ring_that_breaks_the_rules_is_the_end_of_it(void **state)
{
	struct device_fixture *f = *state;
	int kick;

	run_control_queue(f);
	kick = f->vdev->queues[2].kick_fd;
	((uint16_t *)at(f, f->vdev->queues[2].driver_gpa))[1] = 17; /* of 16 */
	ring_up(f, 2);
	assert_int_equal(f->device->state, VHOST_USER_NEEDS_RESET);
	assert_false(loop_has(kick));
	f->vdev->ops->reset(f->vdev);
	assert_int_equal(f->device->state, VHOST_USER_IDLE);
	memset(at(f, f->vdev->queues[2].driver_gpa), 0, 64);
	memset(at(f, f->vdev->queues[2].device_gpa), 0, 64);
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	assert_int_equal(send_command(f, 2, 0, (const uint8_t[]){ 0, 0, 1 }, 3), VIRTIO_NET_OK);
}

/* The loop has others to serve. */
static void endless_commands_come_in_batches(void **state)
{
	struct device_fixture *f = *state;
	const struct virtio_queue *q;
	struct vring_desc *desc;
	uint16_t *avail;
	eventfd_t count;

	assert_int_equal(device_make(f, "net,socket=a"), 0);
	assert_int_equal(device_accept(f, V1 | CTRL), 0);
	device_enable(f, 2);
	f->vdev->queues[2].size = 128;
	assert_int_equal(f->vdev->ops->start(f->vdev), 0);
	q = &f->vdev->queues[2];
	desc = at(f, q->desc_gpa);
	avail = at(f, q->driver_gpa);
	for (unsigned i = 0; i < 100; i++) {
		desc[i] = (struct vring_desc){ .addr = CMD_GPA, .len = 1,
					       .flags = VRING_DESC_F_WRITE };
		avail[2 + i] = (uint16_t)i;
	}
	avail[1] = 100;
	ring_up(f, 2);
	assert_in_range(((uint16_t *)at(f, q->device_gpa))[1], 1, 99);
	assert_int_equal(eventfd_read(q->kick_fd, &count), 0); /* it will be back */
	loop_fire(q->kick_fd);
	assert_int_equal(((uint16_t *)at(f, q->device_gpa))[1], 100);
}

static void statistics(void **state)
{
	struct device_fixture *f = *state;
	json_t *stats, *ctrl;

	run_control_queue(f);
	send_command(f, 2, 0, (const uint8_t[]){ 0, 0, 1 }, 3);
	stats = vhost_user_device_stats(f->device);
	ctrl = json_object_get(stats, "control");
	assert_string_equal(json_string_value(json_object_get(stats, "name")), "net0");
	assert_string_equal(json_string_value(json_object_get(stats, "link")), "up");
	assert_int_equal(json_array_size(json_object_get(stats, "queues")), 2);
	assert_int_equal(json_integer_value(json_object_get(ctrl, "queue")), 2);
	assert_int_equal(json_integer_value(json_object_get(ctrl, "commands")), 1);
	assert_true(json_is_true(json_object_get(ctrl, "promisc")));
	json_decref(stats);
}

#define T(name) cmocka_unit_test_setup_teardown(name, device_setup, device_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(the_offer_is_theirs_and_ours),
		T(what_is_served_here_is_not_accepted_there),
		T(the_address_is_chosen),
		T(the_link_follows_the_back_end),
		T(without_config_space_the_link_is_the_connection),
		T(queues_that_cannot_go_on_have_no_link),
		T(only_the_first_pair_is_enabled_at_first),
		T(without_mq_the_control_queue_is_the_third),
		T(without_a_control_queue_there_is_none),
		T(commands_on_a_split_ring),
		T(commands_on_a_packed_ring),
		T(chains_without_an_end),
		T(a_ring_that_breaks_the_rules_is_the_end_of_it),
		T(endless_commands_come_in_batches),
		T(statistics),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
