/* SPDX-License-Identifier: Apache-2.0 */
/* The guest definition: reading, checking and writing it.
 *
 * Every object of the definition has a table of its fields. A field that is not in the table is refused with the
 * nearest name that is; a field that is gets its reader called with the path ("disks[1].format") for the message. A
 * reader checks type and range and fills the struct, so there is no second, looser notion of what is valid: the JSON
 * schema in guest.schema.json describes the same fields, and a unit test holds the two together.
 */
#include "hv/def.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/mem.h"
#include "base/uuid.h"

#define DEF_PATH_MAX 4096

const char *const def_format_names[DEF_FORMAT_MAX] = {"raw", "qcow2"};
const char *const def_nic_names[DEF_NIC_MAX] = {"tap", "user"};
const char *const def_firmware_names[DEF_FIRMWARE_MAX] = {"bios", "uefi"};
const char *const def_protocol_names[DEF_PROTOCOL_MAX] = {"tcp", "udp"};

/* One reading: where messages point to and where relative paths start. */
struct def_reader {
	const char *file;
	const char *dir;
	struct err *e;
};

/* A field of one object; @target is the struct that the object fills. */
struct def_field {
	const char *name;
	int (*read)(struct def_reader *r, const char *path, json_t *value, void *target);
	bool required;
};

static int field_error(struct def_reader *r, const char *path, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int field_error(struct def_reader *r, const char *path, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX / 2];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(r->e, ERR_INPUT, "%s: %s: %s", r->file, path, text);
}

/* Edit distance (Levenshtein) of two short words; anything longer than 31 is "far". */
static size_t word_distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), row[32];

	if (la > 31 || lb > 31)
		return 32;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t best = diagonal + (tolower((unsigned char)a[i - 1]) != b[j - 1]);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[lb];
}

static int unknown_field(struct def_reader *r, const char *path, const char *key, const struct def_field *fields)
{
	const struct def_field *best = fields;
	char known[512] = "";

	for (const struct def_field *f = fields; f->name; f++) {
		size_t used = strlen(known);

		if (word_distance(key, f->name) < word_distance(key, best->name))
			best = f;
		snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", f->name);
	}
	if (word_distance(key, best->name) <= 1 + strlen(best->name) / 3)
		return field_error(r, path, "no such field; did you mean \"%s\"?", best->name);
	return field_error(r, path, "no such field; the fields here are %s", known);
}

static const char *json_type_name(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "a list";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "a whole number";
	case JSON_REAL:
		return "a number with a fraction";
	case JSON_TRUE:
	case JSON_FALSE:
		return "true or false";
	default:
		return "null";
	}
}

static const struct def_field *field_find(const struct def_field *fields, const char *key)
{
	for (const struct def_field *f = fields; f->name; f++)
		if (strcmp(f->name, key) == 0)
			return f;
	return NULL;
}

/* Read object @o, whose path is @path ("" at the top), by the table @fields. */
static int read_object(struct def_reader *r, const char *path, json_t *o, const struct def_field *fields, void *target)
{
	const char *dot = *path ? "." : "";
	const char *key;
	json_t *v;

	if (!json_is_object(o))
		return field_error(r, *path ? path : "(top)", "must be an object {...}, not %s", json_type_name(o));
	json_object_foreach (o, key, v) {
		_free_ char *at = xasprintf("%s%s%.64s", path, dot, key);
		const struct def_field *f = field_find(fields, key);

		if (!f)
			return unknown_field(r, at, key, fields);
		if (f->read(r, at, v, target) < 0)
			return -1;
	}
	for (const struct def_field *f = fields; f->name; f++) {
		_free_ char *at = xasprintf("%s%s%s", path, dot, f->name);

		if (f->required && !json_object_get(o, f->name))
			return field_error(r, at, "is missing");
	}
	return 0;
}

