/* SPDX-License-Identifier: Apache-2.0 */
/* corosync.conf: one number for all times, votes by rule, links from the addresses.
 *
 * Changing the nodes of a running cluster
 *
 *  1. Every member writes the new file (version + 1). corosync does not look at it yet.
 *  2. One member calls corosync_reload(): the request travels through totem, so all of them read their files at the
 * same point of the order of messages.
 *  3. Only then is a new host given the file and starts its corosync; before, the others would drop its packets.
 *
 * Quorum in between. From one host to two, two_node makes one vote enough, so the first host does not lose quorum while
 * the second is still on its way; wait_for_all concerns hosts that start, not hosts that run. From two to three and on,
 * the hosts that are there must be enough for the new number; membership.c refuses a change for which they are not.
 *
 * The times. token is what is asked for; consensus is 1.2 x token, the least that totem.h allows; knet's ping interval
 * and time-out are derived from token by corosync itself; token_coefficient is 0, or the time to notice a death would
 * grow with every host. Detection takes about 2.2 x token. seqno_unchanged_const: after the last message the token goes
 * round once more and then rests until somebody wants to send; by corosync's own 30 rounds a cluster with some load
 * keeps it spinning, at real-time priority, on every host. The quorum device has 10/3 and 10 x token to notice that a
 * host is gone and to answer, as by corosync's defaults (10 s and 30 s where token is 3 s); its time-out is a token's
 * in all but name (corosync-qdevice, issue 10).
 *
 * The reload is a child process, corosync-cfgtool, which does nothing but call corosync_cfg_reload_config(). That call
 * waits for ever when corosync does not answer (it is stopped, or between two rings), and libcfg knows no time-out; a
 * daemon with one thread cannot afford it. */
#include "node/corosync.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"

#define LINE_MAX_BYTES 512U
#define DEPTH_MAX 4
#define RELOAD_OUTPUT_MAX 4096

static const char *const reload_argv[] = {"corosync-cfgtool", "-R", NULL};

/* ---- rules ---- */

struct corosync_votes corosync_votes(size_t n_nodes, bool qdevice)
{
	struct corosync_votes v = {.device = qdevice && n_nodes % 2 == 0};

	v.two_node = n_nodes == 2 && !v.device;
	v.expected = (unsigned)n_nodes + v.device;
	v.quorum = v.two_node ? 1 : v.expected / 2 + 1;
	return v;
}

const struct corosync_node *corosync_node_find(const struct corosync_conf *c, const char *name, unsigned id)
{
	for (size_t i = 0; i < c->n_nodes; i++)
		if ((name && strcmp(c->nodes[i].name, name) == 0) || (id && c->nodes[i].id == id))
			return &c->nodes[i];
	return NULL;
}

static int check_address(const struct corosync_conf *c, size_t node, size_t link, struct err *e)
{
	const struct corosync_node *n = &c->nodes[node];
	const char *address = n->addresses[link];
	char spelled[ADDRESS_TEXT_MAX];

	if (!address[0])
		return err_set(e, ERR_INPUT, "node \"%s\" has no address for link %zu", n->name, link);
	if (address_parse(address, spelled, e) < 0)
		return err_wrap(e, "node \"%s\", link %zu", n->name, link);
	if (strcmp(address, spelled) != 0)
		return err_set(e, ERR_INPUT, "node \"%s\", link %zu: the address must be written %s", n->name, link,
			       spelled);
	if (address_is_v6(address) != address_is_v6(c->nodes[0].addresses[link]))
		return err_set(e, ERR_INPUT,
			       "link %zu: node \"%s\" has %s and node \"%s\" has %s: IPv4 and IPv6 do not meet", link,
			       n->name, address, c->nodes[0].name, c->nodes[0].addresses[link]);
	for (size_t i = 0; i <= node; i++)
		for (size_t l = 0; l < (i < node ? c->n_links : link); l++)
			if (strcmp(c->nodes[i].addresses[l], address) == 0)
				return err_set(e, ERR_INPUT,
					       "the address %s is there twice: node \"%s\" and node \"%s\"", address,
					       c->nodes[i].name, n->name);
	return 0;
}

static int check_node(const struct corosync_conf *c, size_t at, struct err *e)
{
	const struct corosync_node *n = &c->nodes[at];

	if (name_check("node name", n->name, e) < 0)
		return -1;
	if (n->id < 1 || n->id > COROSYNC_ID_MAX)
		return err_set(e, ERR_INPUT, "node \"%s\" needs an id from 1 to %u", n->name, COROSYNC_ID_MAX);
	for (size_t i = 0; i < at; i++) {
		if (strcmp(c->nodes[i].name, n->name) == 0)
			return err_set(e, ERR_INPUT, "node \"%s\" is there twice", n->name);
		if (c->nodes[i].id == n->id)
			return err_set(e, ERR_INPUT, "node \"%s\" and node \"%s\" have the same id %u",
				       c->nodes[i].name, n->name, n->id);
	}
	for (size_t link = 0; link < c->n_links; link++)
		if (check_address(c, at, link, e) < 0)
			return -1;
	return 0;
}

