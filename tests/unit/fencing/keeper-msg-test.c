/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's messages: golden bytes, both ways, and everything that is none of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fencing/keeper-msg.h"

static const struct keeper_request request = {
	.type = KEEPER_CONFIGURE,
	.number = 0x0102030405060708,
	.config = {.mark = "godwit:c1:", .lease_ns = 4000000000, .budget_ns = 1000000000, .watchdog_s = 3},
};

static const unsigned char request_bytes[KEEPER_REQUEST_SIZE] = {
	'G', 'W', 'D', 'K', 1,    2,    0,    0,             /* header: version 1, configure */
	1,   2,   3,   4,   5,    6,    7,    8,             /* number */
	0,   0,   0,   0,   0xee, 0x6b, 0x28, 0,             /* lease */
	0,   0,   0,   0,   0x3b, 0x9a, 0xca, 0,             /* budget */
	0,   0,   0,   3,                                    /* watchdog */
	'g', 'o', 'd', 'w', 'i',  't',  ':',  'c', '1', ':', /* mark */
};

static const struct keeper_status status = {
	.answer_to = KEEPER_UNTIL,
	.code = ERR_CONFLICT,
	.state = KEEPER_STOPPING,
	.leaving = true,
	.device = KEEPER_DEVICE_ARMED,
	.forever = true,
	.watchdog_s = 5,
	.until_ns = 0x1112131415161718,
	.alive = 7,
	.report = {.serial = 9, .cause = KEEPER_TOLD, .guests = 20, .at_ns = 10, .took_ns = 11, .seen = true},
	.text = "no",
	.device_text = "dog",
};

static const unsigned char status_head[] = {
	'G',  'W',  'D',  'K',  1,    0,    0,    0, /* header: status */
	3,    13,   3,    1,    1,    1,    2,    1, /* answer to, code, state, leaving, device, forever, cause, seen */
	0,    0,    0,    5,    0,    0,    0,    7, /* watchdog, alive */
	0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, /* until */
	0,    0,    0,    20,   0,    0,    0,    0,    /* guests */
	0,    0,    0,    0,    0,    0,    0,    9,    /* serial */
	0,    0,    0,    0,    0,    0,    0,    10,   /* at */
	0,    0,    0,    0,    0,    0,    0,    11,   /* took */
	'n',  'o',  0,
};

static void a_request_is_these_bytes_both_ways(void **state)
{
	unsigned char buf[KEEPER_REQUEST_SIZE];
	struct keeper_request back;

	(void)state;
	keeper_request_encode(&request, buf);
	assert_memory_equal(buf, request_bytes, sizeof(buf));
	assert_int_equal(keeper_request_decode(request_bytes, sizeof(request_bytes), &back, NULL), 0);
	assert_memory_equal(&back.config, &request.config, sizeof(back.config));
	assert_int_equal(back.type, request.type);
	assert_int_equal(back.number, request.number);
}

static void a_status_is_these_bytes_both_ways(void **state)
{
	unsigned char buf[KEEPER_STATUS_SIZE];
	struct keeper_status back;

	(void)state;
	keeper_status_encode(&status, buf);
	assert_memory_equal(buf, status_head, sizeof(status_head));
	assert_memory_equal(buf + 64 + KEEPER_TEXT, "dog", 4);
	assert_int_equal(keeper_status_decode(buf, sizeof(buf), &back, NULL), 0);
	keeper_status_encode(&back, buf);
	assert_memory_equal(buf, status_head, sizeof(status_head));
	assert_int_equal(back.until_ns, status.until_ns);
	assert_int_equal(back.report.took_ns, status.report.took_ns);
	assert_string_equal(back.text, "no");
}

static void another_version_is_named(void **state)
{
	unsigned char buf[KEEPER_REQUEST_SIZE];
	struct keeper_request r;
	struct err e = ERR_INIT;

	(void)state;
	memcpy(buf, request_bytes, sizeof(buf));
	buf[4] = 7;
	/* Of any size: only the header stays what it is. */
	assert_int_equal(keeper_request_decode(buf, 20, &r, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "version 7"));
}

static void whatever_is_no_message_is_refused(void **state)
{
	/* place and value of one wrong byte */
	static const unsigned char wrong[][2] = {{0, 'X'}, {5, KEEPER_STATUS}, {5, KEEPER_TYPE_MAX}, {5, 255}};
	static const unsigned char wrong_status[][2] = {{5, KEEPER_LOOK},        {8, KEEPER_TYPE_MAX},
							{9, ERR_CODE_MAX},       {10, KEEPER_STATE_MAX},
							{12, KEEPER_DEVICE_MAX}, {14, KEEPER_CAUSE_MAX}};
	unsigned char buf[KEEPER_STATUS_SIZE];
	struct keeper_request r;
	struct keeper_status s;
	struct err e = ERR_INIT;

	(void)state;
	for (size_t n = 0; n < KEEPER_REQUEST_SIZE; n++)
		assert_int_equal(keeper_request_decode(request_bytes, n, &r, &e), -1);
	for (size_t i = 0; i < sizeof(wrong) / 2; i++) {
		memcpy(buf, request_bytes, KEEPER_REQUEST_SIZE);
		buf[wrong[i][0]] = wrong[i][1];
		e = ERR_INIT;
		assert_int_equal(keeper_request_decode(buf, KEEPER_REQUEST_SIZE, &r, &e), -1);
		assert_int_equal(e.code, ERR_PROTOCOL);
	}
	memcpy(buf, request_bytes, KEEPER_REQUEST_SIZE);
	memset(buf + 36, 'x', 80); /* a mark without its end */
	assert_int_equal(keeper_request_decode(buf, KEEPER_REQUEST_SIZE, &r, &e), -1);
	for (size_t i = 0; i < sizeof(wrong_status) / 2; i++) {
		keeper_status_encode(&status, buf);
		buf[wrong_status[i][0]] = wrong_status[i][1];
		assert_int_equal(keeper_status_decode(buf, sizeof(buf), &s, &e), -1);
	}
	keeper_status_encode(&status, buf);
	memset(buf + 64, 'x', KEEPER_TEXT);
	assert_int_equal(keeper_status_decode(buf, sizeof(buf), &s, &e), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_these_bytes_both_ways),
		cmocka_unit_test(a_status_is_these_bytes_both_ways),
		cmocka_unit_test(another_version_is_named),
		cmocka_unit_test(whatever_is_no_message_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
