/* SPDX-License-Identifier: Apache-2.0 */
/* godwit cluster: make one, join one, how it is. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"
#include "cli/wait.h"

#define READY_S 60
#define TOKEN_MAX 1024

static const struct view_column status_view[] = {
	{"cluster", "name", VIEW_TEXT},
	{"this host", "node", VIEW_TEXT},
	{"state", "state", VIEW_TEXT},
	{"quorum", "quorate", VIEW_TEXT},
	{"members", "members", VIEW_LIST},
	{"expected", "expected", VIEW_TEXT},
	{"needed", "needed", VIEW_TEXT},
	{"manager", "manager", VIEW_TEXT},
	{"goes on alone", "alone", VIEW_TEXT},
	{"age of this view", "age_ms", VIEW_MS},
	{"alarms", "alarms", VIEW_LIST},
	{"host failures it bears", "ha.bears", VIEW_TEXT},
	{"lease left", "lease.left_ms", VIEW_MS},
	{"guests may start", "lease.starts", VIEW_TEXT},
	{"they may not because", "lease.why", VIEW_TEXT},
	{"watchdog", "lease.watchdog.state", VIEW_TEXT},
	{"watchdog device", "lease.watchdog.device", VIEW_TEXT},
	{NULL, NULL, VIEW_TEXT},
};

/* Not an error of the command, so it is said beside the answer. */
static void tell_bears(struct cli *c, const json_t *cluster)
{
	const json_t *ha = json_object_get(cluster, "ha");
	json_int_t bears = json_integer_value(json_object_get(ha, "bears"));
	json_int_t wish = json_integer_value(json_object_get(ha, "wish"));
	const char *why = json_string_value(json_object_get(ha, "why"));
	_free_ char *safe = text_clean(why);

	if (json_is_true(json_object_get(ha, "exact")) && bears < wish &&
	    json_integer_value(json_object_get(cluster, "expected")) > 1)
		fprintf(c->io->err, "warning: the cluster bears the loss of %lld hosts, and shall bear %lld%s%s\n",
			(long long)bears, (long long)wish, why ? ": " : "", safe);
}

static void tell_alone(struct cli *c, const json_t *cluster)
{
	if (json_is_true(json_object_get(cluster, "alone")))
		fprintf(c->io->err,
			"warning: this host goes on without the other one of two: what is written now is on its "
			"disk alone until that one is back, or is removed (godwit node remove)\n");
}

static int status_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL;
	int r = request_command(c, &answer, e);

	if (r == 0)
		r = run_answer(c, answer, e);
	if (r == 0 && !c->json) {
		tell_alone(c, answer);
		tell_bears(c, answer);
	}
	json_decref(answer);
	return r;
}

static const struct view_column bears_view[] = {
	{"host failures it bears", "bears", VIEW_TEXT},
	{"no more for sure", "exact", VIEW_TEXT},
	{"it shall bear", "wish", VIEW_TEXT},
	{"too much would be", "worst", VIEW_LIST},
	{"because", "why", VIEW_TEXT},
	{NULL, NULL, VIEW_TEXT},
};

static const struct view_column plan_view[] = {
	{"GUEST", "vm", VIEW_TEXT},    {"IS TO", "action", VIEW_TEXT}, {"ON", "node", VIEW_TEXT},
	{"UNTIL", "until", VIEW_TIME}, {"BECAUSE", "why", VIEW_TEXT},  {NULL, NULL, VIEW_TEXT},
};

/* How many hosts may die, then what is to be done for guests, in order. */
static int ha_run(struct cli *c, struct err *e)
{
	json_t *answer = NULL, *bears, *plan;
	int r = request_command(c, &answer, e);

	if (r == 0 && c->json) {
		view_print_json(c->io->out, answer);
	} else if (r == 0) {
		bears = json_copy(json_object_get(answer, "bears"));
		json_object_set(bears, "wish", json_object_get(answer, "wish"));
		if (!json_array_size(json_object_get(bears, "worst")))
			json_object_del(bears, "worst");
		view_print(c->io->out, bears, bears_view);
		json_decref(bears);
		plan = json_object_get(answer, "plan");
		if (json_array_size(plan)) {
			fputc('\n', c->io->out);
			view_print(c->io->out, plan, plan_view);
		}
	}
	json_decref(answer);
	return r;
}

/* ---- init and join ---- */

