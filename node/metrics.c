/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics and their text. */
#include "node/metrics.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define NAME_MAX_BYTES 128

enum kind { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM, KIND_MAX };
static const char *const kind_names[KIND_MAX] = {"counter", "gauge", "histogram"};

struct metric_value {
	struct metric *metric;
	struct metric_value *next;
	char *labels; /* as they are printed: a="x",b="y" */
	double value; /* or the sum */
	uint64_t count;
	uint64_t buckets[METRIC_BUCKETS_MAX]; /* each without those below it */
};

struct metric {
	struct metric *next;
	const char *name;
	const char *help;
	enum kind kind;
	char *label_text; /* owns label_names */
	const char *label_names[METRIC_LABELS_MAX];
	size_t n_labels;
	const double *buckets;
	size_t n_buckets;
	struct metric_value *values;
	size_t n_values;
};

struct collector {
	struct collector *next;
	loop_fn *fn;
	void *arg;
};

struct metrics {
	struct metric *first;
	struct metric **last;
	struct collector *collectors;
};

struct metrics *metrics_new(void)
{
	struct metrics *m = xcalloc(1, sizeof(*m));

	m->last = &m->first;
	return m;
}

void metric_clear(struct metric *mt)
{
	for (struct metric_value *v = mt->values, *next; v; v = next) {
		next = v->next;
		free(v->labels);
		free(v);
	}
	mt->values = NULL;
	mt->n_values = 0;
}

void metrics_free(struct metrics *m)
{
	if (!m)
		return;
	for (struct metric *mt = m->first, *next; mt; mt = next) {
		next = mt->next;
		metric_clear(mt);
		free(mt->label_text);
		free(mt);
	}
	for (struct collector *c = m->collectors, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	free(m);
}

static bool name_valid(const char *s)
{
	if (isdigit((unsigned char)*s) || !*s || strlen(s) > NAME_MAX_BYTES)
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '_')
			return false;
	return true;
}

static void split_labels(struct metric *mt, const char *labels)
{
	char *save = NULL;

	mt->label_text = xstrdup(labels);
	for (char *p = strtok_r(mt->label_text, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		assert(mt->n_labels < METRIC_LABELS_MAX && name_valid(p) && strcmp(p, "le") != 0);
		mt->label_names[mt->n_labels++] = p;
	}
}

static struct metric *metric_new(struct metrics *m, enum kind kind, const char *name, const char *help,
				 const char *labels)
{
	struct metric *mt = xcalloc(1, sizeof(*mt));

	assert(name_valid(name) && *help && !strpbrk(help, "\\\n"));
	for (const struct metric *other = m->first; other; other = other->next)
		assert(strcmp(other->name, name) != 0);
	mt->kind = kind;
	mt->name = name;
	mt->help = help;
	split_labels(mt, labels);
	*m->last = mt;
	m->last = &mt->next;
	if (!mt->n_labels)
		metric_with(mt, NULL); /* a number without labels is there from the start, as 0 */
	return mt;
}

struct metric *metrics_counter(struct metrics *m, const char *name, const char *help, const char *labels)
{
	size_t n = strlen(name);

	assert(n > 6 && strcmp(name + n - 6, "_total") == 0);
	return metric_new(m, KIND_COUNTER, name, help, labels);
}

struct metric *metrics_gauge(struct metrics *m, const char *name, const char *help, const char *labels)
{
	return metric_new(m, KIND_GAUGE, name, help, labels);
}

struct metric *metrics_histogram(struct metrics *m, const char *name, const char *help, const char *labels,
				 const double *buckets, size_t n)
{
	struct metric *mt = metric_new(m, KIND_HISTOGRAM, name, help, labels);

	assert(n && n <= METRIC_BUCKETS_MAX);
	for (size_t i = 1; i < n; i++)
		assert(buckets[i] > buckets[i - 1]);
	mt->buckets = buckets;
	mt->n_buckets = n;
	return mt;
}

static void print_escaped(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '\n')
			fputs("\\n", f);
		else if (*s == '"' || *s == '\\')
			fprintf(f, "\\%c", *s);
		else
			fputc(*s, f);
	}
}

