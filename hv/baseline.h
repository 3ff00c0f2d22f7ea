/* SPDX-License-Identifier: Apache-2.0 */
/* CPU baselines: what the CPU of a host can give to guests, and the best model that all hosts of a cluster can run. */
#ifndef GODWIT_HV_BASELINE_H
#define GODWIT_HV_BASELINE_H

#include <jansson.h>

#include "base/err.h"
#include "hv/accel.h"

/*
 * A *cpu* describes one host:
 *   {"accel": "kvm", "vendor": "GenuineIntel", "qemu": 70222, "features": ["aes", ...], "models": ["Nehalem-v1", ...]}
 * vendor is "any" under TCG; features are QEMU's names of what a guest can be given here; models are the versioned ones
 * that this QEMU knows, whether the host can run them or not.
 *
 * A *catalogue* says what the models are: {"Nehalem-v1": {"vendor": "GenuineIntel", "features": [...]}, ...}. vendor is
 * "any" for neutral ones. QEMU never changes a versioned model, so the catalogue of any host serves for all.
 *
 * *hosts* is a list of {"name": "n1", "cpu": {...}}.
 *
 * All lists are sorted by name unless it says otherwise. Every function but the first is pure; results are new
 * references.
 */

/* Ask the QEMU of this host (@qemu, NULL: qemu-system-x86_64); starts one for a fifth of a second, without a machine.
 * -1 with @e. */
int baseline_probe(const char *qemu, enum accel_want accel, json_t **ret_cpu, json_t **ret_catalogue, struct err *e);

/* The best model that every host can run: more of the x86-64 levels first, then more features. {"model": NAME or null,
 * "cpu": what a definition says for it, "level": 1 to 4, "usable": [all that every host can run, best first], "best":
 * the best model that any host could run alone, "hosts": [{"name", "own": the best that this host could run alone,
 * "lacks": [features that keep this host from "best"], "reason": a sentence where that is no matter of features}]}. -1
 * with @e when @hosts or @catalogue are not as above. */
int baseline_compute(const json_t *catalogue, const json_t *hosts, json_t **ret, struct err *e);

/* What one more host, @host, would cost: {"model": now, "with": NAME or null, "lost": [features], "lacks": [features of
 * the model now that @host has not], "text": a sentence}. */
int baseline_cost(const json_t *catalogue, const json_t *hosts, const json_t *host, json_t **ret, struct err *e);

/* The features of a definition's @cpu ("x86-64-v3", "EPYC,+x2apic", "Nehalem-v1,enforce") that the host described by
 * @host_cpu has not; an empty list when it can run it. -1 with @e when the model is not known (ERR_INPUT), or is one
 * that ties the guest to its host ("host", "max": ERR_UNSUPPORTED). */
int baseline_lacks(const json_t *catalogue, const char *cpu, const json_t *host_cpu, json_t **ret, struct err *e);

#endif
