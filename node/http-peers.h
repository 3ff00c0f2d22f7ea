/* SPDX-License-Identifier: Apache-2.0 */
/* How much each network address may ask of us: connections at once, and requests over time. Pure. */
#ifndef GODWIT_NODE_HTTP_PEERS_H
#define GODWIT_NODE_HTTP_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct http_peers;
struct http_peer;

/* Of one address: at most @connections at once; @rate requests/s in the long run, @burst at once. */
struct http_peers *http_peers_new(unsigned connections, double rate, double burst);
void http_peers_free(struct http_peers *p);

/* One more connection of the address @sa (an IPv6 /64 counts as one address), which costs 2 requests. NULL when that is
 * too many. */
struct http_peer *http_peers_enter(struct http_peers *p, const struct sockaddr *sa, int64_t now_ns);

/* One connection fewer. NULL is fine. */
void http_peers_leave(struct http_peer *peer);

/* Take @cost requests out of the address's allowance. False when it is used up. */
bool http_peers_spend(struct http_peers *p, struct http_peer *peer, double cost, int64_t now_ns);

#endif
