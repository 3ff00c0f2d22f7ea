/* SPDX-License-Identifier: Apache-2.0 */
/* godwit vm create: the definition that its options make, where the guest shall go, dry runs. */
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

#define STARTED                                                                                                        \
	"{\"task\":{\"id\":\"t1\",\"kind\":\"vm.create\",\"object\":\"web1\",\"node\":\"n2\",\"state\":\"done\"}}"
#define LEAST "\"name\":\"web1\",\"memory\":2048,\"vcpus\":2"
#define KEY "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHq me"

/* Run and compare the body of the request; @expected NULL: only that it succeeds. */
static void create(const char *const *words, const char *expected)
{
	struct fake_run run;

	fake_answer("POST", "/v1/vms", 202, STARTED);
	fake_run(&run, words);
	if (run.status != 0)
		fail_msg("exit status %d: %s", run.status, run.err);
	fake_assert_json(fake_find("POST", "/v1/vms")->body, expected);
	assert_string_equal(run.out, "vm web1: created on n2\n");
	fake_run_done(&run);
}
#define CREATE(expected, ...) create((const char *const[]){"vm", "create", "web1", __VA_ARGS__, NULL}, expected)
#define CREATE2(expected, ...) CREATE(expected, "--memory", "2G", "--vcpus", "2", __VA_ARGS__)

static void the_least_is_memory_and_vcpus(void **state)
{
	(void)state;
	CREATE("{\"definition\":{" LEAST "},\"start\":true}", "--memory", "2G", "--vcpus", "2");
}

static void what_is_done_when_it_dies_and_a_forced_start_are_asked_for(void **state)
{
	(void)state;
	CREATE2("{\"definition\":{" LEAST "},\"start\":true,\"ha\":\"none\",\"force\":true}", "--ha", "none",
		"--force");
}

static void the_image_is_the_first_disk_and_formats_are_said_or_in_the_name(void **state)
{
	(void)state;
	CREATE2("{\"definition\":{" LEAST ",\"disks\":["
		"{\"file\":\"/srv/a.img\",\"format\":\"qcow2\"},"
		"{\"file\":\"/srv/b.raw\",\"format\":\"raw\"},"
		"{\"file\":\"/srv/c.qcow2\",\"format\":\"qcow2\",\"readonly\":true}]},\"start\":true}",
		"--disk", "/srv/b.raw", "--disk", "/srv/c.qcow2,readonly", "--image", "/srv/a.img,format=qcow2");
}

static void a_relative_path_starts_at_the_current_folder(void **state)
{
	_free_ char *cwd = getcwd(NULL, 0);
	_free_ char *expected =
		xasprintf("{\"definition\":{" LEAST ",\"kernel\":\"%s/vmlinuz\",\"initrd\":\"/boot/initrd\","
			  "\"cmdline\":\"console=ttyS0\",\"disks\":[{\"file\":\"%s/a.raw\",\"format\":"
			  "\"raw\"}]},\"start\":true}",
			  cwd, cwd);

	(void)state;
	CREATE2(expected, "--kernel", "vmlinuz", "--initrd", "/boot/initrd", "--append", "console=ttyS0", "--image",
		"a.raw");
}

static void networks_are_named_or_bridges_or_the_users_own(void **state)
{
	(void)state;
	CREATE2("{\"definition\":{" LEAST ",\"nics\":["
		"{\"type\":\"tap\",\"network\":\"lan\"},"
		"{\"type\":\"tap\",\"bridge\":\"br0\",\"mac\":\"52:54:00:00:00:01\"},"
		"{\"type\":\"user\",\"restrict\":true,\"forward\":["
		"{\"protocol\":\"tcp\",\"host\":2222,\"guest\":22},{\"protocol\":\"udp\",\"host\":5353,\"guest\":53}]}]"
		"},"
		"\"start\":true}",
		"--network", "lan", "--network", "bridge=br0,mac=52:54:00:00:00:01", "--network",
		"user,restrict,forward=2222:22,forward=udp:5353:53");
}

static void the_rest_goes_where_the_definition_has_it(void **state)
{
	(void)state;
	CREATE2("{\"definition\":{" LEAST ",\"cpu\":\"x86-64-v3\",\"firmware\":\"uefi\",\"seed\":{\"hostname\":\"www\","
		"\"user-data\":\"#cloud-config\\n\",\"ssh-keys\":[\"" KEY "\",\"" KEY "2\",\"ecdsa-sha2 BBB\"]}},"
		"\"start\":false}",
		"--cpu", "x86-64-v3", "--firmware", "uefi", "--hostname", "www", "--user-data",
		fake_file("user-data", "#cloud-config\n"), "--ssh-key", KEY, "--ssh-key",
		fake_file("keys", "# mine\n" KEY "2\n\necdsa-sha2 BBB\n"), "--no-start");
}

