/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers and foreign words as people read them: sizes, rates, durations, text that cannot disturb a terminal. Pure. */
#ifndef GODWIT_BASE_TEXT_H
#define GODWIT_BASE_TEXT_H

#include <stdint.h>

#define TEXT_CELL 32 /* bytes of each @buf */

/* Bytes on a wire, decimal: "812 MB", "1.07 GB". */
void text_wire(char *buf, uint64_t bytes);

/* Bytes of memory, binary: "12.3 MiB", "2.00 GiB". */
void text_memory(char *buf, uint64_t bytes);

/* A duration: "2.91 ms", "412 ms", "8.93 s", "2:05 min", "1:02:03 h", "-" for none (< 0). */
void text_duration(char *buf, int64_t ns);

/* An ETA as a clock: "0:02", "1:02:03", "-:--" while unknown (< 0). Rounded up, so that it does not say 0:00 too early.
 */
void text_clock(char *buf, int64_t ns);

/* @text with what could disturb a terminal or is no UTF-8 replaced by '?', and line ends by blanks. NULL gives "".
 * Caller frees. */
char *text_clean(const char *text);

/* The word nearest to a mistyped one among @words (ends with NULL), or NULL when none is near. Borrowed. */
const char *text_nearest(const char *typed, const char *const *words);

#endif
