/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs. */
#include "node/job.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

/* A file of @size bytes that cannot grow; nothing of it exists until it is written. */
static int output_file(const char *name, off_t size, struct err *e)
{
	_closefd_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)
		return err_sys(e, "memory for the output of a child");
	return steal_fd(&fd);
}

int job_input(const char *text, struct err *e)
{
	_closefd_ int fd = memfd_create("job-input", MFD_CLOEXEC);
	size_t size = strlen(text);

	if (fd < 0 || write(fd, text, size) != (ssize_t)size)
		return err_sys(e, "memory for the input of a child");
	return steal_fd(&fd);
}

int job_start(const char *const *argv, int input_fd, struct job *ret, struct err *e)
{
	_closefd_ int out = output_file("job-out", JOB_OUT_MAX, e);
	_closefd_ int err = out < 0 ? -1 : output_file("job-err", JOB_ERR_MAX, e);
	struct child_fd fds[] = {{out, STDOUT_FILENO}, {err, STDERR_FILENO}, {input_fd, 3}};
	struct child_spec spec = {.argv = argv, .fds = fds, .n_fds = input_fd < 0 ? 2 : 3, .session = true};
	struct job j = JOB_INIT;

	if (err < 0 || child_spawn(&spec, &j.child, e) < 0)
		return -1;
	j.out_fd = steal_fd(&out);
	j.err_fd = steal_fd(&err);
	*ret = j;
	return 0;
}

bool job_active(const struct job *j)
{
	return j->child.pidfd >= 0;
}

/* What was written to @fd: the offset is the child's too, as it inherited this very open file. Caller frees. */
static char *written(int fd, size_t *ret_size)
{
	off_t end = lseek(fd, 0, SEEK_CUR);
	size_t size = end > 0 ? (size_t)end : 0;
	char *text = xcalloc(size + 1, 1);
	ssize_t n = pread(fd, text, size, 0);

	*ret_size = n > 0 ? (size_t)n : 0;
	text[*ret_size] = 0;
	return text;
}

char *job_output(const struct job *j, size_t *ret_size)
{
	return written(j->out_fd, ret_size);
}

/* The last line without the log's priority. */
static char *last_words(char *text, int status)
{
	const char *line = child_last_line(text);
	char how[128];

	if (line[0] == '<' && line[1] && line[2] == '>')
		line += 3;
	return xstrdup(line[0] ? line : child_status_text(status, how, sizeof(how)));
}

bool job_collect(struct job *j, struct job_end *ret)
{
	_free_ char *err_text = NULL;
	size_t err_size;
	int status = -1;

	if (!job_active(j) || !child_ended(&j->child))
		return false;
	child_wait(&j->child, clock_now_ns(), &status, NULL);
	*ret = (struct job_end){.exit_code = status != -1 && WIFEXITED(status) ? WEXITSTATUS(status) : -1};
	ret->out = written(j->out_fd, &ret->out_size);
	err_text = written(j->err_fd, &err_size);
	ret->words = last_words(err_text, status);
	job_done(j);
	return true;
}

void job_end_done(struct job_end *end)
{
	free(end->out);
	free(end->words);
	*end = (struct job_end){0};
}

void job_done(struct job *j)
{
	child_done(&j->child);
	mem_closep(&j->out_fd);
	mem_closep(&j->err_fd);
	*j = JOB_INIT;
}
