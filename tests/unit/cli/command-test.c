/* SPDX-License-Identifier: Apache-2.0 */
/* Every command: what it asks for, what people see, what --json prints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cli/groups.h"
#include "tests/unit/cli/fake.h"

#define NODE1                                                                                                          \
	"{\"name\":\"n1\",\"id\":1,\"addresses\":[\"10.0.0.1\",\"10.1.0.1\"],\"online\":true,\"memory\":8589934592,"   \
	"\"memory_free\":4294967296,\"cpus\":4,\"vms\":2,\"joined\":1764115200000,\"reported\":null}"
#define VM1                                                                                                            \
	"{\"name\":\"web1\",\"status\":\"running\",\"owner\":\"n1\",\"vcpus\":2,\"memory\":2147483648,"                \
	"\"since\":1764115200000,\"intent\":\"running\",\"note\":null,\"version\":3,"                                  \
	"\"ha\":{\"mode\":\"restart\",\"priority\":100}}"
#define MOVE1                                                                                                          \
	"{\"id\":\"11111111-2222-4333-8444-555555555555\",\"vm\":\"web1\",\"src\":\"n1\",\"dst\":\"n2\",\"step\":"     \
	"\"copying\",\"progress\":0.5,\"eta_ms\":12000,\"created\":1764115200000,\"finished\":null,\"error\":null}"
#define TASK1                                                                                                          \
	"{\"id\":\"t1\",\"kind\":\"vm.start\",\"object\":\"web1\",\"node\":\"n1\",\"state\":\"done\",\"progress\":1."  \
	"0,"                                                                                                           \
	"\"created\":1764115200000,\"finished\":1764115201000}"

#define HA1                                                                                                            \
	"{\"vm\":\"web1\",\"mode\":\"restart\",\"own_mode\":false,\"priority\":100,\"max_restarts\":3,\"failback\":"   \
	"\"never\",\"home\":null,\"after\":[{\"vm\":\"db1\",\"until\":\"running\",\"seconds\":null,\"address\":null}," \
	"{\"vm\":\"db2\",\"until\":\"delay\",\"seconds\":30,\"address\":null},{\"vm\":\"dns\",\"until\":\"port\","     \
	"\"seconds\":null,\"address\":\"10.0.0.53:53\"}],\"restarts\":[{\"time\":1764115200000,\"kind\":\"host\","     \
	"\"node\":\"n2\",\"reason\":null}]}"
#define DEVICE1                                                                                                        \
	"{\"name\":\"bmc-n1\",\"agent\":\"fence_ipmilan\",\"options\":{\"ip\":\"10.0.9.1\",\"password\":\"********\"}" \
	","                                                                                                            \
	"\"secret\":[\"password\"],\"nodes\":{\"n1\":null},\"plug_option\":\"plug\",\"priority\":0,\"timeout_ms\":"    \
	"20000,"                                                                                                       \
	"\"attempts\":2,\"delay_ms\":0,\"changed\":1764115200000,\"by\":\"root\"}"

/* One command against one answer. */
static const struct row {
	const char *line;
	const char *method, *target;
	const char *body; /* NULL: none is sent */
	int status;
	const char *answer;
	const char *out; /* "" for none */
} rows[] = {
	{"cluster status", "GET", "/v1/cluster", NULL, 200,
	 "{\"name\":\"prod\",\"node\":\"n1\",\"state\":\"synced\",\"quorate\":true,\"members\":[\"n1\",\"n2\"],"
	 "\"manager\":null,\"age_ms\":40,\"alarms\":[]}",
	 "cluster           prod\n"
	 "this host         n1\n"
	 "state             synced\n"
	 "quorum            yes\n"
	 "members           n1, n2\n"
	 "age of this view  40.0 ms\n"},
	{"cluster status", "GET", "/v1/cluster", NULL, 200,
	 "{\"name\":\"prod\",\"state\":\"synced\",\"quorate\":true,\"members\":[\"n1\"],\"lease\":{\"held\":true,"
	 "\"left_ms\":3900,\"starts\":false,\"why\":\"godwit-watchdog is not connected\",\"watchdog\":{\"mode\":"
	 "\"run\",\"state\":null,\"device\":null,\"timeout_s\":null,\"text\":null}}}",
	 "cluster               prod\n"
	 "state                 synced\n"
	 "quorum                yes\n"
	 "members               n1\n"
	 "lease left            3.90 s\n"
	 "guests may start      no\n"
	 "they may not because  godwit-watchdog is not connected\n"},
	{"cluster ha", "GET", "/v1/ha", NULL, 200,
	 "{\"bears\":{\"bears\":1,\"exact\":true,\"worst\":[\"n1\",\"n2\"],\"vm\":\"db1\",\"why\":\"no "
	 "room\"},\"wish\":1,"
	 "\"plan\":[{\"vm\":\"web1\",\"action\":\"place\",\"node\":\"n3\",\"until\":null,\"why\":\"its host is "
	 "dead\"}]}",
	 "host failures it bears  1\n"
	 "no more for sure        yes\n"
	 "it shall bear           1\n"
	 "too much would be       n1, n2\n"
	 "because                 no room\n"
	 "\n"
	 "GUEST  IS TO  ON  UNTIL  BECAUSE\n"
	 "web1   place  n3  -      its host is dead\n"},
	{"cluster init prod --node n1 --address 10.0.0.1 --address 10.1.0.1 --qdevice 10.9.9.9 --token-ms 1000 "
	 "--no-wait",
	 "POST", "/v1/cluster/init",
	 "{\"name\":\"prod\",\"node\":\"n1\",\"addresses\":[\"10.0.0.1\",\"10.1.0.1\"],\"qdevice\":\"10.9.9.9\","
	 "\"token_ms\":1000}",
	 201, "{\"name\":\"prod\",\"state\":\"starting\",\"quorate\":false,\"members\":[]}",
	 "cluster  prod\nstate    starting\nquorum   no\n"},
	{"cluster join GW1-abc --node n2 --via n3:7443 --no-wait", "POST", "/v1/cluster/join",
	 "{\"token\":\"GW1-abc\",\"node\":\"n2\",\"host\":\"n3:7443\"}", 200,
	 "{\"name\":\"prod\",\"state\":\"syncing\",\"quorate\":true,\"members\":[\"n1\"]}",
	 "cluster  prod\nstate    syncing\nquorum   yes\nmembers  n1\n"},
	{"cluster token --ttl 2h --at n1:7443", "POST", "/v1/cluster/tokens", "{\"ttl_s\":7200,\"host\":\"n1:7443\"}",
	 201, "{\"token\":\"GW1-abc\",\"expires\":1764115200000}", "GW1-abc\n"},
	{"node list", "GET", "/v1/nodes", NULL, 200, "[" NODE1 ",{\"name\":\"node-12\",\"id\":12,\"online\":false}]",
	 "NAME     ID  ONLINE  STATE  CPUS    MEMORY      FREE  VMS  ADDRESSES\n"
	 "n1       1   yes     -      4     8.00 GiB  4.00 GiB  2    10.0.0.1, 10.1.0.1\n"
	 "node-12  12  no      -      -            -         -  -    -\n"},
	{"node list --names", "GET", "/v1/nodes", NULL, 200, "[" NODE1 ",{\"name\":\"n2\",\"id\":2}]", "n1\nn2\n"},
	{"node show n1", "GET", "/v1/nodes/n1", NULL, 200, NODE1,
	 "name         n1\n"
	 "id           1\n"
	 "addresses    10.0.0.1, 10.1.0.1\n"
	 "online       yes\n"
	 "cpus         4\n"
	 "memory       8.00 GiB\n"
	 "memory free  4.00 GiB\n"
	 "guests       2\n"
	 "joined       2025-11-26 00:00:00\n"},
	{"node remove n3", "DELETE", "/v1/nodes/n3", NULL, 200, "{}", "node n3: removed\n"},
	{"node remove n3 --force", "DELETE", "/v1/nodes/n3?force=true", NULL, 200, "{}", "node n3: removed\n"},
	{"node fence n3", "POST", "/v1/nodes/n3/fence", "{}", 200,
	 "{\"node\":\"n3\",\"result\":\"confirmed\",\"level\":1,\"powered_on\":true,\"text\":\"n3 is on\"}",
	 "name           n3\n"
	 "result         confirmed\n"
	 "by level       1\n"
	 "on again       yes\n"
	 "what was said  n3 is on\n"},
	{"node fence n3 --action off", "POST", "/v1/nodes/n3/fence", "{\"action\":\"off\"}", 200,
	 "{\"node\":\"n3\",\"result\":\"confirmed\"}", "name    n3\nresult  confirmed\n"},
	{"node activate n3", "POST", "/v1/nodes/n3/activate", "{}", 200, "{}", "node n3: is used again\n"},
	{"vm list", "GET", "/v1/vms", NULL, 200, "[" VM1 "]",
	 "NAME  STATUS   NODE  VCPUS    MEMORY  SINCE                WANTED   HA       NOTE\n"
	 "web1  running  n1    2      2.00 GiB  2025-11-26 00:00:00  running  restart  -\n"},
	{"vm list --names", "GET", "/v1/vms", NULL, 200, "[" VM1 "]", "web1\n"},
	{"vm show web1", "GET", "/v1/vms/web1", NULL, 200, VM1,
	 "name          web1\n"
	 "status        running\n"
	 "since         2025-11-26 00:00:00\n"
	 "wanted        running\n"
	 "node          n1\n"
	 "when it dies  restart\n"
	 "priority      100\n"
	 "vcpus         2\n"
	 "memory        2.00 GiB\n"
	 "version       3\n"},
	{"vm ha web1", "GET", "/v1/vms/web1/ha", NULL, 200, HA1,
	 "guest                web1\n"
	 "when it dies         restart\n"
	 "said for it alone    no\n"
	 "priority             100\n"
	 "restarts in an hour  3\n"
	 "failback             never\n"
	 "starts after         db1 runs, db2 has run for 30 s, dns answers at 10.0.0.53:53\n"
	 "\n"
	 "RESTARTED            WHY   ON  BECAUSE\n"
	 "2025-11-26 00:00:00  host  n2  -\n"},
	{"vm ha web1 --mode none --priority 500 --max-restarts 0 --failback when-idle --after db1 --after db2:delay=30 "
	 "--after db3:running --after dns:port=[fd00::53]:53",
	 "PUT", "/v1/vms/web1/ha",
	 "{\"mode\":\"none\",\"priority\":500,\"max_restarts\":0,\"failback\":\"when-idle\",\"after\":["
	 "{\"vm\":\"db1\",\"until\":\"running\"},{\"vm\":\"db2\",\"until\":\"delay\",\"seconds\":30},"
	 "{\"vm\":\"db3\",\"until\":\"running\"},{\"vm\":\"dns\",\"until\":\"port\",\"address\":\"[fd00::53]:53\"}]}",
	 200, "{\"vm\":\"web1\",\"mode\":\"none\",\"own_mode\":true,\"after\":[]}",
	 "guest              web1\nwhen it dies       none\nsaid for it alone  yes\n"},
	{"vm ha web1 --after-nothing", "PUT", "/v1/vms/web1/ha", "{\"after\":[]}", 200, "{\"vm\":\"web1\"}",
	 "guest  web1\n"},
	{"fence show bmc-n1", "GET", "/v1/fence-devices/bmc-n1", NULL, 200, DEVICE1,
	 "device              bmc-n1\n"
	 "agent               fence_ipmilan\n"
	 "plugs               n1\n"
	 "options             ip=10.0.9.1, password=********\n"
	 "priority            0\n"
	 "time-out of a call  20.0 s\n"
	 "attempts            2\n"
	 "delay               0.00 ms\n"
	 "changed             2025-11-26 00:00:00\n"
	 "by                  root\n"},
	{"fence delete bmc-n1", "DELETE", "/v1/fence-devices/bmc-n1", NULL, 200, "{}", "fence bmc-n1: deleted\n"},
	{"fence level n1 2 pdu-a pdu-b", "PUT", "/v1/fence-levels/n1/2", "{\"devices\":[\"pdu-a\",\"pdu-b\"]}", 200,
	 "{}", "fence n1: level set\n"},
	{"fence drop-level n1 2", "DELETE", "/v1/fence-levels/n1/2", NULL, 200, "{}", "fence n1: level taken away\n"},
	{"fence history --node n2 --limit 1", "GET", "/v1/fencings?node=n2&limit=1", NULL, 200,
	 "[{\"number\":71,\"node\":\"n2\",\"reason\":\"left\",\"began\":1764115200000,\"proof\":\"power\",\"device\":"
	 "\"pdu\",\"fenced\":1764115201000,\"alive\":null,\"steps\":[{\"kind\":\"power\",\"device\":\"pdu\",\"result\":"
	 "\"confirmed\",\"text\":\"it is off\",\"time\":1764115201000}]}]",
	 "NUMBER  NODE  LOST                 BECAUSE  PROOF  DEVICE  FENCED               BACK\n"
	 "71      n2    2025-11-26 00:00:00  left     power  pdu     2025-11-26 00:00:01  -\n"
	 "\n"
	 "FENCING  TIME                 TRIED  DEVICE  RESULT     TEXT\n"
	 "71       2025-11-26 00:00:01  power  pdu     confirmed  it is off\n"},
	{"vm start web1", "POST", "/v1/vms/web1/start", "{}", 202, "{\"task\":" TASK1 "}", "vm web1: started on n1\n"},
	{"vm start web1 --node n2", "POST", "/v1/vms/web1/start", "{\"node\":\"n2\"}", 202,
	 "{\"task\":" TASK1 ",\"placed\":\"given to node n2\"}", "vm web1: started on n1\n"},
	{"vm start web1 --force", "POST", "/v1/vms/web1/start", "{\"force\":true}", 202, "{\"task\":" TASK1 "}",
	 "vm web1: started on n1\n"},
	{"vm start web1 --no-wait", "POST", "/v1/vms/web1/start", "{}", 202,
	 "{\"task\":{\"id\":\"t1\",\"kind\":\"vm.start\",\"state\":\"queued\"}}",
	 "vm web1: task t1; `godwit task show t1` follows it\n"},
	{"vm stop web1 --timeout 2m", "POST", "/v1/vms/web1/stop", "{\"timeout_s\":120}", 202, "{\"task\":" TASK1 "}",
	 "vm web1: stopped on n1\n"},
	{"vm kill web1", "POST", "/v1/vms/web1/kill", "{}", 202, "{\"task\":" TASK1 "}", "vm web1: killed on n1\n"},
	{"vm delete web1", "DELETE", "/v1/vms/web1", NULL, 200, "{}", "vm web1: deleted; its disks stay\n"},
	{"vm migrate web1 --dry-run --to n2 --max-pause 50 --deadline 10m --auto-converge --bandwidth 100M", "POST",
	 "/v1/vms/web1/migrate",
	 "{\"dry_run\":true,\"to\":\"n2\",\"max_pause_ms\":50,\"deadline_s\":600,\"auto_converge\":true,"
	 "\"bandwidth\":100000000}",
	 202,
	 "{\"forecast\":{\"converges\":true,\"seconds\":8.93,\"bytes\":1070000000,\"pause_ms\":12.3,\"passes\":3,"
	 "\"to\":\"n2\"}}",
	 "destination  n2\nconverges    yes\ntime         8.93 s\non the wire  1.07 GB\npasses       3\npause        "
	 "12.3 ms\n"},
	{"vm migrate web1 --no-wait", "POST", "/v1/vms/web1/migrate", "{}", 202,
	 "{\"task\":{\"id\":\"t9\",\"kind\":\"vm.migrate\",\"state\":\"queued\"}}",
	 "vm web1: task t9; `godwit task show t9` follows it\n"},
	{"vm forecast web1 --to n2 --max-pause 50 --bandwidth 1G", "GET",
	 "/v1/vms/web1/forecast?to=n2&max_pause_ms=50&bandwidth=1000000000", NULL, 200,
	 "{\"converges\":false,\"dirty_bytes_per_s\":200000000,\"wire_bytes_per_s\":117000000,\"wire\":\"setting\","
	 "\"wire_why\":\"the setting\",\"reasons\":[\"the guest "
	 "writes faster than the wire carries\"]}",
	 "converges     no\n"
	 "guest writes  200 MB/s\n"
	 "wire carries  117 MB/s\n"
	 "that is       the setting\n"
	 "because       the guest writes faster than the wire carries\n"},
	{"vm definition web1 --version 2", "GET", "/v1/vms/web1/definition?version=2", NULL, 200,
	 "{\"version\":2,\"definition\":{\"name\":\"web1\"}}", "{\n  \"name\": \"web1\"\n}\n"},
	{"vm versions web1", "GET", "/v1/vms/web1/versions", NULL, 200,
	 "[{\"version\":2,\"time\":1764115200000,\"by\":\"root\"},{\"version\":1,\"time\":1764115100000,\"by\":\"amy\"}"
	 "]",
	 "VERSION  TIME                 BY\n"
	 "2        2025-11-26 00:00:00  root\n"
	 "1        2025-11-25 23:58:20  amy\n"},
	{"network create lan --bridge br0 --vlan 12 --uplink eth1 --mtu 9000", "POST", "/v1/networks",
	 "{\"name\":\"lan\",\"bridge\":\"br0\",\"vlan\":12,\"uplink\":\"eth1\",\"mtu\":9000}", 201,
	 "{\"name\":\"lan\"}", "network lan: created\n"},
	{"network list", "GET", "/v1/networks", NULL, 200,
	 "[{\"name\":\"lan\",\"bridge\":\"br0\",\"vlan\":0,\"uplink\":null,\"mtu\":null,\"vms\":[\"web1\",\"web2\"]}]",
	 "NAME  BRIDGE  VLAN  UPLINK  MTU  VMS\nlan   br0     0     -       -    web1, web2\n"},
	{"network show lan", "GET", "/v1/networks/lan", NULL, 200, "{\"name\":\"lan\",\"bridge\":\"br0\"}",
	 "name    lan\nbridge  br0\n"},
	{"network delete lan", "DELETE", "/v1/networks/lan", NULL, 200, "{}", "network lan: deleted\n"},
	{"migration list --active", "GET", "/v1/migrations?active=true", NULL, 200, "[" MOVE1 "]",
	 "ID                                    VM    FROM  TO  STEP     DONE    LEFT  CREATED              FINISHED  "
	 "ERROR\n"
	 "11111111-2222-4333-8444-555555555555  web1  n1    n2  copying  50 %  12.0 s  2025-11-26 00:00:00  -         "
	 "-\n"},
	{"migration show 11111111-2222-4333-8444-555555555555", "GET",
	 "/v1/migrations/11111111-2222-4333-8444-555555555555", NULL, 200, MOVE1,
	 "id       11111111-2222-4333-8444-555555555555\n"
	 "vm       web1\n"
	 "from     n1\n"
	 "to       n2\n"
	 "step     copying\n"
	 "done     50 %\n"
	 "left     12.0 s\n"
	 "created  2025-11-26 00:00:00\n"},
	{"migration cancel 11111111-2222-4333-8444-555555555555 --no-wait", "POST",
	 "/v1/migrations/11111111-2222-4333-8444-555555555555/cancel", "{}", 202, MOVE1,
	 "migration 11111111-2222-4333-8444-555555555555: is being cancelled; `godwit migration show "
	 "11111111-2222-4333-8444-555555555555` says how it ends\n"},
	{"task list", "GET", "/v1/tasks", NULL, 200, "[" TASK1 "]",
	 "ID  KIND      OBJECT  NODE  STATE   DONE  LEFT  CREATED              FINISHED             ERROR\n"
	 "t1  vm.start  web1    n1    done   100 %     -  2025-11-26 00:00:00  2025-11-26 00:00:01  -\n"},
	{"task list --active --names", "GET", "/v1/tasks?active=true", NULL, 200, "[" TASK1 "]", "t1\n"},
	{"task show t1", "GET", "/v1/tasks/t1", NULL, 200, TASK1,
	 "id        t1\n"
	 "kind      vm.start\n"
	 "object    web1\n"
	 "node      n1\n"
	 "state     done\n"
	 "done      100 %\n"
	 "created   2025-11-26 00:00:00\n"
	 "finished  2025-11-26 00:00:01\n"},
	{"user create amy --role operator", "POST", "/v1/users", "{\"name\":\"amy\",\"role\":\"operator\"}", 201,
	 "{\"name\":\"amy\",\"role\":\"operator\",\"token\":\"secret\"}", "secret\n"},
	{"user list", "GET", "/v1/users", NULL, 200,
	 "[{\"name\":\"amy\",\"role\":\"operator\",\"created\":1764115200000,\"by\":\"root\"}]",
	 "NAME  ROLE      CREATED              BY\namy   operator  2025-11-26 00:00:00  root\n"},
	{"user delete amy", "DELETE", "/v1/users/amy", NULL, 200, "{}", "user amy: deleted\n"},
	{"audit --limit 1 --before 100", "GET", "/v1/audit?limit=1&before=100", NULL, 200,
	 "[{\"seq\":99,\"time\":1764115200000,\"by\":\"root\",\"from\":\"unix\",\"op\":\"vm.create\",\"object\":"
	 "\"web1\"}]",
	 "NUMBER  TIME                 BY    FROM  WHAT       OBJECT\n"
	 "99      2025-11-26 00:00:00  root  unix  vm.create  web1\n"},
	{"baseline --nodes n1,n2", "GET", "/v1/baseline?nodes=n1%2Cn2", NULL, 200,
	 "{\"model\":\"Nehalem-v1\",\"cpu\":\"x86-64-v2\",\"level\":2,\"usable\":[\"Nehalem-v1\",\"qemu64-v1\"],"
	 "\"best\":"
	 "\"Haswell-v4\",\"hosts\":[{\"name\":\"n1\",\"own\":\"Haswell-v4\",\"lacks\":[]},{\"name\":\"n2\",\"own\":"
	 "\"Nehalem-v1\",\"lacks\":[\"avx2\",\"bmi2\"]}]}",
	 "best model of all  Nehalem-v1\n"
	 "for a definition   x86-64-v2\n"
	 "x86-64 level       2\n"
	 "all can run        Nehalem-v1, qemu64-v1\n"
	 "best of any        Haswell-v4\n"
	 "\n"
	 "NODE  ALONE       LACKS FOR THE BEST OF ANY  BECAUSE\n"
	 "n1    Haswell-v4  -                          -\n"
	 "n2    Nehalem-v1  avx2, bmi2                 -\n"},
	{"setting list", "GET", "/v1/settings", NULL, 200,
	 "[{\"key\":\"placement.vcpu-ratio\",\"value\":4,\"changed\":1764115200000,\"by\":\"root\"}]",
	 "KEY                   VALUE  CHANGED              BY\n"
	 "placement.vcpu-ratio  4      2025-11-26 00:00:00  root\n"},
	{"setting set placement.vcpu-ratio 4", "PUT", "/v1/settings/placement.vcpu-ratio", "{\"value\":4}", 200, "{}",
	 "setting placement.vcpu-ratio: set\n"},
	{"setting set cluster.motto fast", "PUT", "/v1/settings/cluster.motto", "{\"value\":\"fast\"}", 200, "{}",
	 "setting cluster.motto: set\n"},
	{"setting unset placement.vcpu-ratio", "PUT", "/v1/settings/placement.vcpu-ratio", "{\"value\":null}", 200,
	 "{}", "setting placement.vcpu-ratio: unset\n"},
};

