/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of hosts that are lost, confirmed dead, back, frozen or put aside, and of what becomes of their guests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "cluster/state.h"
#include "tests/unit/cluster/state-fixture.h"

#define LOST 9 /* the index of node.lost in lost_node() */

/* Three nodes of 4 GiB; web and db run on n1, app on n2. */
static struct world *three_nodes(void)
{
	struct world *w = world_new();

	world_node(w, "n1", 1, 4 * GIB);
	world_node(w, "n2", 2, 4 * GIB);
	world_node(w, "n3", 3, 4 * GIB);
	world_guest(w, "web", 1, 512, "n1");
	return w;
}

/* n1 is lost by fencing LOST. */
static struct world *lost_node(void)
{
	struct world *w = three_nodes();

	world_must(w, "node.lost", "{'node': 'n1', 'incarnation': 'c0ffee', 'reason': 'left the ring'}",
		   "{'node': 'n1', 'life': 'lost', 'number': 9, 'reason': 'left the ring'}");
	assert_int_equal(w->index, LOST);
	return w;
}

static struct world *fenced_node(void)
{
	struct world *w = lost_node();

	world_must(w, "node.fenced", "{'node': 'n1', 'number': 9, 'proof': 'power', 'device': 'ipmi', 'level': 1}",
		   "{'node': 'n1', 'life': 'fenced', 'number': 9, 'proof': 'power', 'device': 'ipmi', 'vms': 1}");
	return w;
}

static void is_life(struct world *w, const char *node, const char *want)
{
	assert_string_equal(world_text(state_node_get(w->db, node, &w->e), "life"), want);
}

/* ---- lost, steps, fenced ---- */

static void a_fencing_is_told_from_the_loss_to_the_return(void **state)
{
	struct world *w = lost_node();

	(void)state;
	world_must(w, "node.lost", "{'node': 'n1'}", "{'node': 'n1', 'life': 'lost', 'number': 9}");
	is_life(w, "n1", "lost");
	world_must(w, "fence.step",
		   "{'node': 'n1', 'number': 9, 'kind': 'power', 'device': 'ipmi', 'level': 1, 'result': 'failed', "
		   "'text': 'no answer'}",
		   "{'node': 'n1', 'life': 'lost', 'number': 9, 'kind': 'power', 'device': 'ipmi', 'result': 'failed', "
		   "'text': 'no answer'}");
	w->by = "n2";
	world_must(w, "node.fenced", "{'node': 'n1', 'number': 9, 'proof': 'power', 'text': 'is off'}", NULL);
	/* A proof that comes late is a step; the first one stays. */
	world_must(w, "fence.step", "{'node': 'n1', 'number': 9, 'kind': 'power', 'result': 'confirmed'}", NULL);
	world_must(w, "node.fenced", "{'node': 'n1', 'number': 9, 'proof': 'manual'}",
		   "{'node': 'n1', 'life': 'fenced', 'number': 9}");
	world_must(w, "node.alive", "{'node': 'n1', 'number': 9, 'empty': true}",
		   "{'node': 'n1', 'life': 'up', 'number': 9}");
	is_life(w, "n1", "up");
	world_is(state_fencing_list(w->db, "n1", 10, &w->e),
		 "[{'number': 9, 'node': 'n1', 'incarnation': 'c0ffee', 'reason': 'left the ring', 'by': 'anna', "
		 "'began': 1700000009000, 'proof': 'power', 'device': null, 'text': 'is off', 'fenced_by': 'n2', "
		 "'fenced': 1700000012000, 'alive': 1700000015000, 'steps': ["
		 "{'number': 11, 'kind': 'power', 'device': 'ipmi', 'level': 1, 'result': 'failed', 'text': 'no "
		 "answer', 'by': 'anna', 'time': 1700000011000}, "
		 "{'number': 12, 'kind': 'power', 'device': null, 'level': null, 'result': 'confirmed', 'text': 'is "
		 "off', 'by': 'n2', 'time': 1700000012000}, "
		 "{'number': 13, 'kind': 'power', 'device': null, 'level': null, 'result': 'confirmed', 'text': null, "
		 "'by': 'n2', 'time': 1700000013000}]}]");
	world_is(state_fencing_list(w->db, "n2", 10, &w->e), "[]");
	world_is(state_fencing_list(w->db, NULL, 0, &w->e), "[]");
	world_free(w);
}

