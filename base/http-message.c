/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 messages.
 *
 * Both ends of our API use this: the server for requests, the client for responses. It is strict where leniency lets
 * two readers of one byte stream disagree about where a message ends (RFC 9112 section 11.2): lines end with CRLF, a
 * length and a chunked coding never come together, two lengths neither, and names of headers end at their colon.
 */
#include "base/http-message.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

#define LENGTH_DIGITS_MAX 18       /* decimal digits that fit in 63 bits */
#define CHUNK_DIGITS_MAX 15        /* hexadecimal ones */
#define CHUNK_LINE_MAX 256         /* size and extensions */
#define TRAILERS_MAX HTTP_HEAD_MAX /* bytes */

/* ---- heads ---- */

size_t http_head_length(const char *data, size_t size, size_t *scanned)
{
	size_t from = *scanned > 3 ? *scanned - 3 : 0;
	const char *end = size > from ? memmem(data + from, size - from, "\r\n\r\n", 4) : NULL;

	*scanned = size;
	return end ? (size_t)(end - data) + 4 : 0;
}

/* tchar of RFC 9110 section 5.6.2. */
static bool is_token_char(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (!is_token_char((unsigned char)*s))
			return false;
	return true;
}

/* Printable, or bytes of UTF-8; a tab only inside values. */
static bool is_text(const char *s, bool tab)
{
	for (; *s; s++)
		if (((unsigned char)*s < 0x20 && !(tab && *s == '\t')) || *s == 0x7f)
			return false;
	return true;
}

/* Cut the next CRLF line off *p. NULL for a line with a bare CR or LF in it. */
static char *next_line(char **p)
{
	char *line = *p;
	char *end = strstr(line, "\r\n");

	if (!end)
		return NULL;
	*end = 0;
	*p = end + 2;
	return strpbrk(line, "\r\n") ? NULL : line;
}

static char *trim(char *s)
{
	size_t n;

	s += strspn(s, " \t");
	n = strlen(s);
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		s[--n] = 0;
	return s;
}

const char *http_head_get(const struct http_head *h, const char *name)
{
	for (size_t i = 0; i < h->n_headers; i++)
		if (strcasecmp(h->headers[i].name, name) == 0)
			return h->headers[i].value;
	return NULL;
}

static size_t count(const struct http_head *h, const char *name)
{
	size_t n = 0;

	for (size_t i = 0; i < h->n_headers; i++)
		n += strcasecmp(h->headers[i].name, name) == 0;
	return n;
}

/* Does the comma-separated list of a header called @name hold @word? */
static bool lists(const struct http_head *h, const char *name, const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i < h->n_headers; i++) {
		const char *p = h->headers[i].value;

		if (strcasecmp(h->headers[i].name, name) != 0)
			continue;
		while (*p) {
			p += strspn(p, ", \t");
			if (strncasecmp(p, word, n) == 0 && strcspn(p, ", \t") == n)
				return true;
			p += strcspn(p, ",");
		}
	}
	return false;
}

static int parse_headers(struct http_head *h, char *p, struct err *e)
{
	for (;;) {
		char *line = next_line(&p);
		char *colon;

		if (!line)
			return err_set(e, ERR_PROTOCOL, "HTTP: a line does not end with CR LF");
		if (!*line)
			return 0;
		if (h->n_headers == HTTP_HEADERS_MAX)
			return err_set(e, ERR_PROTOCOL, "HTTP: more than %d headers", HTTP_HEADERS_MAX);
		colon = strchr(line, ':');
		if (!colon)
			return err_set(e, ERR_PROTOCOL, "HTTP: a header without a colon");
		*colon = 0;
		if (!is_token(line) || !is_text(colon + 1, true))
			return err_set(e, ERR_PROTOCOL, "HTTP: a header with a character that does not belong there");
		h->headers[h->n_headers].name = line;
		h->headers[h->n_headers++].value = trim(colon + 1);
	}
}

static int parse_length(const char *s, uint64_t *ret, struct err *e)
{
	size_t n = strspn(s, "0123456789");

	if (!n || s[n] || n > LENGTH_DIGITS_MAX)
		return err_set(e, ERR_PROTOCOL, "HTTP: Content-Length is not a number that could be one");
	*ret = strtoull(s, NULL, 10);
	return 0;
}