static void each_command_asks_what_it_should_and_tells_people(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];
		const struct fake_request *r;
		struct fake_run run;

		fake_answer(row->method, row->target, row->status, row->answer);
		fake_run_line(&run, row->line);
		if (run.status != 0)
			fail_msg("%s: exit status %d: %s", row->line, run.status, run.err);
		r = fake_find(row->method, row->target);
		if (row->body)
			fake_assert_json(r->body, row->body);
		else
			assert_string_equal(r->body, "");
		assert_string_equal(run.out, row->out);
		if (strcmp(row->method, "GET") == 0)
			assert_null(r->key);
		else
			assert_int_equal(strlen(r->key), 36);
		fake_run_done(&run);
		fake_stop(state);
		fake_start(state);
	}
}

static void each_command_prints_what_the_daemon_said_with_json(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *row = &rows[i];
		_free_ char *line = xasprintf("--json %s", row->line);
		struct fake_run run;
		json_t *task, *answer = json_loads(row->answer, 0, NULL);

		fake_answer(row->method, row->target, row->status, row->answer);
		fake_run_line(&run, line);
		assert_int_equal(run.status, 0);
		/* A task that was waited for is printed itself. */
		task = strstr(row->line, "--no-wait") ? NULL : json_object_get(answer, "task");
		if (task) {
			_free_ char *text = json_dumps(task, 0);

			fake_assert_json(run.out, text);
		} else {
			fake_assert_json(run.out, row->answer);
		}
		assert_int_equal(strcspn(run.out, "\n"), strlen(run.out) - 1);
		assert_string_equal(run.err, "");
		json_decref(answer);
		fake_run_done(&run);
		fake_stop(state);
		fake_start(state);
	}
}

