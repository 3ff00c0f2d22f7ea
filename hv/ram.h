/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM: a sealed memfd that QEMU and the migration engine map alike. */
#ifndef GODWIT_HV_RAM_H
#define GODWIT_HV_RAM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* The id of the memory backend: the engine asks QEMU for /objects/RAM_OBJECT_ID's mem-path. */
#define RAM_OBJECT_ID "ram0"

/* A memfd of @size bytes, its size sealed for ever, not one page of it touched. @name is for /proc/PID/maps.
 * @hugepages: of 2 MiB pages, which must be reserved (an error says how many are free).
 * Returns the descriptor (close-on-exec, caller closes), or -1 with @e. */
int ram_create(const char *name, uint64_t size, bool hugepages, struct err *e);

/* Open the RAM of a running guest: @mem_path as QEMU gives it ("/proc/self/fd/N") in process @pid. Works for the
 * user QEMU runs as, and for root. *ret_size gets its bytes. Returns the descriptor (caller closes) or -1 with @e:
 * ERR_UNSUPPORTED when the path is no inherited descriptor or its file is not sealed the way ram_create() does. */
int ram_open(int pid, const char *mem_path, uint64_t *ret_size, struct err *e);

#endif