static int check_qdevice(const char *host, struct err *e)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:";

	if (strspn(host, allowed) != strlen(host))
		return err_set(e, ERR_INPUT, "the qdevice must be a host name or an address");
	return 0;
}

int corosync_conf_check(const struct corosync_conf *c, struct err *e)
{
	if (name_check("cluster name", c->cluster, e) < 0 || check_qdevice(c->qdevice, e) < 0)
		return -1;
	if (c->version < 1)
		return err_set(e, ERR_INPUT, "the configuration needs a version from 1 on");
	if (c->token_ms < COROSYNC_TOKEN_MS_MIN || c->token_ms > COROSYNC_TOKEN_MS_MAX)
		return err_set(e, ERR_INPUT, "a token time of %u ms is out of range; from %u to %u is possible",
			       c->token_ms, COROSYNC_TOKEN_MS_MIN, COROSYNC_TOKEN_MS_MAX);
	if (c->n_links < 1 || c->n_links > COROSYNC_LINKS_MAX)
		return err_set(e, ERR_INPUT, "a cluster has 1 to %u links, not %zu", COROSYNC_LINKS_MAX, c->n_links);
	if (c->n_nodes < 1 || c->n_nodes > COROSYNC_NODES_MAX)
		return err_set(e, ERR_INPUT, "a cluster has 1 to %u nodes, not %zu", COROSYNC_NODES_MAX, c->n_nodes);
	for (size_t i = 0; i < c->n_nodes; i++)
		if (check_node(c, i, e) < 0)
			return -1;
	return 0;
}

/* ---- writing ---- */

static const char *yes_no(bool v)
{
	return v ? "yes" : "no";
}

static void put_totem(FILE *f, const struct corosync_conf *c, const struct corosync_local *local)
{
	fprintf(f,
		"totem {\n"
		"\tversion: 2\n"
		"\tcluster_name: %s\n"
		"\tconfig_version: %llu\n"
		"\ttransport: knet\n"
		"\tlink_mode: passive\n"
		"\tcrypto_cipher: aes256\n"
		"\tcrypto_hash: sha256\n"
		"\tkeyfile: %s\n"
		"\ttoken: %u\n"
		"\ttoken_coefficient: 0\n"
		"\tseqno_unchanged_const: 1\n"
		"\tconsensus: %u\n"
		"}\n\n",
		c->cluster, (unsigned long long)c->version, local->key_path, c->token_ms, (c->token_ms * 6 + 4) / 5);
}

static void put_nodelist(FILE *f, const struct corosync_conf *c)
{
	fputs("nodelist {\n", f);
	for (size_t i = 0; i < c->n_nodes; i++) {
		const struct corosync_node *n = &c->nodes[i];

		fprintf(f, "\tnode {\n\t\tname: %s\n\t\tnodeid: %u\n\t\tquorum_votes: 1\n", n->name, n->id);
		for (size_t link = 0; link < c->n_links; link++)
			fprintf(f, "\t\tring%zu_addr: %s\n", link, n->addresses[link]);
		fputs("\t}\n", f);
	}
	fputs("}\n\n", f);
}

/* How long corosync-qdevice may be silent, and how long corosync waits for its answer when hosts come or go. Within
 * what corosync-qnetd takes: heartbeats of 0.8 of it each 1 to 120 s. */
static unsigned device_ms(unsigned token_ms)
{
	unsigned ms = token_ms * 10 / 3;

	return ms > 1250 ? ms : 1250;
}

static unsigned device_sync_ms(unsigned token_ms)
{
	unsigned ms = token_ms * 10;

	return ms < 150000 ? ms : 150000;
}

static void put_quorum(FILE *f, const struct corosync_conf *c, const struct corosync_local *local)
{
	struct corosync_votes v = corosync_votes(c->n_nodes, c->qdevice[0]);

	fprintf(f, "quorum {\n\tprovider: corosync_votequorum\n");
	fprintf(f, "\ttwo_node: %d\n\twait_for_all: %d\n", v.two_node, v.two_node);
	if (v.device)
		fprintf(f,
			"\tdevice {\n\t\tmodel: net\n\t\tvotes: 1\n\t\ttimeout: %u\n\t\tsync_timeout: %u\n"
			"\t\tnet {\n\t\t\thost: %s\n\t\t\talgorithm: ffsplit\n\t\t\ttls: %s\n\t\t}\n\t}\n",
			device_ms(c->token_ms), device_sync_ms(c->token_ms), c->qdevice,
			local->qdevice_tls ? "required" : "off");
	fputs("}\n\n", f);
}

