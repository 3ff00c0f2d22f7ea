/* SPDX-License-Identifier: Apache-2.0 */
/* godwit: the command line of a cluster. */
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/command.h"

#define COLUMNS_DEFAULT 80

static int terminal_columns(void)
{
	struct winsize w;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : COLUMNS_DEFAULT;
}

int main(int argc, char **argv)
{
	struct cli_io io = {
		.in_fd = STDIN_FILENO,
		.out_fd = STDOUT_FILENO,
		.out = stdout,
		.err = stderr,
		.in_tty = isatty(STDIN_FILENO),
		.err_tty = isatty(STDERR_FILENO),
		.columns = terminal_columns(),
	};

	/* What went wrong is told by the sentence at the end. */
	log_set_level(LOG_LEVEL_ERROR);
	return cli_main(argc, argv, &io);
}
