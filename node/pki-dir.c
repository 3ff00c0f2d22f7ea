/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and keys on disk.
 *
 * A key and its certificate are two files, and two renames are not one. So a new key is first put beside the old one,
 * as key.pem.next, then the certificate is replaced, then the key. Whatever key.pem.next a crash leaves behind either
 * belongs to cert.pem, and is taken, or does not, and is thrown away. */
#include "node/pki-dir.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "node/pki.h"

static int dir_make(const char *dir, struct err *e)
{
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return err_sys(e, "folder %s", dir);
	return 0;
}

static int dir_file_write(const char *dir, const char *name, const char *text, mode_t mode, gid_t gid, struct err *e)
{
	_free_ char *path = xasprintf("%s/%s", dir, name);

	return file_write_atomic(path, text, strlen(text), mode, gid, e);
}

static int key_take_next(const char *dir, struct err *e)
{
	_free_ char *next = xasprintf("%s/key.pem.next", dir);
	_free_ char *key = xasprintf("%s/key.pem", dir);

	return file_rename(next, key, e);
}

int pki_dir_write(const char *dir, const char *ca_cert, const char *cert, const char *key, gid_t key_gid, struct err *e)
{
	mode_t key_mode = key_gid == (gid_t)-1 ? 0600 : 0640;

	if (dir_make(dir, e) < 0 || dir_file_write(dir, "ca.pem", ca_cert, 0644, (gid_t)-1, e) < 0 ||
	    dir_file_write(dir, "key.pem.next", key, key_mode, key_gid, e) < 0 ||
	    dir_file_write(dir, "cert.pem", cert, 0644, (gid_t)-1, e) < 0)
		return -1;
	return key_take_next(dir, e);
}

int pki_dir_recover(const char *dir, struct err *e)
{
	_free_ char *next_path = xasprintf("%s/key.pem.next", dir);
	_free_ char *cert_path = xasprintf("%s/cert.pem", dir);
	_free_ char *cert = NULL;
	__attribute__((cleanup(pki_key_freep))) char *next = NULL;

	if (access(next_path, F_OK) < 0 && errno == ENOENT)
		return 0;
	next = file_read(next_path, PKI_PEM_MAX, NULL, e);
	if (!next)
		return -1;
	cert = file_read(cert_path, PKI_PEM_MAX, NULL, NULL);
	if (cert && pki_key_fits(cert, next))
		return key_take_next(dir, e);
	if (unlink(next_path) < 0)
		return err_sys(e, "%s", next_path);
	return 0;
}

int pki_ca_key_write(const char *dir, const char *ca_key, struct err *e)
{
	if (dir_make(dir, e) < 0)
		return -1;
	return dir_file_write(dir, "ca-key.pem", ca_key, 0600, (gid_t)-1, e);
}

char *pki_ca_key_read(const char *dir, struct err *e)
{
	_free_ char *path = xasprintf("%s/ca-key.pem", dir);

	return file_read(path, PKI_PEM_MAX, NULL, e);
}
