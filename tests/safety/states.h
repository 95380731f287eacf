/* SPDX-License-Identifier: BSD-3-Clause */
/* The states of a connection in which messages are tried, each with how one gets there. */
#ifndef TESTS_SAFETY_STATES_H
#define TESTS_SAFETY_STATES_H

#include "conn.h"

struct state {
	const char *name;
	enum conn_kind kind;
	bool packed;
	void (*enter)(struct conn *conn);
	/* Was it reached? A matrix of messages that were all refused on the way would prove nothing. */
	bool (*reached)(const struct conn *conn);
};

extern const struct state states[];
extern const unsigned nr_states;

/* It must be there. */
const struct state *state_named(const char *name);

/* A fresh connection in @state, everything answered. False: not reached. */
bool state_open(const struct state *state, struct conn *conn);

#endif
