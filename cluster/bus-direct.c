/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams to one member, past corosync. How it works is told in cluster/bus-direct.h. */
#include "cluster/bus-direct.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define VERSION 1
#define HEADER_SIZE 8U
#define MAC_SIZE 16U
#define TOKEN_SIZE 8U
#define DATAGRAM_MAX (HEADER_SIZE + BUS_DIRECT_MAX + MAC_SIZE)
#define READ_MAX 64 /* datagrams in one dispatch; then others get their turn */
#define PING_EVERY (500 * NS_PER_MS)
#define PONG_LIMIT (1500 * NS_PER_MS)

enum { TYPE_PING = 1, TYPE_PONG, TYPE_SAID };

struct peer {
	uint32_t id;
	EVP_MAC_CTX *mac; /* by its key; NULL: no HELLO yet */
	uint8_t key[DIRECT_KEY_SIZE];
	in_port_t port; /* network order */
	struct in6_addr addresses[DIRECT_LINKS_MAX];
	size_t n_addresses;
	uint8_t token[TOKEN_SIZE];                          /* of the last PING */
	int64_t ponged_ns;                                  /* when it was answered, 0: never */
	int64_t hello_ns;                                   /* since when its key is known */
	enum { TOLD_NOTHING, TOLD_REACHED, TOLD_NOT } told; /* in the log */
};

struct direct {
	int fd, family;
	in_port_t port;
	uint32_t self;
	uint8_t key[DIRECT_KEY_SIZE];
	EVP_MAC_CTX *mac;
	void (*heard)(void *arg, uint32_t node, const uint8_t *data, size_t size);
	void *arg;
	struct peer peers[BUS_NODES_MAX];
	size_t n_peers;
	int64_t ping_at;
};

static EVP_MAC_CTX *mac_new(const uint8_t key[DIRECT_KEY_SIZE])
{
	EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *mac = EVP_MAC_CTX_new(hmac);
	OSSL_PARAM digest[2] = {OSSL_PARAM_construct_utf8_string("digest", (char[]){"SHA256"}, 0),
				OSSL_PARAM_construct_end()};

	if (!mac || EVP_MAC_init(mac, key, DIRECT_KEY_SIZE, digest) != 1)
		abort();
	EVP_MAC_free(hmac);
	return mac;
}

static void mac_make(EVP_MAC_CTX *mac, const uint8_t *data, size_t size, uint8_t ret[MAC_SIZE])
{
	uint8_t whole[EVP_MAX_MD_SIZE];
	size_t n;

	if (EVP_MAC_init(mac, NULL, 0, NULL) != 1 || EVP_MAC_update(mac, data, size) != 1 ||
	    EVP_MAC_final(mac, whole, &n, sizeof(whole)) != 1)
		abort();
	memcpy(ret, whole, MAC_SIZE);
}

/* ---- members ---- */

static struct peer *peer_find(struct direct *d, uint32_t id)
{
	for (size_t i = 0; i < d->n_peers; i++)
		if (d->peers[i].id == id)
			return &d->peers[i];
	return NULL;
}

static struct peer *peer_get(struct direct *d, uint32_t id)
{
	struct peer *p = peer_find(d, id);

	if (p || d->n_peers == BUS_NODES_MAX)
		return p;
	p = &d->peers[d->n_peers++];
	*p = (struct peer){.id = id};
	return p;
}

static bool listed(const struct direct_host *hosts, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (hosts[i].id == id)
			return true;
	return false;
}

static void peers_forget(struct direct *d, const struct direct_host *hosts, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->n_peers; i++)
		if (listed(hosts, n, d->peers[i].id))
			d->peers[kept++] = d->peers[i];
		else
			EVP_MAC_CTX_free(d->peers[i].mac);
	d->n_peers = kept;
}

/* IPv4 as an address of IPv6 (RFC 4291, 2.5.5.2). */
static bool address_parse(const char *text, struct in6_addr *ret)
{
	struct in_addr v4;

	if (inet_pton(AF_INET6, text, ret) == 1)
		return true;
	if (inet_pton(AF_INET, text, &v4) != 1)
		return false;
	*ret = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
	memcpy(ret->s6_addr + 12, &v4, sizeof(v4));
	return true;
}

