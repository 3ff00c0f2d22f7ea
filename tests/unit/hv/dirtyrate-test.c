/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the dirty-rate measurement, against a scripted fake and against a real QEMU with a guest that writes. */
#include "hv/dirtyrate.h"
#include "tests/unit/hv/fake-qemu.h"

#define KVM(yes)                                                                                                       \
	{FAKE_HEAR, "query-kvm", 0},                                                                                   \
	{                                                                                                              \
		FAKE_ANSWER, "\"return\": {\"enabled\": " yes ", \"present\": true}", 0                                \
	}
#define IDLE                                                                                                           \
	{FAKE_HEAR, "query-dirty-rate", 0},                                                                            \
	{                                                                                                              \
		FAKE_ANSWER, "\"return\": {\"status\": \"unstarted\"}", 0                                              \
	}
#define MEMORY(bytes)                                                                                                  \
	{FAKE_HEAR, "query-memory-size-summary", 0},                                                                   \
	{                                                                                                              \
		FAKE_ANSWER, "\"return\": {\"base-memory\": " bytes "}", 0                                             \
	}
#define CALC(mode)                                                                                                     \
	{                                                                                                              \
		FAKE_HEAR, "\"calc-time\":1,\"mode\":\"" mode "\"", 0                                                  \
	}
#define TAKEN                                                                                                          \
	{                                                                                                              \
		FAKE_ANSWER, "\"return\": {}", 0                                                                       \
	}
#define REFUSED                                                                                                        \
	{                                                                                                              \
		FAKE_ANSWER, "\"error\": {\"class\": \"GenericError\", \"desc\": \"not enabled\"}", 0                  \
	}
#define MEASURING                                                                                                      \
	{FAKE_HEAR, "query-dirty-rate", 0},                                                                            \
	{                                                                                                              \
		FAKE_ANSWER, "\"return\": {\"status\": \"measuring\"}", 0                                              \
	}
#define RESULT(mode, rate)                                                                                             \
	{FAKE_HEAR, "query-dirty-rate", 0},                                                                            \
	{                                                                                                              \
		FAKE_ANSWER,                                                                                           \
			"\"return\": {\"status\": \"measured\", \"mode\": \"" mode "\", \"dirty-rate\": " rate "}", 0  \
	}
#define END                                                                                                            \
	{FAKE_HOLD, NULL, 0},                                                                                          \
	{                                                                                                              \
		FAKE_END, NULL, 0                                                                                      \
	}

/* Measure @mode for a second against @script; it must give @rate in @used, with @part in the reason. */
static void gives(const struct fake_step *script, enum dirtyrate_mode mode, int64_t rate, enum dirtyrate_mode used,
		  const char *part)
{
	struct dirtyrate d;
	struct err e = ERR_INIT;
	struct fake f;
	struct qmp *q = fake_open(&f, script);
	int64_t start = clock_now_ns();

	if (dirtyrate_measure(q, mode, 1, &d, &e) < 0)
		fail_msg("%s", e.text);
	assert_true(clock_now_ns() - start >= NS_PER_S);
	assert_int_equal(d.bytes_per_s, rate);
	assert_int_equal(d.mode, used);
	assert_int_equal(d.seconds, 1);
	if (!strstr(d.why, part) || !strstr(d.why, dirtyrate_mode_name(used)))
		fail_msg("\"%s\" does not say \"%s\"", d.why, part);
	fake_finish(&f, q);
}

/* It must fail with @code and @part, in less than @limit_ms. */
static void fails(const struct fake_step *script, enum dirtyrate_mode mode, enum err_code code, const char *part,
		  int limit_ms)
{
	struct dirtyrate d;
	struct err e = ERR_INIT;
	struct fake f;
	struct qmp *q = fake_open(&f, script);
	int64_t start = clock_now_ns();

	assert_int_equal(dirtyrate_measure(q, mode, 1, &d, &e), -1);
	assert_true(clock_now_ns() - start < limit_ms * NS_PER_MS);
	if (e.code != code || !strstr(e.text, part))
		fail_msg("%s: \"%s\" does not say \"%s\"", err_code_name(e.code), e.text, part);
	fake_finish(&f, q);
}

