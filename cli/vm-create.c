/* SPDX-License-Identifier: Apache-2.0 */
/* godwit vm create: a definition out of options, and where the guest goes. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/definition.h"
#include "cli/groups.h"
#include "cli/request.h"
#include "cli/run.h"
#include "cli/value.h"

#define KEY_FILE_MAX (256U << 10)
#define PORT_MAX 65535

const struct cli_param vm_create_options[] = {
	{.name = "memory",
	 .value = "SIZE",
	 .kind = CLI_MEMORY,
	 .min = 16,
	 .max = 8 << 20,
	 .field = "memory",
	 .help = "memory: 512M, 2G"},
	{.name = "vcpus",
	 .value = "N",
	 .kind = CLI_NUMBER,
	 .min = 1,
	 .max = 255,
	 .field = "vcpus",
	 .help = "virtual CPUs"},
	{.name = "image",
	 .value = "FILE[,format=raw|qcow2]",
	 .kind = CLI_TEXT,
	 .help = "the first disk, which it boots from: this file itself, not a copy"},
	{.name = "disk",
	 .value = "FILE[,format=raw|qcow2][,readonly]",
	 .kind = CLI_TEXT,
	 .many = true,
	 .help = "another disk; the format goes without saying for FILE.raw and FILE.qcow2"},
	{.name = "network",
	 .value = "NAME[,mac=MAC]",
	 .kind = CLI_TEXT,
	 .many = true,
	 .help = "plug it into a network; or bridge=BRIDGE[,mac=MAC]; or "
		 "user[,restrict][,forward=[udp:]HOSTPORT:GUESTPORT]"},
	{.name = "ssh-key",
	 .value = "KEY|FILE",
	 .kind = CLI_TEXT,
	 .many = true,
	 .help = "who may log in, by cloud-init: a public key, or a file of them"},
	{.name = "user-data", .value = "FILE", .kind = CLI_FILE, .help = "cloud-init's user-data"},
	{.name = "hostname",
	 .value = "NAME",
	 .kind = CLI_TEXT,
	 .help = "its host name, by cloud-init (default: its name)"},
	{.name = "cpu",
	 .value = "MODEL",
	 .kind = CLI_TEXT,
	 .field = "cpu",
	 .help = "CPU model; `godwit baseline` shows the best that all hosts have"},
	{.name = "machine",
	 .value = "TYPE",
	 .kind = CLI_TEXT,
	 .field = "machine",
	 .help = "q35, pc, or a version of one"},
	{.name = "firmware",
	 .value = "WHICH",
	 .kind = CLI_CHOICE,
	 .words = "bios|uefi",
	 .field = "firmware",
	 .help = "bios or uefi"},
	{.name = "kernel",
	 .value = "FILE",
	 .kind = CLI_PATH,
	 .field = "kernel",
	 .help = "boot this kernel, not the disk"},
	{.name = "initrd", .value = "FILE", .kind = CLI_PATH, .field = "initrd", .help = "with this initial RAM disk"},
	{.name = "append", .value = "TEXT", .kind = CLI_TEXT, .field = "cmdline", .help = "and this command line"},
	{.name = "definition",
	 .value = "FILE",
	 .kind = CLI_FILE,
	 .help = "begin with this definition (JSON; - reads standard input); the other options add to it"},
	{.name = "node", .value = "NODE", .kind = CLI_NODE, .help = "put it on this host"},
	{.name = "near", .value = "VM", .kind = CLI_VM, .many = true, .help = "put it on the host of this guest"},
	{.name = "apart",
	 .value = "VM",
	 .kind = CLI_VM,
	 .many = true,
	 .help = "put it on another host than this guest"},
	{.name = "ha",
	 .value = "MODE",
	 .kind = CLI_CHOICE,
	 .words = "restart|none|default",
	 .help = "when it or its host dies: restart it, let it be, or as the setting ha.default says; `vm ha` says "
		 "more"},
	{.name = "force",
	 .kind = CLI_FLAG,
	 .help = "start it even if the cluster could then bear the loss of fewer hosts than ha.wish says"},
	{.name = "no-start", .kind = CLI_FLAG, .help = "do not start it"},
	{.name = "dry-run", .kind = CLI_FLAG, .help = "only say for each host whether it fits there, and why not"},
	PARAM_NO_WAIT,
	{0},
};

/* ---- disks ---- */

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n > m && strcmp(text + n - m, end) == 0;
}

/* A format is never guessed from what is in the file: a guest can write that. Its name is the user's. */
static const char *disk_format(const struct spec *s)
{
	const char *format = spec_get(s, "format");

	if (format)
		return strcmp(format, "raw") == 0 || strcmp(format, "qcow2") == 0 ? format : NULL;
	return ends_with(s->first, ".qcow2") ? "qcow2" : ends_with(s->first, ".raw") ? "raw" : NULL;
}

