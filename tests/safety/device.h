/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device of a connection, and every call into the library that the tests make through it: one place,
 * so that fault injection can arm itself around exactly these.
 */
#ifndef TESTS_SAFETY_DEVICE_H
#define TESTS_SAFETY_DEVICE_H

#include "conn.h"

/* Called before and after each call into the library; NULL: not. */
extern void (*device_enter)(void);
extern void (*device_leave)(void);

int device_new(struct conn *conn);
int device_attach(struct conn *conn, int fd);
int device_dispatch(struct conn *conn);
void device_free(struct conn *conn);

#endif