static void what_is_decided_for_another_loss_is_refused(void **state)
{
	static const struct refusal up[] = {
		{"fence.step", "{'node': 'n1', 'number': 9, 'kind': 'power', 'result': 'started'}", ERR_CONFLICT,
		 "node n1: is up; there is nothing to fence, unless somebody says that it is lost"},
		{"node.fenced", "{'node': 'n1', 'number': 9, 'proof': 'power'}", ERR_CONFLICT,
		 "node n1: is up; there is nothing to fence, unless somebody says that it is lost"},
		{"node.lost", "{'node': 'n9'}", ERR_NOTFOUND,
		 "node n9: there is no node n9; `node list` shows those that are there"},
	};
	static const struct refusal lost[] = {
		{"fence.step", "{'node': 'n1', 'number': 9, 'kind': 'power', 'result': 'started'}", ERR_CONFLICT,
		 "node n1: its fencing is number 11, not 9; look at it again"},
		{"node.fenced", "{'node': 'n1', 'number': 9, 'proof': 'power'}", ERR_CONFLICT,
		 "node n1: its fencing is number 11, not 9; look at it again"},
		{"node.fenced", "{'node': 'n1', 'number': 11, 'proof': 'hope'}", ERR_INPUT,
		 "node n1: proof must be one of power, disk, expiry, manual"},
		{"node.alive", "{'node': 'n1', 'number': 9}", ERR_CONFLICT,
		 "node n1: its fencing is number 11, not 9; look at it again"},
		{"node.alive", "{'node': 'n1'}", ERR_CONFLICT,
		 "node n1: its fencing is number 11, not 0; look at it again"},
		{"node.frozen", "{'node': 'n1', 'on': true}", ERR_CONFLICT,
		 "node n1: is lost; only what is up can be frozen, or thawed"},
	};
	struct world *w = lost_node();

	(void)state;
	/* One that is only lost need not be empty: its guests are its own. */
	world_must(w, "node.alive", "{'node': 'n1', 'number': 9}", NULL);
	world_must(w, "node.lost", "{'node': 'n1'}", NULL);
	world_refuses(w, lost, ARRAY_SIZE(lost));
	world_must(w, "node.alive", "{'node': 'n1', 'number': 11}", NULL);
	world_must(w, "node.alive", "{'node': 'n1', 'number': 5}", "{'node': 'n1', 'life': 'up'}");
	world_refuses(w, up, ARRAY_SIZE(up));
	world_free(w);
}

/* ---- lives on shared disks ---- */

static void a_node_has_the_life_that_it_said_last(void **state)
{
	struct world *w = three_nodes();

	(void)state;
	assert_null(world_text(state_node_get(w->db, "n1", &w->e), "incarnation"));
	world_must(w, "node.alive", "{'node': 'n1', 'incarnation': 'b007:1'}", "{'node': 'n1', 'life': 'up'}");
	assert_string_equal(world_text(state_node_get(w->db, "n1", &w->e), "incarnation"), "b007:1");
	world_must(w, "node.lost", "{'node': 'n1'}", "{'node': 'n1', 'life': 'lost', 'number': 10}");
	/* It is refused, so it has not come back in that one. */
	assert_int_equal(world_say(w, "node.alive", "{'node': 'n1', 'number': 9, 'incarnation': 'b007:2'}"), -1);
	assert_string_equal(world_text(state_node_get(w->db, "n1", &w->e), "incarnation"), "b007:1");
	world_must(w, "node.alive", "{'node': 'n1', 'number': 10, 'incarnation': 'b007:2'}", NULL);
	assert_string_equal(world_text(state_node_get(w->db, "n1", &w->e), "incarnation"), "b007:2");
	assert_null(world_text(state_node_get(w->db, "n2", &w->e), "incarnation"));
	world_must(w, "node.alive", "{'node': 'n1'}", NULL);
	assert_null(world_text(state_node_get(w->db, "n1", &w->e), "incarnation"));
	world_free(w);
}

