/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every request of the message table, in every state of a connection, in every way to get it wrong.
 *
 * Rows come from lib/proto/messages.def: a new message is tried without anybody thinking of it. A cell is
 * a connection of its own: the state is entered, one message (or a part of one) is sent, the device does
 * its rings' work, and then the connection ends, half of the time by the front end. What must hold in each:
 * no crash, no promise to the device broken, less than a second, and descriptors and mappings back where
 * they were. What is not the protocol (version, size, number of descriptors) must end the connection with
 * a sentence; whatever else happens, replies are whole.
 *
 *	BELFRY_CELLS=all	all of them; without it a quarter, another one for each state
 */
#include "../unit/support.h"

#include <signal.h>
#include <time.h>

#include "lib/proto/message.h"
#include "states.h"

#define LIMIT_NS 1000000000ull

struct row {
	uint32_t request;
	const struct bf_msg_desc *desc; /* NULL: no such request */
};

#define MAIN(NAME, ...) { BF_FE_##NAME, NULL },
#define BACK(NAME, ...)
static struct row rows[] = {
#include "lib/proto/messages.def"
	{ 0, NULL },
	{ BF_FE_GET_VRING_BASE_SKIP_DRAIN + 1, NULL },
	{ 0x10001, NULL },
	{ UINT32_MAX, NULL },
};
#undef MAIN
#undef BACK
#define NR_ROWS (sizeof(rows) / sizeof(rows[0]))

/* One message as it goes over the socket, and what must become of it. */
struct cell {
	const struct state *state;
	const struct row *row;
	char what[64];
	struct bf_header hdr;
	uint8_t payload[8192];
	uint32_t len; /* bytes of header and payload that are really sent */
	int fds[10];
	unsigned nr_fds;
	bool must_end;
};

static struct cell cell;
static unsigned nr_cells, nr_ended, nr_lived, nr_slow;
static uint64_t nr_popped;

static void put(uint32_t offset, const void *bytes, uint32_t len)
{
	memcpy(cell.payload + offset, bytes, len);
	cell.hdr.size = offset + len;
}

static void put_words(unsigned nr, const uint64_t *words)
{
	put(0, words, nr * 8);
}

/* Descriptors of the kind that the request wants. */
static void want_fds(unsigned nr)
{
	int fd = conn_fds.memory;

	switch (cell.row->request) {
	case BF_FE_SET_VRING_KICK:
	case BF_FE_SET_VRING_CALL:
	case BF_FE_SET_VRING_ERR:
	case BF_FE_SET_LOG_FD:
		fd = conn_fds.event;
		break;
	case BF_FE_SET_BACKEND_REQ_FD:
	case BF_FE_GPU_SET_SOCKET:
		fd = conn_fds.socket;
		break;
	case BF_FE_SET_DEVICE_STATE_FD:
		fd = conn_fds.pipe;
		break;
	}
	cell.nr_fds = nr;
	for (unsigned i = 0; i < nr; i++)
		cell.fds[i] = fd;
}

static void state_payload(void)
{
	uint32_t words[2] = { 0, 0 };

	if (cell.row->request == BF_FE_SET_VRING_NUM)
		words[1] = RING_SIZE;
	if (cell.row->request == BF_FE_SET_VRING_ENABLE)
		words[1] = 1;
	put(0, words, sizeof(words));
}

