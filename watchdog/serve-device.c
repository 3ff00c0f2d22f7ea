/* SPDX-License-Identifier: Apache-2.0 */
/* The device as the keeper's state wants it. While guests are being stopped it is not touched in any way: opening a
 * watchdog or setting its time-out pets it, and what must not happen from the deadline on is just that. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "watchdog/serve-int.h"

static void failed(struct serve *s, const struct err *e)
{
	if (s->device != KEEPER_DEVICE_FAILED || strncmp(s->device_text, e->text, sizeof(s->device_text) - 1) != 0)
		log_error("event=device_failed error=\"%s\"", e->text);
	s->device = KEEPER_DEVICE_FAILED;
	snprintf(s->device_text, sizeof(s->device_text), "%.*s", (int)sizeof(s->device_text) - 1, e->text);
}

static void armed(struct serve *s)
{
	s->device = KEEPER_DEVICE_ARMED;
	snprintf(s->device_text, sizeof(s->device_text), "%s", s->dog.identity);
	log_info("event=device_armed device=%s identity=\"%s\" timeout_s=%u asked_s=%u nowayout=%d", s->o->device,
		 s->dog.identity, s->dog.timeout_s, s->dog_asked, s->dog.forever);
}

static void device_close(struct serve *s)
{
	if (s->dog.forever)
		log_warning("event=device_closed device=%s nowayout=1 consequence=\"the driver does not allow to "
			    "disarm it: "
			    "this host is reset in %u seconds\"",
			    s->o->device, s->dog.timeout_s);
	else
		log_info("event=device_closed device=%s", s->o->device);
	watchdog_close(&s->dog);
	s->device = KEEPER_DEVICE_NONE;
	s->device_text[0] = 0;
}

void serve_device(struct serve *s)
{
	unsigned asked = s->keeper.config.watchdog_s;
	struct err e = ERR_INIT;

	if (!s->o->device || s->keeper.state == KEEPER_STOPPING)
		return;
	if (!keeper_wants_device(&s->keeper)) {
		if (s->dog.fd >= 0)
			device_close(s);
		s->device = KEEPER_DEVICE_NONE;
		return;
	}
	if (s->dog.fd >= 0 && asked != s->dog_asked) {
		s->dog_asked = asked;
		if (watchdog_set(&s->dog, s->o->device, asked, &e) < 0) {
			device_close(s);
			failed(s, &e);
		} else {
			armed(s);
		}
	} else if (s->dog.fd < 0 && s->dog_try) {
		s->dog_asked = asked;
		if (watchdog_open(s->o->device, asked, &s->dog, &e) < 0)
			failed(s, &e);
		else
			armed(s);
	}
	s->dog_try = false;
}

void serve_pet(struct serve *s)
{
	struct err e = ERR_INIT;
	unsigned cut;

	if (s->dog.fd < 0)
		return;
	if (watchdog_pet(&s->dog, &e) < 0)
		failed(s, &e);
	else if (s->device == KEEPER_DEVICE_FAILED)
		armed(s);
	cut = keeper_late(&s->keeper, clock_boot_ns());
	if (!cut)
		return;
	/* serve_device() makes it long again when no guest is left. */
	s->dog_asked = cut;
	log_error("event=petted_late consequence=\"the time-out is cut to %u s\"", cut);
	if (watchdog_set(&s->dog, s->o->device, cut, &e) < 0)
		failed(s, &e);
}