/* Read a list of at most @max objects into the array at @items. */
static int read_list(struct def_reader *r, const char *path, json_t *list, size_t max, size_t item_size,
		     const struct def_field *fields, void *items, size_t *ret_n)
{
	json_t *v;
	size_t i;

	if (!json_is_array(list))
		return field_error(r, path, "must be a list [...], not %s", json_type_name(list));
	if (json_array_size(list) > max)
		return field_error(r, path, "has %zu entries; at most %zu are possible", json_array_size(list), max);
	json_array_foreach (list, i, v) {
		_free_ char *at = xasprintf("%s[%zu]", path, i);

		*ret_n = i + 1; /* counted before it is read, so that def_done() frees a half-read one */
		if (read_object(r, at, v, fields, (char *)items + i * item_size) < 0)
			return -1;
	}
	return 0;
}

/* A non-empty string of at most @max bytes without control characters (line breaks allowed with @lines). */
static int read_text(struct def_reader *r, const char *path, json_t *v, size_t max, bool lines, char **ret)
{
	const char *s = json_string_value(v);

	if (!s)
		return field_error(r, path, "must be a string, not %s", json_type_name(v));
	if (strlen(s) != json_string_length(v))
		return field_error(r, path, "holds a NUL character");
	if (!*s)
		return field_error(r, path, "is empty; leave the field out instead");
	if (strlen(s) > max)
		return field_error(r, path, "is %zu bytes long; at most %zu are possible", strlen(s), max);
	for (const char *p = s; *p; p++)
		if ((unsigned char)*p < ' ' && !(lines && strchr("\n\r\t", *p)))
			return field_error(r, path, "holds the control character 0x%02x", (unsigned char)*p);
	free(*ret);
	*ret = xstrdup(s);
	return 0;
}

static int read_choice(struct def_reader *r, const char *path, json_t *v, const char *const *names, int n, int *ret)
{
	_free_ char *s = NULL;
	char known[256] = "";

	if (read_text(r, path, v, 64, false, &s) < 0)
		return -1;
	for (int i = 0; i < n; i++) {
		size_t used = strlen(known);

		if (strcmp(s, names[i]) == 0) {
			*ret = i;
			return 0;
		}
		snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", names[i]);
	}
	return field_error(r, path, "\"%s\" is not one of %s", s, known);
}

static int read_bool(struct def_reader *r, const char *path, json_t *v, bool *ret)
{
	if (!json_is_boolean(v))
		return field_error(r, path, "must be true or false, not %s", json_type_name(v));
	*ret = json_is_true(v);
	return 0;
}

static int read_number(struct def_reader *r, const char *path, json_t *v, json_int_t min, json_int_t max,
		       json_int_t *ret)
{
	if (!json_is_integer(v))
		return field_error(r, path, "must be a whole number, not %s", json_type_name(v));
	if (json_integer_value(v) < min || json_integer_value(v) > max)
		return field_error(r, path, "%lld is out of range; from %lld to %lld is possible",
				   (long long)json_integer_value(v), (long long)min, (long long)max);
	*ret = json_integer_value(v);
	return 0;
}

/* A path, made absolute. Existence is checked when the guest starts, by whoever opens it. */
static int read_path(struct def_reader *r, const char *path, json_t *v, char **ret)
{
	_free_ char *s = NULL;
	_free_ char *cwd = NULL;

	if (read_text(r, path, v, DEF_PATH_MAX - 1, false, &s) < 0)
		return -1;
	if (s[0] != '/') {
		const char *dir = r->dir;
		char *full;

		if (!dir && !(dir = cwd = getcwd(NULL, 0)))
			return err_sys(r->e, "%s: %s: the current folder", r->file, path);
		full = xasprintf("%s/%s", dir, s);
		free(s);
		s = full;
	}
	free(*ret);
	*ret = steal_ptr(s);
	return 0;
}

