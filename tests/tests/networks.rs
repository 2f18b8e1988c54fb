//! Containers on several networks, which come and go while they run: natively and in VMs.

use anyhow::{Result, ensure};
use tests::Hull;

/// Two networks of a test's own, and containers on them.
struct Two {
    hull: Hull,
    front: String,
    back: String,
    isolation: &'static str,
}

impl Two {
    fn new(test: &str, isolation: &'static str) -> Result<Two> {
        let two = Two {
            hull: Hull::new()?,
            front: format!("zfront{test}"),
            back: format!("aback{test}"),
            isolation,
        };
        for network in [&two.front, &two.back] {
            two.run(&format!("network create {network}"))?;
        }
        Ok(two)
    }

    fn run(&self, line: &str) -> Result<String> {
        Ok(self.hull.run(line.split(' '))?.expect_code(0).stdout())
    }

    /// A container that sleeps.
    fn start(&self, name: &str, options: &str) -> Result<()> {
        let isolation = self.isolation;
        let words =
            format!("run -d --name {name} --isolation {isolation} {options} demo sleep 1000");
        self.run(&words).map(drop)
    }

    fn exec(&self, container: &str, script: &str) -> Result<String> {
        let ran = self.hull.run(["exec", container, "sh", "-c", script])?;
        Ok(ran.expect_code(0).stdout())
    }

    /// Its address on a network, as `inspect` has it.
    fn address(&self, container: &str, network: &str) -> Result<String> {
        let template = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
        let words = ["inspect", "-f", &template, container];
        Ok(self.hull.run(words)?.expect_code(0).stdout())
    }

    /// Whether a container has an answer from a name or an address.
    fn reaches(&self, container: &str, to: &str) -> Result<bool> {
        let script = format!("ping -c1 -W2 {to} > /dev/null 2>&1 && echo yes || echo no");
        Ok(self.exec(container, &script)? == "yes")
    }

    fn remove(self, containers: &str) -> Result<()> {
        self.run(&format!("rm -f {containers}"))?;
        self.run(&format!("network rm {} {}", self.front, self.back))?;
        self.hull.expect_nothing_left()
    }
}

fn has_an_address_and_names_on_each(two: Two) -> Result<()> {
    let (front, back) = (two.front.clone(), two.back.clone());
    two.start("db", &format!("--network {back} --network-alias data"))?;
    two.start("web", &format!("--network {front}"))?;
    two.start(
        "app",
        &format!("--network {front} --network name={back},alias=middle"),
    )?;
    // In the order in which they were named; the way out is the first by its name.
    let addresses = two.exec(
        "app",
        "ip -4 -o addr show | sed -n 's/.*\\(eth[0-9]\\) *inet \\([0-9.]*\\).*/\\1 \\2/p'",
    )?;
    let expected = format!(
        "eth0 {}\neth1 {}",
        two.address("app", &front)?,
        two.address("app", &back)?
    );
    ensure!(addresses == expected, "{addresses}");
    let route = two.exec("app", "ip route | sed -n 's/^default.*dev //p'")?;
    ensure!(route.trim() == "eth1", "{route}");
    for name in ["db", "data", "web"] {
        ensure!(two.reaches("app", name)?, "app reaches {name}");
    }
    // An alias is a name on its network alone; the neighbours do not see each other.
    ensure!(two.reaches("db", "middle")? && two.reaches("db", "app")?);
    ensure!(two.reaches("web", "app")? && !two.reaches("web", "middle")?);
    ensure!(!two.reaches("web", "db")?);
    let db = two.address("db", &back)?;
    ensure!(!two.reaches("web", &db)?);
    two.remove("app web db")
}

