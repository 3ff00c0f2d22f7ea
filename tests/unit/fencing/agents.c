/* SPDX-License-Identifier: Apache-2.0 */
/* Fence agents of the tests. */
#include "tests/unit/fencing/agents.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"

char agents_dir[] = "/tmp/godwit-agents-XXXXXX";
char agents_state[sizeof(agents_dir) + 8];

static const char fence_test[] =
	"#!/bin/sh\n"
	"plug= fault= password=\n"
	"while IFS= read -r line; do case $line in\n"
	"	action=*) action=${line#*=} ;;\n"
	"	plug=*) plug=${line#*=} ;;\n"
	"	folder=*) folder=${line#*=} ;;\n"
	"	password=*) password=${line#*=} ;;\n"
	"esac; done\n"
	"case $action in metadata)\n"
	"	cat <<'END'\n"
	"<?xml version=\"1.0\" ?>\n"
	"<resource-agent name=\"fence_test\" shortdesc=\"A power switch in a folder\">\n"
	"<longdesc>Not a real one.</longdesc>\n"
	"<parameters>\n"
	" <parameter name=\"action\" required=\"1\"><content type=\"string\" default=\"reboot\"/></parameter>\n"
	" <parameter name=\"plug\" required=\"1\"><content type=\"string\"/></parameter>\n"
	" <parameter name=\"folder\" required=\"1\"><content type=\"string\"/>\n"
	"  <shortdesc lang=\"en\">Where its plugs are</shortdesc></parameter>\n"
	" <parameter name=\"password\"><content type=\"string\"/></parameter>\n"
	" <parameter name=\"tries\"><content type=\"integer\" default=\"1\"/></parameter>\n"
	"</parameters>\n"
	"<actions><action name=\"on\"/><action name=\"off\"/><action name=\"status\"/><action name=\"monitor\"/>\n"
	"<action name=\"list\"/><action name=\"metadata\"/></actions>\n"
	"</resource-agent>\n"
	"END\n"
	"	exit 0 ;;\n"
	"esac\n"
	"echo \"$action $plug\" >>\"$folder/log\"\n"
	"[ -n \"$plug\" ] && [ -f \"$folder/$plug.fault\" ] && read -r fault <\"$folder/$plug.fault\"\n"
	"switch() { echo \"$1\" >\"$folder/$plug\"; }\n"
	"case $fault:$action in\n"
	"fail:*) echo 'dialing' >&2; echo 'the device does not answer' >&2; exit 1 ;;\n"
	"hang:off) sleep 98765 ;;\n"
	"lie:off) exit 0 ;;\n"
	"mute:status) exit 1 ;;\n"
	"once:off) rm \"$folder/$plug.fault\"; echo 'busy' >&2; exit 1 ;;\n"
	"leave:off) switch off; (sleep 98764; switch on) & exit 0 ;;\n"
	"away:off) setsid sleep 98763; exit 0 ;;\n"
	"slow:off) sleep 1; switch off; exit 0 ;;\n"
	"spy:*) tr '\\0' '\\n' </proc/$$/cmdline >\"$folder/seen\"; tr '\\0' '\\n' </proc/$$/environ "
	">>\"$folder/seen\"\n"
	"	echo \"$password is what $password says\"; echo \"login with $password refused\" >&2; exit 1 ;;\n"
	"*:off) switch off ;;\n"
	"*:on) switch on ;;\n"
	"*:status) [ ! -f \"$folder/$plug\" ] && exit 0; read -r is <\"$folder/$plug\"; [ \"$is\" = on ] && exit 0; "
	"exit 2 ;;\n"
	"*:list) printf '1,rack one\\n2,\\n' ;;\n"
	"*:monitor) [ ! -f \"$folder/down\" ] || { echo 'nobody home' >&2; exit 1; } ;;\n"
	"*) echo \"what is $action?\" >&2; exit 1 ;;\n"
	"esac\n";

static void file_write(const char *dir, const char *name, const char *text, mode_t mode)
{
	_free_ char *path = xasprintf("%s/%s", dir, name);

	assert_int_equal(file_write_atomic(path, text, strlen(text), mode, (gid_t)-1, NULL), 0);
}

void agents_write(const char *name, const char *script)
{
	file_write(agents_dir, name, script, 0755);
}

static void folder_empty(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		_free_ char *file = xasprintf("%s/%s", path, d->d_name);

		unlink(file);
	}
	if (dir)
		closedir(dir);
}

int agents_setup(void **state)
{
	(void)state;
	if (!mkdtemp(agents_dir))
		return -1;
	snprintf(agents_state, sizeof(agents_state), "%s/state", agents_dir);
	if (mkdir(agents_state, 0700) < 0)
		return -1;
	agents_write("fence_test", fence_test);
	return 0;
}

int agents_teardown(void **state)
{
	(void)state;
	folder_empty(agents_state);
	rmdir(agents_state);
	folder_empty(agents_dir);
	return rmdir(agents_dir);
}

void agents_reset(void)
{
	folder_empty(agents_state);
}

void agents_fault(const char *plug, const char *fault)
{
	_free_ char *name = xasprintf("%s.fault", plug);
	_free_ char *line = xasprintf("%s\n", fault ? fault : "");

	file_write(agents_state, name, line, 0600);
}

char *agents_file(const char *name)
{
	_free_ char *path = xasprintf("%s/%s", agents_state, name);
	char *text = file_read(path, 1 << 20, NULL, NULL);

	return text ? text : xstrdup("");
}

bool agents_is_off(const char *plug)
{
	_free_ char *text = agents_file(plug);

	return !strcmp(text, "off\n");
}

char *agents_log(void)
{
	char *text = agents_file("log");
	size_t n = strlen(text);

	for (char *p = text; *p; p++)
		if (*p == '\n')
			*p = ',';
	if (n > 0)
		text[n - 1] = 0;
	return text;
}

static bool somebody_runs(const char *word)
{
	DIR *dir = opendir("/proc");
	struct dirent *d;
	bool found = false;

	assert_non_null(dir);
	while (!found && (d = readdir(dir))) {
		char path[300], line[4096];
		FILE *f;
		size_t n;

		if (!isdigit((unsigned char)d->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/cmdline", d->d_name);
		f = fopen(path, "re");
		n = f ? fread(line, 1, sizeof(line), f) : 0;
		if (f)
			fclose(f);
		found = memmem(line, n, word, strlen(word)) != NULL;
	}
	closedir(dir);
	return found;
}

bool agents_nobody_runs(const char *word)
{
	for (int i = 0; i < 40; i++) {
		if (!somebody_runs(word))
			return true;
		usleep(50000);
	}
	return false;
}
