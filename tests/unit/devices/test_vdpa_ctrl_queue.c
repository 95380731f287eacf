/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control queue against a device that answers when it is rung: well, badly, or not at all.
 * virtio_pci_*() are this file's: the device is behind them.
 */
#include "../support.h"

#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "devices/vdpa/ctrl_queue.h"

#define IOVA 0x123400000ull

enum fault { NONE, SILENT, WRONG_ID, WRONG_LEN, WRONG_IDX, NO_ANSWER, NONSENSE, REFUSES };

static struct {
	_Alignas(4096) uint8_t memory[CTRL_QUEUE_MEMORY];
	uint16_t max_size;
	int start_ret;
	bool packed, wrap;
	uint16_t next;
	struct virtio_pci_queue_setup setup;
	enum fault fault;
	unsigned rings;
	/* The last command, as the device read it. */
	uint8_t class, command, data[CTRL_QUEUE_DATA];
	uint32_t len;
} device;

uint16_t virtio_pci_queue_max_size(const struct virtio_pci *vp, unsigned queue)
{
	(void)vp;
	assert_int_equal(queue, 2);
	return device.max_size;
}

int virtio_pci_queue_start(struct virtio_pci *vp, const struct virtio_pci_queue_setup *setup)
{
	(void)vp;
	device.setup = *setup;
	device.next = 0;
	device.wrap = true;
	return device.start_ret;
}

static void *dma(uint64_t iova, uint64_t len)
{
	assert_true(iova >= IOVA && iova - IOVA <= CTRL_QUEUE_MEMORY - len);
	return device.memory + (iova - IOVA);
}

static void answer(uint64_t question, uint32_t len, uint64_t reply, uint32_t reply_len)
{
	static const uint8_t answers[] = { [REFUSES] = VIRTIO_NET_ERR, [NONSENSE] = 7 };
	const uint8_t *bytes = dma(question, len);

	assert_true(len >= 2 && len <= 2 + CTRL_QUEUE_DATA);
	assert_int_equal(reply_len, 1);
	device.class = bytes[0];
	device.command = bytes[1];
	device.len = len - 2;
	memcpy(device.data, bytes + 2, device.len);
	if (device.fault != NO_ANSWER)
		*(uint8_t *)dma(reply, 1) = device.fault >= NONSENSE ? answers[device.fault] : 0;
}

static void serve_split(void)
{
	struct vring_avail *avail = dma(device.setup.driver_iova, 6 + 2 * device.setup.size);
	struct vring_used *used = dma(device.setup.device_iova, 6 + 8 * device.setup.size);
	struct vring_desc *desc = dma(device.setup.desc_iova, 16 * device.setup.size);
	vring_used_elem_t *elem = &used->ring[device.next % device.setup.size];
	uint16_t head;

	assert_int_equal(avail->flags, VRING_AVAIL_F_NO_INTERRUPT);
	assert_int_equal(avail->idx, (uint16_t)(device.next + 1));
	head = avail->ring[device.next % device.setup.size];
	assert_int_equal(desc[head].flags, VRING_DESC_F_NEXT);
	assert_int_equal(desc[desc[head].next].flags, VRING_DESC_F_WRITE);
	answer(desc[head].addr, desc[head].len, desc[desc[head].next].addr,
	       desc[desc[head].next].len);
	elem->id = device.fault == WRONG_ID ? 1 : head;
	elem->len = device.fault == WRONG_LEN ? 2 : 1;
	device.next++;
	__atomic_store_n(&used->idx, device.next + (device.fault == WRONG_IDX), __ATOMIC_RELEASE);
}

static uint16_t flags_of(bool avail, bool used)
{
	return (uint16_t)(avail << VRING_PACKED_DESC_F_AVAIL | used << VRING_PACKED_DESC_F_USED);
}

static void step(void)
{
	if (++device.next == device.setup.size) {
		device.next = 0;
		device.wrap = !device.wrap;
	}
}