static void a_disk_proves_the_death_of_the_life_that_the_node_has_and_of_no_other(void **state)
{
	static const struct refusal unknown[] = {
		{"node.fenced", "{'node': 'n1', 'number': 9, 'proof': 'disk'}", ERR_INPUT,
		 "node n1: a proof by disk must say which life was told to die: incarnation"},
		{"node.fenced", "{'node': 'n1', 'number': 9, 'proof': 'disk', 'incarnation': 'b007:1'}", ERR_CONFLICT,
		 "node n1: it has not said which life it has, so what a shared disk says about one proves nothing; "
		 "fence it by power, or confirm by hand that it is dead"},
	};
	/* It has come back and was lost again, and the answer of the life before comes only now. */
	static const struct refusal late[] = {
		{"node.fenced", "{'node': 'n1', 'number': 9, 'proof': 'disk', 'incarnation': 'b007:1'}", ERR_CONFLICT,
		 "node n1: its fencing is number 14, not 9; look at it again"},
		{"node.fenced", "{'node': 'n1', 'number': 14, 'proof': 'disk', 'incarnation': 'b007:1'}", ERR_CONFLICT,
		 "node n1: a shared disk says that its life b007:1 is dead, and it has come back in another one since: "
		 "b007:2; look at it again"},
	};
	struct world *w = lost_node();

	(void)state;
	world_refuses(w, unknown, ARRAY_SIZE(unknown));
	world_must(w, "node.alive", "{'node': 'n1', 'number': 9, 'incarnation': 'b007:1'}", NULL);
	world_must(w, "node.alive", "{'node': 'n1', 'incarnation': 'b007:2'}", NULL);
	world_must(w, "node.lost", "{'node': 'n1'}", "{'node': 'n1', 'life': 'lost', 'number': 14}");
	world_refuses(w, late, ARRAY_SIZE(late));
	is_life(w, "n1", "lost");
	world_must(
		w, "node.fenced", "{'node': 'n1', 'number': 14, 'proof': 'disk', 'incarnation': 'b007:2'}",
		"{'node': 'n1', 'life': 'fenced', 'number': 14, 'proof': 'disk', 'incarnation': 'b007:2', 'vms': 1}");
	/* From here on only a node.alive that says that it is empty makes it live in another one. */
	assert_int_equal(world_say(w, "node.alive", "{'node': 'n1', 'number': 14, 'incarnation': 'b007:3'}"), -1);
	assert_string_equal(world_text(state_node_get(w->db, "n1", &w->e), "incarnation"), "b007:2");
	world_must(w, "node.alive", "{'node': 'n1', 'number': 14, 'empty': true, 'incarnation': 'b007:3'}", NULL);
	world_free(w);
}

