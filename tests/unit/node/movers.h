/* SPDX-License-Identifier: Apache-2.0 */
/* Two hosts with their movers in one process, a loop, and a guest that they move. */
#ifndef GODWIT_TESTS_UNIT_NODE_MOVERS_H
#define GODWIT_TESTS_UNIT_NODE_MOVERS_H

#include "node/mover.h"
#include "tests/unit/node/host.h"

#define ID "5f0f3c52-0000-4000-8000-000000000001"

/* One host: its run directory, its mover, what that has said. */
struct host {
	char dir[64];
	struct mover *m;
	char address[128], token[80], words[600];
	int listened, progressed, forecasts, agrees, answers, ends;
	bool forecast_good;
	enum move_answer answer;
	enum mover_end end;
	double pause_ms;
	bool figures;
};

extern struct host host_src, host_dst;
extern struct loop *host_loop;
extern char *vm_program, *migrate_program;
extern unsigned guest_mib; /* for guests that are started from now on; 128 at the start of each test */

int movers_set_up(void **state);
int movers_tear_down(void **state);

/* A new mover on @h, as after the start of a daemon; @migrate NULL: the real engine; @tls NULL: plaintext. */
void mover_up_with(struct host *h, const char *migrate, const char *tls);
void mover_up(struct host *h, const char *migrate);

/* The daemon of @h dies and another starts: what was said is forgotten. */
void mover_again(struct host *h);

/* A mover_forecast_fn for a host. */
void on_forecast(void *arg, const json_t *f, const char *words);

/* Run the loop until @done, for at most 40 s. */
void run_until_fn(bool (*done)(void), const char *what);
#define run_until(name) run_until_fn(name, #name)
void run_ms(int ms);

/* What can be waited for. */
bool dst_listens(void);
bool src_asks(void);
bool src_progresses(void);
bool src_ended(void);
bool dst_ended(void);
bool both_ended(void);
bool src_answered(void);
bool dst_answered(void);
bool src_forecast(void);

/* VM_STATUS_MAX: nothing of it is there. */
enum vm_status status_on(const struct host *h);
/* Where the guest is, and that nothing else of it is anywhere. */
void assert_guest_on(struct host *h);

json_t *definition_of(const char *more);
void guest_start(struct host *h);
void receive_from(const char *peer);
void receive_now(void);
struct mover_send_options send_options(void);
void send_now(unsigned bandwidth_mbs);
/* Guest here, both sides ready, the copy begun. */
void move_begin(unsigned bandwidth_mbs);
/* Nothing is left of the migration on either host. */
void forget_both(void);

#endif