char *corosync_conf_text(const struct corosync_conf *c, const struct corosync_local *local, struct err *e)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f;

	if (corosync_conf_check(c, e) < 0)
		return NULL;
	f = open_memstream(&text, &size);
	if (!f)
		abort();
	fputs("# Written by Godwit at every change of the cluster. What is changed here by hand is lost.\n", f);
	put_totem(f, c, local);
	put_nodelist(f, c);
	put_quorum(f, c, local);
	fprintf(f, "logging {\n\tto_syslog: %s\n\tto_stderr: %s\n\tto_logfile: no\n\ttimestamp: on\n}\n",
		yes_no(local->to_syslog), yes_no(local->to_stderr));
	if (fclose(f) != 0)
		abort();
	return text;
}

/* ---- reading ---- */

struct parser {
	struct corosync_conf conf;
	char path[DEPTH_MAX * LINE_MAX_BYTES]; /* of the open sections: "nodelist/node/" */
	int depth;
	bool knet, cipher, hash;
	unsigned line;
};

static int parse_error(const struct parser *p, struct err *e, const char *what)
{
	return err_set(e, ERR_INPUT, "corosync.conf, line %u: %s", p->line, what);
}

static int parse_text(const struct parser *p, const char *value, char *ret, size_t size, struct err *e)
{
	if (strlen(value) >= size)
		return parse_error(p, e, "the value is too long");
	memcpy(ret, value, strlen(value) + 1);
	return 0;
}

static int parse_number(const struct parser *p, const char *value, uint64_t max, uint64_t *ret, struct err *e)
{
	unsigned long long v;
	char *end;

	errno = 0;
	v = strtoull(value, &end, 10);
	if (!isdigit((unsigned char)value[0]) || *end || errno || v > max)
		return parse_error(p, e, "the value is not a number that is possible here");
	*ret = v;
	return 0;
}

static int parse_unsigned(const struct parser *p, const char *value, unsigned *ret, struct err *e)
{
	uint64_t v;

	if (parse_number(p, value, UINT32_MAX, &v, e) < 0)
		return -1;
	*ret = (unsigned)v;
	return 0;
}

static int totem_field(struct parser *p, const char *key, const char *value, struct err *e)
{
	struct corosync_conf *c = &p->conf;

	if (strcmp(key, "cluster_name") == 0)
		return parse_text(p, value, c->cluster, sizeof(c->cluster), e);
	if (strcmp(key, "config_version") == 0)
		return parse_number(p, value, UINT64_MAX, &c->version, e);
	if (strcmp(key, "token") == 0)
		return parse_unsigned(p, value, &c->token_ms, e);
	if (strcmp(key, "transport") == 0)
		p->knet = strcmp(value, "knet") == 0;
	else if (strcmp(key, "crypto_cipher") == 0)
		p->cipher = strcmp(value, "aes256") == 0;
	else if (strcmp(key, "crypto_hash") == 0)
		p->hash = strcmp(value, "sha256") == 0;
	return 0;
}

/* "ring3_addr" */
static bool ring_of(const char *key, unsigned *ret)
{
	if (strlen(key) != strlen("ring0_addr") || strncmp(key, "ring", 4) != 0 || strcmp(key + 5, "_addr") != 0)
		return false;
	*ret = (unsigned)(key[4] - '0');
	return *ret < COROSYNC_LINKS_MAX;
}

static int node_field(struct parser *p, const char *key, const char *value, struct err *e)
{
	struct corosync_node *n = &p->conf.nodes[p->conf.n_nodes - 1];
	unsigned link;

	if (strcmp(key, "name") == 0)
		return parse_text(p, value, n->name, sizeof(n->name), e);
	if (strcmp(key, "nodeid") == 0)
		return parse_unsigned(p, value, &n->id, e);
	if (!ring_of(key, &link))
		return 0;
	if (link + 1 > p->conf.n_links)
		p->conf.n_links = link + 1;
	return parse_text(p, value, n->addresses[link], sizeof(n->addresses[link]), e);
}

static int field(struct parser *p, const char *key, const char *value, struct err *e)
{
	if (strcmp(p->path, "totem/") == 0)
		return totem_field(p, key, value, e);
	if (strcmp(p->path, "nodelist/node/") == 0)
		return node_field(p, key, value, e);
	if (strcmp(p->path, "quorum/device/net/") == 0 && strcmp(key, "host") == 0)
		return parse_text(p, value, p->conf.qdevice, sizeof(p->conf.qdevice), e);
	return 0;
}