static void time_proves_nothing_without_a_lease_and_a_watchdog(void **state)
{
	static const struct refusal frozen[] = {
		{"node.fenced", "{'node': 'n1', 'number': 11, 'proof': 'expiry'}", ERR_CONFLICT,
		 "node n1: its daemon was stopped in order, so its guests run on without a lease, and time proves "
		 "nothing; fence it by power or disk, or confirm by hand that it is dead"},
	};
	static const struct refusal unarmed[] = {
		{"node.fenced", "{'node': 'n2', 'number': 10, 'proof': 'expiry'}", ERR_CONFLICT,
		 "node n2: its last report did not say that its watchdog is armed, so time proves nothing; fence it by "
		 "power or disk, or confirm by hand that it is dead"},
	};
	static const char *const reports[] = {
		"{'node': 'n2', 'cpus': 4, 'memory': {'total': 1, 'free': 1}}",
		"{'node': 'n2', 'cpus': 4, 'memory': {'total': 1, 'free': 1}, 'watchdog': {'armed': false}}",
	};
	static const struct refusal bad[] = {
		{"node.report",
		 "{'node': 'n2', 'cpus': 4, 'memory': {'total': 1, 'free': 1}, 'watchdog': {'armed': 'yes'}}",
		 ERR_INPUT, "node n2: watchdog.armed must be true or false"},
	};
	struct world *w = three_nodes();

	(void)state;
	world_must(w, "node.frozen", "{'node': 'n1', 'on': true}", "{'node': 'n1', 'frozen': true}");
	world_must(w, "node.report",
		   "{'node': 'n1', 'cpus': 4, 'memory': {'total': 1, 'free': 1}, 'watchdog': {'armed': true}}", NULL);
	world_must(w, "node.lost", "{'node': 'n1'}", NULL);
	world_refuses(w, frozen, 1);
	world_must(w, "node.fenced", "{'node': 'n1', 'number': 11, 'proof': 'power'}", NULL);
	world_free(w);
	for (size_t i = 0; i < ARRAY_SIZE(reports); i++) {
		w = three_nodes();
		world_must(w, "node.report", reports[i], NULL);
		world_must(w, "node.lost", "{'node': 'n2'}", NULL);
		world_refuses(w, unarmed, 1);
		world_free(w);
	}
	w = three_nodes();
	world_must(w, "node.report",
		   "{'node': 'n1', 'cpus': 4, 'memory': {'total': 1, 'free': 1}, 'watchdog': {'armed': true}}", NULL);
	world_must(w, "node.lost", "{'node': 'n1'}", NULL);
	world_must(w, "node.fenced", "{'node': 'n1', 'number': 10, 'proof': 'expiry'}", NULL);
	is_life(w, "n1", "fenced");
	world_refuses(w, bad, 1);
	world_free(w);
}

/* ---- guests ---- */

static void only_the_guests_of_a_fenced_node_are_free(void **state)
{
	static const struct refusal lost[] = {
		{"vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1, 'fenced': true}", ERR_CONFLICT,
		 "vm web: node n1 is not confirmed dead (lost), so its guests are not free; wait until it is fenced"},
		{"vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1}", ERR_CONFLICT,
		 "vm web: may run on node n1; migrate it, or stop it first"},
	};
	static const struct refusal back[] = {
		{"vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1, 'fenced': true}", ERR_CONFLICT,
		 "vm web: node n1 is not confirmed dead (up), so its guests are not free; wait until it is fenced"},
	};
	struct world *w = lost_node();

	(void)state;
	world_refuses(w, lost, ARRAY_SIZE(lost));
	world_must(w, "node.fenced", "{'node': 'n1', 'number': 9, 'proof': 'power'}", NULL);
	/* Whatever n1 saw last, it is down. */
	assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "status"), "failed");
	assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "note"), "its host is confirmed dead");
	world_is(world_field(state_vm_get(w->db, "web", &w->e), "detail"), "{'cause': 'host'}");
	world_must(w, "vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1, 'fenced': true, 'reason': 'n1 is dead'}",
		   "{'name': 'web', 'owner': 'n2', 'epoch': 2, 'version': 1, 'intent': 'running', 'reason': 'n1 is "
		   "dead'}");
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "home"), "'n1'");
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "restarts"),
		 "[{'time': 1700000013000, 'kind': 'host', 'node': 'n2', 'reason': 'n1 is dead'}]");
	world_free(w);

	w = fenced_node();
	world_must(w, "node.alive", "{'node': 'n1', 'number': 9, 'empty': true}", NULL);
	world_refuses(w, back, ARRAY_SIZE(back));
	/* It found no place elsewhere, and is started where it was. */
	world_must(w, "vm.restart", "{'name': 'web', 'epoch': 1, 'kind': 'host'}", NULL);
	world_must(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 2, 'status': 'running'}", NULL);
	world_free(w);
}

