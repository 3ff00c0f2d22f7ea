/* SPDX-License-Identifier: Apache-2.0 */
/* Fence agents of the tests: a power switch in a folder, with faults, and programs that are no agents at all. */
#ifndef GODWIT_TESTS_FENCING_AGENTS_H
#define GODWIT_TESTS_FENCING_AGENTS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * fence_test is a real agent in shell: plug P is on unless FOLDER/P says "off". A file FOLDER/P.fault makes it
 * misbehave: fail (exit 1 at every action), hang (off never ends), lie (off succeeds, the plug stays on), mute (status
 * exits 1), once (off fails the first time), leave (off leaves a process behind that holds the outputs and would switch
 * the plug on later), away (off ends well, and a process in a session of its own goes on below it), spy (tells on its
 * last line what password it was given), slow (a second for off). FOLDER/log gets "ACTION PLUG" for each call.
 */
extern char agents_dir[];   /* where the agents are: a folder of this run, for agent_path() */
extern char agents_state[]; /* FOLDER: the value of its option `folder` */

int agents_setup(void **state); /* cmocka's group set-up and clean-up */
int agents_teardown(void **state);
void agents_reset(void); /* everything on, no faults, an empty log */

void agents_write(const char *name, const char *script); /* one more program among the agents */
void agents_fault(const char *plug, const char *fault);  /* NULL: none */
bool agents_is_off(const char *plug);
char *agents_file(const char *name); /* a file in FOLDER as text, "" when missing; caller frees */
char *agents_log(void);              /* "off 1,status 1": caller frees */

/* Whether no process has @word among its arguments, now or within two seconds. */
bool agents_nobody_runs(const char *word);

#endif
