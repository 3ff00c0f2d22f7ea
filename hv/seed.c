/* SPDX-License-Identifier: Apache-2.0 */
/* The cloud-init NoCloud seed. Format: cloud-init's documentation, "NoCloud": a volume labelled cidata with the files
 * user-data and meta-data, both required, and network-config. */
#include "hv/seed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/mem.h"

#define SEED_SECONDS 60

/* JSON is YAML; jansson writes it with every quote and line break in its place. */
char *seed_meta_data(const struct def *d)
{
	json_t *o, *keys;
	char *text;

	if (d->seed.meta_data)
		return xstrdup(d->seed.meta_data);
	o = json_object();
	json_object_set_new(o, "instance-id", json_string(d->uuid));
	json_object_set_new(o, "local-hostname", json_string(d->seed.hostname ? d->seed.hostname : d->name));
	if (d->seed.n_ssh_keys) {
		keys = json_array();
		for (size_t i = 0; i < d->seed.n_ssh_keys; i++)
			json_array_append_new(keys, json_string(d->seed.ssh_keys[i]));
		json_object_set_new(o, "public-keys", keys);
	}
	text = json_dumps(o, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	json_decref(o);
	return text;
}

static int file_write(const char *path, const char *text, struct err *e)
{
	_closefd_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	size_t n = strlen(text);

	if (fd < 0)
		return err_sys(e, "seed file %s", path);
	for (size_t done = 0; done < n;) {
		ssize_t w = write(fd, text + done, n - done);

		if (w < 0 && errno != EINTR)
			return err_sys(e, "seed file %s", path);
		done += w > 0 ? (size_t)w : 0;
	}
	return 0;
}

static int seed_build(const struct def *d, const char *iso, const char *user, const char *meta, const char *net,
		      struct err *e)
{
	_free_ char *meta_text = seed_meta_data(d);
	const char *argv[] = {"genisoimage", "-quiet", "-output", iso,  "-volid", "cidata",
			      "-joliet",     "-rock",  user,      meta, NULL,     NULL};

	if (file_write(user, d->seed.user_data ? d->seed.user_data : "#cloud-config\n{}\n", e) < 0 ||
	    file_write(meta, meta_text, e) < 0)
		return -1;
	if (d->seed.network_config) {
		argv[10] = net;
		if (file_write(net, d->seed.network_config, e) < 0)
			return -1;
	}
	return child_run(argv, clock_now_ns() + SEED_SECONDS * NS_PER_S, 65536, NULL, e);
}

int seed_write(const struct def *d, const char *dir, struct err *e)
{
	_free_ char *sub = xasprintf("%s/seed", dir);
	_free_ char *user = xasprintf("%s/user-data", sub);
	_free_ char *meta = xasprintf("%s/meta-data", sub);
	_free_ char *net = xasprintf("%s/network-config", sub);
	_free_ char *iso = xasprintf("%s/seed.iso", dir);
	int r;

	if (mkdir(sub, 0700) < 0 && errno != EEXIST)
		return err_sys(e, "folder %s", sub);
	r = seed_build(d, iso, user, meta, net, e);
	unlink(user);
	unlink(meta);
	unlink(net);
	rmdir(sub);
	return r < 0 ? err_wrap(e, "cloud-init seed (package genisoimage)") : 0;
}