static void nothing_that_a_fenced_node_says_counts(void **state)
{
	static const struct refusal rows[] = {
		{"node.report", "{'node': 'n1', 'cpus': 4, 'memory': {'total': 1, 'free': 1}}", ERR_FORBIDDEN,
		 "node n1: node n1 is confirmed dead (fencing 9); its report does not count until it is back and "
		 "empty"},
		{"vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'running'}", ERR_FORBIDDEN,
		 "vm web: node n1 is confirmed dead (fencing 9); what it saw does not count until it is back and "
		 "empty"},
		{"node.alive", "{'node': 'n1', 'number': 9}", ERR_CONFLICT,
		 "node n1: is confirmed dead, and has not said that it is empty; it must end the guests that it ran "
		 "before"},
		{"node.alive", "{'node': 'n1', 'number': 9, 'empty': false}", ERR_CONFLICT,
		 "node n1: is confirmed dead, and has not said that it is empty; it must end the guests that it ran "
		 "before"},
		{"node.lost", "{'node': 'n1'}", ERR_CONFLICT, "node n1: is confirmed dead already (fencing 9)"},
		{"node.frozen", "{'node': 'n1', 'on': false}", ERR_CONFLICT,
		 "node n1: is confirmed dead; only what is up can be frozen, or thawed"},
		{"vm.restart", "{'name': 'web', 'epoch': 1, 'kind': 'crash'}", ERR_CONFLICT,
		 "vm web: its node n1 is confirmed dead; it cannot start there"},
	};
	struct world *w = fenced_node();

	(void)state;
	world_refuses(w, rows, ARRAY_SIZE(rows));
	world_must(w, "vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1, 'fenced': true}", NULL);
	world_must(w, "node.alive", "{'node': 'n1', 'number': 9, 'empty': true}", NULL);
	/* Back, but its guest is another's now. */
	assert_int_equal(world_say(w, "vm.observed", "{'vm': 'web', 'node': 'n1', 'epoch': 1, 'status': 'running'}"),
			 -1);
	assert_string_equal(w->e.text,
			    "vm web: belongs to node n2 with epoch 2; what node n1 saw with epoch 1 does not "
			    "count");
	world_free(w);
}

static void a_fenced_node_leaves_no_guest_that_seems_to_run(void **state)
{
	struct world *w = three_nodes();

	(void)state;
	world_guest(w, "off", 2, 64, "n1");
	world_must(w, "vm.intent", "{'name': 'off', 'intent': 'stopped'}", NULL);
	world_guest(w, "down", 3, 64, "n1");
	world_must(w, "vm.intent", "{'name': 'down', 'intent': 'stopped'}", NULL);
	world_must(w, "vm.observed", "{'vm': 'down', 'node': 'n1', 'epoch': 1, 'status': 'stopped', 'note': 'ok'}",
		   NULL);
	world_must(w, "vm.create",
		   "{'node': 'n1', 'start': true, 'definition': {'name': 'new', 'uuid': '" UUID(
			   4) "', 'memory': 64, 'vcpus': 1}}",
		   NULL);
	world_guest(w, "other", 5, 64, "n2");
	world_must(w, "node.lost", "{'node': 'n1'}", NULL);
	assert_int_equal(DO(w, "node.fenced", "{s:s, s:I, s:s}", "node", "n1", "number", (json_int_t)w->index, "proof",
			    "manual"),
			 0);
	assert_string_equal(world_text(state_vm_get(w->db, "off", &w->e), "status"), "failed");
	assert_string_equal(world_text(state_vm_get(w->db, "down", &w->e), "note"), "ok");
	assert_string_equal(world_text(state_vm_get(w->db, "new", &w->e), "status"), "failed");
	assert_string_equal(world_text(state_vm_get(w->db, "other", &w->e), "status"), "running");
	/* What shall not run can be deleted, or placed. */
	world_must(w, "vm.delete", "{'name': 'off'}", NULL);
	world_must(w, "vm.place", "{'name': 'down', 'node': 'n2', 'epoch': 1}", NULL);
	world_is(world_field(state_ha_get(w->db, "down", &w->e), "restarts"), "[]");
	world_is(world_field(state_ha_get(w->db, "down", &w->e), "home"), "null");
	world_free(w);
}

