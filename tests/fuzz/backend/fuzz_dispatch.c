/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A back end and a sequence of messages, in any state, with the device's work in between.
 *
 * Input: the state to begin in, then records: request, flags, what descriptors, length of payload, payload.
 * Request 0xff: the device works; 0xfe: bytes as they are, without a header; 0xfd: the guest's rings anew.
 */
#include "tests/fuzz/fuzz.h"

#include "tests/safety/states.h"

static uint64_t popped, pushed, replies, messages, ended, in_state[32];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	conn_setup();
	return 0;
}

static unsigned choose_fds(uint8_t choice, int *fds)
{
	const int kinds[] = { conn_fds.memory, conn_fds.event, conn_fds.socket, conn_fds.pipe };
	unsigned nr = choice >> 4;

	if (nr > 10)
		nr = 1;
	for (unsigned i = 0; i < nr; i++)
		fds[i] = kinds[(choice >> (i % 2 * 2)) & 3];
	return nr;
}

static void message(struct conn *conn, struct input *in, uint8_t request)
{
	uint8_t flags = input8(in), choice = input8(in), size = input8(in), payload[256];
	int fds[16];
	unsigned nr_fds = choose_fds(choice, fds);

	input_bytes(in, payload, size);
	if (request == 0xfe)
		conn_send(conn, payload, size, fds, size ? nr_fds : 0);
	else
		/* Flags that are right are worth more than those that are not. */
		conn_say(conn, request, flags & 0x80 ? flags & 0x7f : 1u | (flags & 8), payload,
			 size, fds, nr_fds);
	messages++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Each time: libFuzzer opens things of its own in between. */
	const struct conn_left clean = conn_left();
	struct input in = { data, size };
	const struct state *state = &states[input8(&in) % nr_states];
	struct conn_left left;
	struct conn conn;

	in_state[state - states] += state_open(state, &conn);
	for (unsigned i = 0; i < 64 && in.left && !conn.ended; i++) {
		uint8_t request = input8(&in);

		if (request == 0xff)
			conn_turn(&conn);
		else if (request == 0xfd)
			conn_fill_rings(input8(&in) & 1);
		else
			message(&conn, &in, request);
		if (i % 2)
			conn_pump(&conn);
	}
	conn_pump(&conn);
	conn_turn(&conn);
	popped += conn.popped;
	pushed += conn.pushed;
	replies += conn.replies;
	ended += conn.ended;
	conn_close(&conn, size & 1);
	left = conn_left();
	fuzz_must(left.fds == clean.fds && left.mappings == clean.mappings);
	return 0;
}

bool fuzz_report(void)
{
	unsigned reached = 0;

	for (unsigned i = 0; i < nr_states; i++)
		reached += in_state[i] != 0;
	printf("dispatch: %llu messages in %u of %u states, %llu replies, %llu connections ended; "
	       "%llu requests popped, %llu pushed\n",
	       (unsigned long long)messages, reached, nr_states, (unsigned long long)replies,
	       (unsigned long long)ended, (unsigned long long)popped, (unsigned long long)pushed);
	return reached == nr_states && replies && ended && popped && pushed;
}