static bool is_tried(const char *words)
{
	size_t n = strlen(words);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (strncmp(rows[i].line, words, n) == 0 && (rows[i].line[n] == ' ' || !rows[i].line[n]))
			return true;
	return false;
}

/* Those that are tried elsewhere: vm-create-test, vm-edit-test, console-test, events-test, completion-test, fence-test.
 */
static void no_command_is_left_out_here(void **state)
{
	static const char *const elsewhere[] = {
		"vm create",  "vm edit",    "vm console",        "events",          "completion", "fence add",
		"fence edit", "fence list", "fence disk-format", "fence disk-list", "fence test", "node confirm-dead"};

	(void)state;
	for (size_t i = 0; cli_groups[i]; i++)
		for (const struct cli_command *cmd = cli_groups[i]->commands; cmd->summary; cmd++) {
			const char *words = cli_command_words(cli_groups[i], cmd);
			bool tried = is_tried(words);

			for (size_t k = 0; k < ARRAY_SIZE(elsewhere); k++)
				tried |= strcmp(words, elsewhere[k]) == 0;
			if (!tried)
				fail_msg("nobody tries %s", words);
		}
}

static void guests_that_wait_say_why_below_the_list(void **state)
{
	static const char list[] =
		"[{\"name\":\"a\",\"waiting\":\"vm a: no node fits: there is none\"},{\"name\":\"b\"}]";
	struct fake_run run;

	(void)state;
	for (int i = 0; i < 3; i++)
		fake_answer("GET", "/v1/vms", 200, list);
	FAKE_RUN(&run, "vm", "list");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.err, "waits: vm a: no node fits: there is none\n");
	fake_run_done(&run);
	FAKE_RUN(&run, "vm", "list", "--names");
	assert_string_equal(run.err, "");
	fake_run_done(&run);
	FAKE_RUN(&run, "vm", "list", "--json");
	assert_string_equal(run.err, "");
	fake_run_done(&run);
}