static void no_guest_is_given_to_a_node_that_cannot_have_it(void **state)
{
	static const struct {
		const char *op, *args, *why;
	} rows[] = {
		{"node.lost", "{'node': 'n2'}", "node n2 is lost; choose another node"},
		{"node.aside", "{'node': 'n2', 'reason': 'lost 3 times in an hour'}",
		 "node n2 is put aside (lost 3 times in an hour); choose another node, or take it back with `node "
		 "activate n2`"},
		{"node.frozen", "{'node': 'n2', 'on': true}",
		 "the daemon of node n2 is being stopped; choose another node"},
	};
	static const char *const gifts[][2] = {
		{"vm.create",
		 "{'node': 'n2', 'definition': {'name': 'new', 'uuid': '" UUID(4) "', 'memory': 64, 'vcpus': 1}}"},
		{"migration.create", "{'id': '" UUID(5) "', 'vm': 'web', 'to': 'n2'}"},
		{"vm.place", "{'name': 'down', 'node': 'n2', 'epoch': 1}"},
	};
	static const char *const objects[] = {"vm new", "migration " UUID(5), "vm down"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct world *w = three_nodes();

		world_guest(w, "down", 3, 64, "n1");
		world_fails(w, "down", "n1", 1);
		world_must(w, rows[i].op, rows[i].args, NULL);
		for (size_t k = 0; k < ARRAY_SIZE(gifts); k++) {
			_free_ char *want = xasprintf("%s: %s", objects[k], rows[i].why);

			assert_int_equal(world_say(w, gifts[k][0], gifts[k][1]), -1);
			assert_string_equal(w->e.text, want);
			assert_int_equal(w->e.code, ERR_CONFLICT);
		}
		world_free(w);
	}
}

/* ---- moves ---- */

/* How far the sides had come when one of them was fenced, what the manager makes of it, and where the guest is then. */
static void the_manager_can_end_every_move_of_a_fenced_node(void **state)
{
	static const struct {
		const char *steps[4];
		const char *dead;
		const char *ends[2];
		bool restart;
		const char *owner;
	} rows[] = {
		{{"checking"}, "n1", {"failed"}, true, "n1"},
		{{"checking"}, "n2", {"failed"}, false, "n1"},
		{{"checking", "preparing", "copying"}, "n1", {"failed"}, true, "n1"},
		{{"checking", "preparing", "copying"}, "n2", {"failed"}, false, "n1"},
		{{"checking", "preparing", "copying", "agreed"}, "n1", {"failed"}, true, "n1"},
		{{"checking", "preparing", "copying", "agreed"}, "n1", {"undecided", "failed"}, true, "n1"},
		{{"checking", "preparing", "copying", "agreed"}, "n2", {"failed"}, true, "n1"},
		{{"checking", "preparing", "copying", "agreed"}, "n1", {"committed", "cleaning"}, false, "n2"},
	};
	static const char *const roles[] = {"manager", "src", "dst", "src"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct world *w = three_nodes();
		json_t *args;

		assert_int_equal(world_move(w, 5, "web", "n2"), 0);
		for (size_t k = 0; k < 4 && rows[i].steps[k]; k++)
			assert_int_equal(world_step(w, 5, rows[i].steps[k], roles[k], k == 2 ? "n2" : "n1", 1), 0);
		assert_int_equal(DO(w, "node.lost", "{s:s}", "node", rows[i].dead), 0);
		assert_int_equal(DO(w, "node.fenced", "{s:s, s:I, s:s}", "node", rows[i].dead, "number",
				    (json_int_t)w->index, "proof", "power"),
				 0);
		/* What the dead one says of the move counts no more. */
		assert_int_equal(
			world_step(w, 5, "failed", !strcmp(rows[i].dead, "n1") ? "src" : "dst", rows[i].dead, 1), -1);
		assert_int_equal(w->e.code, ERR_FORBIDDEN);
		assert_int_equal(world_say(w, "vm.place", "{'name': 'web', 'node': 'n3', 'epoch': 1, 'fenced': true}"),
				 -1);
		for (size_t k = 0; k < 2 && rows[i].ends[k]; k++) {
			json_t *o = state_migration_get(w->db, UUID(5), &w->e);

			args = json_pack("{s:s, s:s, s:s, s:s, s:i, s:O, s:b}", "id", UUID(5), "step", rows[i].ends[k],
					 "role", "manager", "node", "n3", "epoch", 1, "from",
					 json_object_get(o, "step"), "restart",
					 rows[i].restart && !strcmp(rows[i].ends[k], "failed"));
			json_decref(o);
			if (world_do(w, "migration.step", args) < 0)
				fail_msg("row %zu, %s: %s", i, rows[i].ends[k], w->e.text);
		}
		if (!strcmp(rows[i].owner, "n2"))
			assert_int_equal(world_step(w, 5, "done", "manager", "n3", 1), 0);
		assert_string_equal(world_text(state_vm_get(w->db, "web", &w->e), "owner"), rows[i].owner);
		/* Then HA, where nobody has it. */
		if (!strcmp(rows[i].owner, rows[i].dead))
			world_must(w, "vm.place", "{'name': 'web', 'node': 'n3', 'epoch': 1, 'fenced': true}", NULL);
		world_free(w);
	}
}

