#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Compiles the modules against every linux-headers package that apt offers, for
# amd64 and i386, with W=1. Nothing is installed: packages are downloaded and
# unpacked into a cache folder. Needs apt-get, dpkg, make and gcc-12.
#
#	check-kernels.sh [PATTERN]	only packages whose name contains PATTERN
#
# CACHE: where packages are kept (default ~/.cache/vbus/kernels). CHECK=1 runs
# sparse, too. Exit status 0: all compiled, without a warning.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vbus/kernels}
pattern=${1:-}

for program in apt-get apt-cache dpkg make gcc-12; do
	command -v "$program" >/dev/null || {
		echo "check-kernels: $program is missing" >&2
		exit 2
	}
done
for arch in amd64 i386; do
	{ dpkg --print-architecture; dpkg --print-foreign-architectures; } |
		grep -qx "$arch" || {
		echo "check-kernels: no packages for $arch: dpkg --add-architecture $arch && apt-get update" >&2
		exit 2
	}
done

mkdir -p "$cache/deb" "$cache/done" "$cache/tree"

# Downloads and unpacks a package, once per version.
unpack() {
	version=$(apt-cache show --no-all-versions "$1" |
		sed -n 's/^Version: //p' | head -n 1)
	mark=$cache/done/$1_$version
	[ -e "$mark" ] && return
	rm -rf "$cache/deb/$1"
	mkdir -p "$cache/deb/$1"
	(cd "$cache/deb/$1" && apt-get -qq download "$1" 2>"$cache/deb/log") || {
		cat "$cache/deb/log" >&2
		return 1
	}
	dpkg -x "$cache/deb/$1"/*.deb "$cache/tree"
	rm -rf "$cache/deb/$1"
	touch "$mark"
}

# Kernels: packages that come with a -common part; the rest are meta packages.
packages() {
	{
		apt-cache pkgnames linux-headers- | sed 's/:.*//; s/$/:amd64/'
		apt-cache pkgnames linux-headers- | sed 's/:.*//; s/$/:i386/'
	} | sort -u | grep -E '^linux-headers-[0-9]' | grep -v -- '-common' |
		grep -F -- "$pattern" | sort -V || true
}

parts() {
	apt-cache depends "$1" 2>/dev/null |
		sed -n 's/.*Depends: <*\(linux-headers-[^:>]*-common[^:>]*\|linux-kbuild-[^:>]*\).*/\1/p'
}

failed=0
count=0
for package in $(packages); do
	needed=$(parts "$package")
	case $needed in
	*-common*) ;;
	*) continue ;;
	esac
	release=${package#linux-headers-}
	release=${release%:*}
	count=$((count + 1))
	ok=1
	for part in "$package" $needed; do
		unpack "$part" || ok=0
	done
	if [ $ok = 0 ]; then
		echo "$package: cannot be had"
		failed=$((failed + 1))
		continue
	fi
	kdir=$cache/tree/usr/src/linux-headers-$release
	# it includes the common part by an absolute name
	sed -i "s|^include /usr/src/|include $cache/tree/usr/src/|" "$kdir/Makefile"
	build=$cache/build
	rm -rf "$build"
	mkdir -p "$build"
	(cd "$here" && tar cf - --exclude='*.o' --exclude='*.ko' --exclude='*.mod*' \
		--exclude='.*' Kbuild Makefile include vbus venet virtio_vbus vblk vconsole) | tar xf - -C "$build"
	# debug information for BPF would take another program, pahole
	if make -C "$build" KDIR="$kdir" CC=gcc-12 W=1 ${CHECK:+C=2} \
		CONFIG_DEBUG_INFO_BTF_MODULES= \
		>"$cache/log" 2>&1 && ! grep -E 'warning:|WARNING:|error:' "$cache/log"; then
		echo "$package: ok"
	else
		cat "$cache/log"
		echo "$package: FAILED"
		failed=$((failed + 1))
	fi
done
echo "$count kernels, $failed failed"
[ "$failed" = 0 ] && [ "$count" != 0 ]
