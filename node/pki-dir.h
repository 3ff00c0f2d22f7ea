/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of a node's certificates, as base/tls.h reads it, changed so that no crash leaves it unusable. */
#ifndef GODWIT_NODE_PKI_DIR_H
#define GODWIT_NODE_PKI_DIR_H

#include <sys/types.h>

#include "base/err.h"

/* Write ca.pem, cert.pem (ours) and key.pem; the folder is made (0755) when it is not there. @key_gid: a group that may
 * read the key (mode 0640), (gid_t)-1: nobody else (0600). 0 when all is on disk, or -1 with @e. */
int pki_dir_write(const char *dir, const char *ca_cert, const char *cert, const char *key, gid_t key_gid,
		  struct err *e);

/* Finish or forget what a crash interrupted in pki_dir_write(). Before the folder is used, at every start. */
int pki_dir_recover(const char *dir, struct err *e);

/* ca-key.pem, mode 0600, on the hosts that may issue. The key that comes back is the caller's (pki_key_free()). */
int pki_ca_key_write(const char *dir, const char *ca_key, struct err *e);
char *pki_ca_key_read(const char *dir, struct err *e);

#endif