static void a_guest_whose_source_and_destination_died_is_free_when_the_move_has_ended(void **state)
{
	struct world *w = three_nodes();

	(void)state;
	assert_int_equal(world_move(w, 5, "web", "n2"), 0);
	assert_int_equal(world_step(w, 5, "checking", "manager", "n3", 1), 0);
	assert_int_equal(world_step(w, 5, "preparing", "src", "n1", 1), 0);
	assert_int_equal(world_step(w, 5, "copying", "dst", "n2", 1), 0);
	assert_int_equal(world_step(w, 5, "agreed", "src", "n1", 1), 0);
	assert_int_equal(world_step(w, 5, "committed", "dst", "n2", 1), 0);
	for (int i = 1; i <= 2; i++) {
		const char *node = i == 1 ? "n1" : "n2";

		assert_int_equal(DO(w, "node.lost", "{s:s}", "node", node), 0);
		assert_int_equal(DO(w, "node.fenced", "{s:s, s:I, s:s}", "node", node, "number", (json_int_t)w->index,
				    "proof", "power"),
				 0);
	}
	assert_int_equal(world_step(w, 5, "cleaning", "manager", "n3", 1), 0);
	assert_int_equal(world_step(w, 5, "done", "manager", "n3", 1), 0);
	world_must(w, "vm.place", "{'name': 'web', 'node': 'n3', 'epoch': 2, 'fenced': true}", NULL);
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "home"), "'n2'");
	world_free(w);
}

/* ---- frozen, aside, removed ---- */

static void a_node_is_frozen_and_put_aside_and_taken_back(void **state)
{
	struct world *w = three_nodes();

	(void)state;
	world_must(w, "node.frozen", "{'node': 'n1', 'on': false}", "{'node': 'n1', 'frozen': false}");
	world_must(w, "node.frozen", "{'node': 'n1', 'on': true}", NULL);
	world_is(world_field(state_node_get(w->db, "n1", &w->e), "frozen"), "true");
	world_must(w, "node.frozen", "{'node': 'n1', 'on': false}", NULL);
	world_is(world_field(state_node_get(w->db, "n1", &w->e), "frozen"), "false");
	world_must(w, "node.aside", "{'node': 'n1', 'reason': 'flaps'}", "{'node': 'n1', 'reason': 'flaps'}");
	world_must(w, "node.aside", "{'node': 'n1', 'reason': 'flaps much'}", NULL);
	assert_string_equal(world_text(state_node_get(w->db, "n1", &w->e), "aside"), "flaps much");
	assert_int_equal(world_int(state_node_get(w->db, "n1", &w->e), "aside_since"), 1700000012000);
	/* It stays so however it lives. */
	world_must(w, "node.lost", "{'node': 'n1'}", NULL);
	assert_string_equal(world_text(state_node_get(w->db, "n1", &w->e), "aside"), "flaps much");
	world_must(w, "node.aside-clear", "{'node': 'n1'}", "{'node': 'n1'}");
	world_is(world_field(state_node_get(w->db, "n1", &w->e), "aside"), "null");
	is_life(w, "n1", "lost");
	world_free(w);
}

