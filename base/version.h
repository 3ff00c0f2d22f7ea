/* SPDX-License-Identifier: Apache-2.0 */
/* The version of these programs. */
#ifndef GODWIT_BASE_VERSION_H
#define GODWIT_BASE_VERSION_H

#define GODWIT_VERSION "0.2"

#endif