/* RFC 9112 section 6.3, without its leniencies. */
static int find_framing(struct http_head *h, bool http10, struct err *e)
{
	const char *length = http_head_get(h, "Content-Length");
	const char *coding = http_head_get(h, "Transfer-Encoding");

	if (count(h, "Content-Length") > 1 || count(h, "Transfer-Encoding") > 1 || (length && coding) ||
	    (coding && http10))
		return err_set(e, ERR_PROTOCOL, "HTTP: the body's length is given in two ways");
	if (coding && strcasecmp(coding, "chunked") != 0)
		return err_set(e, ERR_PROTOCOL, "HTTP: Transfer-Encoding other than chunked");
	h->framing = coding ? HTTP_FRAMING_CHUNKED : length ? HTTP_FRAMING_LENGTH : HTTP_FRAMING_NONE;
	if (length && parse_length(length, &h->length, e) < 0)
		return -1;
	if (h->framing == HTTP_FRAMING_LENGTH && !h->length)
		h->framing = HTTP_FRAMING_NONE;
	if (h->status && !length && !coding)
		h->framing = HTTP_FRAMING_UNTIL_CLOSE;
	if (h->status && (h->status < 200 || h->status == 204 || h->status == 304))
		h->framing = HTTP_FRAMING_NONE;
	h->upgrade = lists(h, "Connection", "upgrade");
	h->keep_alive = !lists(h, "Connection", "close") && h->framing != HTTP_FRAMING_UNTIL_CLOSE &&
			(!http10 || lists(h, "Connection", "keep-alive"));
	return 0;
}

/* "HTTP/1.0" or "HTTP/1.1"; anything else is refused. */
static int parse_version(const char *s, bool *ret_http10, struct err *e)
{
	if (strcmp(s, "HTTP/1.1") != 0 && strcmp(s, "HTTP/1.0") != 0)
		return err_set(e, ERR_PROTOCOL, "HTTP: this is not HTTP/1.1");
	*ret_http10 = s[7] == '0';
	return 0;
}

static int parse_request_line(struct http_head *h, char *line, bool *http10, struct err *e)
{
	char *target = strchr(line, ' ');
	char *version = target ? strchr(target + 1, ' ') : NULL;

	if (!version)
		return err_set(e, ERR_PROTOCOL, "HTTP: this is not HTTP/1.1");
	*target++ = 0;
	*version++ = 0;
	h->method = line;
	h->target = target;
	if (parse_version(version, http10, e) < 0)
		return -1;
	if (!is_token(line) || !*target || !is_text(target, false))
		return err_set(e, ERR_PROTOCOL, "HTTP: the request line has a character that does not belong there");
	return 0;
}

static int parse_status_line(struct http_head *h, char *line, bool *http10, struct err *e)
{
	char *status = strchr(line, ' ');

	if (!status)
		return err_set(e, ERR_PROTOCOL, "HTTP: this is not HTTP/1.1");
	*status++ = 0;
	if (parse_version(line, http10, e) < 0)
		return -1;
	if (strspn(status, "0123456789") != 3 || (status[3] && status[3] != ' ') || status[0] < '1' || status[0] > '5')
		return err_set(e, ERR_PROTOCOL, "HTTP: a status that is none");
	h->status = atoi(status);
	return 0;
}

static int parse_head(struct http_head *h, bool request, struct err *e)
{
	char *p = h->text;
	char *line = next_line(&p);
	bool http10 = false;

	if (!line)
		return err_set(e, ERR_PROTOCOL, "HTTP: this is not HTTP/1.1");
	if ((request ? parse_request_line(h, line, &http10, e) : parse_status_line(h, line, &http10, e)) < 0)
		return -1;
	return parse_headers(h, p, e) < 0 ? -1 : find_framing(h, http10, e);
}

static int parse(const char *data, size_t size, bool request, struct http_head *ret, struct err *e)
{
	struct http_head h = {0};

	if (size > HTTP_HEAD_MAX)
		return err_set(e, ERR_PROTOCOL, "HTTP: a head of more than %u bytes", HTTP_HEAD_MAX);
	if (memchr(data, 0, size))
		return err_set(e, ERR_PROTOCOL, "HTTP: a NUL in the head");
	h.text = xcalloc(size + 1, 1);
	memcpy(h.text, data, size);
	if (parse_head(&h, request, e) < 0) {
		free(h.text);
		return -1;
	}
	*ret = h;
	return 0;
}

