/* SPDX-License-Identifier: Apache-2.0 */
/* Names and addresses. */
#include "node/name.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

int name_check(const char *what, const char *name, struct err *e)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
	size_t n = strlen(name);

	if (!n || n > NAME_MAX_CHARS)
		return err_set(e, ERR_INPUT, "the %s must have 1 to %d characters, not %zu", what, NAME_MAX_CHARS, n);
	if (strspn(name, allowed) != n || name[0] == '-' || name[n - 1] == '-')
		return err_set(e, ERR_INPUT,
			       "the %s may hold small letters, digits and, inside, hyphens; it is %zu characters with "
			       "others among them",
			       what, n);
	return 0;
}

/* Why this does not name one host everywhere; NULL when it does. */
static const char *unsuitable4(const struct in_addr *a)
{
	uint32_t v = ntohl(a->s_addr);

	if (v >> 24 == 0)
		return "is not the address of a host";
	if (v >> 16 == 0xa9fe)
		return "is a link-local address, which may change";
	if (v >> 28 >= 14)
		return "is not the address of one host";
	return NULL;
}

static const char *unsuitable6(const struct in6_addr *a)
{
	if (IN6_IS_ADDR_UNSPECIFIED(a))
		return "is not the address of a host";
	if (IN6_IS_ADDR_LINKLOCAL(a))
		return "is a link-local address, which means another host on every network";
	if (IN6_IS_ADDR_MULTICAST(a))
		return "is not the address of one host";
	if (IN6_IS_ADDR_V4MAPPED(a) || IN6_IS_ADDR_V4COMPAT(a))
		return "is an IPv4 address in disguise: write it as 1.2.3.4";
	return NULL;
}

int address_parse(const char *text, char ret[ADDRESS_TEXT_MAX], struct err *e)
{
	struct in_addr v4;
	struct in6_addr v6;
	const char *bad;

	if (inet_pton(AF_INET, text, &v4) == 1) {
		bad = unsuitable4(&v4);
		inet_ntop(AF_INET, &v4, ret, ADDRESS_TEXT_MAX);
	} else if (inet_pton(AF_INET6, text, &v6) == 1) {
		bad = unsuitable6(&v6);
		inet_ntop(AF_INET6, &v6, ret, ADDRESS_TEXT_MAX);
	} else {
		return err_set(e, ERR_INPUT, "the address must be an IPv4 or IPv6 address, and is not");
	}
	return bad ? err_set(e, ERR_INPUT, "%s %s", ret, bad) : 0;
}

bool address_is_v6(const char *address)
{
	return strchr(address, ':') != NULL;
}

bool address_is_loopback(const char *address)
{
	return strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0;
}