static int read_word(struct def_reader *r, const char *path, json_t *v, const char *more, size_t max, char **ret)
{
	if (read_text(r, path, v, max, false, ret) < 0)
		return -1;
	for (const char *p = *ret; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr(more, *p))
			return field_error(r, path,
					   "\"%s\" holds the character '%c'; letters, digits and %s are possible", *ret,
					   *p, more);
	return 0;
}

/* ---- disks ---- */

static int disk_file(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_path(r, path, v, &((struct def_disk *)t)->file);
}

static int disk_format(struct def_reader *r, const char *path, json_t *v, void *t)
{
	int n;

	if (read_choice(r, path, v, def_format_names, DEF_FORMAT_MAX, &n) < 0)
		return -1;
	((struct def_disk *)t)->format = (enum def_format)n;
	return 0;
}

static int disk_readonly(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_bool(r, path, v, &((struct def_disk *)t)->readonly);
}

/* The format has no default: a guest that writes a qcow2 header into a raw disk must never have it believed. */
static const struct def_field disk_fields[] = {
	{"file", disk_file, true},
	{"format", disk_format, true},
	{"readonly", disk_readonly, false},
	{0},
};

/* ---- NICs ---- */

static int forward_protocol(struct def_reader *r, const char *path, json_t *v, void *t)
{
	int n;

	if (read_choice(r, path, v, def_protocol_names, DEF_PROTOCOL_MAX, &n) < 0)
		return -1;
	((struct def_forward *)t)->protocol = (enum def_protocol)n;
	return 0;
}

static int read_port(struct def_reader *r, const char *path, json_t *v, uint16_t *ret)
{
	json_int_t n;

	if (read_number(r, path, v, 1, 65535, &n) < 0)
		return -1;
	*ret = (uint16_t)n;
	return 0;
}

static int forward_host(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_port(r, path, v, &((struct def_forward *)t)->host);
}

static int forward_guest(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_port(r, path, v, &((struct def_forward *)t)->guest);
}

static const struct def_field forward_fields[] = {
	{"protocol", forward_protocol, false},
	{"host", forward_host, true},
	{"guest", forward_guest, true},
	{0},
};

static int nic_type(struct def_reader *r, const char *path, json_t *v, void *t)
{
	int n;

	if (read_choice(r, path, v, def_nic_names, DEF_NIC_MAX, &n) < 0)
		return -1;
	((struct def_nic *)t)->type = (enum def_nic_type)n;
	return 0;
}

static int nic_bridge(struct def_reader *r, const char *path, json_t *v, void *t)
{
	/* 15: IFNAMSIZ without the NUL */
	return read_word(r, path, v, "_.-", 15, &((struct def_nic *)t)->bridge);
}

static int nic_mac(struct def_reader *r, const char *path, json_t *v, void *t)
{
	struct def_nic *nic = t;
	_free_ char *s = NULL;
	unsigned b[6];
	int end = 0;

	if (read_text(r, path, v, 17, false, &s) < 0)
		return -1;
	if (strlen(s) != 17 || strspn(s, "0123456789abcdefABCDEF:") != 17 ||
	    sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) != 6 || end != 17)
		return field_error(r, path, "\"%s\" is not a MAC address of the form 52:54:00:12:34:56", s);
	if (b[0] & 1)
		return field_error(r, path, "\"%s\" is a multicast address; the first byte must be even", s);
	if (!(b[0] | b[1] | b[2] | b[3] | b[4] | b[5]))
		return field_error(r, path, "\"%s\" is no station's address", s);
	snprintf(nic->mac, sizeof(nic->mac), "%02x:%02x:%02x:%02x:%02x:%02x", b[0] & 255, b[1] & 255, b[2] & 255,
		 b[3] & 255, b[4] & 255, b[5] & 255);
	return 0;
}

static int nic_restrict(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_bool(r, path, v, &((struct def_nic *)t)->restricted);
}

static int nic_forward(struct def_reader *r, const char *path, json_t *v, void *t)
{
	struct def_nic *nic = t;

	return read_list(r, path, v, DEF_FORWARDS_MAX, sizeof(nic->forwards[0]), forward_fields, nic->forwards,
			 &nic->n_forwards);
}