int http_head_parse_request(const char *data, size_t size, struct http_head *ret, struct err *e)
{
	return parse(data, size, true, ret, e);
}

int http_head_parse_response(const char *data, size_t size, struct http_head *ret, struct err *e)
{
	return parse(data, size, false, ret, e);
}

void http_head_done(struct http_head *h)
{
	free(h->text);
	*h = (struct http_head){0};
}

/* ---- bodies ---- */

enum chunk_state {
	CHUNK_SIZE,
	CHUNK_EXTENSION,
	CHUNK_SIZE_LF,
	CHUNK_DATA,
	CHUNK_DATA_CR,
	CHUNK_DATA_LF,
	CHUNK_TRAILER
};

void http_body_start(struct http_body *b, const struct http_head *h)
{
	*b = (struct http_body){.framing = h->framing, .left = h->length, .done = h->framing == HTTP_FRAMING_NONE};
	if (b->framing == HTTP_FRAMING_CHUNKED)
		b->left = 0;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int chunk_error(struct err *e)
{
	return err_set(e, ERR_PROTOCOL, "HTTP: a damaged chunk");
}

/* The end of a chunk's size line. */
static void chunk_begin(struct http_body *b)
{
	b->state = b->left ? CHUNK_DATA : CHUNK_TRAILER;
	b->line_bytes = 0;
	b->digits = 0;
}

/* One byte of the lines between chunks. */
static int chunk_byte(struct http_body *b, char c, struct err *e)
{
	int digit = hex_value(c);

	if (++b->line_bytes > CHUNK_LINE_MAX)
		return chunk_error(e);
	switch ((enum chunk_state)b->state) {
	case CHUNK_SIZE:
		if (digit >= 0 && b->digits++ < CHUNK_DIGITS_MAX) {
			b->left = b->left << 4 | (unsigned)digit;
			return 0;
		}
		if (digit >= 0 || !b->digits || (c != '\r' && c != ';'))
			return chunk_error(e);
		b->state = c == ';' ? CHUNK_EXTENSION : CHUNK_SIZE_LF;
		return 0;
	case CHUNK_EXTENSION:
		if (c == '\n')
			return chunk_error(e);
		if (c == '\r')
			b->state = CHUNK_SIZE_LF;
		return 0;
	case CHUNK_SIZE_LF:
		if (c != '\n')
			return chunk_error(e);
		chunk_begin(b);
		return 0;
	case CHUNK_DATA_CR:
		b->state = CHUNK_DATA_LF;
		return c == '\r' ? 0 : chunk_error(e);
	case CHUNK_DATA_LF:
		b->state = CHUNK_SIZE;
		b->line_bytes = 0;
		return c == '\n' ? 0 : chunk_error(e);
	default:
		return chunk_error(e);
	}
}

/* One byte after the last chunk: trailers are thrown away, an empty line ends them. digits counts the bytes of this
 * line. */
static int trailer_byte(struct http_body *b, char c, struct err *e)
{
	if (++b->line_bytes > TRAILERS_MAX)
		return err_set(e, ERR_PROTOCOL, "HTTP: trailers of more than %u bytes", TRAILERS_MAX);
	if (c != '\n') {
		b->digits += c != '\r';
		return 0;
	}
	b->done = b->digits == 0;
	b->digits = 0;
	return 0;
}

static int chunked_feed(struct http_body *b, const char *data, size_t size, size_t *ret_used, const char **ret_piece,
			size_t *ret_size, struct err *e)
{
	size_t i = 0;

	while (i < size && !b->done && b->state != CHUNK_DATA) {
		int r = b->state == CHUNK_TRAILER ? trailer_byte(b, data[i], e) : chunk_byte(b, data[i], e);

		if (r < 0)
			return -1;
		i++;
	}
	*ret_piece = data + i;
	*ret_size = 0;
	if (b->state == CHUNK_DATA) {
		*ret_size = size - i < b->left ? size - i : (size_t)b->left;
		b->left -= *ret_size;
		if (!b->left)
			b->state = CHUNK_DATA_CR;
	}
	*ret_used = i + *ret_size;
	return 0;
}

int http_body_feed(struct http_body *b, const char *data, size_t size, size_t *ret_used, const char **ret_piece,
		   size_t *ret_size, struct err *e)
{
	if (b->framing == HTTP_FRAMING_CHUNKED)
		return chunked_feed(b, data, size, ret_used, ret_piece, ret_size, e);
	if (b->framing == HTTP_FRAMING_NONE)
		size = 0;
	if (b->framing == HTTP_FRAMING_LENGTH && size > b->left)
		size = (size_t)b->left;
	*ret_piece = data;
	*ret_used = *ret_size = size;
	if (b->framing == HTTP_FRAMING_LENGTH)
		b->done = (b->left -= size) == 0;
	return 0;
}

/* ---- targets ---- */

int http_percent_decode(char *s)
{
	char *to = s;

	for (; *s; s++) {
		int c = (unsigned char)*s;

		if (c == '%') {
			int high = hex_value(s[1]);
			int low = high < 0 ? -1 : hex_value(s[2]);

			if (low < 0)
				return -1;
			c = high << 4 | low;
			s += 2;
		}
		if (c < 0x20 || c == 0x7f)
			return -1;
		*to++ = (char)c;
	}
	*to = 0;
	return 0;
}

char *http_percent_encode(const char *s)
{
	static const char digits[] = "0123456789ABCDEF";
	char *ret = xcalloc(strlen(s) * 3 + 1, 1);
	char *to = ret;

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("-._~", c)) {
			*to++ = (char)c;
			continue;
		}
		*to++ = '%';
		*to++ = digits[c >> 4];
		*to++ = digits[c & 15];
	}
	return ret;
}