static void a_cluster_that_bears_less_than_it_shall_is_warned_of(void **state)
{
	static const char below[] =
		"{\"name\":\"prod\",\"expected\":3,\"ha\":{\"bears\":0,\"exact\":true,\"wish\":1,\"why\":\"without n1 "
		"there is no place for vm db1\"}}";
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/cluster", 200, below);
	fake_answer("GET", "/v1/cluster", 200, below);
	fake_answer("GET", "/v1/cluster", 200,
		    "{\"name\":\"prod\",\"expected\":3,\"ha\":{\"bears\":1,\"exact\":true,\"wish\":1}}");
	FAKE_RUN(&run, "cluster", "status");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.err,
			    "warning: the cluster bears the loss of 0 hosts, and shall bear 1: without n1 there is no "
			    "place for vm db1\n");
	fake_run_done(&run);
	FAKE_RUN(&run, "cluster", "status", "--json");
	assert_string_equal(run.err, "");
	fake_run_done(&run);
	FAKE_RUN(&run, "cluster", "status");
	assert_string_equal(run.err, "");
	fake_run_done(&run);
}

static void names_in_a_path_cannot_leave_their_place(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/vms/a%2F..%2F%3Fx%3D1", 200, "{\"name\":\"x\"}");
	FAKE_RUN(&run, "vm", "show", "a/../?x=1");
	assert_int_equal(run.status, 0);
	fake_run_done(&run);
}