static void where_it_shall_be_is_not_part_of_the_definition(void **state)
{
	(void)state;
	CREATE2("{\"definition\":{" LEAST "},\"start\":true,\"placement\":{\"node\":\"n2\",\"near\":[\"db1\"],"
		"\"apart\":[\"web2\",\"web3\"]}}",
		"--node", "n2", "--near", "db1", "--apart", "web2", "--apart", "web3");
}

static void a_definition_is_a_beginning_that_options_add_to(void **state)
{
	const char *file =
		fake_file("web.json", "{\"name\":\"other\",\"memory\":512,\"vcpus\":1,\"kernel\":\"vmlinuz\","
				      "\"disks\":[{\"file\":\"root.raw\",\"format\":\"raw\"}],"
				      "\"seed\":{\"user-data-file\":\"ud\",\"hostname\":\"h\"}}");
	_free_ char *dir = strndup(file, (size_t)(strrchr(file, '/') - file));
	_free_ char *expected = xasprintf(
		"{\"definition\":{\"name\":\"web1\",\"memory\":1024,\"vcpus\":1,\"kernel\":\"%s/vmlinuz\",\"disks\":["
		"{\"file\":\"%s/root.raw\",\"format\":\"raw\"},{\"file\":\"/x.raw\",\"format\":\"raw\"}],"
		"\"seed\":{\"user-data\":\"#cloud-config\\n\",\"hostname\":\"h\"}},\"start\":true}",
		dir, dir);

	(void)state;
	fake_file("ud", "#cloud-config\n");
	CREATE(expected, "--definition", fake_path("web.json"), "--memory", "1G", "--disk", "/x.raw");
}

static void what_cannot_be_right_is_refused_before_anybody_is_asked(void **state)
{
	static const struct {
		const char *options, *err;
		int status;
	} rows[] = {
		{"--vcpus 2", "vm create web1 needs --memory, or a --definition that says it", 2},
		{"--memory 2G", "vm create web1 needs --vcpus, or a --definition that says it", 2},
		{"--memory 2X --vcpus 2", "--memory: \"2X\" must be memory such as 512M or 2G", 2},
		{"--memory 15M --vcpus 2", "--memory: \"15M\" is out of range", 2},
		{"--memory 9T --vcpus 2", "--memory: \"9T\" is out of range", 2},
		{"--memory 2G --vcpus 0", "--vcpus: \"0\" must be a whole number from 1 to 255", 2},
		{"--memory 2G --vcpus 2 --image a.img", "--image: \"a.img\": which format? write a.img,format=qcow2 or",
		 2},
		{"--memory 2G --vcpus 2 --disk a,format=vmdk", "--disk: \"a,format=vmdk\": which format?", 2},
		{"--memory 2G --vcpus 2 --disk a.raw,cache=none",
		 "--disk: \"a.raw,cache=none\": \"cache=\" is not possible here; these are: format=, readonly", 2},
		{"--memory 2G --vcpus 2 --network lan,restrict",
		 "--network: \"lan,restrict\": \"restrict\" is not possible", 2},
		{"--memory 2G --vcpus 2 --network user,forward=22", "forward=22 must be [udp:]HOSTPORT:GUESTPORT", 2},
		{"--memory 2G --vcpus 2 --network user,forward=22:70000", "forward=22:70000 must be", 2},
		{"--memory 2G --vcpus 2 --network ,mac=x", "begins with nothing", 2},
		{"--memory 2G --vcpus 2 --firmware efi", "--firmware: \"efi\" is not one of bios|uefi", 2},
		{"--memory 2G --vcpus 2 --ssh-key /nowhere", "--ssh-key: neither a public key nor a file of them: ", 3},
		{"--memory 2G --vcpus 2 --user-data /nowhere", "--user-data: /nowhere: ", 3},
		{"--definition /nowhere", "/nowhere: ", 3},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_free_ char *line = xasprintf("vm create web1 %s", rows[i].options);
		struct fake_run run;

		fake_run_line(&run, line);
		if (!strstr(run.err, rows[i].err))
			fail_msg("%s: %s", line, run.err);
		assert_int_equal(run.status, rows[i].status);
		fake_run_done(&run);
	}
	assert_int_equal(fake_count(), 0);
}