static void the_ring_is_the_first_choice_with_kvm(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO, KVM("true"), IDLE,      CALC("dirty-ring"),
						  TAKEN,      MEASURING,   MEASURING, RESULT("dirty-ring", "140"),
						  END};

	(void)state;
	gives(script, DIRTYRATE_AUTO, 140LL << 20, DIRTYRATE_DIRTY_RING, "runs with KVM");
}

static void the_bitmap_follows_a_refused_ring(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO, KVM("true"),          IDLE,  CALC("dirty-ring"),
						  REFUSED,    CALC("dirty-bitmap"), TAKEN, RESULT("dirty-bitmap", "19"),
						  END};

	(void)state;
	gives(script, DIRTYRATE_AUTO, 19LL << 20, DIRTYRATE_DIRTY_BITMAP,
	      "dirty-ring refused (calc-dirty-rate: not enabled)");
}

static void sampling_is_what_is_left_when_both_are_refused(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  KVM("true"),
						  IDLE,
						  CALC("dirty-ring"),
						  REFUSED,
						  CALC("dirty-bitmap"),
						  REFUSED,
						  MEMORY("1099511627776"),
						  {FAKE_HEAR, "\"mode\":\"page-sampling\",\"sample-pages\":128}", 0},
						  TAKEN,
						  RESULT("page-sampling", "3"),
						  END};

	(void)state;
	gives(script, DIRTYRATE_AUTO, 3LL << 20, DIRTYRATE_PAGE_SAMPLING, "dirty-bitmap refused");
}

/* QEMU 7.2 dies when it is asked for the other modes without KVM: the script would hear them. */
static void without_kvm_nothing_but_sampling_is_asked_for(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  KVM("false"),
						  IDLE,
						  MEMORY("268435456"),
						  {FAKE_HEAR, "\"mode\":\"page-sampling\",\"sample-pages\":4096}", 0},
						  TAKEN,
						  RESULT("page-sampling", "0"),
						  END};
	static const struct fake_step refused[] = {FAKE_HELLO, KVM("false"), IDLE, END};

	(void)state;
	gives(script, DIRTYRATE_AUTO, 0, DIRTYRATE_PAGE_SAMPLING, "without KVM");
	fails(refused, DIRTYRATE_DIRTY_BITMAP, ERR_UNSUPPORTED, "mode dirty-bitmap needs KVM", 900);
	fails(refused, DIRTYRATE_DIRTY_RING, ERR_UNSUPPORTED, "mode dirty-ring needs KVM", 900);
}

static void a_mode_asked_for_by_name_does_not_fall_back(void **state)
{
	static const struct fake_step works[] = {
		FAKE_HELLO, KVM("true"), IDLE, CALC("dirty-bitmap"), TAKEN, RESULT("dirty-bitmap", "7"), END};
	static const struct fake_step refused[] = {FAKE_HELLO, KVM("true"), IDLE, CALC("dirty-bitmap"), REFUSED, END};

	(void)state;
	gives(works, DIRTYRATE_DIRTY_BITMAP, 7LL << 20, DIRTYRATE_DIRTY_BITMAP, "asked for by name");
	fails(refused, DIRTYRATE_DIRTY_BITMAP, ERR_UNSUPPORTED, "not enabled", 900);
}

static void a_guest_too_small_to_sample_is_not_called_idle(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO, KVM("false"), IDLE, MEMORY("67108864"), END};

	(void)state;
	fails(script, DIRTYRATE_AUTO, ERR_UNSUPPORTED, "this guest has 64 MiB", 900);
}

static void a_measurement_of_somebody_else_is_waited_for(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,
						  KVM("true"),
						  MEASURING,
						  MEASURING,
						  RESULT("dirty-ring", "1"),
						  CALC("dirty-ring"),
						  TAKEN,
						  RESULT("dirty-ring", "2"),
						  END};

	(void)state;
	gives(script, DIRTYRATE_AUTO, 2LL << 20, DIRTYRATE_DIRTY_RING, "KVM");
}

