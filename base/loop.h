/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop of a daemon: descriptors, timers, signals, children and calls from other threads, in one thread. */
#ifndef GODWIT_BASE_LOOP_H
#define GODWIT_BASE_LOOP_H

#include <stdint.h>

/* One loop per process; everything below is called in its thread (*loop*) unless it says otherwise. A callback may free
 * any handle, its own included. Handles are freed before the loop. All _free functions take NULL. */
struct loop;
struct event_base;

typedef void loop_fn(void *arg);

struct loop *loop_new(void);
void loop_free(struct loop *l); /* calls that nobody has made yet are dropped */

/* Run callbacks until loop_stop(). 0, or -1 with errno when the kernel refuses to poll. */
int loop_run(struct loop *l);

/* loop_run() returns after the callback that called this. */
void loop_stop(struct loop *l);

/* Borrowed: for the parts of libevent that have no wrapper here (bufferevents). */
struct event_base *loop_base(struct loop *l);

#define LOOP_READ 1U
#define LOOP_WRITE 2U

/* Call @fn with what @fd is ready for, as long as it is. @fd is borrowed and must outlive the handle. */
typedef void loop_io_fn(void *arg, unsigned ready);
struct loop_io *loop_io_add(struct loop *l, int fd, unsigned events, loop_io_fn *fn, void *arg);
void loop_io_set(struct loop_io *io, unsigned events); /* 0: rest */
void loop_io_free(struct loop_io *io);

/* Call @fn after @after_ns, then every @repeat_ns (0: once). A timer that has fired is still freed by its owner. */
struct loop_timer *loop_timer_add(struct loop *l, int64_t after_ns, int64_t repeat_ns, loop_fn *fn, void *arg);
void loop_timer_set(struct loop_timer *t, int64_t after_ns); /* once more, this long from now; -1: not at all */
void loop_timer_free(struct loop_timer *t);

/* Call @fn once, soon, from the loop and not from here; in the order of the requests. */
void loop_defer(struct loop *l, loop_fn *fn, void *arg);

/* The same, from any thread. */
void loop_call(struct loop *l, loop_fn *fn, void *arg);

struct loop_signal *loop_signal_add(struct loop *l, int signum, loop_fn *fn, void *arg);
void loop_signal_free(struct loop_signal *s);

/* Call @fn once, when the process behind @pidfd (borrowed) has ended. Reaping it is the owner's business. */
struct loop_child *loop_child_add(struct loop *l, int pidfd, loop_fn *fn, void *arg);
void loop_child_free(struct loop_child *c);

#endif