/* The request as an honest front end sends it. */
static void good(void)
{
	static const uint64_t table[] = { 1, GPA, MEMORY_SIZE, UVA, 0 };
	static const uint64_t reg[] = { 0, GPA + (1 << 30), 4096, UVA + (1 << 30), 0 };
	static const uint64_t addr[] = { 0, UVA, UVA + 2048, UVA + 1024, 0 };
	static const uint64_t log[] = { (GPA + MEMORY_SIZE) / 32768, 0 };
	static const uint64_t iotlb[] = { IOVA, 4096, UVA, 3 | BF_IOTLB_UPDATE << 8 };
	static const uint64_t inflight[] = { 16384, 131072, QUEUES | RING_SIZE << 16 };
	static const uint64_t config[] = { 8ull << 32, 0, 0 };
	static const uint64_t session[8] = { 1, 2, 3 };
	static const uint64_t uuid[2] = { 0, 7 };
	static const uint64_t load[] = { 1 };
	static const uint64_t value[] = { 0 };

	memset(cell.payload, 0, 64);
	cell.hdr =
		(struct bf_header){ cell.row->request, BF_FLAGS_VERSION | BF_FLAGS_NEED_REPLY, 0 };
	cell.must_end = !cell.row->desc;
	want_fds(cell.row->desc ? cell.row->desc->min_fds : 0);
	switch (cell.row->desc ? cell.row->desc->payload : BF_PAYLOAD_NONE) {
	case BF_PAYLOAD_U64:
		put_words(1, value);
		break;
	case BF_PAYLOAD_VRING_FD:
		put_words(1, value);
		want_fds(1);
		break;
	case BF_PAYLOAD_STATE:
		state_payload();
		break;
	case BF_PAYLOAD_ADDR:
		put_words(5, addr);
		break;
	case BF_PAYLOAD_TABLE:
		put_words(5, table);
		want_fds(1);
		break;
	case BF_PAYLOAD_REG:
		put_words(5, reg);
		break;
	case BF_PAYLOAD_LOG:
		put_words(2, log);
		want_fds(1);
		break;
	case BF_PAYLOAD_IOTLB:
		put_words(4, iotlb);
		break;
	case BF_PAYLOAD_CONFIG:
		put(0, config, 20);
		break;
	case BF_PAYLOAD_INFLIGHT:
	case BF_PAYLOAD_INFLIGHT_ASK:
		put_words(3, inflight);
		break;
	case BF_PAYLOAD_SESSION:
		put_words(8, session);
		break;
	case BF_PAYLOAD_UUID:
		put_words(2, uuid);
		break;
	case BF_PAYLOAD_DEVICE_STATE:
		put_words(1, load);
		break;
	default:
		break;
	}
	cell.len = UINT32_MAX; /* all */
}

static const char *text(void)
{
	static char line[256];

	snprintf(line, sizeof(line), "%s (request %u) in state \"%s\": %s",
		 bf_msg_name(BF_CHANNEL_MAIN, cell.row->request), cell.row->request,
		 cell.state->name, cell.what);
	return line;
}

