/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent does about one guest.
 *
 * First: whose is it? A run directory entry is ours if its mark names our cluster and the cluster knows its uuid under
 * this name. Everything else is reported and never touched, whatever the cluster wants of that name.
 *
 * Then the epochs. A guest is started with the epoch of the ownership it was started under, and each change of host is
 * a new epoch. So an entry with an older one is from a time before somebody else owned the guest: it must not run
 * (promise S1), and is killed, not stopped, since a clean shutdown writes to a disk that may be another host's. An
 * entry with a newer one is a guest that has come by a move that the cluster's state has not seen the end of: it may be
 * the only copy, so it is reported and left alone, except one that still waits for its memory while nobody moves it.
 *
 * With equal epochs, and the guest ours:
 *
 *   wanted     nothing  gone   shutdown  running  paused  incoming  migrated  failed  silent
 *   running    start    report report    -        report  kill      report    report  report
 *   stopped    -        stop   stop      stop     stop    stop      stop      stop    stop
 *   killed     -        kill   kill      kill     kill    kill      kill      kill    kill
 *   elsewhere  -        kill   kill      kill     kill    kill      kill      kill    kill
 *   moving     -        -      -         -        -       -         -         -       -
 *
 * What shall run is started once under an epoch, and never again after it has run or could not be started: it is
 * reported as failed, and the manager lets it start here or elsewhere, by a new epoch. Otherwise two hosts could start
 * it, this one on its own and the other because the manager had given up on this one.
 */
#include "node/agent-plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

#define MARK_PREFIX "godwit:"

const char *const agent_act_names[AGENT_ACT_MAX] = {"nothing", "wait", "start", "stop", "kill", "report", "refuse"};
const char *const agent_cause_names[AGENT_CAUSE_MAX] = {NULL, "crash", "failed", "host"};

char *agent_mark(const char *cluster, int64_t epoch)
{
	return xasprintf(MARK_PREFIX "%s:%" PRId64, cluster, epoch);
}

bool agent_mark_parse(const char *mark, char ret_cluster[AGENT_CLUSTER_MAX + 1], int64_t *ret_epoch)
{
	const char *cluster, *colon;
	char *end;
	long long epoch;

	if (!mark || strncmp(mark, MARK_PREFIX, strlen(MARK_PREFIX)) != 0)
		return false;
	cluster = mark + strlen(MARK_PREFIX);
	colon = strchr(cluster, ':');
	if (!colon || colon == cluster || colon - cluster > AGENT_CLUSTER_MAX)
		return false;
	epoch = strtoll(colon + 1, &end, 10);
	if (end == colon + 1 || *end || epoch < 0)
		return false;
	memcpy(ret_cluster, cluster, (size_t)(colon - cluster));
	ret_cluster[colon - cluster] = 0;
	*ret_epoch = epoch;
	return true;
}

static struct agent_action act(enum agent_act a, const char *why)
{
	return (struct agent_action){.act = a, .why = why};
}

/* It shall run, and does not. */
static struct agent_action report(enum agent_cause cause, const char *why)
{
	return (struct agent_action){.act = AGENT_REPORT, .why = why, .cause = cause};
}

/* Why this entry is not ours, or NULL. */
static const char *foreign(const char *cluster, const struct agent_want *want, const struct agent_have *have)
{
	if (!have->cluster[0])
		return "was started by hand and is not the cluster's";
	if (strcmp(have->cluster, cluster) != 0)
		return "belongs to another cluster";
	if (!want)
		return "is not known to the cluster";
	return strcmp(have->uuid, want->uuid) != 0 ? "has another uuid than the cluster's guest of that name" : NULL;
}

static struct agent_action start(const struct agent_want *want, const char *why)
{
	if (want->failure)
		return report(AGENT_CAUSE_FAILED, want->failure);
	if (want->ran)
		return report(AGENT_CAUSE_HOST, "has ended while this host or its daemon was away");
	return act(AGENT_START, why);
}

static struct agent_action plan_running(const struct agent_want *want, const struct agent_have *have)
{
	switch (have->status) {
	case VM_STATUS_RUNNING:
		return act(AGENT_NOTHING, "");
	case VM_STATUS_GONE:
		return have->epoch < want->epoch ? start(want, "is to run anew")
						 : report(AGENT_CAUSE_CRASH, "its QEMU ended without being told to");
	case VM_STATUS_INCOMING:
		return act(AGENT_KILL, "waits for a move that nobody makes");
	case VM_STATUS_PAUSED:
		return act(AGENT_REPORT, "is paused");
	case VM_STATUS_MIGRATED:
		return act(AGENT_REPORT, "was moved away, and whether it runs there is not known");
	case VM_STATUS_SHUTDOWN:
		return act(AGENT_REPORT, "powered itself off");
	case VM_STATUS_FAILED:
		return report(AGENT_CAUSE_CRASH, "was stopped by QEMU: an internal or I/O error, or a panic");
	case VM_STATUS_SILENT:
	case VM_STATUS_MAX:
		break;
	}
	return act(AGENT_REPORT, "its monitor does not answer, or is in use");
}

/* Something of ours is here, and no move has it in hand. */
static struct agent_action plan_have(const struct agent_want *want, const struct agent_have *have)
{
	if (have->status == VM_STATUS_GONE && want->intent == AGENT_ELSEWHERE)
		return act(AGENT_KILL, "is gone: tidy up");
	if (have->epoch > want->epoch && have->status != VM_STATUS_GONE)
		return have->status == VM_STATUS_INCOMING
			       ? act(AGENT_KILL, "waits for a move that nobody makes")
			       : act(AGENT_REPORT, "has come by a move that the cluster has not seen the end of");
	if (want->intent == AGENT_ELSEWHERE)
		return act(AGENT_KILL, "another node owns it");
	if (have->epoch < want->epoch && have->status != VM_STATUS_GONE)
		return act(AGENT_KILL, "is from before another node owned it");
	switch (want->intent) {
	case AGENT_RUNNING:
		return plan_running(want, have);
	case AGENT_STOPPED:
		return act(AGENT_STOP, "is to be stopped");
	case AGENT_KILLED:
		return act(AGENT_KILL, "is to be killed");
	case AGENT_ELSEWHERE:
	case AGENT_MOVING:
	case AGENT_INTENT_MAX:
		break;
	}
	return act(AGENT_NOTHING, "");
}

struct agent_action agent_plan(const char *cluster, const struct agent_want *want, const struct agent_have *have)
{
	const char *why = have ? foreign(cluster, want, have) : NULL;

	if (why)
		return act(AGENT_REFUSE, why);
	if (!want || want->intent == AGENT_MOVING)
		return act(AGENT_NOTHING, "");
	if (have)
		return plan_have(want, have);
	return want->intent == AGENT_RUNNING ? start(want, "is to run") : act(AGENT_NOTHING, "");
}