fn comes_and_goes_while_it_runs(two: Two) -> Result<()> {
    let (front, back) = (two.front.clone(), two.back.clone());
    two.start("db", &format!("--network {back}"))?;
    two.start("app", &format!("--network {front}"))?;
    ensure!(!two.reaches("app", "db")?);
    two.run(&format!("network connect --alias late {back} app"))?;
    ensure!(two.reaches("app", "db")?, "app reaches db");
    ensure!(two.reaches("db", "late")?, "db reaches app by its alias");
    let twice = two.hull.run(["network", "connect", &back, "app"])?;
    let words = twice.expect_code(1).stderr();
    ensure!(words.contains("already exists in network"), "{words}");
    two.run(&format!("network disconnect {back} app"))?;
    ensure!(!two.reaches("app", "db")?, "app does not reach db");
    ensure!(two.exec("app", "ls /sys/class/net")?.contains("eth0"));
    ensure!(!two.exec("app", "ls /sys/class/net; true")?.contains("eth1"));
    // From one to the other, and back: the way out and the resolver go along.
    for (from, to) in [(&front, &back), (&back, &front), (&front, &back)] {
        two.run(&format!("network disconnect {from} app"))?;
        two.run(&format!("network connect {to} app"))?;
        let gateway = two.exec(
            "app",
            "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'",
        )?;
        ensure!(!gateway.is_empty(), "a way out by {to}");
        let resolver = two.exec("app", "cat /etc/resolv.conf")?;
        ensure!(resolver.contains(&gateway), "{resolver}");
    }
    ensure!(two.reaches("app", "db")?);
    // It is what it starts on again.
    two.run("restart -t 0 app")?;
    ensure!(two.reaches("app", "db")?);
    two.remove("app db")
}

#[test]
fn a_native_container_has_an_address_and_names_on_each_network() -> Result<()> {
    has_an_address_and_names_on_each(Two::new("a", "native")?)
}

#[test]
fn a_vm_has_an_address_and_names_on_each_network() -> Result<()> {
    has_an_address_and_names_on_each(Two::new("b", "vm")?)
}

#[test]
fn a_native_container_is_connected_and_disconnected_while_it_runs() -> Result<()> {
    comes_and_goes_while_it_runs(Two::new("c", "native")?)
}

#[test]
fn a_vm_is_connected_and_disconnected_while_it_runs() -> Result<()> {
    comes_and_goes_while_it_runs(Two::new("d", "vm")?)
}

#[test]
fn a_container_on_two_networks_is_no_way_between_them() -> Result<()> {
    let two = Two::new("e", "native")?;
    let (front, back) = (two.front.clone(), two.back.clone());
    two.start("left", &format!("--cap-add NET_ADMIN --network {front}"))?;
    two.start("right", &format!("--cap-add NET_ADMIN --network {back}"))?;
    two.start(
        "middle",
        &format!(
            "--cap-add NET_ADMIN --sysctl net.ipv4.ip_forward=1 --network {front} --network {back}"
        ),
    )?;
    let (left, right) = (two.address("left", &front)?, two.address("right", &back)?);
    let by_front = two.address("middle", &front)?;
    let by_back = two.address("middle", &back)?;
    two.exec("left", &format!("ip route add {right}/32 via {by_front}"))?;
    two.exec("right", &format!("ip route add {left}/32 via {by_back}"))?;
    ensure!(two.reaches("left", &by_front)? && two.reaches("right", &by_back)?);
    ensure!(two.exec("middle", "cat /proc/sys/net/ipv4/ip_forward")? == "1");
    ensure!(!two.reaches("left", &right)?, "the middle forwards");
    ensure!(!two.reaches("right", &left)?, "the middle forwards");
    two.remove("left right middle")
}

#[test]
fn a_link_is_a_name_for_one_container() -> Result<()> {
    let two = Two::new("f", "native")?;
    let front = two.front.clone();
    two.start("db", &format!("--network {front}"))?;
    two.start("app", &format!("--network {front} --link db:postgres"))?;
    two.start("other", &format!("--network {front}"))?;
    ensure!(two.reaches("app", "postgres")?);
    ensure!(!two.reaches("other", "postgres")?);
    two.remove("app other db")
}

#[test]
fn ports_are_published_on_the_way_out() -> Result<()> {
    let two = Two::new("g", "native")?;
    let (front, back) = (two.front.clone(), two.back.clone());
    let isolation = two.isolation;
    let options = format!(
        "run -d --name web --isolation {isolation} -p 127.0.0.1::80 --network {front} --network {back} demo sh -c"
    );
    let serve = "while :; do echo hello | nc -l -p 80; done";
    let words = options.split(' ').chain([serve]);
    two.hull.run(words)?.expect_code(0);
    let port = two.run("port web 80")?;
    tests::wait_until("the published port answers", || {
        let answer = std::net::TcpStream::connect(&port).and_then(std::io::read_to_string);
        Ok(answer.is_ok_and(|text| text == "hello\n"))
    })?;
    two.remove("web")
}
