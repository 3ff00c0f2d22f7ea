/* SPDX-License-Identifier: Apache-2.0 */
/* The addresses that are or lately were connected.
 *
 * A table of fixed size: an address lives in one of PROBES places that its hash gives. An address without connections
 * may be forgotten there for a new one, the one that has been silent longest first, and with it its allowance; so
 * somebody with very many addresses can get more than his share, but never more than the cap on all connections, and
 * never our memory.
 */
#include "node/http-peers.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/mem.h"

#define PLACES 8192U /* a power of two */
#define PROBES 8U
#define KEY_SIZE 8
#define CONNECTION_COST 2

struct http_peer {
	uint8_t key[KEY_SIZE];
	bool used;
	unsigned connections;
	double allowance; /* requests */
	int64_t filled_ns;
};

struct http_peers {
	unsigned connections;
	double rate, burst;
	uint64_t seed; /* so that nobody can aim at somebody else's places */
	struct http_peer places[PLACES];
};

struct http_peers *http_peers_new(unsigned connections, double rate, double burst)
{
	struct http_peers *p = xcalloc(1, sizeof(*p));

	p->connections = connections;
	p->rate = rate;
	p->burst = burst;
	if (getrandom(&p->seed, sizeof(p->seed), 0) != sizeof(p->seed))
		abort();
	return p;
}

void http_peers_free(struct http_peers *p)
{
	free(p);
}

/* The first 64 bits of an IPv6 address; an IPv4 address, however it is written, behind a prefix that is none. */
static void key_of(const struct sockaddr *sa, uint8_t ret[KEY_SIZE])
{
	static const uint8_t v4[KEY_SIZE] = {0xff, 0xff, 0xff, 0xff};
	struct sockaddr_in6 in6;
	struct sockaddr_in in;

	memcpy(ret, v4, KEY_SIZE);
	if (sa->sa_family == AF_INET) {
		memcpy(&in, sa, sizeof(in));
		memcpy(ret + 4, &in.sin_addr, 4);
	} else if (sa->sa_family == AF_INET6) {
		memcpy(&in6, sa, sizeof(in6));
		if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
			memcpy(ret + 4, in6.sin6_addr.s6_addr + 12, 4);
		else
			memcpy(ret, in6.sin6_addr.s6_addr, KEY_SIZE);
	}
}

/* The place of @key, or the one it may have; NULL when all have connections of others. */
static struct http_peer *place_of(struct http_peers *p, const uint8_t key[KEY_SIZE])
{
	uint64_t hash = XXH64(key, KEY_SIZE, p->seed);
	struct http_peer *best = NULL;

	for (unsigned i = 0; i < PROBES; i++) {
		struct http_peer *peer = &p->places[(hash + i) & (PLACES - 1)];

		if (peer->used && memcmp(peer->key, key, KEY_SIZE) == 0)
			return peer;
		if (!peer->connections && (!best || (best->used && (!peer->used || peer->filled_ns < best->filled_ns))))
			best = peer;
	}
	return best;
}

struct http_peer *http_peers_enter(struct http_peers *p, const struct sockaddr *sa, int64_t now_ns)
{
	uint8_t key[KEY_SIZE];
	struct http_peer *peer;

	key_of(sa, key);
	peer = place_of(p, key);
	if (!peer)
		return NULL;
	if (!peer->used || memcmp(peer->key, key, KEY_SIZE) != 0) {
		*peer = (struct http_peer){.used = true, .allowance = p->burst, .filled_ns = now_ns};
		memcpy(peer->key, key, KEY_SIZE);
	}
	if (peer->connections >= p->connections || !http_peers_spend(p, peer, CONNECTION_COST, now_ns))
		return NULL;
	peer->connections++;
	return peer;
}

void http_peers_leave(struct http_peer *peer)
{
	if (peer)
		peer->connections--;
}

bool http_peers_spend(struct http_peers *p, struct http_peer *peer, double cost, int64_t now_ns)
{
	double more = p->rate * (double)(now_ns - peer->filled_ns) / NS_PER_S;

	peer->allowance = peer->allowance + more > p->burst ? p->burst : peer->allowance + more;
	peer->filled_ns = now_ns;
	if (peer->allowance < cost)
		return false;
	peer->allowance -= cost;
	return true;
}
