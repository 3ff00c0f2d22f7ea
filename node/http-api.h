/* SPDX-License-Identifier: Apache-2.0 */
/* The REST API of godwitd as data: every route and every schema. */
#ifndef GODWIT_NODE_HTTP_API_H
#define GODWIT_NODE_HTTP_API_H

#include <stddef.h>

#include "node/http.h"

extern const struct http_route http_api_routes[];
extern const size_t http_api_n_routes;
extern const struct http_schema http_api_schemas[];
extern const size_t http_api_n_schemas;

#endif
