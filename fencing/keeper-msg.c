/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's messages.
 *
 *   every message    magic "GWDK" 4 | version 1 | type 1 | 0 2
 *   request          number 8 | lease 8 | budget 8 | watchdog 4 | mark 80; zeros to 128
 *   status           answer to 1 | code 1 | state 1 | leaving 1 | device 1 | forever 1 | cause 1 | seen 1 | watchdog 4
 * | alive 4 | until 8 | guests 4 | 0 4 | serial 8 | at 8 | took 8 | text 256 | device's text 256
 *
 * Numbers are big-endian, times nanoseconds, the watchdog's seconds. Both sizes are fixed; a later version may use
 * another size, and what it says first (magic, version) stays where it is, so that each side can name the other's
 * version.
 */
#include "fencing/keeper-msg.h"

#include <string.h>

#include "fencing/fields.h"

#define MAGIC 0x4757444bU /* "GWDK" */
#define HEADER 8U

const char *const keeper_type_names[KEEPER_TYPE_MAX] = {"status",  "look", "configure", "until",
							"release", "die",  "seen"};
const char *const keeper_device_names[KEEPER_DEVICE_MAX] = {"none", "armed", "failed"};

static void put_header(unsigned char **p, enum keeper_type type)
{
	put32(p, MAGIC);
	put8(p, KEEPER_VERSION);
	put8(p, type);
	put8(p, 0);
	put8(p, 0);
}

static int take_header(const unsigned char **p, size_t n, size_t want, enum keeper_type *ret, struct err *e)
{
	unsigned version;

	if (n < HEADER || take32(p) != MAGIC)
		return err_set(e, ERR_PROTOCOL, "what came (%zu bytes) is no message of godwit-watchdog's protocol", n);
	version = take8(p);
	if (version != KEEPER_VERSION)
		return err_set(
			e, ERR_UNSUPPORTED,
			"the other side speaks version %u of godwit-watchdog's protocol, this one %u; install the "
			"same version of all Godwit's programs and reload godwit-watchdog (SIGHUP)",
			version, KEEPER_VERSION);
	*ret = take8(p);
	*p += 2;
	if (n != want || *ret >= KEEPER_TYPE_MAX)
		return err_set(e, ERR_PROTOCOL, "a message of type %u and %zu bytes is not one of godwit-watchdog's",
			       (unsigned)*ret, n);
	return 0;
}

void keeper_request_encode(const struct keeper_request *r, unsigned char buf[KEEPER_REQUEST_SIZE])
{
	unsigned char *p = buf;

	memset(buf, 0, KEEPER_REQUEST_SIZE);
	put_header(&p, r->type);
	put64(&p, (int64_t)r->number);
	put64(&p, r->config.lease_ns);
	put64(&p, r->config.budget_ns);
	put32(&p, r->config.watchdog_s);
	put_text(&p, r->config.mark, sizeof(r->config.mark));
}

int keeper_request_decode(const void *buf, size_t n, struct keeper_request *ret, struct err *e)
{
	const unsigned char *p = buf;
	struct keeper_request r = {0};

	if (take_header(&p, n, KEEPER_REQUEST_SIZE, &r.type, e) < 0)
		return -1;
	r.number = (uint64_t)take64(&p);
	r.config.lease_ns = take64(&p);
	r.config.budget_ns = take64(&p);
	r.config.watchdog_s = take32(&p);
	if (take_text(&p, r.config.mark, sizeof(r.config.mark)) < 0 || r.type == KEEPER_STATUS)
		return err_set(e, ERR_PROTOCOL, "a request of type %u is not right in itself", (unsigned)r.type);
	*ret = r;
	return 0;
}

void keeper_status_encode(const struct keeper_status *s, unsigned char buf[KEEPER_STATUS_SIZE])
{
	unsigned char *p = buf;

	memset(buf, 0, KEEPER_STATUS_SIZE);
	put_header(&p, KEEPER_STATUS);
	put8(&p, s->answer_to);
	put8(&p, s->code);
	put8(&p, s->state);
	put8(&p, s->leaving);
	put8(&p, s->device);
	put8(&p, s->forever);
	put8(&p, s->report.cause);
	put8(&p, s->report.seen);
	put32(&p, s->watchdog_s);
	put32(&p, s->alive);
	put64(&p, s->until_ns);
	put32(&p, s->report.guests);
	put32(&p, 0);
	put64(&p, (int64_t)s->report.serial);
	put64(&p, s->report.at_ns);
	put64(&p, s->report.took_ns);
	put_text(&p, s->text, sizeof(s->text));
	put_text(&p, s->device_text, sizeof(s->device_text));
}

int keeper_status_decode(const void *buf, size_t n, struct keeper_status *ret, struct err *e)
{
	const unsigned char *p = buf;
	struct keeper_status s = {0};
	enum keeper_type type;
	bool texts;

	if (take_header(&p, n, KEEPER_STATUS_SIZE, &type, e) < 0)
		return -1;
	s.answer_to = take8(&p);
	s.code = take8(&p);
	s.state = take8(&p);
	s.leaving = take8(&p) != 0;
	s.device = take8(&p);
	s.forever = take8(&p) != 0;
	s.report.cause = take8(&p);
	s.report.seen = take8(&p) != 0;
	s.watchdog_s = take32(&p);
	s.alive = take32(&p);
	s.until_ns = take64(&p);
	s.report.guests = take32(&p);
	p += 4;
	s.report.serial = (uint64_t)take64(&p);
	s.report.at_ns = take64(&p);
	s.report.took_ns = take64(&p);
	texts = take_text(&p, s.text, sizeof(s.text)) == 0 && take_text(&p, s.device_text, sizeof(s.device_text)) == 0;
	if (!texts || type != KEEPER_STATUS || s.answer_to >= KEEPER_TYPE_MAX || s.code >= ERR_CODE_MAX ||
	    s.state >= KEEPER_STATE_MAX || s.device >= KEEPER_DEVICE_MAX || s.report.cause >= KEEPER_CAUSE_MAX)
		return err_set(e, ERR_PROTOCOL, "a status from godwit-watchdog is not right in itself");
	*ret = s;
	return 0;
}
