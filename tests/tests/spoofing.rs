//! A container that calls itself by others' names on the bridge. It is a native one, whose interface has the same rules
//! as a VM's tap: those are in `src/network/tests/root/spoofing.rs`.

use anyhow::Result;
use tests::Hull;

/// The gateway answers requests in a guest's own name, and hears no others.
const SCRIPT: &str = "gateway=$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p')
mac=$(cat /sys/class/net/eth0/address)
ask() { ping -c1 -W2 $* $gateway > /dev/null 2>&1 && echo answered || echo silence; }
ask
ip addr add ${gateway%.*}.250/32 dev eth0; ask -I ${gateway%.*}.250
ip link set eth0 address 02:48:00:00:00:09; ask
ip link set eth0 address $mac; ask";

#[test]
fn a_container_cannot_use_a_neighbours_addresses() -> Result<()> {
    let hull = Hull::new()?;
    let options = "run --rm --isolation native --network bridge --cap-add NET_ADMIN demo sh -c";
    let outcome = hull.run(options.split(' ').chain([SCRIPT]))?.expect_code(0);
    assert_eq!(outcome.stdout(), "answered\nsilence\nsilence\nanswered");
    hull.expect_nothing_left()
}
