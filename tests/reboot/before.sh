#!/bin/sh
# Containers of all policies, and the shutdown of their host: first of two parts of `cargo xtask reboot`.
set -eu
unset HULL_ROOT HULL_LIBEXEC
run() { # NAME POLICY
	hull run -d --network none -m 64m --stop-timeout 2 --name "$1" --restart "$2" demo \
		sh -c 'echo run >> /runs; trap "exit 0" TERM; while :; do sleep 0.2; done' >/dev/null
}
run always always
run stopped-always always
run unless unless-stopped
run stopped-unless unless-stopped
run failing on-failure
run none no
hull stop stopped-always stopped-unless >/dev/null
hull exec always sh -c 'echo committed > /row; sync'
hull ps -a --format '{{.Names}} {{.State}}' | sort
hull system install
cat /proc/sys/kernel/random/boot_id >/var/lib/hull/boot-before

# systemd's shutdown: SIGTERM to every process, some time, SIGKILL to what is left. One monitor dies at once, as in a crash.
victim=$(hull inspect --format '{{.Id}}' failing)
pkill -KILL -f "hull-monitor .*$victim" || true
pkill -TERM hull-monitor || true
for _ in $(seq 100); do
	pgrep hull-monitor >/dev/null || break
	sleep 0.2
done
if pgrep -a hull-monitor; then
	echo 'monitors are left' >&2
	exit 1
fi
sync
