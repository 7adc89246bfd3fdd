#!/bin/sh
# A Debian machine of the test's own, by namespaces: systemd is its first process, its network is its
# own, its files are this machine's under a layer that is forgotten. Nothing of this machine changes.
# Usage: unshare --mount machine.sh FOLDER    FOLDER is empty; ends when systemd does.
set -eu
folder=$1
mount --make-rprivate /
mount -t tmpfs none "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay none -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
# Of cgroups the second version alone, whatever this machine has.
mount -t cgroup2 none /sys/fs/cgroup
group=/sys/fs/cgroup/nodens-machine-$$
mkdir "$group"
sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' sh "$group" \
    unshare --cgroup --pid --net --uts --ipc --fork --kill-child sh -eu -c '
root=$1
mount -t proc none "$root/proc"
mount -t sysfs none "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount -o bind,ro "$root/proc/sys" "$root/proc/sys"
mount -t tmpfs none "$root/run"
mount -t tmpfs none "$root/tmp"
mount -t tmpfs none "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 none "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
# It starts nothing but its journal, whatever is enabled here.
rm -rf "$root"/etc/systemd/system/* "$root"/lib/systemd/system/*.wants "$root"/etc/resolv.conf "$root"/var/log/journal
printf "[Unit]\nWants=systemd-journald.service\nAfter=systemd-journald.service\n" >"$root/etc/systemd/system/machine.target"
printf "[Journal]\nStorage=volatile\nForwardToConsole=no\nRateLimitBurst=0\n" >"$root/etc/systemd/journald.conf"
printf "nameserver 192.0.2.53\n" >"$root/etc/resolv.conf"
rm -f "$root/usr/sbin/policy-rc.d"
ip link set lo up
ip address add 192.0.2.53/32 dev lo
cd "$root"
mkdir -p mnt/old
pivot_root . mnt/old
umount -l /mnt/old
rmdir /mnt/old
exec env -i container=nodens-test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_GENERATOR_PATH=/nowhere \
    /lib/systemd/systemd --system --unit=machine.target --log-target=journal --show-status=0
' sh "$folder/root"
