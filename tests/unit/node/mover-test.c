/* SPDX-License-Identifier: Apache-2.0 */
/* The mover with real QEMUs (TCG): two hosts in one process move a guest over loopback. */
#include "tests/unit/base/certs.h"
#include "tests/unit/node/movers.h"

/* ---- moves ---- */

static void guest_moves_once_it_is_agreed(void **state)
{
	(void)state;
	move_begin(40);
	run_until(src_asks);
	assert_string_equal(host_dst.address + strlen("127.0.0.1"), strrchr(host_dst.address, ':'));
	run_ms(500);
	if (host_src.ends || host_dst.ends)
		fail_msg("ended before anybody agreed: source: %d \"%s\", destination: %d \"%s\"", host_src.end,
			 host_src.words, host_dst.end, host_dst.words);
	assert_int_not_equal(status_on(&host_dst), VM_STATUS_RUNNING);
	mover_agree(host_src.m, ID, true);
	run_until(both_ended);
	assert_int_equal(host_src.end, MOVER_MOVED);
	assert_int_equal(host_dst.end, MOVER_MOVED);
	assert_string_equal(host_src.words, "the guest runs at the destination");
	assert_true(host_src.figures && host_src.pause_ms > 0 && host_dst.figures && host_src.progressed > 0);
	assert_guest_on(&host_dst);
	forget_both();
	assert_guest_on(&host_dst);
}

static void hosts_know_each_other_by_their_certificates(void **state)
{
	static const char *const peers[] = {"n3", "n1"};
	char folder[] = "/tmp/mover-tls-XXXXXX";
	_free_ char *mine = NULL, *theirs = NULL;
	struct certs_ca ca;

	(void)state;
	assert_non_null(mkdtemp(folder));
	mine = xasprintf("%s/n1", folder);
	theirs = xasprintf("%s/n2", folder);
	certs_ca_init(&ca, "cluster");
	certs_write(mine, &ca, &ca, "n1", 0);
	certs_write(theirs, &ca, &ca, "n2,127.0.0.1", 0);
	certs_ca_done(&ca);
	mover_free(host_src.m);
	mover_free(host_dst.m);
	mover_up_with(&host_src, NULL, mine);
	mover_up_with(&host_dst, NULL, theirs);
	guest_start(&host_src);
	for (size_t i = 0; i < ARRAY_SIZE(peers); i++) {
		host_src.ends = host_dst.ends = host_dst.listened = 0;
		receive_from(peers[i]);
		run_until(dst_listens);
		send_now(0);
		mover_agree(host_src.m, ID, true);
		run_until(src_ended);
		if (i == 0) {
			/* It still waits for the right one. */
			assert_int_equal(host_src.end, MOVER_FAILED);
			assert_int_equal(host_dst.ends, 0);
			mover_cancel(host_dst.m, ID);
			run_until(dst_ended);
			assert_guest_on(&host_src);
			forget_both();
		}
	}
	run_until(both_ended);
	assert_int_equal(host_dst.end, MOVER_MOVED);
	assert_guest_on(&host_dst);
	rundir_remove(folder, "n1", NULL);
	rundir_remove(folder, "n2", NULL);
	rmdir(folder);
}

static void no_keeps_the_guest_where_it_is(void **state)
{
	(void)state;
	move_begin(40);
	run_until(src_asks);
	mover_agree(host_src.m, ID, false);
	/* The first answer stands. */
	mover_agree(host_src.m, ID, true);
	run_until(both_ended);
	assert_int_equal(host_src.end, MOVER_CANCELLED);
	assert_non_null(strstr(host_src.words, "the hand-over was refused"));
	assert_int_not_equal(host_dst.end, MOVER_MOVED);
	assert_guest_on(&host_src);
	forget_both();
}

/* So little memory that QEMU may be through with it before it can be held: then the guest waits in its pause, and goes
 * on here when that is over. Either way there is no hand-over without a yes. */