static int disk_add(const struct cli *c, const char *text, json_t *disks, bool first, struct err *e)
{
	static const struct cli_param file = {.name = "disk", .kind = CLI_PATH};
	static const char *const keys[] = {"format=", "readonly", NULL};
	struct spec s = {0};
	json_t *path = NULL, *disk;
	int r = spec_read(text, keys, &s, e);

	if (r == 0 && !disk_format(&s))
		r = err_set(e, ERR_USAGE, "\"%s\": which format? write %s,format=qcow2 or %s,format=raw", text, s.first,
			    s.first);
	if (r == 0 && s.first[0] != '/' && cli_text(c, "host"))
		r = err_set(e, ERR_USAGE, "\"%s\": with --host, write the whole path that the file has on the hosts",
			    text);
	if (r == 0)
		r = value_json(&file, s.first, 0, &path, e);
	if (r == 0) {
		disk = json_pack("{s:o, s:s}", "file", path, "format", disk_format(&s));
		if (spec_get(&s, "readonly"))
			json_object_set_new(disk, "readonly", json_true());
		if (first)
			json_array_insert_new(disks, 0, disk);
		else
			json_array_append_new(disks, disk);
	}
	spec_done(&s);
	return r;
}

static int disks_add(const struct cli *c, json_t *definition, struct err *e)
{
	const char *image = cli_text(c, "image"), *disk;

	for (size_t i = 0; (disk = cli_nth(c, "disk", i)); i++)
		if (disk_add(c, disk, definition_array(definition, "disks"), false, e) < 0)
			return err_wrap(e, "--disk");
	if (image && disk_add(c, image, definition_array(definition, "disks"), true, e) < 0)
		return err_wrap(e, "--image");
	return 0;
}

/* ---- networks ---- */

static int port_read(const char *text, char **ret_end)
{
	long n = strtol(text, ret_end, 10);

	return text[0] >= '0' && text[0] <= '9' && n >= 1 && n <= PORT_MAX ? (int)n : -1;
}

/* "[tcp:|udp:]HOSTPORT:GUESTPORT" */
static int forward_add(const char *text, json_t *nic, struct err *e)
{
	const char *protocol = strncmp(text, "udp:", 4) == 0 ? "udp" : "tcp";
	const char *ports = strncmp(text, "udp:", 4) == 0 || strncmp(text, "tcp:", 4) == 0 ? text + 4 : text;
	char *end;
	int host = port_read(ports, &end), guest = -1;

	if (host > 0 && *end == ':')
		guest = port_read(end + 1, &end);
	if (host < 0 || guest < 0 || *end)
		return err_set(e, ERR_USAGE, "forward=%s must be [udp:]HOSTPORT:GUESTPORT, such as forward=2222:22",
			       text);
	json_array_append_new(definition_array(nic, "forward"),
			      json_pack("{s:s, s:i, s:i}", "protocol", protocol, "host", host, "guest", guest));
	return 0;
}

static int user_nic(const struct spec *s, json_t *nic, struct err *e)
{
	json_object_set_new(nic, "type", json_string("user"));
	if (spec_get(s, "restrict"))
		json_object_set_new(nic, "restrict", json_true());
	for (size_t i = 0; i < s->n_parts; i++)
		if (strcmp(s->parts[i].key, "forward") == 0 && forward_add(s->parts[i].value, nic, e) < 0)
			return -1;
	return 0;
}

static int network_add(const char *text, json_t *nics, struct err *e)
{
	static const char *const tap_keys[] = {"mac=", NULL}, *const user_keys[] = {"mac=", "restrict",
										    "forward=", NULL};
	bool user = strcmp(text, "user") == 0 || strncmp(text, "user,", 5) == 0;
	json_t *nic = json_object();
	struct spec s = {0};
	int r = spec_read(text, user ? user_keys : tap_keys, &s, e);

	if (r == 0 && user) {
		r = user_nic(&s, nic, e);
	} else if (r == 0) {
		bool bridge = strncmp(s.first, "bridge=", 7) == 0;

		json_object_set_new(nic, "type", json_string("tap"));
		json_object_set_new(nic, bridge ? "bridge" : "network", json_string(s.first + (bridge ? 7 : 0)));
	}
	if (r == 0 && spec_get(&s, "mac"))
		json_object_set_new(nic, "mac", json_string(spec_get(&s, "mac")));
	spec_done(&s);
	if (r == 0)
		json_array_append_new(nics, nic);
	else
		json_decref(nic);
	return r;
}

static int networks_add(const struct cli *c, json_t *definition, struct err *e)
{
	const char *network;

	for (size_t i = 0; (network = cli_nth(c, "network", i)); i++)
		if (network_add(network, definition_array(definition, "nics"), e) < 0)
			return err_wrap(e, "--network");
	return 0;
}