/* The first label of the host's name, as a node's name. */
static char *host_name(void)
{
	char name[256] = "";

	if (gethostname(name, sizeof(name) - 1) < 0)
		return xstrdup("");
	name[strcspn(name, ".")] = 0;
	for (char *p = name; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	return xstrdup(name);
}

/* Whether this host works as a member: it is up to date, and the others know it by its name. */
static bool is_working(const json_t *cluster)
{
	const char *state = json_string_value(json_object_get(cluster, "state"));
	json_t *members = json_object_get(cluster, "members"), *member;
	size_t i;

	json_array_foreach (members, i, member)
		if (json_equal(member, json_object_get(cluster, "node")))
			return state && strcmp(state, "synced") == 0;
	return false;
}

/* Ask for what was given, with a name for this host; then until it is a working member: the daemon begins anew. */
static int become_member(struct cli *c, json_t *fields, struct err *e)
{
	json_t *answer = NULL, *status = NULL;
	int r;

	if (!json_object_get(fields, "node")) {
		_free_ char *name = host_name();

		json_object_set_new(fields, "node", json_string(name));
	}
	r = request(c, "POST", c->command->path, fields, &answer, e);
	if (r == 0 && !cli_given(c, "no-wait"))
		r = wait_until(c, "/v1/cluster", is_working, READY_S, &status, e) < 0
			    ? err_wrap(e, "this host is a member, but it is not up to date yet")
			    : 0;
	if (r == 0 && c->json)
		view_print_json(c->io->out, status ? status : answer);
	else if (r == 0)
		view_print(c->io->out, status ? status : answer, status_view);
	json_decref(answer);
	json_decref(status);
	return r;
}

static int init_run(struct cli *c, struct err *e)
{
	json_t *fields = json_object();
	int r = request_fields(c, fields, e);

	if (r == 0)
		r = become_member(c, fields, e);
	json_decref(fields);
	return r;
}

/* The token from standard input. Caller frees. */
static char *token_read(const struct cli *c, struct err *e)
{
	char *text = xcalloc(1, TOKEN_MAX + 1);
	ssize_t n, used = 0;

	while (used < TOKEN_MAX && (n = read(c->io->in_fd, text + used, (size_t)(TOKEN_MAX - used))) > 0)
		used += n;
	text[strcspn(text, "\r\n")] = 0;
	if (text[0])
		return text;
	free(text);
	err_set(e, ERR_USAGE, "there is no token on standard input; `godwit cluster token` on a member makes one");
	return NULL;
}

static int join_run(struct cli *c, struct err *e)
{
	_free_ char *token = strcmp(cli_text(c, "TOKEN"), "-") == 0 ? token_read(c, e) : xstrdup(cli_text(c, "TOKEN"));
	json_t *fields = json_object();
	int r = token ? request_fields(c, fields, e) : -1;

	if (r == 0) {
		json_object_set_new(fields, "token", json_string(token));
		r = become_member(c, fields, e);
	}
	json_decref(fields);
	return r;
}

/* ---- token ---- */

/* The token alone goes to standard output, for scripts. */
static int token_run(struct cli *c, struct err *e)
{
	static const struct view_column expires = {"", "expires", VIEW_TIME};
	json_t *answer = NULL;
	_free_ char *when = NULL;
	int r = request_command(c, &answer, e);

	if (r == 0 && c->json) {
		view_print_json(c->io->out, answer);
	} else if (r == 0) {
		when = view_cell(answer, &expires);
		fprintf(c->io->out, "%s\n", json_string_value(json_object_get(answer, "token")));
		fprintf(c->io->err, "for one host, until %s; there: `godwit cluster join TOKEN`\n", when);
	}
	json_decref(answer);
	return r;
}

#define PARAM_NODE                                                                                                     \
	{                                                                                                              \
		.name = "node", .value = "NAME", .kind = CLI_TEXT, .field = "node",                                    \
		.help = "the name of this host in the cluster (default: its host name)"                                \
	}
#define PARAM_ADDRESS                                                                                                  \
	{                                                                                                              \
		.name = "address", .value = "ADDRESS", .kind = CLI_TEXT, .field = "addresses", .many = true,           \
		.help = "an address of this host for the cluster, one for each ring"                                   \
	}

const struct cli_group cluster_group = {
	"cluster",
	"the cluster itself",
	(const struct cli_command[]){
		{.verb = "init",
		 .operands =
			 (const struct cli_param[]){
				 {.name = "NAME", .kind = CLI_TEXT, .field = "name", .help = "the name of the cluster"},
				 {0}},
		 .options =
			 (const struct cli_param[]){
				 PARAM_NODE,
				 PARAM_ADDRESS,
				 {.name = "qdevice",
				  .value = "HOST",
				  .kind = CLI_TEXT,
				  .field = "qdevice",
				  .help = "a third party that votes when two hosts cannot agree"},
				 {.name = "token-ms",
				  .value = "MS",
				  .kind = CLI_NUMBER,
				  .min = 300,
				  .max = 30000,
				  .field = "token_ms",
				  .help = "corosync's token: a host is given up after 2.2 times this (default: 1000)"},
				 PARAM_NO_WAIT,
				 {0}},
		 .summary = "Make this host the first of a new cluster",
		 .method = "POST",
		 .path = "/v1/cluster/init",
		 .run = init_run},
		{.verb = "join",
		 .operands =
			 (const struct cli_param[]){
				 {.name = "TOKEN",
				  .kind = CLI_TEXT,
				  .help = "what `godwit cluster token` printed on a member; - reads it "
					  "from standard input"},
				 {0}},
		 .options =
			 (const struct cli_param[]){PARAM_NODE,
						    PARAM_ADDRESS,
						    {.name = "via",
						     .value = "HOST:PORT",
						     .kind = CLI_TEXT,
						     .field = "host",
						     .help = "ask this member instead of the one that the token names"},
						    PARAM_NO_WAIT,
						    {0}},
		 .summary = "Make this host a member of the cluster that the token is of",
		 .method = "POST",
		 .path = "/v1/cluster/join",
		 .run = join_run},
		{.verb = "ha",
		 .summary = "Show how many hosts may die, and which guests are started again or wait, and why",
		 .method = "GET",
		 .path = "/v1/ha",
		 .run = ha_run},
		{.verb = "status",
		 .summary = "Show the cluster as this host sees it",
		 .method = "GET",
		 .path = "/v1/cluster",
		 .view = status_view,
		 .run = status_run},
		{.verb = "token",
		 .options = (const struct cli_param[]){{.name = "ttl",
							.value = "TIME",
							.kind = CLI_SECONDS,
							.min = 60,
							.max = 604800,
							.field = "ttl_s",
							.help = "how long it is good for, from 1m to 7d"},
						       {.name = "at",
							.value = "HOST:PORT",
							.kind = CLI_TEXT,
							.field = "host",
							.help = "the member that the new host shall ask"},
						       {0}},
		 .summary = "Print a token with which one host may join",
		 .method = "POST",
		 .path = "/v1/cluster/tokens",
		 .run = token_run},
		{0},
	},
};