static const struct def_field nic_fields[] = {
	{"type", nic_type, true},          {"bridge", nic_bridge, false},   {"mac", nic_mac, false},
	{"restrict", nic_restrict, false}, {"forward", nic_forward, false}, {0},
};

static int nic_check(struct def_reader *r, const struct def *d, size_t i)
{
	const struct def_nic *nic = &d->nics[i];
	char path[64];

	snprintf(path, sizeof(path), "nics[%zu].bridge", i);
	if (nic->type == DEF_NIC_TAP && !nic->bridge)
		return field_error(r, path, "is missing; a NIC of type tap needs the bridge it joins");
	if (nic->type == DEF_NIC_USER && nic->bridge)
		return field_error(r, path, "belongs to type tap; a NIC of type user joins no bridge");
	snprintf(path, sizeof(path), "nics[%zu].%s", i, nic->n_forwards ? "forward" : "restrict");
	if (nic->type == DEF_NIC_TAP && (nic->n_forwards || nic->restricted))
		return field_error(r, path, "belongs to type user; a NIC of type tap is ruled by its bridge");
	snprintf(path, sizeof(path), "nics[%zu].mac", i);
	for (size_t j = 0; j < i; j++)
		if (strcmp(nic->mac, d->nics[j].mac) == 0)
			return field_error(r, path, "%s is the address of nics[%zu] too", nic->mac, j);
	return 0;
}

/* ---- cloud-init seed ---- */

/* A seed text out of a file named in the definition. */
static int read_text_file(struct def_reader *r, const char *path, json_t *v, char **ret)
{
	_free_ char *file = NULL;
	_free_ char *text = NULL;
	_closefile_ FILE *f = NULL;
	size_t n;

	if (read_path(r, path, v, &file) < 0)
		return -1;
	f = fopen(file, "re");
	if (!f)
		return field_error(r, path, "%s: %s", file, strerror(errno));
	text = xcalloc(DEF_SEED_TEXT_MAX + 2, 1);
	n = fread(text, 1, DEF_SEED_TEXT_MAX + 1, f);
	if (ferror(f))
		return field_error(r, path, "%s cannot be read", file);
	if (n > DEF_SEED_TEXT_MAX)
		return field_error(r, path, "%s is larger than %u bytes", file, DEF_SEED_TEXT_MAX);
	if (n == 0 || memchr(text, 0, n))
		return field_error(r, path, "%s is empty or not a text file", file);
	free(*ret);
	*ret = xstrdup(text);
	return 0;
}

#define SEED_READERS(field)                                                                                            \
	static int seed_##field(struct def_reader *r, const char *path, json_t *v, void *t)                            \
	{                                                                                                              \
		return read_text(r, path, v, DEF_SEED_TEXT_MAX, true, &((struct def_seed *)t)->field);                 \
	}                                                                                                              \
	static int seed_##field##_file(struct def_reader *r, const char *path, json_t *v, void *t)                     \
	{                                                                                                              \
		return read_text_file(r, path, v, &((struct def_seed *)t)->field);                                     \
	}
SEED_READERS(user_data)
SEED_READERS(meta_data)
SEED_READERS(network_config)

static int seed_hostname(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_word(r, path, v, ".-", 253, &((struct def_seed *)t)->hostname);
}