static void serve_packed(void)
{
	struct vring_packed_desc *ring = dma(device.setup.desc_iova, 16 * device.setup.size);
	struct vring_packed_desc_event *event = dma(device.setup.driver_iova, 4);
	struct vring_packed_desc *first = &ring[device.next], *second;
	bool wrap = device.wrap;

	assert_int_equal(event->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
	assert_int_equal(first->flags, VRING_DESC_F_NEXT | flags_of(wrap, !wrap));
	step();
	second = &ring[device.next];
	assert_int_equal(second->flags, VRING_DESC_F_WRITE | flags_of(device.wrap, !device.wrap));
	step();
	answer(first->addr, first->len, second->addr, second->len);
	first->id = device.fault == WRONG_ID ? 1 : second->id;
	first->len = device.fault == WRONG_LEN ? 2 : 1;
	__atomic_store_n(&first->flags, flags_of(wrap, wrap), __ATOMIC_RELEASE);
}

void virtio_pci_ring(const struct virtio_pci *vp, unsigned queue)
{
	(void)vp;
	assert_int_equal(queue, 2);
	device.rings++;
	if (device.fault == SILENT)
		return;
	if (device.packed)
		serve_packed();
	else
		serve_split();
}

static int start(struct ctrl_queue *ctrl, uint16_t max_size, bool packed)
{
	memset(&device, 0, sizeof(device));
	memset(device.memory, 0xa5, sizeof(device.memory));
	device.max_size = max_size;
	device.packed = packed;
	return ctrl_queue_start(ctrl, NULL, 2, packed, device.memory, IOVA);
}

/* What was in the memory before could look like an answer. */
static void check_cleared(void)
{
	unsigned i, nr = 0;

	for (i = 0; i < sizeof(device.memory); i++)
		nr += device.memory[i] != 0;
	assert_int_equal(nr, 1); /* no interrupts, please */
}

static const uint16_t sizes[][2] = { { 2, 2 },   { 3, 2 },    { 4, 4 },
				     { 64, 64 }, { 100, 64 }, { 256, 64 } };

static void commands(bool packed)
{
	uint8_t data[CTRL_QUEUE_DATA + 1];
	struct ctrl_queue ctrl;
	unsigned i;
	size_t s;

	for (s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		assert_int_equal(start(&ctrl, sizes[s][0], packed), 0);
		check_cleared();
		assert_int_equal(device.setup.size, sizes[s][1]);
		assert_int_equal(device.setup.vector, VIRTIO_PCI_NO_VECTOR);
		assert_int_equal(device.setup.device_iova % 4, 0);
		/* Round the ring, and more than once. */
		for (i = 0; i < 200; i++) {
			memset(data, (int)i, sizeof(data));
			assert_int_equal(ctrl_queue_command(&ctrl, (uint8_t)i, (uint8_t)(i + 1),
							    data, i * 5),
					 0);
			assert_int_equal(device.class, i);
			assert_int_equal(device.command, i + 1);
			assert_int_equal(device.len, i * 5);
			assert_memory_equal(device.data, data, i * 5);
		}
		assert_int_equal(device.rings, 200);
		assert_int_equal(ctrl_queue_set_pairs(&ctrl, 0x0304), 0);
		assert_int_equal(device.class, VIRTIO_NET_CTRL_MQ);
		assert_int_equal(device.command, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET);
		assert_int_equal(device.len, 2);
		assert_int_equal(device.data[0], 4);
		assert_int_equal(device.data[1], 3);
		assert_int_equal(ctrl_queue_command(&ctrl, 0, 0, data, sizeof(data)), -EMSGSIZE);
		assert_int_equal(ctrl_queue_command(&ctrl, 0, 0, data, CTRL_QUEUE_DATA), 0);
	}
}

static void test_split(void **state)
{
	(void)state;
	commands(false);
}

static void test_packed(void **state)
{
	(void)state;
	commands(true);
}

/* An error is an answer. Anything else leaves buffers in doubt, and the queue is not used again. */
static void test_faults(void **state)
{
	static const struct {
		enum fault fault;
		int ret;
		bool lives, split_only;
	} cases[] = {
		{ REFUSES, -EREMOTEIO, true, false },  { NONSENSE, -EBADMSG, true, false },
		{ NO_ANSWER, -EBADMSG, true, false },  { WRONG_ID, -EBADMSG, false, false },
		{ WRONG_LEN, -EBADMSG, false, false }, { WRONG_IDX, -EBADMSG, false, true },
		{ SILENT, -ETIMEDOUT, false, false },
	};
	struct ctrl_queue ctrl;
	unsigned i, packed;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (packed = 0; packed < 2u - cases[i].split_only; packed++) {
			assert_int_equal(start(&ctrl, 64, packed), 0);
			assert_int_equal(ctrl_queue_set_pairs(&ctrl, 1), 0);
			device.fault = cases[i].fault;
			assert_int_equal(ctrl_queue_set_pairs(&ctrl, 2), cases[i].ret);
			device.fault = NONE;
			assert_int_equal(ctrl_queue_set_pairs(&ctrl, 1),
					 cases[i].lives ? 0 : -ETIMEDOUT);
			assert_int_equal(device.rings, cases[i].lives ? 3 : 2);
		}
	}
}

static void test_start_refused(void **state)
{
	struct ctrl_queue ctrl = { .queue = 77 };

	(void)state;
	assert_int_equal(start(&ctrl, 0, false), -EINVAL);
	assert_int_equal(start(&ctrl, 1, true), -EINVAL);
	memset(&device, 0, sizeof(device));
	device.max_size = 64;
	device.start_ret = -EIO;
	assert_int_equal(ctrl_queue_start(&ctrl, NULL, 2, false, device.memory, IOVA), -EIO);
	assert_int_equal(ctrl.queue, 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_packed),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_start_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
