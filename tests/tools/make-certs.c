/* SPDX-License-Identifier: Apache-2.0 */
/* make-certs DIR SET=NAME[,NAME...][+FLAW...]...: certificate sets for integration tests, all of one fresh CA. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "tests/unit/base/certs.h"

static const struct {
	const char *word;
	int flaw;
} flaw_words[] = {
	{"expired", CERTS_EXPIRED},         {"future", CERTS_FUTURE},     {"server-only", CERTS_SERVER_ONLY},
	{"client-only", CERTS_CLIENT_ONLY}, {"no-usage", CERTS_NO_USAGE},
};

static void usage(void)
{
	fprintf(stderr,
		"usage: make-certs DIR SET=NAME[,NAME...][+FLAW...]...\n"
		"Writes DIR/SET/ca.pem, cert.pem and key.pem. FLAW: expired, future, server-only, client-only,\n"
		"no-usage, other-ca (signed by a CA that trusts only itself), misplaced (signed by another CA than\n"
		"the ca.pem beside it).\n");
	exit(2);
}

static int flaw_parse(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(flaw_words); i++) {
		if (!strcmp(flaw_words[i].word, word))
			return flaw_words[i].flaw;
	}
	usage();
	return 0;
}

static void make_set(const char *dir, char *text, const struct certs_ca *ca, const struct certs_ca *other)
{
	const struct certs_ca *trusted = ca;
	const struct certs_ca *signer = ca;
	_free_ char *path = NULL;
	char *save = NULL;
	char *names = strchr(text, '=');
	int flaws = 0;

	if (!names)
		usage();
	*names++ = 0;
	path = xasprintf("%s/%s", dir, text);
	names = strtok_r(names, "+", &save);
	if (!names)
		usage();
	for (char *word = strtok_r(NULL, "+", &save); word; word = strtok_r(NULL, "+", &save)) {
		if (!strcmp(word, "other-ca"))
			trusted = signer = other;
		else if (!strcmp(word, "misplaced"))
			signer = other;
		else
			flaws |= flaw_parse(word);
	}
	certs_write(path, trusted, signer, names, flaws);
}

int main(int argc, char **argv)
{
	struct certs_ca ca, other;

	if (argc < 3)
		usage();
	certs_ca_init(&ca, "Godwit test CA");
	certs_ca_init(&other, "Some other CA");
	mkdir(argv[1], 0755);
	for (int i = 2; i < argc; i++)
		make_set(argv[1], argv[i], &ca, &other);
	certs_ca_done(&ca);
	certs_ca_done(&other);
	return 0;
}
