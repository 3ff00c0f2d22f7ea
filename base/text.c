/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers and foreign words as people read them. */
#include "base/text.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

#define NEAR 2 /* letters that may be wrong */
#define WORD_MAX 32

/* "812 MB", "1.07 GB", "12.3 MiB": three digits and one of @names, each @step times the one before. */
static void text_scaled(char *buf, double v, double step, const char *const names[], size_t n_names)
{
	size_t i = 0;

	while (v >= step * 0.9995 && i + 1 < n_names) {
		v /= step;
		i++;
	}
	snprintf(buf, TEXT_CELL, "%.*f %s", i == 0 || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2, v, names[i]);
}

void text_wire(char *buf, uint64_t bytes)
{
	static const char *const names[] = {"B", "kB", "MB", "GB", "TB", "PB"};

	text_scaled(buf, (double)bytes, 1000, names, ARRAY_SIZE(names));
}

void text_memory(char *buf, uint64_t bytes)
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

	text_scaled(buf, (double)bytes, 1024, names, ARRAY_SIZE(names));
}

void text_duration(char *buf, int64_t ns)
{
	double ms = (double)ns / NS_PER_MS;
	int64_t s = ns / NS_PER_S + (ns % NS_PER_S >= NS_PER_S / 2);

	if (ns < 0)
		snprintf(buf, TEXT_CELL, "-");
	else if (ms < 999.5)
		snprintf(buf, TEXT_CELL, "%.*f ms", ms < 9.995 ? 2 : ms < 99.95 ? 1 : 0, ms);
	else if (ms < 59995)
		snprintf(buf, TEXT_CELL, "%.*f s", ms < 9995 ? 2 : 1, ms / 1000);
	else if (s < 3600)
		snprintf(buf, TEXT_CELL, "%" PRId64 ":%02" PRId64 " min", s / 60, s % 60);
	else
		snprintf(buf, TEXT_CELL, "%" PRId64 ":%02" PRId64 ":%02" PRId64 " h", s / 3600, s / 60 % 60, s % 60);
}

void text_clock(char *buf, int64_t ns)
{
	int64_t s = ns / NS_PER_S + (ns % NS_PER_S > 0);

	if (ns < 0)
		snprintf(buf, TEXT_CELL, "-:--");
	else if (s < 3600)
		snprintf(buf, TEXT_CELL, "%" PRId64 ":%02" PRId64, s / 60, s % 60);
	else
		snprintf(buf, TEXT_CELL, "%" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600, s / 60 % 60, s % 60);
}

char *text_clean(const char *text)
{
	char *copy = xstrdup(text ? text : "");
	json_t *valid = json_string(copy);

	for (char *p = copy; *p; p++) {
		unsigned char c = (unsigned char)*p;

		if (c == '\n' || c == '\t')
			*p = ' ';
		else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !valid))
			*p = '?';
		else if (c == 0xc2 && (unsigned char)p[1] < 0xa0) /* U+0080 to U+009F: control characters */
			p[0] = p[1] = '?';
	}
	json_decref(valid);
	return copy;
}

/* Levenshtein's distance; words longer than WORD_MAX are far from everything. */
static size_t distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b), row[WORD_MAX + 1];

	if (n > WORD_MAX || m > WORD_MAX)
		return WORD_MAX;
	for (size_t k = 0; k <= m; k++)
		row[k] = k;
	for (size_t i = 1; i <= n; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t k = 1; k <= m; k++) {
			size_t best = diagonal + (a[i - 1] != b[k - 1]);

			diagonal = row[k];
			best = row[k] + 1 < best ? row[k] + 1 : best;
			row[k] = row[k - 1] + 1 < best ? row[k - 1] + 1 : best;
		}
	}
	return row[m];
}

const char *text_nearest(const char *typed, const char *const *words)
{
	const char *near = NULL;
	size_t best = NEAR + 1;

	for (; *words; words++) {
		size_t d = distance(typed, *words);

		if (d < best && d < strlen(*words)) {
			best = d;
			near = *words;
		}
	}
	return near;
}