static void a_move_can_be_named_by_its_guest(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/vms/web1", 200, "{\"name\":\"web1\",\"migration\":\"m-7\"}");
	fake_answer("GET", "/v1/migrations/m-7", 200, "{\"id\":\"m-7\",\"vm\":\"web1\",\"step\":\"copying\"}");
	FAKE_RUN(&run, "migration", "show", "web1");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "id    m-7\nvm    web1\nstep  copying\n");
	fake_run_done(&run);

	fake_answer("GET", "/v1/vms/web2", 200, "{\"name\":\"web2\",\"migration\":null}");
	FAKE_RUN(&run, "migration", "show", "web2");
	assert_int_equal(run.status, 4);
	assert_string_equal(run.err, "godwit: vm web2 is not being moved; `godwit migration list` shows the moves\n");
	fake_run_done(&run);
}

static void a_cancel_waits_until_the_move_has_ended(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("GET", "/v1/vms/web1", 200, "{\"name\":\"web1\",\"migration\":\"m-7\"}");
	fake_answer("POST", "/v1/migrations/m-7/cancel", 202, "{\"id\":\"m-7\",\"vm\":\"web1\",\"step\":\"copying\"}");
	fake_answer("GET", "/v1/migrations/m-7", 200, "{\"id\":\"m-7\",\"step\":\"copying\",\"finished\":null}");
	fake_answer("GET", "/v1/migrations/m-7", 200, "{\"id\":\"m-7\",\"step\":\"cancelled\",\"finished\":1}");
	FAKE_RUN(&run, "migration", "cancel", "web1");
	assert_int_equal(run.status, 0);
	assert_int_equal(fake_count_of("GET", "/v1/migrations/m-7"), 2);
	assert_string_equal(run.out, "migration web1: cancelled; the guest runs on where it was\n");
	fake_run_done(&run);

	fake_answer("GET", "/v1/vms/web3", 200, "{\"name\":\"web3\",\"migration\":\"m-8\"}");
	fake_answer("POST", "/v1/migrations/m-8/cancel", 202, "{\"id\":\"m-8\",\"vm\":\"web1\",\"step\":\"agreed\"}");
	fake_answer("GET", "/v1/migrations/m-8", 200, "{\"id\":\"m-8\",\"step\":\"done\",\"finished\":1}");
	FAKE_RUN(&run, "migration", "cancel", "web3");
	assert_int_equal(run.status, 5);
	assert_string_equal(run.err, "godwit: too late to cancel: the move ended as done\n");
	fake_run_done(&run);
}