/* ---- cloud-init ---- */

static bool is_key(const char *text)
{
	return strncmp(text, "ssh-", 4) == 0 || strncmp(text, "ecdsa-", 6) == 0 || strncmp(text, "sk-", 3) == 0;
}

/* A key, or every line of a file that is one. */
static int key_add(const char *text, json_t *keys, struct err *e)
{
	_free_ char *file = NULL;
	size_t before = json_array_size(keys);
	char *rest;

	if (is_key(text) && strchr(text, ' ')) {
		json_array_append_new(keys, json_string(text));
		return 0;
	}
	file = value_file(text, KEY_FILE_MAX, e);
	if (!file)
		return err_wrap(e, "neither a public key nor a file of them");
	rest = file;
	for (char *line; (line = strsep(&rest, "\r\n"));)
		if (is_key(line))
			json_array_append_new(keys, json_string(line));
	return json_array_size(keys) > before ? 0 : err_set(e, ERR_INPUT, "%s: there is no public key in it", text);
}

static int seed_add(const struct cli *c, json_t *definition, struct err *e)
{
	const char *user_data = cli_text(c, "user-data"), *hostname = cli_text(c, "hostname"), *key;

	if (user_data && definition_seed_file(definition, "user-data", user_data, e) < 0)
		return err_wrap(e, "--user-data");
	if (hostname)
		json_object_set_new(definition_object(definition, "seed"), "hostname", json_string(hostname));
	for (size_t i = 0; (key = cli_nth(c, "ssh-key", i)); i++)
		if (key_add(key, definition_array(definition_object(definition, "seed"), "ssh-keys"), e) < 0)
			return err_wrap(e, "--ssh-key");
	return 0;
}

/* ---- the request ---- */

static int definition_check(const struct cli *c, const json_t *definition, struct err *e)
{
	static const char *const needed[] = {"memory", "vcpus"};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!json_object_get(definition, needed[i]))
			return err_set(e, ERR_USAGE, "vm create %s needs --%s, or a --definition that says it",
				       cli_text(c, "NAME"), needed[i]);
	return 0;
}

/* New reference; NULL with @e. */
static json_t *definition_make(const struct cli *c, struct err *e)
{
	const char *file = cli_text(c, "definition");
	json_t *d = file ? definition_load(file, c->io->in_fd, e) : json_object();

	if (!d)
		return NULL;
	json_object_set_new(d, "name", json_string(cli_text(c, "NAME")));
	if (request_fields(c, d, e) == 0 && disks_add(c, d, e) == 0 && networks_add(c, d, e) == 0 &&
	    seed_add(c, d, e) == 0 && definition_check(c, d, e) == 0)
		return d;
	json_decref(d);
	return NULL;
}

/* What was said about where it shall be, or NULL. New reference. */
static json_t *placement_make(const struct cli *c)
{
	static const char *const lists[] = {"near", "apart"};
	json_t *p = json_object();

	if (cli_text(c, "node"))
		json_object_set_new(p, "node", json_string(cli_text(c, "node")));
	for (size_t k = 0; k < ARRAY_SIZE(lists); k++)
		for (size_t i = 0; cli_nth(c, lists[k], i); i++)
			json_array_append_new(definition_array(p, lists[k]), json_string(cli_nth(c, lists[k], i)));
	if (json_object_size(p))
		return p;
	json_decref(p);
	return NULL;
}

static int create(struct cli *c, json_t *body, struct err *e)
{
	json_t *answer = NULL;
	int r = request(c, c->command->method, c->command->path, body, &answer, e);

	if (r == 0 && cli_given(c, "dry-run")) {
		if (c->json)
			view_print_json(c->io->out, answer);
		r = run_placement(c, json_object_get(answer, "placement"), e);
	} else if (r == 0) {
		r = run_answer(c, answer, e);
	}
	json_decref(answer);
	return r;
}

int vm_create_run(struct cli *c, struct err *e)
{
	json_t *definition = definition_make(c, e), *placement = placement_make(c), *body;
	int r;

	if (!definition) {
		json_decref(placement);
		return -1;
	}
	body = json_pack("{s:o, s:b}", "definition", definition, "start", !cli_given(c, "no-start"));
	if (placement)
		json_object_set_new(body, "placement", placement);
	if (cli_given(c, "force"))
		json_object_set_new(body, "force", json_true());
	if (cli_given(c, "ha"))
		json_object_set_new(body, "ha", json_string(cli_text(c, "ha")));
	if (cli_given(c, "dry-run"))
		json_object_set_new(body, "dry_run", json_true());
	r = create(c, body, e);
	json_decref(body);
	return r;
}