static void hung(int signal)
{
	(void)signal;
	dprintf(2, "# hangs: %s\n", text());
	_exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void send_cell(struct conn *conn)
{
	static uint8_t bytes[sizeof(struct bf_header) + sizeof(cell.payload)];
	uint32_t size = cell.hdr.size < sizeof(cell.payload) ? cell.hdr.size : 64;
	uint32_t len = (uint32_t)sizeof(cell.hdr) + size;

	memcpy(bytes, &cell.hdr, sizeof(cell.hdr));
	memcpy(bytes + sizeof(cell.hdr), cell.payload, size);
	conn_send(conn, bytes, cell.len < len ? cell.len : len, cell.fds, cell.nr_fds);
}

/* Once through. Returns how long it took in the library, and the end of it. */
static uint64_t try(void)
{
	bool truncated = cell.len != UINT32_MAX;
	uint64_t begin;
	struct conn conn;

	if (!state_open(cell.state, &conn))
		fail_msg("%s: the state is not reached: %s", text(), bf_backend_error(conn.be));
	begin = now();
	send_cell(&conn);
	conn_pump(&conn);
	if (cell.must_end && !conn.ended)
		fail_msg("%s: the connection lives", text());
	if (truncated && conn.ended)
		fail_msg("%s: ended before the message was whole", text());
	if (conn.ended && strlen(bf_backend_error(conn.be)) < 10)
		fail_msg("%s: no sentence: \"%s\"", text(), bf_backend_error(conn.be));
	nr_ended += conn.ended;
	nr_lived += !conn.ended;
	conn_turn(&conn);
	conn_pump(&conn);
	conn_close(&conn, truncated || nr_cells % 2);
	nr_popped += conn.popped;
	return now() - begin;
}

static void check(void)
{
	static struct conn_left clean;
	static unsigned rearm;
	struct conn_left left;

	if (!(rearm++ % 64))
		alarm(20);
	if (!clean.fds)
		clean = conn_left();
	/* A machine with other work may stop us for a second: twice it does not happen by chance. */
	if (try() > LIMIT_NS && try() > LIMIT_NS) {
		nr_slow++;
		print_message("# over a second: %s\n", text());
	}
	left = conn_left();
	if (left.fds != clean.fds || left.mappings != clean.mappings)
		fail_msg("%s: %u descriptors became %u, %u mappings became %u", text(), clean.fds,
			 left.fds, clean.mappings, left.mappings);
	nr_cells++;
}

/* Counts within a state; begins with another number in each, so that the quarters differ. */
static unsigned turn;

static bool chosen(void)
{
	static int all = -1;

	if (all < 0)
		all = getenv("BELFRY_CELLS") != NULL;
	return all || !(turn++ % 4);
}

#define CELL(...)                                                    \
	do {                                                         \
		snprintf(cell.what, sizeof(cell.what), __VA_ARGS__); \
		if (chosen())                                        \
			check();                                     \
	} while (0)

/* Sizes that vary with the content are judged by the content. */
static bool size_varies(void)
{
	return cell.row->desc && (cell.row->desc->payload == BF_PAYLOAD_SESSION ||
				  cell.row->desc->payload == BF_PAYLOAD_INFLIGHT ||
				  cell.row->desc->payload == BF_PAYLOAD_INFLIGHT_ASK ||
				  cell.row->desc->payload == BF_PAYLOAD_LOG);
}

static void sizes(void)
{
	uint32_t exact, list[] = {
		0,    1,     4,           7,         0, 0, 0, 0, BF_PAYLOAD_MAX, BF_PAYLOAD_MAX + 1,
		5000, 65536, 0x80000000u, UINT32_MAX
	};

	good();
	exact = cell.hdr.size;
	list[4] = exact ? exact - 1 : 2;
	list[5] = exact + 1;
	list[6] = exact + 8;
	list[7] = exact + 32;
	for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		good();
		cell.hdr.size = list[i];
		/* A table's size goes with its number of regions, a config's with its length. */
		cell.must_end |= list[i] > BF_PAYLOAD_MAX || (list[i] != exact && !size_varies());
		CELL("size %u", list[i]);
	}
}

static void flags(void)
{
	for (uint32_t f = 0; f < 16; f++) {
		good();
		cell.hdr.flags = f;
		cell.must_end |= (f & 3) != 1 || (f & BF_FLAGS_REPLY);
		CELL("flags 0x%x", f);
	}
	for (uint32_t bit = 4; bit < 32; bit += 9) {
		good();
		cell.hdr.flags |= 1u << bit;
		cell.must_end = true;
		CELL("flag bit %u", bit);
	}
}

/* The first word is an index nearly everywhere; the second a number. */
static void indices(void)
{
	static const uint32_t index[] = {
		0,     1,     QUEUES - 1, QUEUES,  0xff,        0x100,
		0x1ff, 0x103, 0xffff,     0x10000, 0x80000000u, UINT32_MAX
	};
	static const uint32_t number[] = { 0,    1,      2,      3,       RING_SIZE,   1024,
					   1025, 0x8000, 0xffff, 0x10000, 0x80000000u, UINT32_MAX };

	for (unsigned i = 0; i < sizeof(index) / sizeof(index[0]); i++) {
		good();
		if (cell.hdr.size < 8)
			return;
		memcpy(cell.payload, &index[i], 4);
		if (cell.row->desc->payload == BF_PAYLOAD_VRING_FD)
			want_fds(index[i] & BF_VRING_NOFD ? 0 : 1);
		CELL("first word 0x%x", index[i]);
	}
	for (unsigned i = 0; i < sizeof(number) / sizeof(number[0]); i++) {
		good();
		memcpy(cell.payload + 4, &number[i], 4);
		CELL("second word 0x%x", number[i]);
	}
}