static int seed_ssh_keys(struct def_reader *r, const char *path, json_t *list, void *t)
{
	struct def_seed *seed = t;
	json_t *v;
	size_t i;

	if (!json_is_array(list))
		return field_error(r, path, "must be a list of public keys, not %s", json_type_name(list));
	if (json_array_size(list) > DEF_SSH_KEYS_MAX)
		return field_error(r, path, "has %zu entries; at most %d are possible", json_array_size(list),
				   DEF_SSH_KEYS_MAX);
	json_array_foreach (list, i, v) {
		_free_ char *at = xasprintf("%s[%zu]", path, i);

		if (read_text(r, at, v, 16384, false, &seed->ssh_keys[i]) < 0)
			return -1;
		seed->n_ssh_keys = i + 1;
		if (strncmp(seed->ssh_keys[i], "ssh-", 4) != 0 && strncmp(seed->ssh_keys[i], "ecdsa-", 6) != 0 &&
		    strncmp(seed->ssh_keys[i], "sk-", 3) != 0)
			return field_error(r, at, "is not a public key (\"ssh-ed25519 AAAA... comment\")");
	}
	return 0;
}

static const struct def_field seed_fields[] = {
	{"hostname", seed_hostname, false},
	{"ssh-keys", seed_ssh_keys, false},
	{"user-data", seed_user_data, false},
	{"user-data-file", seed_user_data_file, false},
	{"meta-data", seed_meta_data, false},
	{"meta-data-file", seed_meta_data_file, false},
	{"network-config", seed_network_config, false},
	{"network-config-file", seed_network_config_file, false},
	{0},
};

static int seed_check(struct def_reader *r, json_t *o, const struct def_seed *s)
{
	static const char *const pairs[][2] = {{"user-data", "user-data-file"},
					       {"meta-data", "meta-data-file"},
					       {"network-config", "network-config-file"}};

	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
		if (json_object_get(o, pairs[i][0]) && json_object_get(o, pairs[i][1])) {
			_free_ char *at = xasprintf("seed.%s", pairs[i][1]);

			return field_error(r, at, "says the same as seed.%s; give one of the two", pairs[i][0]);
		}
	if (s->meta_data && s->hostname)
		return field_error(r, "seed.hostname", "is part of meta-data; write it there");
	if (s->meta_data && s->n_ssh_keys)
		return field_error(r, "seed.ssh-keys", "are part of meta-data (public-keys); write them there");
	return 0;
}

/* ---- the guest ---- */