static void guest_of_which_little_is_to_be_copied_waits_too(void **state)
{
	(void)state;
	guest_mib = 16;
	guest_start(&host_src);
	for (int yes = 0; yes < 2; yes++) {
		struct mover_send_options o;

		host_src.ends = host_dst.ends = host_src.agrees = host_dst.listened = 0;
		receive_now();
		run_until(dst_listens);
		o = send_options();
		o.deadline_s = 2;
		assert_int_equal(mover_send(host_src.m, &o, NULL), 0);
		run_until(src_asks);
		run_ms(300);
		assert_int_not_equal(status_on(&host_dst), VM_STATUS_RUNNING);
		if (yes)
			mover_agree(host_src.m, ID, true);
		run_until(both_ended);
		assert_int_equal(host_src.end, yes ? MOVER_MOVED : MOVER_FAILED);
		assert_true(yes || strstr(host_src.words, "nobody agreed to the hand-over"));
		assert_guest_on(yes ? &host_dst : &host_src);
		forget_both();
	}
}

static void move_is_cancelled_from_either_side(void **state)
{
	(void)state;
	for (int side = 0; side < 2; side++) {
		if (side == 0)
			guest_start(&host_src);
		host_src.ends = host_dst.ends = host_src.agrees = host_src.progressed = host_dst.listened = 0;
		receive_now();
		run_until(dst_listens);
		send_now(4);
		run_until(src_progresses);
		mover_cancel(side ? host_dst.m : host_src.m, ID);
		run_until(both_ended);
		assert_true(side || host_src.end == MOVER_CANCELLED);
		assert_true(host_src.end != MOVER_MOVED && host_dst.end != MOVER_MOVED);
		assert_guest_on(&host_src);
		forget_both();
	}
}

static void destination_that_is_cancelled_before_it_listens_leaves_nothing(void **state)
{
	(void)state;
	guest_start(&host_src);
	receive_now();
	mover_cancel(host_dst.m, ID);
	run_until(dst_ended);
	assert_int_equal(host_dst.end, MOVER_CANCELLED);
	assert_int_equal(host_dst.listened, 0);
	assert_guest_on(&host_src);
}

static void destination_that_cannot_start_says_why(void **state)
{
	struct mover_receive_options o = {.id = ID, .vm = "t1", .epoch = 5, .listen = "127.0.0.1"};
	struct err e = ERR_INIT;

	(void)state;
	o.definition = definition_of(",\"kernel\":\"/no/kernel\"");
	assert_int_equal(mover_receive(host_dst.m, &o, &e), 0);
	run_until(dst_ended);
	assert_int_equal(host_dst.end, MOVER_FAILED);
	assert_non_null(strstr(host_dst.words, "/no/kernel"));
	assert_int_equal(status_on(&host_dst), VM_STATUS_MAX);
	json_decref(o.definition);
}

static void another_guest_of_that_name_is_not_touched(void **state)
{
	struct mover_receive_options o = {.id = ID, .vm = "t1", .epoch = 5, .listen = "127.0.0.1"};
	struct err e = ERR_INIT;

	(void)state;
	guest_start(&host_dst);
	o.definition = definition_of("");
	assert_int_equal(mover_receive(host_dst.m, &o, &e), 0);
	json_decref(o.definition);
	run_until(dst_ended);
	assert_int_equal(host_dst.end, MOVER_FAILED);
	assert_guest_on(&host_dst);
}

static void what_makes_no_sense_is_refused(void **state)
{
	struct mover_send_options o = {.id = ID, .vm = "nobody", .to = "127.0.0.1:1", .token = "00"};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(mover_send(host_src.m, &o, &e), -1);
	assert_int_equal(e.code, ERR_NOTFOUND);
	guest_start(&host_src);
	o.vm = "t1";
	o.id = "../t1";
	assert_int_equal(mover_send(host_src.m, &o, &e), -1);
	assert_int_equal(e.code, ERR_INPUT);
	o.id = ID;
	assert_int_equal(mover_send(host_src.m, &o, &e), 0);
	assert_int_equal(mover_send(host_src.m, &o, &e), -1);
	assert_int_equal(e.code, ERR_CONFLICT);
	assert_int_equal(mover_forget(host_src.m, ID, &e), -1);
	assert_int_equal(mover_settle(host_src.m, ID, true, &e), -1);
	/* The token is none. */
	run_until(src_ended);
	assert_int_equal(host_src.end, MOVER_FAILED);
	assert_int_equal(status_on(&host_src), VM_STATUS_RUNNING);
}

