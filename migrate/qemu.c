/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine asks of a QEMU over QMP. */
#include "migrate/qemu.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/sock.h"

#define MESSAGE_SHUT 1 /* MIG_RP_MSG_SHUT, QEMU migration/migration.h */

static int64_t soon(void)
{
	return clock_now_ns() + QEMU_PATIENCE;
}

/* Capabilities that the engine may leave as they are. */
static bool capability_harmless(const char *name)
{
	static const char *const harmless[] = {"validate-uuid", "switchover-ack", "dirty-limit", "return-path"};

	for (size_t i = 0; i < ARRAY_SIZE(harmless); i++)
		if (!strcmp(name, harmless[i]))
			return true;
	return false;
}

/* Set every capability that QEMU has: those in @on (NULL-terminated) to true, others that would change the stream to
 * false. */
static int capabilities_set(struct qmp *q, const json_t *all, const char *const *on, struct err *e)
{
	json_t *list = json_array(), *cap;
	size_t i;
	int r;

	json_array_foreach (all, i, cap) {
		const char *name = json_string_value(json_object_get(cap, "capability"));
		bool want = false;

		for (const char *const *o = on; name && *o; o++)
			want |= !strcmp(name, *o);
		if (!name || want == json_is_true(json_object_get(cap, "state")) ||
		    (!want && capability_harmless(name)))
			continue;
		json_array_append_new(list, json_pack("{s:s, s:b}", "capability", name, "state", want));
	}
	r = json_array_size(list)
		    ? qmp_callf(q, soon(), NULL, e, "migrate-set-capabilities", "{s:O}", "capabilities", list)
		    : 0;
	json_decref(list);
	return r;
}

int qemu_setup_src(struct qmp *q, bool auto_converge, struct qemu_settings *ret, struct err *e)
{
	const char *const on[] = {"events", "return-path", auto_converge ? "auto-converge" : NULL, NULL};

	*ret = (struct qemu_settings){NULL, NULL};
	if (qmp_call(q, "query-migrate-capabilities", NULL, soon(), &ret->capabilities, e) < 0 ||
	    qmp_call(q, "query-migrate-parameters", NULL, soon(), &ret->parameters, e) < 0 ||
	    capabilities_set(q, ret->capabilities, on, e) < 0)
		return -1;
	return qmp_callf(q, soon(), NULL, e, "migrate-set-parameters", "{s:i, s:i, s:s, s:s}", "max-bandwidth", 0,
			 "downtime-limit", 1, "tls-creds", "", "tls-hostname", "");
}

int qemu_setup_dst(struct qmp *q, struct err *e)
{
	static const char *const on[] = {"events", "late-block-activate", NULL};
	json_t *all = NULL;
	int r;

	/* While a QEMU waits for its guest, `stop` means: do not start it when it has come (softmmu/cpus.c, qmp_stop).
	 */
	if (qmp_call(q, "stop", NULL, soon(), NULL, e) < 0 ||
	    qmp_call(q, "query-migrate-capabilities", NULL, soon(), &all, e) < 0)
		return -1;
	r = capabilities_set(q, all, on, e);
	json_decref(all);
	return r < 0 ? -1 : qmp_callf(q, soon(), NULL, e, "migrate-set-parameters", "{s:s}", "tls-creds", "");
}

void qemu_settings_restore(struct qmp *q, struct qemu_settings *s)
{
	static const char *const keys[] = {"max-bandwidth", "downtime-limit", "tls-creds", "tls-hostname"};
	json_t *parameters = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		json_t *v = json_object_get(s->parameters, keys[i]);

		if (v)
			json_object_set(parameters, keys[i], v);
	}
	if (s->capabilities)
		qmp_callf(q, soon(), NULL, NULL, "migrate-set-capabilities", "{s:O}", "capabilities", s->capabilities);
	qmp_call(q, "migrate-set-parameters", parameters, soon(), NULL, NULL);
	json_decref(parameters);
}

void qemu_settings_done(struct qemu_settings *s)
{
	json_decref(s->capabilities);
	json_decref(s->parameters);
	*s = (struct qemu_settings){NULL, NULL};
}

int qemu_set_downtime_limit(struct qmp *q, unsigned ms, struct err *e)
{
	return qmp_callf(q, soon(), NULL, e, "migrate-set-parameters", "{s:i}", "downtime-limit", (int)ms);
}

/* A socketpair whose other end QEMU knows as @name. */
static int give_socket(struct qmp *q, const char *name, int size, struct err *e)
{
	int pair[2];
	int r;

	size /= 2; /* the kernel doubles it, for what it needs itself */

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, "socketpair");
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	r = qmp_send_fd(q, name, pair[1], soon(), e);
	close(pair[1]);
	if (r < 0) {
		close(pair[0]);
		return -1;
	}
	return pair[0];
}

static int start(struct qmp *q, const char *command, const char *uri, int size, struct err *e)
{
	int fd = give_socket(q, strchr(uri, ':') + 1, size, e);

	if (fd >= 0 && qmp_callf(q, soon(), NULL, e, command, "{s:s}", "uri", uri) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int qemu_start_src(struct qmp *q, uint64_t bytes, struct err *e)
{
	if (bytes < QEMU_SOCKET_MIN)
		bytes = QEMU_SOCKET_MIN;
	if (bytes > QEMU_SOCKET_MAX)
		bytes = QEMU_SOCKET_MAX;
	return start(q, "migrate", "fd:godwit-out", (int)bytes, e);
}

int qemu_start_dst(struct qmp *q, struct err *e)
{
	return start(q, "migrate-incoming", "fd:godwit-in", QEMU_SOCKET_MAX, e);
}

int qemu_let_complete(int fd, struct err *e)
{
	uint8_t shut[8] = {0};

	put_be16(shut, MESSAGE_SHUT);
	put_be16(shut + 2, 4);
	return sock_write_full(fd, shut, sizeof(shut), clock_now_ns() + NS_PER_S, e);
}

static uint64_t number(const json_t *o, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(o, key));

	return v < 0 ? 0 : (uint64_t)v;
}

int qemu_query(struct qmp *q, struct qemu_progress *ret, struct err *e)
{
	const char *status, *error;
	json_t *o = NULL, *ram;

	if (qmp_call(q, "query-migrate", NULL, soon(), &o, e) < 0)
		return -1;
	ram = json_object_get(o, "ram");
	status = json_string_value(json_object_get(o, "status"));
	error = json_string_value(json_object_get(o, "error-desc"));
	*ret = (struct qemu_progress){
		.pass = (unsigned)number(ram, "dirty-sync-count"),
		.remaining = number(ram, "remaining"),
		.total = number(ram, "total"),
		.dirty_rate = number(ram, "dirty-pages-rate") * number(ram, "page-size"),
		.throttle_percent = (unsigned)number(o, "cpu-throttle-percentage"),
	};
	snprintf(ret->status, sizeof(ret->status), "%s", status ? status : "none");
	snprintf(ret->error, sizeof(ret->error), "%s", error ? error : "");
	json_decref(o);
	return 0;
}

int qemu_run_state(struct qmp *q, char *ret, size_t size, struct err *e)
{
	json_t *o = NULL;
	const char *s;

	if (qmp_call(q, "query-status", NULL, soon(), &o, e) < 0)
		return -1;
	s = json_string_value(json_object_get(o, "status"));
	snprintf(ret, size, "%s", s ? s : "");
	json_decref(o);
	return 0;
}

int qemu_pidfd(struct qmp *q)
{
	pid_t pid = qmp_peer_pid(q);

	return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}