/* Every 64-bit field in turn takes every value that arithmetic trips over. */
static void fields(void)
{
	static const uint64_t value[] = { 0,          1,           4095,
					  4096,       MEMORY_SIZE, 1ull << 32,
					  1ull << 47, 1ull << 63,  UINT64_MAX - 4095,
					  UINT64_MAX };

	for (unsigned at = 0; at < 5; at++)
		for (unsigned i = 0; i < sizeof(value) / sizeof(value[0]); i++) {
			good();
			if (cell.hdr.size < 16 || 8 * at + 8 > cell.hdr.size)
				return;
			memcpy(cell.payload + 8 * at, &value[i], 8);
			CELL("field %u is 0x%llx", at, (unsigned long long)value[i]);
		}
}

static void descriptors(void)
{
	const int wrong[] = { conn_fds.memory, conn_fds.event, conn_fds.socket, conn_fds.dgram,
			      conn_fds.pipe };

	for (unsigned nr = 0; nr <= 9; nr++) {
		good();
		want_fds(nr);
		cell.must_end |= cell.row->desc &&
				 (nr < cell.row->desc->min_fds || nr > cell.row->desc->max_fds);
		CELL("%u descriptors", nr);
		good();
		want_fds(nr);
		cell.hdr.size += 3;
		cell.must_end |= !size_varies();
		CELL("%u descriptors and a wrong size", nr);
	}
	for (unsigned i = 0; i < 5; i++) {
		good();
		for (unsigned k = 0; k < cell.nr_fds; k++)
			cell.fds[k] = wrong[i];
		if (cell.nr_fds)
			CELL("descriptors of kind %u", i);
	}
}

/* The front end dies after so many bytes of a message. */
static void truncations(void)
{
	uint32_t size, list[] = { 1, 4, 8, 11, 12, 13, 0, 0 };

	good();
	size = cell.hdr.size;
	list[6] = 12 + size / 2;
	list[7] = 12 + size - 1;
	for (unsigned i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		good();
		if (list[i] >= 12 + size || !cell.row->desc)
			continue;
		cell.len = list[i];
		CELL("the first %u bytes", list[i]);
	}
}

static void garbage(void)
{
	static unsigned seed = 1;

	for (unsigned i = 0; i < 6; i++) {
		uint32_t size;

		good();
		size = cell.hdr.size;
		for (uint32_t b = 0; b < size; b++)
			cell.payload[b] = i ? (uint8_t)(rand_r(&seed) >> 8) : 0xff;
		CELL("garbage %u", i);
	}
}

/* A state that cannot be reached is a failure, said for all of them at once; its cells prove nothing. */
static bool reachable(const struct state *state)
{
	struct conn conn;
	bool reached = state_open(state, &conn);

	if (!reached)
		print_message("# state \"%s\" is not reached: %s\n", state->name,
			      conn.be ? bf_backend_error(conn.be) : "no back end");
	conn_close(&conn, true);
	return reached;
}

static void matrix(void **data)
{
	unsigned nr_unreached = 0;

	(void)data;
	conn_setup();
	for (unsigned r = 0; r < NR_ROWS; r++)
		rows[r].desc = bf_msg_desc(BF_CHANNEL_MAIN, rows[r].request);
	signal(SIGALRM, hung);
	for (unsigned s = 0; s < nr_states; s++) {
		if (!reachable(&states[s])) {
			nr_unreached++;
			continue;
		}
		turn = s;
		for (unsigned r = 0; r < NR_ROWS; r++) {
			cell.state = &states[s];
			cell.row = &rows[r];
			sizes();
			flags();
			indices();
			fields();
			descriptors();
			truncations();
			garbage();
		}
	}
	alarm(0);
	print_message("# %u cells: %zu requests in %u states; %u ended the connection, %u did not; "
		      "%llu requests of rings served meanwhile\n",
		      nr_cells, NR_ROWS, nr_states, nr_ended, nr_lived,
		      (unsigned long long)nr_popped);
	assert_int_equal(nr_unreached, 0);
	assert_true(nr_cells >= 20000);
	assert_true(nr_ended > nr_cells / 10 && nr_lived > nr_cells / 10);
	assert_int_equal(nr_slow, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(matrix) };

	return cmocka_run_group_tests_name("message_matrix", tests, NULL, NULL);
}
