/* SPDX-License-Identifier: Apache-2.0 */
/* check: waits */
/* godwit fence: devices with secrets out of files, lists, tests; and a person's word that a host is dead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "tests/unit/cli/fake.h"

#define DEVICES "/v1/fence-devices"
#define SWITCH                                                                                                         \
	"{\"name\":\"pdu\",\"agent\":\"fence_apc\",\"options\":{\"ip\":\"10.0.9.9\",\"login\":\"apc\",\"passwd\":"     \
	"\"********\"},\"secret\":[\"passwd\"],\"nodes\":{\"n1\":\"3\",\"n2\":\"4\"},\"plug_option\":\"plug\","        \
	"\"priority\":5,\"timeout_ms\":20000,\"attempts\":2,\"delay_ms\":0,\"by\":\"root\",\"changed\":1764115200000}"

static void a_device_is_added_with_its_secret_out_of_a_file(void **state)
{
	_free_ char *secret = xasprintf("passwd=%s", fake_file("secret", "hush now\n"));
	struct fake_run run;

	(void)state;
	fake_answer("POST", DEVICES, 201, SWITCH);
	FAKE_RUN(&run, "fence", "add", "pdu", "--agent", "fence_apc", "--option", "ip=10.0.9.9", "--option",
		 "login=a=b", "--secret-file", secret, "--node", "n1=3", "--node", "n2", "--priority", "5",
		 "--call-timeout", "10s", "--attempts", "3", "--delay", "1");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "fence pdu: added; `godwit fence test` tries it\n");
	assert_string_equal(run.err, "");
	fake_assert_json(fake_find("POST", DEVICES)->body,
			 "{\"name\":\"pdu\",\"agent\":\"fence_apc\",\"options\":{\"ip\":\"10.0.9.9\",\"login\":\"a=b\","
			 "\"passwd\":\"hush now\"},\"nodes\":{\"n1\":\"3\",\"n2\":null},\"priority\":5,\"timeout_ms\":"
			 "10000,\"attempts\":3,\"delay_ms\":1000}");
	fake_run_done(&run);
}

static void a_secret_on_the_command_line_is_warned_of_without_its_value(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", DEVICES, 201, SWITCH);
	FAKE_RUN(&run, "fence", "add", "pdu", "--agent", "fence_apc", "--option", "passwd=hush", "--node", "n1=3");
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.err, "passwd was on the command line"));
	assert_non_null(strstr(run.err, "--secret-file passwd=FILE"));
	assert_null(strstr(run.err, "hush"));
	assert_null(strstr(run.out, "hush"));
	fake_run_done(&run);
}

static void what_cannot_be_read_is_refused_before_anybody_is_asked(void **state)
{
	_free_ char *two = xasprintf("passwd=%s", fake_file("two", "one\ntwo\n"));
	_free_ char *none = xasprintf("passwd=%s", fake_file("none", "\n"));
	_free_ char *gone = xasprintf("passwd=%s", fake_path("gone"));
	const struct {
		const char *option, *value, *words;
		int status;
	} rows[] = {
		{"--option", "ip", "must look like NAME=VALUE", 2},
		{"--option", "=x", "must look like NAME=VALUE", 2},
		{"--node", "n3=", "NODE=PLUG", 2},
		{"--secret-file", "passwd", "must look like NAME=FILE", 2},
		{"--secret-file", two, "must hold the value, in one line", 3},
		{"--secret-file", none, "must hold the value, in one line", 3},
		{"--secret-file", gone, "--secret-file passwd", 3},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fake_run run;

		FAKE_RUN(&run, "fence", "add", "pdu", "--agent", "fence_apc", "--node", "n1=3", rows[i].option,
			 rows[i].value);
		if (run.status != rows[i].status || !strstr(run.err, rows[i].words))
			fail_msg("%s %s: %d %s", rows[i].option, rows[i].value, run.status, run.err);
		fake_run_done(&run);
	}
	assert_int_equal(fake_count(), 0);
}

static void an_edit_sends_back_what_it_was_shown_with_the_changes(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", DEVICES "/pdu", 200, SWITCH);
	fake_answer("PUT", DEVICES "/pdu", 200, SWITCH);
	FAKE_RUN(&run, "fence", "edit", "pdu", "--drop-node", "n2", "--drop-option", "login", "--option", "ip=10.0.9.8",
		 "--node", "n3=5", "--priority", "7");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "fence pdu: changed; `godwit fence test` tries it\n");
	fake_assert_json(
		fake_find("PUT", DEVICES "/pdu")->body,
		"{\"agent\":\"fence_apc\",\"options\":{\"ip\":\"10.0.9.8\",\"passwd\":\"********\"},\"nodes\":"
		"{\"n1\":\"3\",\"n3\":\"5\"},\"priority\":7,\"timeout_ms\":20000,\"attempts\":2,\"delay_ms\":0}");
	fake_run_done(&run);
	FAKE_RUN(&run, "fence", "edit", "pdu", "--drop-node", "n9");
	assert_int_equal(run.status, 4);
	assert_int_equal(fake_count_of("PUT", DEVICES "/pdu"), 1);
	fake_run_done(&run);
}

static void the_list_shows_devices_levels_and_losses(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", DEVICES, 200, "[" SWITCH "]");
	fake_answer("GET", "/v1/fence-levels", 200, "[{\"node\":\"n1\",\"level\":1,\"devices\":[\"pdu\",\"ups\"]}]");
	fake_answer("GET", "/v1/fencings?limit=5", 200, "[]");
	FAKE_RUN(&run, "fence", "list");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "DEVICE  AGENT      PLUGS       PRIORITY  CHANGED              BY\n"
				     "pdu     fence_apc  n1=3, n2=4  5         2025-11-26 00:00:00  root\n"
				     "\n"
				     "NODE  LEVEL  DEVICES\n"
				     "n1    1      pdu, ups\n");
	fake_run_done(&run);
	FAKE_RUN(&run, "fence", "list", "--names");
	assert_string_equal(run.out, "pdu\n");
	fake_run_done(&run);
	FAKE_RUN(&run, "fence", "list", "--json");
	fake_assert_json(run.out, "{\"devices\":[" SWITCH
				  "],\"levels\":[{\"node\":\"n1\",\"level\":1,\"devices\":[\"pdu\",\"ups\"]}],"
				  "\"history\":[]}");
	fake_run_done(&run);
}

#define REPORT(device, ok, state, text)                                                                                \
	"{\"device\":\"" device "\",\"ok\":" ok                                                                        \
	",\"monitor\":{\"ok\":true,\"text\":\"it answers\"},\"nodes\":[{\"node\":"                                     \
	"\"n1\",\"plug\":\"3\",\"state\":\"" state "\",\"text\":\"" text "\"}],\"plugs\":[{\"plug\":\"3\",\"alias\":"  \
	"\"left\"}]}"

static void a_test_without_names_tries_all_and_fails_if_one_does(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", DEVICES, 200, "[{\"name\":\"pdu\"},{\"name\":\"ups\"}]");
	fake_answer("POST", DEVICES "/pdu/test", 200, REPORT("pdu", "true", "on", "n1 is on"));
	fake_answer("POST", DEVICES "/ups/test", 200, REPORT("ups", "false", "unknown", "no answer"));
	FAKE_RUN(&run, "fence", "test", "--list");
	assert_int_equal(run.status, 1);
	assert_string_equal(run.out, "DEVICE  NODE  PLUG  STATE    TEXT\n"
				     "pdu     -     -     answers  it answers\n"
				     "pdu     n1    3     on       n1 is on\n"
				     "pdu     -     3     listed   left\n"
				     "ups     -     -     answers  it answers\n"
				     "ups     n1    3     unknown  no answer\n"
				     "ups     -     3     listed   left\n");
	assert_non_null(strstr(run.err, "fence device ups: would not fence now"));
	fake_assert_json(fake_find("POST", DEVICES "/pdu/test")->body, "{\"list\":true}");
	fake_run_done(&run);
	FAKE_RUN(&run, "fence", "test", "pdu");
	assert_int_equal(run.status, 0);
	assert_int_equal(fake_count_of("POST", DEVICES "/ups/test"), 1);
	fake_run_done(&run);
}

static void a_host_is_called_dead_only_by_somebody_who_says_to_have_looked(void **state)
{
	struct fake_run run;

	(void)state;
	FAKE_RUN(&run, "node", "confirm-dead", "n2");
	assert_int_equal(run.status, 2);
	assert_non_null(strstr(run.err, "they run twice and destroy their disks"));
	assert_non_null(strstr(run.err, "--yes-i-have-checked"));
	assert_int_equal(fake_count(), 0);
	fake_run_done(&run);
	fake_answer("POST", "/v1/nodes/n2/confirm-dead", 200, "{\"node\":\"n2\",\"life\":\"fenced\",\"number\":7}");
	FAKE_RUN(&run, "node", "confirm-dead", "n2", "--yes-i-have-checked");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "node n2: counts as dead, on your word; its guests are started elsewhere\n");
	fake_assert_json(fake_find("POST", "/v1/nodes/n2/confirm-dead")->body, "{\"i_have_checked\":true}");
	fake_run_done(&run);
}

static void what_a_guest_waits_for_must_make_sense(void **state)
{
	static const char *const wrong[] = {":running",    "db1:sometime", "db1:delay=0",
					    "db1:delay=x", "db1:port=",    "db1:"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct fake_run run;

		FAKE_RUN(&run, "vm", "ha", "web1", "--after", wrong[i]);
		if (run.status != 2 || !strstr(run.err, "--after"))
			fail_msg("%s: %d %s", wrong[i], run.status, run.err);
		fake_run_done(&run);
	}
	assert_int_equal(fake_count(), 0);
}

static void a_file_becomes_a_fencing_disk_of_the_cluster(void **state)
{
	_free_ char *path = xstrdup(fake_file("disk", ""));
	struct fake_run run;
	json_t *disk;

	(void)state;
	assert_int_equal(truncate(path, 8 << 20), 0);
	fake_answer("GET", "/v1/cluster", 200, "{\"name\":\"prod\"}");
	fake_answer("GET", "/v1/settings", 200, "[{\"key\":\"cluster.token-ms\",\"value\":2000}]");
	FAKE_RUN(&run, "fence", "disk-format", path);
	if (run.status != 0)
		fail_msg("%s", run.err);
	assert_non_null(strstr(run.out, "is a fencing disk of cluster prod now"));
	fake_run_done(&run);
	FAKE_RUN(&run, "fence", "disk-list", "--json", path);
	assert_int_equal(run.status, 0);
	disk = json_loads(run.out, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(disk, "cluster")), "prod");
	assert_int_equal(json_integer_value(json_object_get(disk, "token-ms")), 2000);
	json_decref(disk);
	fake_run_done(&run);
	FAKE_RUN(&run, "fence", "disk-list", path);
	assert_int_equal(run.status, 0);
	assert_non_null(strstr(run.out, "cluster     prod\n"));
	fake_run_done(&run);
}

static void a_disk_of_another_cluster_or_none_at_all_is_refused(void **state)
{
	_free_ char *path = xstrdup(fake_file("disk", ""));
	struct fake_run run;

	(void)state;
	assert_int_equal(truncate(path, 8 << 20), 0);
	fake_answer("GET", "/v1/settings", 200, "[]");
	fake_answer("GET", "/v1/cluster", 200, "{\"name\":\"prod\"}");
	fake_answer("GET", "/v1/cluster", 200, "{\"name\":\"test\"}");
	FAKE_RUN(&run, "fence", "disk-list", path);
	assert_int_not_equal(run.status, 0);
	fake_run_done(&run);
	FAKE_RUN(&run, "fence", "disk-format", path);
	assert_int_equal(run.status, 0);
	fake_run_done(&run);
	FAKE_RUN(&run, "fence", "disk-format", path);
	assert_int_equal(run.status, 5);
	assert_non_null(strstr(run.err, "prod"));
	fake_run_done(&run);
	FAKE_RUN(&run, "fence", "disk-format", path, "--force");
	assert_int_equal(run.status, 0);
	fake_run_done(&run);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fake_start, fake_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_device_is_added_with_its_secret_out_of_a_file),
		TEST(a_secret_on_the_command_line_is_warned_of_without_its_value),
		TEST(what_cannot_be_read_is_refused_before_anybody_is_asked),
		TEST(an_edit_sends_back_what_it_was_shown_with_the_changes),
		TEST(the_list_shows_devices_levels_and_losses),
		TEST(a_test_without_names_tries_all_and_fails_if_one_does),
		TEST(a_host_is_called_dead_only_by_somebody_who_says_to_have_looked),
		TEST(a_file_becomes_a_fencing_disk_of_the_cluster),
		TEST(a_disk_of_another_cluster_or_none_at_all_is_refused),
		TEST(what_a_guest_waits_for_must_make_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