static int section_open(struct parser *p, const char *name, struct err *e)
{
	size_t used = strlen(p->path);

	if (p->depth == DEPTH_MAX)
		return parse_error(p, e, "sections are nested too deeply");
	p->depth++;
	snprintf(p->path + used, sizeof(p->path) - used, "%s/", name);
	if (strcmp(p->path, "nodelist/node/") != 0)
		return 0;
	if (p->conf.n_nodes == COROSYNC_NODES_MAX)
		return parse_error(p, e, "there are too many nodes");
	p->conf.n_nodes++;
	return 0;
}

static int section_close(struct parser *p, struct err *e)
{
	char *slash;

	if (!p->depth)
		return parse_error(p, e, "there is no section to close");
	p->depth--;
	p->path[strlen(p->path) - 1] = 0;
	slash = strrchr(p->path, '/');
	p->path[slash ? slash + 1 - p->path : 0] = 0;
	return 0;
}

/* Without the blanks around it. @s is changed. */
static char *trim(char *s)
{
	size_t n;

	s += strspn(s, " \t\r");
	n = strlen(s);
	while (n && strchr(" \t\r", s[n - 1]))
		s[--n] = 0;
	return s;
}

static int parse_line(struct parser *p, char *line, struct err *e)
{
	char *s = trim(line), *colon;
	size_t n = strlen(s);

	if (!n || s[0] == '#')
		return 0;
	if (strcmp(s, "}") == 0)
		return section_close(p, e);
	if (s[n - 1] == '{') {
		s[n - 1] = 0;
		s = trim(s);
		if (!*s || strpbrk(s, "/{}:"))
			return parse_error(p, e, "that is not the name of a section");
		return section_open(p, s, e);
	}
	colon = strchr(s, ':');
	if (!colon)
		return parse_error(p, e, "that is neither \"name {\" nor \"name: value\" nor \"}\"");
	*colon = 0;
	return field(p, trim(s), trim(colon + 1), e);
}

int corosync_conf_parse(const char *text, struct corosync_conf *ret, struct err *e)
{
	_free_ struct parser *p = xcalloc(1, sizeof(*p));
	char line[LINE_MAX_BYTES];

	if (strnlen(text, COROSYNC_TEXT_MAX + 1) > COROSYNC_TEXT_MAX)
		return err_set(e, ERR_INPUT, "corosync.conf is larger than %u bytes", COROSYNC_TEXT_MAX);
	while (*text) {
		size_t n = strcspn(text, "\n");

		p->line++;
		if (n >= sizeof(line))
			return parse_error(p, e, "the line is too long");
		memcpy(line, text, n);
		line[n] = 0;
		if (parse_line(p, line, e) < 0)
			return -1;
		text += n + (text[n] == '\n');
	}
	if (p->depth)
		return err_set(e, ERR_INPUT, "corosync.conf ends inside a section: it was cut short");
	if (!p->knet || !p->cipher || !p->hash)
		return err_set(e, ERR_INPUT,
			       "corosync.conf is not one of Godwit's: it must use knet with encryption "
			       "(transport knet, crypto_cipher aes256, crypto_hash sha256)");
	if (!corosync_votes(p->conf.n_nodes, p->conf.qdevice[0]).device)
		p->conf.qdevice[0] = 0;
	if (corosync_conf_check(&p->conf, e) < 0)
		return err_wrap(e, "corosync.conf");
	*ret = p->conf;
	return 0;
}

/* ---- files, and the running corosync ---- */

int corosync_key_make(uint8_t ret[COROSYNC_KEY_SIZE], struct err *e)
{
	return RAND_bytes(ret, COROSYNC_KEY_SIZE) == 1 ? 0 : err_set(e, ERR_SYSTEM, "OpenSSL has no random bytes");
}

int corosync_write(const char *dir, const struct corosync_conf *c, const struct corosync_local *local,
		   const uint8_t *key, struct err *e)
{
	_free_ char *text = corosync_conf_text(c, local, e);
	_free_ char *path = xasprintf("%s/corosync.conf", dir);

	if (!text)
		return -1;
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return err_sys(e, "folder %s", dir);
	if (key && file_write_atomic(local->key_path, key, COROSYNC_KEY_SIZE, 0400, (gid_t)-1, e) < 0)
		return -1;
	return file_write_atomic(path, text, strlen(text), 0644, (gid_t)-1, e);
}

int corosync_reload(int64_t deadline_ns, struct err *e)
{
	if (child_run(reload_argv, deadline_ns, RELOAD_OUTPUT_MAX, NULL, e) < 0)
		return err_wrap(e, "corosync did not take the new configuration");
	return 0;
}

int corosync_reload_start(struct child *ret, struct err *e)
{
	struct child_spec spec = {.argv = reload_argv, .die_with_parent = true};

	return child_spawn(&spec, ret, e);
}