static void an_answer_without_a_sound_rate_is_refused(void **state)
{
	static const struct fake_step none[] = {FAKE_HELLO, KVM("true"), IDLE, CALC("dirty-ring"), TAKEN, IDLE, END};
	static const struct fake_step negative[] = {
		FAKE_HELLO, KVM("true"), IDLE, CALC("dirty-ring"), TAKEN, RESULT("dirty-ring", "-1"), END};
	static const struct fake_step huge[] = {
		FAKE_HELLO, KVM("true"), IDLE, CALC("dirty-ring"), TAKEN, RESULT("dirty-ring", "9223372036854775807"),
		END};
	static const struct fake_step other[] = {
		FAKE_HELLO, KVM("true"), IDLE, CALC("dirty-ring"), TAKEN, RESULT("page-sampling", "4"), END};
	static const struct fake_step no_status[] = {
		FAKE_HELLO, KVM("true"), {FAKE_HEAR, "query-dirty-rate", 0}, {FAKE_ANSWER, "\"return\": []", 0}, END};

	(void)state;
	fails(none, DIRTYRATE_AUTO, ERR_PROTOCOL, "without a rate", 3000);
	fails(negative, DIRTYRATE_AUTO, ERR_PROTOCOL, "without a rate", 3000);
	fails(huge, DIRTYRATE_AUTO, ERR_PROTOCOL, "without a rate", 3000);
	fails(other, DIRTYRATE_AUTO, ERR_PROTOCOL, "measured in page-sampling", 3000);
	fails(no_status, DIRTYRATE_AUTO, ERR_PROTOCOL, "no status", 900);
}

static void a_qemu_that_dies_meanwhile_is_noticed_at_once(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO,         KVM("true"), IDLE,
						  CALC("dirty-ring"), TAKEN,       {FAKE_WAIT_MS, NULL, 50},
						  {FAKE_END, NULL, 0}};

	(void)state;
	fails(script, DIRTYRATE_AUTO, ERR_PROTOCOL, "closed by QEMU", 900);
}