void direct_hosts(struct direct *d, uint32_t self, const struct direct_host *hosts, size_t n)
{
	d->self = self;
	peers_forget(d, hosts, n);
	for (size_t i = 0; i < n; i++) {
		struct peer *p = hosts[i].id == self ? NULL : peer_get(d, hosts[i].id);

		if (!p)
			continue;
		p->n_addresses = 0;
		for (size_t k = 0; k < DIRECT_LINKS_MAX; k++)
			p->n_addresses += address_parse(hosts[i].addresses[k], &p->addresses[p->n_addresses]);
	}
	d->ping_at = 0;
}

/* ---- HELLO ---- */

void direct_hello(const struct direct *d, uint8_t ret[DIRECT_HELLO_SIZE])
{
	ret[0] = DIRECT_MAGIC;
	ret[1] = VERSION;
	memcpy(ret + 2, &d->port, sizeof(d->port));
	memcpy(ret + 4, d->key, DIRECT_KEY_SIZE);
}

int direct_on_hello(struct direct *d, uint32_t node, const uint8_t *data, size_t size, struct err *e)
{
	struct peer *p;

	if (size != DIRECT_HELLO_SIZE || data[0] != DIRECT_MAGIC || data[1] != VERSION)
		return err_set(e, ERR_PROTOCOL, "node %u says hello in %zu bytes of a format that is not known", node,
			       size);
	p = node == d->self ? NULL : peer_get(d, node);
	if (!p)
		return 0;
	memcpy(&p->port, data + 2, sizeof(p->port));
	if (p->mac && !memcmp(p->key, data + 4, DIRECT_KEY_SIZE))
		return 0;
	EVP_MAC_CTX_free(p->mac);
	memcpy(p->key, data + 4, DIRECT_KEY_SIZE);
	p->mac = mac_new(p->key);
	p->ponged_ns = 0;
	p->hello_ns = clock_now_ns();
	p->told = TOLD_NOTHING;
	d->ping_at = 0;
	return 1;
}

/* ---- datagrams ---- */

static void send_to_address(const struct direct *d, const struct peer *p, const struct in6_addr *a, const uint8_t *data,
			    size_t size)
{
	struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = p->port, .sin6_addr = *a};
	struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = p->port};

	memcpy(&to4.sin_addr, a->s6_addr + 12, sizeof(to4.sin_addr));
	/* It may be lost here as well as anywhere else. */
	if (d->family == AF_INET6)
		(void)!sendto(d->fd, data, size, MSG_DONTWAIT, (const struct sockaddr *)&to6, sizeof(to6));
	else if (IN6_IS_ADDR_V4MAPPED(a))
		(void)!sendto(d->fd, data, size, MSG_DONTWAIT, (const struct sockaddr *)&to4, sizeof(to4));
}

static void datagram_send(struct direct *d, const struct peer *p, uint8_t type, const void *data, size_t size)
{
	uint8_t buf[DATAGRAM_MAX] = {DIRECT_MAGIC, VERSION, type};

	put_be32(buf + 4, d->self);
	memcpy(buf + HEADER_SIZE, data, size);
	mac_make(p->mac, buf, HEADER_SIZE + size, buf + HEADER_SIZE + size);
	for (size_t i = 0; i < p->n_addresses; i++)
		send_to_address(d, p, &p->addresses[i], buf, HEADER_SIZE + size + MAC_SIZE);
}

static bool reaches(const struct peer *p, int64_t now)
{
	return p->mac && p->n_addresses && p->ponged_ns && now < p->ponged_ns + PONG_LIMIT;
}

bool direct_send(struct direct *d, uint32_t node, const void *data, size_t size)
{
	struct peer *p = peer_find(d, node);

	if (!p || size > BUS_DIRECT_MAX || !reaches(p, clock_now_ns()))
		return false;
	datagram_send(d, p, TYPE_SAID, data, size);
	return true;
}