static void forecast_is_measured_and_moves_nothing(void **state)
{
	struct mover_send_options o;
	struct err e = ERR_INIT;

	(void)state;
	guest_start(&host_src);
	receive_now();
	run_until(dst_listens);
	o = send_options();
	assert_int_equal(mover_forecast(host_src.m, &o, 30 * NS_PER_S, on_forecast, &host_src, &e), 0);
	run_until(src_forecast);
	if (!host_src.forecast_good)
		fail_msg("%s", host_src.words);
	host_src.forecasts = 0;
	o.token = "00";
	assert_int_equal(mover_forecast(host_src.m, &o, 30 * NS_PER_S, on_forecast, &host_src, &e), 0);
	run_until(src_forecast);
	assert_false(host_src.forecast_good);
	assert_non_null(strstr(host_src.words, "token"));
	assert_int_equal(status_on(&host_src), VM_STATUS_RUNNING);
	/* The receiver still listens. */
	send_now(0);
	mover_agree(host_src.m, ID, true);
	run_until(both_ended);
	assert_int_equal(host_dst.end, MOVER_MOVED);
	assert_guest_on(&host_dst);
}

static void on_receiver(void *arg, const char *address, const char *token, const char *words)
{
	struct host *h = arg;

	snprintf(h->address, sizeof(h->address), "%s", address ? address : "");
	snprintf(h->token, sizeof(h->token), "%s", token ? token : "");
	snprintf(h->words, sizeof(h->words), "%s", words);
	h->listened++;
}

static bool receivers_gone(void)
{
	return mover_forecasts(host_dst.m) == 0;
}

static void wire_is_measured_to_a_host_that_has_nothing_of_the_guest(void **state)
{
	struct mover_forecast_receive_options ro = {.listen = "127.0.0.1", .wait_s = 20};
	struct mover_send_options o;
	struct err e = ERR_INIT;
	json_t *moves;

	(void)state;
	guest_start(&host_src);
	assert_int_equal(mover_forecast_receive(host_dst.m, &ro, on_receiver, &host_dst, &e), 0);
	run_until(dst_listens);
	o = send_options();
	assert_int_equal(mover_forecast(host_src.m, &o, 30 * NS_PER_S, on_forecast, &host_src, &e), 0);
	run_until(src_forecast);
	if (!host_src.forecast_good)
		fail_msg("%s", host_src.words);
	/* It has served, so it has ended; nobody was ever to come to this host. */
	run_until(receivers_gone);
	assert_int_equal(status_on(&host_src), VM_STATUS_RUNNING);
	assert_int_equal(status_on(&host_dst), VM_STATUS_MAX);
	moves = mover_list(host_dst.m);
	assert_int_equal(json_array_size(moves), 0);
	json_decref(moves);
	/* The same place again: nobody listens there any more. */
	host_src.forecasts = 0;
	assert_int_equal(mover_forecast(host_src.m, &o, 30 * NS_PER_S, on_forecast, &host_src, &e), 0);
	run_until(src_forecast);
	assert_false(host_src.forecast_good);
}

static void receiver_for_measuring_ends_when_nobody_comes_and_says_when_it_cannot_begin(void **state)
{
	struct mover_forecast_receive_options o = {.listen = "127.0.0.1", .wait_s = 1};
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(mover_forecast_receive(host_dst.m, &o, on_receiver, &host_dst, &e), 0);
	run_until(dst_listens);
	assert_string_not_equal(host_dst.address, "");
	run_until(receivers_gone);
	assert_int_equal(host_dst.listened, 1);
	host_dst.listened = 0;
	o.listen = "192.0.2.1"; /* of no host */
	assert_int_equal(mover_forecast_receive(host_dst.m, &o, on_receiver, &host_dst, &e), 0);
	run_until(dst_listens);
	assert_string_equal(host_dst.address, "");
	assert_non_null(strstr(host_dst.words, "192.0.2.1"));
}