static void a_new_member_is_waited_for_until_it_works(void **state)
{
	struct fake_run run;

	(void)state;
	fake_answer("POST", "/v1/cluster/init", 201, "{\"name\":\"prod\",\"state\":\"starting\"}");
	fake_answer("GET", "/v1/cluster", FAKE_CUT, "");
	fake_answer("GET", "/v1/cluster", 503, "{\"error\":{\"code\":\"unavailable\",\"message\":\"starting\"}}");
	fake_answer("GET", "/v1/cluster", 200, "{\"name\":\"prod\",\"state\":\"starting\"}");
	fake_answer("GET", "/v1/cluster", 200,
		    "{\"name\":\"prod\",\"node\":\"n1\",\"state\":\"synced\",\"members\":[\"1\"]}");
	fake_answer("GET", "/v1/cluster", 200,
		    "{\"name\":\"prod\",\"node\":\"n1\",\"state\":\"synced\",\"members\":[\"n2\",\"n1\"]}");
	FAKE_RUN(&run, "cluster", "init", "prod", "--node", "n1");
	assert_int_equal(run.status, 0);
	assert_string_equal(run.out, "cluster    prod\nthis host  n1\nstate      synced\nmembers    n2, n1\n");
	fake_run_done(&run);
}

static void a_host_goes_by_its_own_name_unless_told(void **state)
{
	struct fake_run run;
	char name[256] = "";
	json_t *body;

	(void)state;
	gethostname(name, sizeof(name) - 1);
	fake_answer("POST", "/v1/cluster/init", 201, "{\"name\":\"prod\",\"state\":\"synced\"}");
	FAKE_RUN(&run, "cluster", "init", "prod", "--no-wait");
	assert_int_equal(run.status, 0);
	body = json_loads(fake_find("POST", "/v1/cluster/init")->body, 0, NULL);
	assert_int_equal(strncasecmp(json_string_value(json_object_get(body, "node")), name, strcspn(name, ".")), 0);
	assert_null(strchr(json_string_value(json_object_get(body, "node")), '.'));
	json_decref(body);
	fake_run_done(&run);
}