static int parse_query(struct http_target *t, char *p, struct err *e)
{
	char *save = NULL;

	for (char *pair = strtok_r(p, "&", &save); pair; pair = strtok_r(NULL, "&", &save)) {
		char *value = strchr(pair, '=');

		if (t->n_query == HTTP_QUERY_MAX)
			return err_set(e, ERR_INPUT, "more than %d query parameters", HTTP_QUERY_MAX);
		if (value)
			*value++ = 0;
		else
			value = pair + strlen(pair);
		if (http_percent_decode(pair) < 0 || http_percent_decode(value) < 0)
			return err_set(e, ERR_INPUT, "a query parameter with a damaged %%-code");
		t->query[t->n_query].name = pair;
		t->query[t->n_query++].value = value;
	}
	return 0;
}

int http_target_parse(const char *target, struct http_target *ret, struct err *e)
{
	struct http_target t = {0};
	char *query;

	if (target[0] != '/')
		return err_set(e, ERR_INPUT, "a request for something else than a path");
	t.text = xstrdup(target);
	t.path = t.text;
	query = strpbrk(t.text, "?#");
	if (query) {
		bool fragment = *query == '#';

		*query++ = 0;
		if (fragment || parse_query(&t, query, e) < 0) {
			free(t.text);
			return fragment ? err_set(e, ERR_INPUT, "a request for a fragment") : -1;
		}
	}
	*ret = t;
	return 0;
}

void http_target_done(struct http_target *t)
{
	free(t->text);
	*t = (struct http_target){0};
}

/* ---- words ---- */

static const struct {
	int status;
	const char *text;
} statuses[] = {
	{101, "Switching Protocols"},
	{200, "OK"},
	{201, "Created"},
	{202, "Accepted"},
	{204, "No Content"},
	{400, "Bad Request"},
	{401, "Unauthorized"},
	{403, "Forbidden"},
	{404, "Not Found"},
	{405, "Method Not Allowed"},
	{408, "Request Timeout"},
	{409, "Conflict"},
	{413, "Content Too Large"},
	{415, "Unsupported Media Type"},
	{422, "Unprocessable Content"},
	{426, "Upgrade Required"},
	{429, "Too Many Requests"},
	{431, "Request Header Fields Too Large"},
	{500, "Internal Server Error"},
	{501, "Not Implemented"},
	{502, "Bad Gateway"},
	{503, "Service Unavailable"},
	{504, "Gateway Timeout"},
};

const char *http_status_text(int status)
{
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
		if (statuses[i].status == status)
			return statuses[i].text;
	return "Status";
}