static void measuring_that_takes_too_long_is_ended_and_so_is_one_when_the_guest_begins_to_move(void **state)
{
	struct mover_send_options o;
	struct err e = ERR_INIT;

	(void)state;
	guest_start(&host_src);
	receive_now();
	run_until(dst_listens);
	o = send_options();
	/* The guest is measured for a second. */
	assert_int_equal(mover_forecast(host_src.m, &o, NS_PER_S / 2, on_forecast, &host_src, &e), 0);
	run_until(src_forecast);
	assert_false(host_src.forecast_good);
	assert_non_null(strstr(host_src.words, "not measured within"));
	host_src.forecasts = 0;
	assert_int_equal(mover_forecast(host_src.m, &o, 30 * NS_PER_S, on_forecast, &host_src, &e), 0);
	send_now(0);
	mover_agree(host_src.m, ID, true);
	run_until(src_forecast);
	assert_false(host_src.forecast_good);
	run_until(both_ended);
	assert_int_equal(host_dst.end, MOVER_MOVED);
	assert_guest_on(&host_dst);
}

/* ---- the question ---- */

static void asking_before_the_agreement_is_a_no_and_ends_the_move(void **state)
{
	(void)state;
	move_begin(40);
	run_until(src_asks);
	mover_ask(host_src.m, ID, MOVER_SRC);
	run_until(src_answered);
	assert_int_equal(host_src.answer, MOVE_NO);
	/* A yes that comes too late is none. */
	mover_agree(host_src.m, ID, true);
	run_until(both_ended);
	assert_guest_on(&host_src);
	host_src.answers = 0;
	mover_ask(host_src.m, ID, MOVER_SRC);
	mover_ask(host_dst.m, ID, MOVER_DST);
	run_until(src_answered);
	run_until(dst_answered);
	assert_int_equal(host_src.answer, MOVE_NO);
	assert_int_equal(host_dst.answer, MOVE_NO);
}

static void asking_the_destination_ends_the_move_too(void **state)
{
	(void)state;
	move_begin(4);
	run_until(src_progresses);
	mover_ask(host_dst.m, ID, MOVER_DST);
	run_until(dst_answered);
	assert_int_equal(host_dst.answer, MOVE_NO);
	run_until(both_ended);
	assert_guest_on(&host_src);
}

static void after_the_move_both_say_yes_and_who_does_not_know_it_too(void **state)
{
	(void)state;
	mover_ask(host_src.m, ID, MOVER_SRC);
	run_until(src_answered);
	assert_int_equal(host_src.answer, MOVE_YES);
	host_src.answers = 0;
	move_begin(0);
	mover_agree(host_src.m, ID, true);
	run_until(both_ended);
	mover_ask(host_src.m, ID, MOVER_SRC);
	mover_ask(host_dst.m, ID, MOVER_DST);
	run_until(src_answered);
	run_until(dst_answered);
	assert_int_equal(host_src.answer, MOVE_YES);
	assert_int_equal(host_dst.answer, MOVE_YES);
	assert_guest_on(&host_dst);
}
#define TEST(f) cmocka_unit_test_setup_teardown(f, movers_set_up, movers_tear_down)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(guest_moves_once_it_is_agreed),
		TEST(hosts_know_each_other_by_their_certificates),
		TEST(no_keeps_the_guest_where_it_is),
		TEST(guest_of_which_little_is_to_be_copied_waits_too),
		TEST(move_is_cancelled_from_either_side),
		TEST(destination_that_is_cancelled_before_it_listens_leaves_nothing),
		TEST(destination_that_cannot_start_says_why),
		TEST(another_guest_of_that_name_is_not_touched),
		TEST(what_makes_no_sense_is_refused),
		TEST(forecast_is_measured_and_moves_nothing),
		TEST(wire_is_measured_to_a_host_that_has_nothing_of_the_guest),
		TEST(receiver_for_measuring_ends_when_nobody_comes_and_says_when_it_cannot_begin),
		TEST(measuring_that_takes_too_long_is_ended_and_so_is_one_when_the_guest_begins_to_move),
		TEST(asking_before_the_agreement_is_a_no_and_ends_the_move),
		TEST(asking_the_destination_ends_the_move_too),
		TEST(after_the_move_both_say_yes_and_who_does_not_know_it_too),
	};

	host_init();
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("node/mover", tests, NULL, NULL);
}
