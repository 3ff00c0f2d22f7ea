#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Extract Debian's stock kernel (the full linux-image, not the cloud one) into .cache/kernel and print the path of vmlinuz.
#
# Nothing is installed on the machine: the package is downloaded and unpacked. When .cache/kernel already holds a kernel
# it is used without asking anybody, so later runs work offline; --update looks for a newer one. Works as any user.
# Beside the vmlinuz, the modules are in .cache/kernel/lib/modules/VERSION, with modules.dep made.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dir=$root/.cache/kernel

die() {
	echo "fetch-kernel: $*" >&2
	exit 1
}

# The newest complete kernel in the cache, or nothing. The stamp is written last, so a torn unpacking is never used.
cached() {
	local stamp
	stamp=$(find "$dir" -maxdepth 1 -name '.complete-*' 2>/dev/null | sort -V | tail -n 1)
	[ -n "$stamp" ] && echo "$dir/boot/vmlinuz-${stamp##*/.complete-}"
}

# Before the lock: a plain user may use a cache that root filled.
if [ "${1:-}" != --update ] && path=$(cached); then
	echo "$path"
	exit 0
fi
mkdir -p "$dir"
exec 9>"$dir/.lock"
flock -w 300 9 || die "another fetch holds $dir/.lock for five minutes; end it and try again"

if [ "${1:-}" != --update ] && path=$(cached); then
	echo "$path"
	exit 0
fi

package=$(apt-cache depends linux-image-amd64 2>/dev/null |
	sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*-amd64\)$/\1/p' | head -n 1)
[ -n "$package" ] || die "apt knows no linux-image-amd64; run apt-get update (Debian's main archive is needed)"
version=${package#linux-image-}
if [ -e "$dir/.complete-$version" ]; then
	echo "$dir/boot/vmlinuz-$version"
	exit 0
fi

# World-readable scratch: apt fetches as the user _apt where it can, and falls back with a warning where it cannot.
work=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetch-kernel: downloading $package" >&2
(cd "$work" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package" >&2) ||
	die "cannot download $package; run apt-get update as root, then again"
dpkg -x "$work"/"$package"_*.deb "$work/root" || die "the package $package does not unpack"
[ -e "$work/root/boot/vmlinuz-$version" ] || die "$package holds no boot/vmlinuz-$version"
/sbin/depmod -b "$work/root" "$version" || die "depmod failed on $version; is the package kmod installed?"

mkdir -p "$dir/boot" "$dir/lib/modules"
rm -rf "$dir/lib/modules/$version"
mv "$work/root/boot/"* "$dir/boot/"
mv "$work/root/lib/modules/$version" "$dir/lib/modules/$version"
touch "$dir/.complete-$version"
echo "$dir/boot/vmlinuz-$version"