static void a_definition_that_is_none_says_where(void **state)
{
	static const struct {
		const char *text, *err;
	} rows[] = {
		{"{\n\"name\": }", "web.json: line 2: "},
		{"[]", "web.json: line 1: a definition is an object {...}"},
		{"{\"a\":1,\"a\":2}", "web.json: line 1: duplicate object key"},
		{"{\"seed\":{\"user-data\":\"x\",\"user-data-file\":\"y\"}}",
		 "web.json: seed.user-data-file says the same as seed.user-data; give one of the two"},
		{"{\"seed\":{\"meta-data-file\":\"nowhere\"}}", "web.json: seed.meta-data-file: "},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct fake_run run;

		FAKE_RUN(&run, "vm", "create", "web1", "--definition", fake_file("web.json", rows[i].text));
		if (!strstr(run.err, rows[i].err))
			fail_msg("%s", run.err);
		assert_int_equal(run.status, 3);
		fake_run_done(&run);
	}
	assert_int_equal(fake_count(), 0);
}

static void a_remote_host_needs_whole_paths(void **state)
{
	struct fake_run run;

	(void)state;
	FAKE_RUN(&run, "vm", "create", "web1", "--memory", "2G", "--vcpus", "2", "--image", "a.raw", "--host", "n1:1",
		 "--cert-dir", "/x");
	assert_int_equal(run.status, 2);
	assert_non_null(strstr(run.err, "with --host, write the whole path that the file has on the hosts"));
	fake_run_done(&run);
	FAKE_RUN(&run, "vm", "create", "web1", "--memory", "2G", "--vcpus", "2", "--kernel", "vmlinuz", "--host",
		 "n1:1", "--cert-dir", "/x");
	assert_int_equal(run.status, 2);
	assert_non_null(strstr(run.err, "vmlinuz: with --host, write the whole path"));
	fake_run_done(&run);
}

#define PLACED                                                                                                         \
	"{\"placement\":{\"choice\":\"n2\",\"nodes\":["                                                                \
	"{\"node\":\"n1\",\"fits\":false,\"reasons\":[\"has 1 GiB free, and 2 GiB are needed\",\"is in "               \
	"maintenance\"]},"                                                                                             \
	"{\"node\":\"n2\",\"fits\":true,\"score\":87,\"reasons\":[],\"remarks\":[\"db1 is there already\"]},"          \
	"{\"node\":\"n3\",\"fits\":true,\"score\":12,\"reasons\":[]}]}}"

static void a_dry_run_says_for_each_host_why_or_why_not(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms", 202, PLACED);
	FAKE_RUN(&run, "vm", "create", "web1", "--memory", "2G", "--vcpus", "2", "--dry-run");
	assert_int_equal(run.status, 0);
	fake_assert_json(fake_find("POST", "/v1/vms")->body,
			 "{\"definition\":{" LEAST "},\"start\":true,\"dry_run\":true}");
	assert_string_equal(run.out, "n1: does not fit\n"
				     "    - has 1 GiB free, and 2 GiB are needed\n"
				     "    - is in maintenance\n"
				     "n2: fits, score 87, the best\n"
				     "    ~ db1 is there already\n"
				     "n3: fits, score 12\n");
	fake_run_done(&run);

	FAKE_RUN(&run, "vm", "create", "web1", "--memory", "2G", "--vcpus", "2", "--dry-run", "--json");
	assert_int_equal(run.status, 0);
	fake_assert_json(run.out, PLACED);
	fake_run_done(&run);
}

static void a_dry_run_where_nothing_fits_is_a_conflict(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/vms", 202,
		    "{\"placement\":{\"choice\":null,\"nodes\":[{\"node\":\"n1\",\"fits\":false,\"reasons\":[\"is "
		    "down\"]}]}}");
	FAKE_RUN(&run, "vm", "create", "web1", "--memory", "2G", "--vcpus", "2", "--dry-run");
	assert_int_equal(run.status, 5);
	assert_string_equal(run.out, "n1: does not fit\n    - is down\n");
	assert_string_equal(run.err, "godwit: no host fits; `godwit node list` shows what they have\n");
	fake_run_done(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_least_is_memory_and_vcpus, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(what_is_done_when_it_dies_and_a_forced_start_are_asked_for, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(the_image_is_the_first_disk_and_formats_are_said_or_in_the_name,
						fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_relative_path_starts_at_the_current_folder, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(networks_are_named_or_bridges_or_the_users_own, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(the_rest_goes_where_the_definition_has_it, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(where_it_shall_be_is_not_part_of_the_definition, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_definition_is_a_beginning_that_options_add_to, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(what_cannot_be_right_is_refused_before_anybody_is_asked, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(a_definition_that_is_none_says_where, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_remote_host_needs_whole_paths, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_dry_run_says_for_each_host_why_or_why_not, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_dry_run_where_nothing_fits_is_a_conflict, fake_start, fake_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
