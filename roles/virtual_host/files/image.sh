#!/bin/sh
# image.sh RELEASE TARGET PACKAGE,… [MIRROR]: a bare Debian host as a folder, in place only when it is whole. Needs root.
set -eu
release=$1 target=$2 packages=$3 mirror=${4-}
building=$target.building

mkdir -p -- "$(dirname -- "$target")"
exec 9>"$(dirname -- "$target")/.lock"
flock 9
[ ! -d "$target" ] || exit 0
rm -rf --one-file-system -- "$building"

# What dpkg leaves out here it leaves out on the hosts too, for what roles install.
# shellcheck disable=SC2016  # the hooks' "$1" is mmdebstrap's
mmdebstrap --mode=root --variant=minbase --format=directory --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/apt/sources.list' \
    --customize-hook='rm -rf "$1"/etc/apt/sources.list.d && mkdir "$1"/etc/apt/sources.list.d' \
    --customize-hook=': >"$1"/etc/machine-id; rm -f "$1"/var/lib/dbus/machine-id' \
    --customize-hook='for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
e2scrub_reap.service fstrim.timer console-getty.service; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done' \
    "$release" "$building" ${mirror:+"$mirror"} 9>&-
mv -T -- "$building" "$target"
