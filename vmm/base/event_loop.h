/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The main thread's event loop: every callback runs on the thread that runs the loop.
 *
 * _add and _del may be called from any thread. When _del returns on the loop's own thread, the
 * callback is not called again. When it returns on another thread, a call that had begun may
 * still be running: free what it uses on the loop's thread only.
 */
#ifndef VMM_EVENT_LOOP_H
#define VMM_EVENT_LOOP_H

#include <stdint.h>

struct event_loop;

int event_loop_new(struct event_loop **out);
void event_loop_free(struct event_loop *loop);

/*
 * Call @fn when one of @events (EPOLLIN, ...) is ready on @fd, level-triggered. The fd stays the
 * caller's and must stay open until _del. 0; -EEXIST if the fd is in the loop; -EPERM if the file
 * can not be polled (a regular file); -ENOMEM.
 */
int event_loop_add(struct event_loop *loop, int fd, uint32_t events,
		   void (*fn)(void *opaque, uint32_t events), void *opaque);
/* An fd that is not in the loop is ignored. */
void event_loop_del(struct event_loop *loop, int fd);

/* Run callbacks until event_loop_quit(); 0, or the error of waiting. */
int event_loop_run(struct event_loop *loop);
/* From a callback: the loop ends when it returns. */
void event_loop_quit(struct event_loop *loop);

#endif
