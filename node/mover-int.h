/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the mover: what mover.c (all migrations), mover-side.c (one) and mover-disk.c (its files) share. */
#ifndef GODWIT_NODE_MOVER_INT_H
#define GODWIT_NODE_MOVER_INT_H

#include <sys/types.h>

#include "base/child.h"
#include "hv/vm.h"
#include "node/job.h"
#include "node/mover.h"

/* Of this side; never back, but for mover_settle(). */
enum side_step {
	SIDE_STARTING, /* destination: godwit-vm starts the QEMU that will wait */
	SIDE_OPENING,  /* destination: the receiver does not listen yet */
	SIDE_COPYING,  /* the engine is at work */
	SIDE_ENDING,   /* the engine is gone; godwit-vm does what the end asks for */
	SIDE_ENDED,
	SIDE_STEP_MAX
};
extern const char *const side_step_names[SIDE_STEP_MAX];

/* What the end asks godwit-vm for. */
enum side_act {
	SIDE_NOTHING,
	SIDE_KILL,   /* what is left here of the guest must never run */
	SIDE_RESUME, /* the guest is ours, and whoever should have continued it is dead */
	SIDE_ACT_MAX
};
extern const char *const side_act_names[SIDE_ACT_MAX];

/* One side of a migration. What "disk" says is in its state.json. */
struct side {
	struct side *next;
	struct mover *m;
	char *dir;

	char *id, *vm;                   /* disk */
	enum mover_role role;            /* disk */
	int64_t epoch;                   /* disk */
	char *listen, *advertise, *peer; /* disk; destination */
	enum side_step step;             /* disk */
	bool cancelled;                  /* disk: somebody asked for the end */
	pid_t qemu_pid;                  /* disk; the guest's QEMU here, -1: not known yet */
	uint64_t qemu_start;             /* disk */
	enum side_act act;               /* disk; with SIDE_ENDING */
	enum mover_end end;              /* disk; with SIDE_ENDING and SIDE_ENDED */
	char *words;                     /* disk; likewise */
	json_t *result;                  /* disk; the engine's last line, NULL: none came */
	struct child child;              /* disk: whoever is at work: an engine or godwit-vm */

	struct loop_child *watch;
	bool guarded;      /* the engine is gone, its guard is still at work */
	int64_t cancel_ns; /* when the engine was asked to end; 0: it was not */
	int out_fd;        /* the engine's output */
	off_t out_at;      /* the beginning of the first line that was not read */
	int out_watch;     /* of inotify */
	char *address;     /* where the receiver listens */
	char token[80];

	json_t *progress, *forecast; /* the newest, NULL: none yet */

	bool asked; /* mover_ask() waits for its answer */
	bool tell_listening, tell_progress, tell_forecast, tell_agree, tell_answer, tell_ended; /* soon */
	enum move_answer answer;
};

struct probe;

/* A question about a migration that is not known here. */
struct unknown {
	struct unknown *next;
	enum mover_role role;
	char id[];
};

struct mover {
	struct mover_options opt; /* strings are ours */
	struct mover_calls calls;
	void *arg;
	struct loop *loop;
	char *dir; /* of all migrations */
	struct side *sides;
	struct probe *probes; /* mover-forecast.c */
	struct unknown *unknown;
	int inotify_fd;
	struct loop_io *inotify;
	struct loop_timer *soon; /* tells what is to be told */
	struct loop_timer *tick; /* looks at what nobody announces */
};

/* ---- mover.c ---- */

/* Something of it is to be told. */
void mover_tell_soon(struct mover *m);

/* The guest's QEMU here; -1 with ERR_NOTFOUND where there is none. Close with vm_close(). */
int mover_qemu_open(const struct mover *m, const char *name, struct vm **ret, struct err *e);

/* ---- mover-forecast.c ---- */

/* A move of @vm begins and needs its monitor: end what measures it. */
void mover_forecasts_end(struct mover *m, const char *vm);

/* End all forecasts, unsaid. */
void mover_forecasts_free(struct mover *m);

/* ---- mover-side.c ---- */

/* Go on with what an earlier mover has begun. */
void side_take_over(struct side *s);

/* What nobody announces: the end of a guard, a step in the record, an engine that does not end. True: look again. */
bool side_tick(struct side *s);

/* Read what the engine has said since. */
void side_read(struct side *s);

/* Begin. -1 with @e, and nothing runs then. */
int side_begin_receive(struct side *s, json_t *definition, struct err *e);
int side_begin_send(struct side *s, const struct mover_send_options *o, struct err *e);

void side_cancel(struct side *s);

/* Answer mover_ask() if that is possible now. */
void side_consider(struct side *s);

/* Let godwit-vm do @act, then it has ended like that. @words is copied. */
void side_finish(struct side *s, enum side_act act, enum mover_end end, const char *words);

/* The command line of godwit-migrate send for @o, NULL-terminated, in @argv of ENGINE_ARGS; the numbers are written to
 * @text. The token comes from descriptor @token_fd. Returns how many words. */
#define ENGINE_ARGS 48
struct engine_words {
	const char *argv[ENGINE_ARGS];
	size_t n;
	char text[8][64];
	size_t n_text;
};
/* The command line of godwit-migrate @verb: who it serves, and by what it knows the other side. @qmp_path NULL: nobody.
 */
void engine_words_common(struct engine_words *w, const struct mover *m, const char *verb, const char *qmp_path);
void engine_words_send(struct engine_words *w, const struct mover *m, const char *qmp_path,
		       const struct mover_send_options *o, int token_fd);
void engine_word(struct engine_words *w, const char *option, const char *value); /* either may be NULL */
void engine_number(struct engine_words *w, const char *option, unsigned long value);

/* ---- mover-disk.c ---- */

char *side_path(const struct side *s, const char *name); /* caller frees */

/* The files that an engine needs, beside its state: err is locked as long as it or its guard lives. */
#define SIDE_OUT "out"
#define SIDE_ERR "err"
#define SIDE_VM_ERR "vm.err"
#define SIDE_AGREE "agree"
#define SIDE_RECORD "record"
#define SIDE_TOKEN "token"
int side_file(const struct side *s, const char *name, int flags, struct err *e);
int side_file_locked(const struct side *s, const char *name, struct err *e);
bool side_locked(const struct side *s, const char *name);

/* Folder and state. side_load() takes one over as it is on disk; NULL: there is nothing in it. */
int side_make(struct side *s, struct err *e);
int side_save(const struct side *s, struct err *e);
struct side *side_load(struct mover *m, const char *id);
void side_remove(const struct side *s);
struct side *side_new(struct mover *m, const char *id, enum mover_role role);
void side_free(struct side *s);

/* The step of the hand-over, -1: there is none yet, -2: of another version. */
int side_record(const struct side *s, bool *ret_was_running);

/* The first answer to the agreement: 'y', 'n', or 0 for none yet. side_agree() gives it unless there is one. */
char side_agreed(const struct side *s);
void side_agree(const struct side *s, bool yes);

/* The last line of a file of it, without priority; "" when there is none. Caller frees. */
char *side_last_words(const struct side *s, const char *name);

/* Is the guest's QEMU that we know still what the run directory has under the name? */
bool side_qemu_is_ours(const struct side *s);

#endif
