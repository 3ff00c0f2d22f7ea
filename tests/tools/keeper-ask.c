/* SPDX-License-Identifier: Apache-2.0 */
/* Plays godwitd towards godwit-watchdog, from a shell: keeper-ask RUN-DIR WORD...
 *
 *   configure MARK LEASE-MS BUDGET-MS WATCHDOG-S | until MS (from now) | renew MS SECONDS (every quarter of MS) |
 * release | die | state NAME (wait for it)
 *
 * One line per answer; exit status 1 with the sentence of the first that is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "fencing/keeper-client.h"

#define PATIENCE (60 * NS_PER_S)

static struct keeper_client k = KEEPER_CLIENT_INIT;
static struct keeper_status st;

static _Noreturn void fail(const struct err *e)
{
	fprintf(stderr, "keeper-ask: %s\n", e->text);
	exit(1);
}

static void next(void)
{
	struct err e = ERR_INIT;

	if (keeper_wait(&k, clock_now_ns() + PATIENCE, &st, &e) < 0)
		fail(&e);
}

/* The answer to what was asked, with @r. */
static void answer(int r, struct err *e)
{
	if (r < 0)
		fail(e);
	do
		next();
	while (st.answer_to == KEEPER_STATUS);
	if (st.code) {
		err_set(e, st.code, "%s", st.text);
		fail(e);
	}
	printf("%s: state %s, device %s %u s %s\n", keeper_type_names[st.answer_to], keeper_state_names[st.state],
	       keeper_device_names[st.device], st.watchdog_s, st.device_text);
	fflush(stdout);
}

static int64_t ms(const char *text)
{
	return strtoll(text, NULL, 10) * NS_PER_MS;
}

static void until(int64_t ns)
{
	struct err e = ERR_INIT;

	answer(keeper_ask_until(&k, clock_boot_ns() + ns, &e), &e);
}

/* Carries out the word at @w; returns how many words it was. */
static int obey(char **w, int left)
{
	struct err e = ERR_INIT;

	if (strcmp(w[0], "configure") == 0 && left >= 5) {
		struct keeper_config c = {.lease_ns = ms(w[2]), .budget_ns = ms(w[3])};

		c.watchdog_s = (unsigned)strtoul(w[4], NULL, 10);
		snprintf(c.mark, sizeof(c.mark), "%s", w[1]);
		answer(keeper_ask_configure(&k, &c, &e), &e);
		return 5;
	}
	if (strcmp(w[0], "until") == 0 && left >= 2) {
		until(ms(w[1]));
		return 2;
	}
	if (strcmp(w[0], "renew") == 0 && left >= 3) {
		for (int64_t end = clock_now_ns() + ms(w[2]) * 1000; clock_now_ns() < end;) {
			until(ms(w[1]));
			usleep((useconds_t)(ms(w[1]) / 4000));
		}
		return 3;
	}
	if (strcmp(w[0], "state") == 0 && left >= 2) {
		while (strcmp(keeper_state_names[st.state], w[1]) != 0)
			next();
		printf("state %s, %u guests stopped\n", w[1], st.report.guests);
		return 2;
	}
	if (strcmp(w[0], "release") == 0) {
		answer(keeper_ask_release(&k, &e), &e);
		return 1;
	}
	if (strcmp(w[0], "die") == 0) {
		answer(keeper_ask_die(&k, &e), &e);
		return 1;
	}
	err_set(&e, ERR_USAGE, "%s: no such word, or something is missing after it", w[0]);
	fail(&e);
}

int main(int argc, char **argv)
{
	struct err e = ERR_INIT;

	if (argc < 2) {
		err_set(&e, ERR_USAGE, "write: keeper-ask RUN-DIR WORD...");
		fail(&e);
	}
	if (keeper_connect(argv[1], clock_now_ns() + PATIENCE, &k, &st, &e) < 0)
		fail(&e);
	for (int i = 2; i < argc;)
		i += obey(argv + i, argc - i);
	keeper_close(&k);
	return 0;
}