static void a_token_can_come_from_standard_input(void **state)
{
	struct fake_run run;
	FILE *in = fopen(fake_file("token", "GW1-xyz\n"), "r");

	(void)state;
	assert_non_null(in);
	fake_io.in_fd = fileno(in);
	fake_answer("POST", "/v1/cluster/join", 200, "{\"name\":\"prod\",\"state\":\"synced\"}");
	FAKE_RUN(&run, "cluster", "join", "-", "--node", "n2", "--no-wait");
	assert_int_equal(run.status, 0);
	fake_assert_json(fake_find("POST", "/v1/cluster/join")->body, "{\"token\":\"GW1-xyz\",\"node\":\"n2\"}");
	fake_run_done(&run);
	FAKE_RUN(&run, "cluster", "join", "-", "--node", "n2", "--no-wait");
	assert_int_equal(run.status, 2);
	fake_run_done(&run);
	fclose(in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_command_asks_what_it_should_and_tells_people, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(each_command_prints_what_the_daemon_said_with_json, fake_start,
						fake_stop),
		cmocka_unit_test(no_command_is_left_out_here),
		cmocka_unit_test_setup_teardown(guests_that_wait_say_why_below_the_list, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_cluster_that_bears_less_than_it_shall_is_warned_of, fake_start,
						fake_stop),
		cmocka_unit_test_setup_teardown(names_in_a_path_cannot_leave_their_place, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_move_can_be_named_by_its_guest, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_cancel_waits_until_the_move_has_ended, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_new_member_is_waited_for_until_it_works, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_host_goes_by_its_own_name_unless_told, fake_start, fake_stop),
		cmocka_unit_test_setup_teardown(a_token_can_come_from_standard_input, fake_start, fake_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
