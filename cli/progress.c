/* SPDX-License-Identifier: Apache-2.0 */
/* One line that shows how far something is. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define BAR_MIN 10
#define BAR_MAX 30
#define DETAIL_MAX 5

/* What stands right of the bar, more of it the higher @detail (0..DETAIL_MAX). */
static void tail_text(char *buf, const struct progress *p, int detail)
{
	char rate[TEXT_CELL], dirty[TEXT_CELL], left[TEXT_CELL], eta[TEXT_CELL],
		parts[4][2 * TEXT_CELL] = {"", "", "", ""};
	double done = p->done > 0 ? p->done < 1 ? p->done : 1 : 0; /* NaN too */

	text_wire(rate, (uint64_t)p->wire_rate);
	text_wire(dirty, (uint64_t)p->dirty_rate);
	text_memory(left, (uint64_t)p->remaining);
	text_clock(eta, p->eta_ns);
	if (detail >= 1 && p->step[0])
		snprintf(parts[0], sizeof(parts[0]), "  %.40s", p->step);
	if (detail >= 3 && p->wire_rate > 0)
		snprintf(parts[1], sizeof(parts[1]), "  sends %s/s", rate);
	if (detail >= 4 && p->dirty_rate > 0)
		snprintf(parts[2], sizeof(parts[2]), "  writes %s/s", dirty);
	if (detail >= 5 && p->remaining > 0)
		snprintf(parts[3], sizeof(parts[3]), "  left %s", left);
	snprintf(buf, PROGRESS_LINE_MAX, "  %3d %%%s%s%s%s%s%s", (int)(done * 100), parts[0], parts[1], parts[2],
		 parts[3], detail >= 2 ? "  ETA " : "", detail >= 2 ? eta : "");
}

/* "[#####-----]" with @width marks between the brackets. @buf: BAR_MAX + 3 bytes. */
static void marks_text(char *buf, double done, int width)
{
	int n = done > 0 ? (int)(done * width + 0.5) : 0;

	buf[0] = '[';
	for (int i = 0; i < width; i++)
		buf[1 + i] = i < n ? '#' : '-';
	buf[1 + width] = ']';
	buf[2 + width] = '\0';
}

/* "web1  0:12" */
static void elapsed_line(char *buf, const struct progress *p, int columns)
{
	char clock[TEXT_CELL];
	int room = columns - 3 - (int)sizeof("0:00:00");

	text_clock(clock, p->elapsed_ns);
	snprintf(buf, PROGRESS_LINE_MAX, "%.*s  %s", room < 0 ? 0 : room > 100 ? 100 : room, p->what, clock);
}

void progress_line(char *buf, const struct progress *p, int columns)
{
	char tail[PROGRESS_LINE_MAX], marks[BAR_MAX + 3];
	int detail = DETAIL_MAX, room;

	if (p->done < 0) {
		elapsed_line(buf, p, columns);
		return;
	}
	do {
		tail_text(tail, p, detail);
		room = columns - 1 - (int)strlen(p->what) - 2 - (int)strlen(tail) - 2;
	} while (room < BAR_MIN && --detail >= 0);
	if (room < BAR_MIN) {
		snprintf(buf, PROGRESS_LINE_MAX, "%d %%", p->done > 0 ? (int)(p->done * 100) : 0);
		return;
	}
	marks_text(marks, p->done, room < BAR_MAX ? room : BAR_MAX);
	snprintf(buf, PROGRESS_LINE_MAX, "%.100s  %s%.300s", p->what, marks, tail);
}