bool def_name_valid(const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n > DEF_NAME_MAX || !isalnum((unsigned char)name[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("_.-", name[i]))
			return false;
	return true;
}

static int guest_name(struct def_reader *r, const char *path, json_t *v, void *t)
{
	struct def *d = t;
	_free_ char *s = NULL;

	if (read_text(r, path, v, DEF_NAME_MAX, false, &s) < 0)
		return -1;
	if (!def_name_valid(s))
		return field_error(r, path,
				   "\"%s\" is no guest name: letters, digits, '_', '.' and '-', beginning with a "
				   "letter or digit",
				   s);
	snprintf(d->name, sizeof(d->name), "%s", s);
	return 0;
}

static bool uuid_valid(const char *s)
{
	for (int i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return s[36] == 0;
}

static int guest_uuid(struct def_reader *r, const char *path, json_t *v, void *t)
{
	struct def *d = t;
	_free_ char *s = NULL;

	if (read_text(r, path, v, 64, false, &s) < 0)
		return -1;
	if (strlen(s) != 36 || !uuid_valid(s) || strcmp(s, "00000000-0000-0000-0000-000000000000") == 0)
		return field_error(r, path, "\"%s\" is not a UUID of the form 6ba7b810-9dad-41d1-80b4-00c04fd430c8", s);
	for (int i = 0; i < 37; i++)
		d->uuid[i] = (char)tolower((unsigned char)s[i]);
	return 0;
}

static int guest_vcpus(struct def_reader *r, const char *path, json_t *v, void *t)
{
	json_int_t n;

	if (read_number(r, path, v, 1, DEF_VCPUS_MAX, &n) < 0)
		return -1;
	((struct def *)t)->vcpus = (unsigned)n;
	return 0;
}

/* "2G", "512M", "1T", or a number of MiB. */
static int guest_memory(struct def_reader *r, const char *path, json_t *v, void *t)
{
	struct def *d = t;
	unsigned long long n;
	unsigned shift = 20;

	if (json_is_integer(v)) {
		if (json_integer_value(v) < 0)
			return field_error(r, path, "%lld is below nothing", (long long)json_integer_value(v));
		n = (unsigned long long)json_integer_value(v);
	} else if (json_is_string(v)) {
		const char *s = json_string_value(v);
		const char *units = "MGT";
		char *end;
		const char *u;

		errno = 0;
		n = strtoull(s, &end, 10);
		u = *end ? strchr(units, *end) : NULL;
		if (!isdigit((unsigned char)s[0]) || errno || !u || end[1])
			return field_error(r, path,
					   "\"%.32s\" is no size: write a number with M, G or T, such as \"2G\"", s);
		shift = 20 + 10 * (unsigned)(u - units);
	} else {
		return field_error(r, path, "must be a size such as \"2G\" or a number of MiB, not %s",
				   json_type_name(v));
	}
	if (n > DEF_MEMORY_MAX >> shift || n << shift < DEF_MEMORY_MIN)
		return field_error(r, path, "is out of range; from 16M to 8T is possible");
	d->memory = n << shift;
	return 0;
}

static int guest_hugepages(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_bool(r, path, v, &((struct def *)t)->hugepages);
}

static int guest_machine(struct def_reader *r, const char *path, json_t *v, void *t)
{
	struct def *d = t;

	if (read_word(r, path, v, "_.-", 63, &d->machine) < 0)
		return -1;
	if (strcmp(d->machine, "q35") != 0 && strcmp(d->machine, "pc") != 0 && strncmp(d->machine, "pc-q35-", 7) != 0 &&
	    strncmp(d->machine, "pc-i440fx-", 10) != 0)
		return field_error(r, path, "\"%s\" is neither q35, pc nor a version of these such as pc-q35-7.2",
				   d->machine);
	return 0;
}

static int guest_cpu(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_word(r, path, v, "_.-+=,", 1024, &((struct def *)t)->cpu);
}

static int guest_firmware(struct def_reader *r, const char *path, json_t *v, void *t)
{
	int n;

	if (read_choice(r, path, v, def_firmware_names, DEF_FIRMWARE_MAX, &n) < 0)
		return -1;
	((struct def *)t)->firmware = (enum def_firmware)n;
	return 0;
}

static int guest_uefi_vars(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_path(r, path, v, &((struct def *)t)->uefi_vars);
}

static int guest_kernel(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_path(r, path, v, &((struct def *)t)->kernel);
}

static int guest_initrd(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_path(r, path, v, &((struct def *)t)->initrd);
}

static int guest_cmdline(struct def_reader *r, const char *path, json_t *v, void *t)
{
	return read_text(r, path, v, 2047, false, &((struct def *)t)->cmdline);
}

static int guest_disks(struct def_reader *r, const char *path, json_t *v, void *t)
{
	struct def *d = t;

	return read_list(r, path, v, DEF_DISKS_MAX, sizeof(d->disks[0]), disk_fields, d->disks, &d->n_disks);
}

static int guest_nics(struct def_reader *r, const char *path, json_t *v, void *t)
{
	struct def *d = t;

	return read_list(r, path, v, DEF_NICS_MAX, sizeof(d->nics[0]), nic_fields, d->nics, &d->n_nics);
}

static int guest_seed(struct def_reader *r, const char *path, json_t *v, void *t)
{
	struct def *d = t;

	d->seed.present = true;
	if (read_object(r, path, v, seed_fields, &d->seed) < 0)
		return -1;
	return seed_check(r, v, &d->seed);
}

static const struct def_field guest_fields[] = {
	{"name", guest_name, true},
	{"uuid", guest_uuid, false},
	{"vcpus", guest_vcpus, true},
	{"memory", guest_memory, true},
	{"hugepages", guest_hugepages, false},
	{"machine", guest_machine, false},
	{"cpu", guest_cpu, false},
	{"firmware", guest_firmware, false},
	{"uefi-vars", guest_uefi_vars, false},
	{"kernel", guest_kernel, false},
	{"initrd", guest_initrd, false},
	{"cmdline", guest_cmdline, false},
	{"disks", guest_disks, false},
	{"nics", guest_nics, false},
	{"seed", guest_seed, false},
	{0},
};

void def_mac(const char *uuid, unsigned index, char ret[18])
{
	uint64_t h = XXH64(uuid, strlen(uuid), index);

	/* 52:54:00 is the prefix QEMU's users know; 24 bits of the guest's own follow. */
	snprintf(ret, 18, "52:54:00:%02x:%02x:%02x", (unsigned)(h & 255), (unsigned)(h >> 8 & 255),
		 (unsigned)(h >> 16 & 255));
}

/* What only the whole definition shows, after every field was read by itself. */
static int guest_check(struct def_reader *r, struct def *d)
{
	if (d->hugepages && d->memory % DEF_HUGEPAGE_SIZE)
		return field_error(r, "memory", "must be a multiple of 2M with hugepages");
	if (d->uefi_vars && d->firmware != DEF_FIRMWARE_UEFI)
		return field_error(r, "uefi-vars", "needs \"firmware\": \"uefi\"");
	if (d->initrd && !d->kernel)
		return field_error(r, "initrd", "needs a kernel");
	if (d->cmdline && !d->kernel)
		return field_error(r, "cmdline", "needs a kernel");
	if (!d->uuid[0])
		uuid_random(d->uuid);
	for (size_t i = 0; i < d->n_nics; i++) {
		if (!d->nics[i].mac[0])
			def_mac(d->uuid, (unsigned)i, d->nics[i].mac);
		if (nic_check(r, d, i) < 0)
			return -1;
	}
	for (size_t i = 0; i < d->n_disks; i++)
		for (size_t j = 0; j < i; j++)
			if (strcmp(d->disks[i].file, d->disks[j].file) == 0) {
				_free_ char *at = xasprintf("disks[%zu].file", i);

				return field_error(r, at, "%s is the file of disks[%zu] too", d->disks[i].file, j);
			}
	if (!d->machine)
		d->machine = xstrdup("q35");
	if (!d->cpu)
		d->cpu = xstrdup("x86-64-v2");
	return 0;
}

int def_parse(const char *text, size_t size, const char *file, const char *dir, struct def *ret, struct err *e)
{
	struct def_reader r = {.file = file, .dir = dir, .e = e};
	struct def d = {0};
	json_error_t je;
	json_t *o;
	int rc;

	if (size > DEF_FILE_MAX)
		return err_set(e, ERR_INPUT, "%s: larger than %u bytes; is it a guest definition?", file, DEF_FILE_MAX);
	o = json_loadb(text, size, JSON_REJECT_DUPLICATES, &je);
	if (!o)
		return err_set(e, ERR_INPUT, "%s: line %d column %d: not JSON: %s", file, je.line, je.column, je.text);
	rc = read_object(&r, "", o, guest_fields, &d);
	if (rc == 0)
		rc = guest_check(&r, &d);
	json_decref(o);
	if (rc < 0) {
		def_done(&d);
		return -1;
	}
	*ret = d;
	return 0;
}

int def_load(const char *path, struct def *ret, struct err *e)
{
	_free_ char *real = NULL;
	_free_ char *text = NULL;
	_closefile_ FILE *f = fopen(path, "re");
	const char *base = strrchr(path, '/');
	struct stat st;
	size_t n;

	if (!f)
		return err_sys(e, "definition %s", path);
	if (fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode))
		return err_set(e, ERR_INPUT, "definition %s: is a folder, not a file", path);
	real = realpath(path, NULL);
	if (real)
		*strrchr(real, '/') = 0;
	text = xcalloc(DEF_FILE_MAX + 2, 1);
	n = fread(text, 1, DEF_FILE_MAX + 1, f);
	if (ferror(f))
		return err_sys(e, "definition %s", path);
	return def_parse(text, n, base ? base + 1 : path, real, ret, e);
}

void def_done(struct def *d)
{
	for (size_t i = 0; i < d->n_disks; i++)
		free(d->disks[i].file);
	for (size_t i = 0; i < d->n_nics; i++)
		free(d->nics[i].bridge);
	for (size_t i = 0; i < DEF_SSH_KEYS_MAX; i++)
		free(d->seed.ssh_keys[i]);
	free(d->seed.hostname);
	free(d->seed.user_data);
	free(d->seed.meta_data);
	free(d->seed.network_config);
	free(d->machine);
	free(d->cpu);
	free(d->uefi_vars);
	free(d->kernel);
	free(d->initrd);
	free(d->cmdline);
	*d = (struct def){0};
}

/* ---- writing ---- */

static void put_text(json_t *o, const char *key, const char *value)
{
	if (value)
		json_object_set_new(o, key, json_string(value));
}

static json_t *disks_to_json(const struct def *d)
{
	json_t *list = json_array();

	for (size_t i = 0; i < d->n_disks; i++) {
		json_t *o = json_object();

		put_text(o, "file", d->disks[i].file);
		put_text(o, "format", def_format_names[d->disks[i].format]);
		json_object_set_new(o, "readonly", json_boolean(d->disks[i].readonly));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *forwards_to_json(const struct def_nic *nic)
{
	json_t *list = json_array();

	for (size_t i = 0; i < nic->n_forwards; i++) {
		json_t *o = json_object();

		put_text(o, "protocol", def_protocol_names[nic->forwards[i].protocol]);
		json_object_set_new(o, "host", json_integer(nic->forwards[i].host));
		json_object_set_new(o, "guest", json_integer(nic->forwards[i].guest));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *nics_to_json(const struct def *d)
{
	json_t *list = json_array();

	for (size_t i = 0; i < d->n_nics; i++) {
		const struct def_nic *nic = &d->nics[i];
		json_t *o = json_object();

		put_text(o, "type", def_nic_names[nic->type]);
		put_text(o, "mac", nic->mac);
		put_text(o, "bridge", nic->bridge);
		if (nic->type == DEF_NIC_USER) {
			json_object_set_new(o, "restrict", json_boolean(nic->restricted));
			json_object_set_new(o, "forward", forwards_to_json(nic));
		}
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *seed_to_json(const struct def_seed *s)
{
	json_t *o = json_object();

	put_text(o, "hostname", s->hostname);
	put_text(o, "user-data", s->user_data);
	put_text(o, "meta-data", s->meta_data);
	put_text(o, "network-config", s->network_config);
	if (s->n_ssh_keys) {
		json_t *keys = json_array();

		for (size_t i = 0; i < s->n_ssh_keys; i++)
			json_array_append_new(keys, json_string(s->ssh_keys[i]));
		json_object_set_new(o, "ssh-keys", keys);
	}
	return o;
}

json_t *def_to_json(const struct def *d)
{
	json_t *o = json_object();

	put_text(o, "name", d->name);
	put_text(o, "uuid", d->uuid);
	json_object_set_new(o, "vcpus", json_integer(d->vcpus));
	json_object_set_new(o, "memory", json_integer((json_int_t)(d->memory >> 20)));
	json_object_set_new(o, "hugepages", json_boolean(d->hugepages));
	put_text(o, "machine", d->machine);
	put_text(o, "cpu", d->cpu);
	put_text(o, "firmware", def_firmware_names[d->firmware]);
	put_text(o, "uefi-vars", d->uefi_vars);
	put_text(o, "kernel", d->kernel);
	put_text(o, "initrd", d->initrd);
	put_text(o, "cmdline", d->cmdline);
	json_object_set_new(o, "disks", disks_to_json(d));
	json_object_set_new(o, "nics", nics_to_json(d));
	if (d->seed.present)
		json_object_set_new(o, "seed", seed_to_json(&d->seed));
	return o;
}