static void datagram_take(struct direct *d, int64_t now, const uint8_t *data, size_t size)
{
	const uint8_t *said = data + HEADER_SIZE;
	uint8_t mac[MAC_SIZE];
	struct peer *p;

	if (size < HEADER_SIZE + MAC_SIZE || size > DATAGRAM_MAX || data[0] != DIRECT_MAGIC || data[1] != VERSION)
		return;
	size -= MAC_SIZE;
	mac_make(d->mac, data, size, mac);
	p = peer_find(d, get_be32(data + 4));
	if (CRYPTO_memcmp(mac, data + size, MAC_SIZE) != 0 || !p)
		return;
	size -= HEADER_SIZE;
	if (data[2] == TYPE_PING && size == TOKEN_SIZE && p->mac)
		datagram_send(d, p, TYPE_PONG, said, size);
	else if (data[2] == TYPE_PONG && size == TOKEN_SIZE && !memcmp(said, p->token, TOKEN_SIZE))
		p->ponged_ns = now;
	else if (data[2] == TYPE_SAID)
		d->heard(d->arg, p->id, said, size);
}

static void reached_tell(struct peer *p, int64_t now)
{
	bool reached = reaches(p, now);

	if (p->told == (reached ? TOLD_REACHED : TOLD_NOT) || (!reached && now < p->hello_ns + PONG_LIMIT))
		return;
	p->told = reached ? TOLD_REACHED : TOLD_NOT;
	if (reached)
		log_info("event=bus-direct node=%u reached=1", p->id);
	else
		log_info("event=bus-direct node=%u reached=0 text=\"it answers no datagrams at UDP port %u: if it is "
			 "up, "
			 "acknowledgements go over corosync, which is slower\"",
			 p->id, ntohs(p->port));
}

static void ping_all(struct direct *d, int64_t now)
{
	for (size_t i = 0; i < d->n_peers; i++) {
		struct peer *p = &d->peers[i];

		if (!p->mac)
			continue;
		reached_tell(p, now);
		if (RAND_bytes(p->token, TOKEN_SIZE) != 1)
			abort();
		datagram_send(d, p, TYPE_PING, p->token, TOKEN_SIZE);
	}
	d->ping_at = now + PING_EVERY;
}

int64_t direct_deadline(const struct direct *d)
{
	return d->n_peers == 0 ? -1 : d->ping_at > 0 ? d->ping_at : 1;
}

void direct_dispatch(struct direct *d, int64_t now_ns)
{
	uint8_t buf[DATAGRAM_MAX + 1];

	for (int i = 0; i < READ_MAX; i++) {
		ssize_t n = recv(d->fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n < 0)
			break;
		datagram_take(d, now_ns, buf, (size_t)n);
	}
	if (now_ns >= d->ping_at)
		ping_all(d, now_ns);
}

/* ---- life ---- */

int direct_fd(const struct direct *d)
{
	return d->fd;
}

static int socket_bind(struct direct *d, uint16_t port)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	socklen_t size = sizeof(a6);
	int off = 0;

	d->family = AF_INET6;
	d->fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (d->fd < 0) { /* a host without IPv6 */
		d->family = AF_INET;
		d->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		size = sizeof(a4);
		if (d->fd < 0 || bind(d->fd, (struct sockaddr *)&a4, size) < 0 ||
		    getsockname(d->fd, (struct sockaddr *)&a4, &size) < 0)
			return -1;
		d->port = a4.sin_port;
		return 0;
	}
	if (setsockopt(d->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0 ||
	    bind(d->fd, (struct sockaddr *)&a6, size) < 0 || getsockname(d->fd, (struct sockaddr *)&a6, &size) < 0)
		return -1;
	d->port = a6.sin6_port;
	return 0;
}

struct direct *direct_new(uint16_t port, void (*heard)(void *arg, uint32_t node, const uint8_t *data, size_t size),
			  void *arg, struct err *e)
{
	struct direct *d = xcalloc(1, sizeof(*d));

	d->heard = heard;
	d->arg = arg;
	if (RAND_bytes(d->key, DIRECT_KEY_SIZE) != 1)
		abort();
	d->mac = mac_new(d->key);
	if (socket_bind(d, port) < 0) {
		err_set(e, ERR_SYSTEM, "UDP port %u: %m", port);
		direct_free(d);
		return NULL;
	}
	return d;
}

void direct_free(struct direct *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->n_peers; i++)
		EVP_MAC_CTX_free(d->peers[i].mac);
	EVP_MAC_CTX_free(d->mac);
	OPENSSL_cleanse(d->key, sizeof(d->key));
	if (d->fd >= 0)
		close(d->fd);
	free(d);
}
