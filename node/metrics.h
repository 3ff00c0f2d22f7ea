/* SPDX-License-Identifier: Apache-2.0 */
/* Counters, gauges and histograms, and their text in Prometheus's exposition format. */
#ifndef GODWIT_NODE_METRICS_H
#define GODWIT_NODE_METRICS_H

#include <stddef.h>

#include "base/loop.h"

#define METRIC_LABELS_MAX 4
#define METRIC_BUCKETS_MAX 16
#define METRIC_VALUES_MAX 4096 /* of one metric: what labels can make large stays bounded */

struct metrics;
struct metric;

/* One number (or histogram) of a metric: for one combination of label values. Lives as long as the registry, unless
 * metric_clear() removed it. */
struct metric_value;

struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);

/* @labels: "operation,code", or "" for none. The names and @help are borrowed for ever, and a wrong name aborts. A
 * counter's name ends in _total. */
struct metric *metrics_counter(struct metrics *m, const char *name, const char *help, const char *labels);
struct metric *metrics_gauge(struct metrics *m, const char *name, const char *help, const char *labels);

/* @buckets: @n upper bounds, growing. */
struct metric *metrics_histogram(struct metrics *m, const char *name, const char *help, const char *labels,
				 const double *buckets, size_t n);

/* The value for these label values, one per label (borrowed during the call); made when it is not there. Beyond
 * METRIC_VALUES_MAX all new ones share one, whose labels say "other". */
struct metric_value *metric_with(struct metric *mt, const char *const *label_values);

void metric_add(struct metric_value *v, double by);    /* counters and gauges */
void metric_set(struct metric_value *v, double to);    /* gauges */
void metric_observe(struct metric_value *v, double x); /* histograms */

/* Forget all values of a gauge, before a collector sets those that there are now. */
void metric_clear(struct metric *mt);

/* @fn is called before each text, to set what is only looked up when somebody asks. */
void metrics_collect(struct metrics *m, loop_fn *fn, void *arg);

/* Everything, in the text format 0.0.4. Caller frees. */
char *metrics_text(struct metrics *m);
#define METRICS_TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