static void seconds_out_of_range_are_refused_before_qemu_is_asked(void **state)
{
	static const struct fake_step script[] = {FAKE_HELLO, END};
	struct dirtyrate d;
	struct err e = ERR_INIT;
	struct fake f;
	struct qmp *q = fake_open(&f, script);

	(void)state;
	assert_int_equal(dirtyrate_measure(q, DIRTYRATE_AUTO, 0, &d, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	assert_int_equal(dirtyrate_measure(q, DIRTYRATE_AUTO, 61, &d, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	fake_finish(&f, q);
}

static void modes_have_names_both_ways(void **state)
{
	struct err e = ERR_INIT;
	enum dirtyrate_mode mode;

	(void)state;
	for (enum dirtyrate_mode m = DIRTYRATE_AUTO; m < DIRTYRATE_MODE_MAX; m++) {
		assert_int_equal(dirtyrate_mode_parse(dirtyrate_mode_name(m), &mode, &e), 0);
		assert_int_equal(mode, m);
	}
	assert_int_equal(dirtyrate_mode_parse("fast", &mode, &e), -1);
	assert_int_equal(e.code, ERR_USAGE);
	assert_string_equal(dirtyrate_mode_name(DIRTYRATE_MODE_MAX), "unknown");
}

/* A boot sector: protected mode, then for ever one increment per page from 16 MiB to 80 MiB. So 64 MiB are dirty after
 * any second, however fast the host is.
 *
 *     cli; xor %ax,%ax; mov %ax,%ds; lgdtl 0x7c50; mov %cr0,%eax; or $1,%al; mov %eax,%cr0; ljmp $8,$0x7c18
 *     0x7c18: mov $16,%ax; mov %ax,%ds
 *     outer:  mov $0x1000000,%edi
 *     inner:  incl (%edi); add $4096,%edi; cmp $0x5000000,%edi; jb inner; jmp outer
 *     0x7c38: flat 4 GiB code and data descriptors, then their pointer */
static const unsigned char writer[512] = {
	0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x66, 0x0f, 0x01, 0x16, 0x50, 0x7c, 0x0f,         0x20, 0xc0, 0x0c,
	0x01, 0x0f, 0x22, 0xc0, 0xea, 0x18, 0x7c, 0x08, 0x00, 0x66, 0xb8, 0x10,         0x00, 0x8e, 0xd8,
	0xbf, 0x00, 0x00, 0x00, 0x01, 0xff, 0x07, 0x81, 0xc7, 0x00, 0x10, 0x00,         0x00, 0x81, 0xff,
	0x00, 0x00, 0x00, 0x05, 0x72, 0xf0, 0xeb, 0xe9, 0x8d, 0x76, 0x00, 0x00,         0x00, 0x00, 0x00,
	0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9a, 0xcf, 0x00,         0xff, 0xff, 0x00,
	0x00, 0x00, 0x92, 0xcf, 0x00, 0x17, 0x00, 0x38, 0x7c, 0x00, 0x00, [510] = 0x55, 0xaa};

static void real_measure(struct qmp *q, struct dirtyrate *d)
{
	struct err e = ERR_INIT;

	if (dirtyrate_measure(q, DIRTYRATE_AUTO, 1, d, &e) < 0)
		fail_msg("%s", e.text);
}

static void a_real_guest_that_writes_64_mib_over_and_over_is_measured(void **state)
{
	char disk[] = "/tmp/godwit-disk-XXXXXX", drive[64];
	const char *extra[] = {"-m", "256", "-drive", drive, NULL};
	int fd = mkstemp(disk);
	struct dirtyrate d = {.bytes_per_s = -1};
	struct err e = ERR_INIT;
	struct real_qemu r;
	struct qmp *q = NULL;

	(void)state;
	assert_int_equal(write(fd, writer, sizeof(writer)), sizeof(writer));
	close(fd);
	snprintf(drive, sizeof(drive), "file=%s,format=raw", disk);
	real_start(&r, extra);
	assert_int_equal(qmp_open(r.path, IN_S(20), &q, &e), 0);
	unlink(disk);

	/* Stopped: nothing is written, and a mode that would kill this QEMU is not let through. */
	real_measure(q, &d);
	assert_int_equal(d.bytes_per_s, 0);
	assert_int_equal(d.mode, DIRTYRATE_PAGE_SAMPLING);
	assert_int_equal(dirtyrate_measure(q, DIRTYRATE_DIRTY_BITMAP, 1, &d, &e), -1);
	assert_int_equal(e.code, ERR_UNSUPPORTED);

	/* Running: a second or more passes in the firmware, then 64 MiB/s; 1024 of 65536 pages are sampled. */
	assert_int_equal(qmp_call(q, "cont", NULL, IN_S(10), NULL, NULL), 0);
	for (int i = 0; i < 20 && d.bytes_per_s < 40LL << 20; i++)
		real_measure(q, &d);
	assert_in_range(d.bytes_per_s, 40LL << 20, 90LL << 20);
	qmp_close(q);
	real_stop(&r, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_ring_is_the_first_choice_with_kvm),
		cmocka_unit_test(the_bitmap_follows_a_refused_ring),
		cmocka_unit_test(sampling_is_what_is_left_when_both_are_refused),
		cmocka_unit_test(without_kvm_nothing_but_sampling_is_asked_for),
		cmocka_unit_test(a_mode_asked_for_by_name_does_not_fall_back),
		cmocka_unit_test(a_guest_too_small_to_sample_is_not_called_idle),
		cmocka_unit_test(a_measurement_of_somebody_else_is_waited_for),
		cmocka_unit_test(an_answer_without_a_sound_rate_is_refused),
		cmocka_unit_test(a_qemu_that_dies_meanwhile_is_noticed_at_once),
		cmocka_unit_test(seconds_out_of_range_are_refused_before_qemu_is_asked),
		cmocka_unit_test(modes_have_names_both_ways),
		cmocka_unit_test(a_real_guest_that_writes_64_mib_over_and_over_is_measured),
	};

	return cmocka_run_group_tests_name("hv/dirtyrate", tests, NULL, NULL);
}