static void a_node_that_is_removed_and_joins_again_is_new(void **state)
{
	struct world *w = fenced_node();

	(void)state;
	world_must(w, "fence.device", "{'name': 'ipmi', 'agent': 'fence_ipmilan', 'nodes': {'n1': null, 'n2': '2'}}",
		   NULL);
	world_must(w, "fence.level", "{'node': 'n1', 'level': 1, 'devices': ['ipmi']}", NULL);
	world_must(w, "vm.place", "{'name': 'web', 'node': 'n2', 'epoch': 1, 'fenced': true}", NULL);
	world_must(w, "node.remove", "{'name': 'n1'}", NULL);
	world_is(world_field(state_ha_get(w->db, "web", &w->e), "home"), "null");
	world_is(world_field(state_fence_device_get(w->db, "ipmi", false, &w->e), "nodes"), "{'n2': '2'}");
	world_is(state_fence_level_list(w->db, &w->e), "[]");
	world_node(w, "n1", 4, GIB);
	is_life(w, "n1", "up");
	/* What happened stays in the history. */
	assert_int_equal(world_int(world_item(state_fencing_list(w->db, "n1", 1, &w->e), 0), "number"), 9);
	world_free(w);
}

static void only_the_newest_fencings_and_steps_are_kept(void **state)
{
	struct world *w = three_nodes();
	json_t *list;
	size_t steps = 0, i;
	json_t *o;

	(void)state;
	for (i = 0; i < 1005; i++) {
		assert_int_equal(DO(w, "node.lost", "{s:s}", "node", "n1"), 0);
		assert_int_equal(DO(w, "fence.step", "{s:s, s:I, s:s, s:s}", "node", "n1", "number",
				    (json_int_t)w->index, "kind", "power", "result", "unknown"),
				 0);
		assert_int_equal(DO(w, "node.alive", "{s:s, s:I}", "node", "n1", "number", (json_int_t)w->index - 1),
				 0);
	}
	list = state_fencing_list(w->db, NULL, 5000, &w->e);
	assert_int_equal(json_array_size(list), 1000);
	json_array_foreach (list, i, o)
		steps += json_array_size(json_object_get(o, "steps"));
	assert_int_equal(steps, 1000);
	json_decref(list);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fencing_is_told_from_the_loss_to_the_return),
		cmocka_unit_test(what_is_decided_for_another_loss_is_refused),
		cmocka_unit_test(a_node_has_the_life_that_it_said_last),
		cmocka_unit_test(a_disk_proves_the_death_of_the_life_that_the_node_has_and_of_no_other),
		cmocka_unit_test(time_proves_nothing_without_a_lease_and_a_watchdog),
		cmocka_unit_test(only_the_guests_of_a_fenced_node_are_free),
		cmocka_unit_test(nothing_that_a_fenced_node_says_counts),
		cmocka_unit_test(a_fenced_node_leaves_no_guest_that_seems_to_run),
		cmocka_unit_test(no_guest_is_given_to_a_node_that_cannot_have_it),
		cmocka_unit_test(the_manager_can_end_every_move_of_a_fenced_node),
		cmocka_unit_test(a_guest_whose_source_and_destination_died_is_free_when_the_move_has_ended),
		cmocka_unit_test(a_node_is_frozen_and_put_aside_and_taken_back),
		cmocka_unit_test(a_node_that_is_removed_and_joins_again_is_new),
		cmocka_unit_test(only_the_newest_fencings_and_steps_are_kept),
	};

	return cmocka_run_group_tests_name("cluster/state-life", tests, NULL, NULL);
}