/* Caller frees. @label_values NULL: "other" for each. */
static char *labels_of(const struct metric *mt, const char *const *label_values)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		abort();
	for (size_t i = 0; i < mt->n_labels; i++) {
		fprintf(f, "%s%s=\"", i ? "," : "", mt->label_names[i]);
		print_escaped(f, label_values ? label_values[i] : "other");
		fputc('"', f);
	}
	fclose(f);
	return text;
}

static struct metric_value *value_find(const struct metric *mt, const char *labels)
{
	for (struct metric_value *v = mt->values; v; v = v->next)
		if (strcmp(v->labels, labels) == 0)
			return v;
	return NULL;
}

struct metric_value *metric_with(struct metric *mt, const char *const *label_values)
{
	_free_ char *labels = labels_of(mt, label_values);
	struct metric_value *v = value_find(mt, labels);

	if (v)
		return v;
	if (mt->n_values >= METRIC_VALUES_MAX && label_values)
		return metric_with(mt, NULL);
	v = xcalloc(1, sizeof(*v));
	v->metric = mt;
	v->labels = steal_ptr(labels);
	v->next = mt->values;
	mt->values = v;
	mt->n_values++;
	return v;
}

void metric_add(struct metric_value *v, double by)
{
	assert(v->metric->kind == KIND_GAUGE || (v->metric->kind == KIND_COUNTER && by >= 0));
	v->value += by;
}

void metric_set(struct metric_value *v, double to)
{
	assert(v->metric->kind == KIND_GAUGE);
	v->value = to;
}

void metric_observe(struct metric_value *v, double x)
{
	const struct metric *mt = v->metric;

	assert(mt->kind == KIND_HISTOGRAM);
	v->value += x;
	v->count++;
	for (size_t i = 0; i < mt->n_buckets; i++)
		if (x <= mt->buckets[i]) {
			v->buckets[i]++;
			return;
		}
}

void metrics_collect(struct metrics *m, loop_fn *fn, void *arg)
{
	struct collector *c = xcalloc(1, sizeof(*c));

	c->fn = fn;
	c->arg = arg;
	c->next = m->collectors;
	m->collectors = c;
}

static void print_number(FILE *f, double x)
{
	if (isnan(x))
		fputs("NaN", f);
	else if (isinf(x))
		fputs(x < 0 ? "-Inf" : "+Inf", f);
	else if (x == floor(x) && fabs(x) < 1e15)
		fprintf(f, "%.0f", x);
	else
		fprintf(f, "%.17g", x);
	fputc('\n', f);
}

static void print_histogram(FILE *f, const struct metric *mt, const struct metric_value *v)
{
	const char *comma = *v->labels ? "," : "";
	const char *open = *v->labels ? "{" : "", *close = *v->labels ? "}" : "";
	uint64_t below = 0;

	for (size_t i = 0; i < mt->n_buckets; i++) {
		below += v->buckets[i];
		fprintf(f, "%s_bucket{%s%sle=\"%g\"} %llu\n", mt->name, v->labels, comma, mt->buckets[i],
			(unsigned long long)below);
	}
	fprintf(f, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", mt->name, v->labels, comma, (unsigned long long)v->count);
	fprintf(f, "%s_sum%s%s%s ", mt->name, open, v->labels, close);
	print_number(f, v->value);
	fprintf(f, "%s_count%s%s%s %llu\n", mt->name, open, v->labels, close, (unsigned long long)v->count);
}

char *metrics_text(struct metrics *m)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f;

	for (const struct collector *c = m->collectors; c; c = c->next)
		c->fn(c->arg);
	f = open_memstream(&text, &size);
	if (!f)
		abort();
	for (const struct metric *mt = m->first; mt; mt = mt->next) {
		fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", mt->name, mt->help, mt->name, kind_names[mt->kind]);
		for (const struct metric_value *v = mt->values; v; v = v->next) {
			if (mt->kind == KIND_HISTOGRAM) {
				print_histogram(f, mt, v);
				continue;
			}
			fprintf(f, "%s%s%s%s ", mt->name, *v->labels ? "{" : "", v->labels, *v->labels ? "}" : "");
			print_number(f, v->value);
		}
	}
	fclose(f);
	return text;
}
