//! Containers on a network find each other by name, whatever stands between them and the host; others do not.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::{Hull, wait_until};

/// Two networks, and containers on them.
struct Names {
    hull: Hull,
    back: String,
    front: String,
}

impl Names {
    fn new(test: &str) -> Result<Names> {
        let names = Names {
            hull: Hull::new()?,
            back: format!("back{test}"),
            front: format!("front{test}"),
        };
        for network in [&names.back, &names.front] {
            names
                .hull
                .run(["network", "create", network])?
                .expect_code(0);
        }
        Ok(names)
    }

    /// A container that sleeps; its identifier.
    fn start(&self, isolation: &str, network: &str, options: &str) -> Result<String> {
        let line = format!("run -d --isolation {isolation} --network {network} {options}");
        let words = line.split(' ').chain(["demo", "sleep", "1000"]);
        Ok(self.hull.run(words)?.expect_code(0).stdout())
    }

    fn exec(&self, container: &str, script: &str) -> Result<String> {
        let ran = self.hull.run(["exec", container, "sh", "-c", script])?;
        Ok(ran.expect_code(0).stdout())
    }

    /// Its address on its network.
    fn address(&self, container: &str) -> Result<String> {
        self.exec(
            container,
            "ip -4 -o addr show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'",
        )
    }

    /// What a container finds for a name, in order of the addresses.
    fn found(&self, container: &str, name: &str) -> Result<Vec<String>> {
        let script =
            format!("nslookup -type=a {name} | sed '1,/^$/d' | sed -n 's/^Address: //p' | sort");
        let found = self.exec(container, &script)?;
        Ok(found.lines().map(str::to_owned).collect())
    }

    /// The process that answers the names of a network.
    fn server(&self, network: &str) -> Result<Pid> {
        let inspect = ["network", "inspect", "-f", "{{.Id}}", network];
        let id = self.hull.run(inspect)?.expect_code(0).stdout();
        let record = std::fs::read(format!("/run/hull/networks/{id}/dns.json"))?;
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        let pid = record["pid"].as_i64().context("its number")?;
        Pid::from_raw(pid.try_into()?).context("a number of a process")
    }

    fn remove(self) -> Result<()> {
        self.hull
            .run(["network", "rm", &self.back, &self.front])?
            .expect_code(0);
        self.hull.expect_nothing_left()
    }
}

#[test]
fn containers_of_either_kind_find_each_other_by_name_and_others_do_not() -> Result<()> {
    let names = Names::new("a")?;
    let vm = names.start("vm", &names.back, "--name web --network-alias www")?;
    names.start("native", &names.back, "--name db --network-alias www")?;
    names.start("native", &names.front, "--name stranger")?;
    let (web, db) = (names.address("web")?, names.address("db")?);
    for (asking, name, address) in [
        ("db", "web", &web),
        ("db", &vm[..12], &web),
        ("db", &format!("WEB.{}", names.back), &web),
        ("web", "db", &db),
        ("web", "web", &web),
    ] {
        let found = names.found(asking, name)?;
        ensure!(
            found == [address.as_str()],
            "{asking} finds {found:?} for {name}"
        );
    }
    let mut both = vec![web.clone(), db.clone()];
    both.sort();
    ensure!(names.found("db", "www")? == both, "both have the alias");
    let reverse = names.exec("db", &format!("nslookup {web}"))?;
    ensure!(
        reverse.contains(&format!("name = web.{}", names.back)),
        "{reverse}"
    );
    let resolv_conf = names.exec("db", "cat /etc/resolv.conf")?;
    let gateway = names.exec(
        "db",
        "ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'",
    )?;
    ensure!(
        resolv_conf.starts_with(&format!("nameserver {gateway}\n")),
        "{resolv_conf}"
    );
    ensure!(names.found("db", "host.docker.internal")? == [gateway.as_str()]);
    ensure!(names.found("stranger", "web")?.is_empty());
    // Nor by asking the other network's server, which does not hear it.
    let other =
        format!("timeout 3 nslookup web {gateway} > /dev/null 2>&1 && echo heard || echo silence");
    ensure!(names.exec("stranger", &other)? == "silence");
    names.hull.run(["rm", "-f", "web"])?.expect_code(0);
    ensure!(names.found("db", "web")?.is_empty());
    ensure!(names.found("db", "www")? == [db.as_str()]);
    names
        .hull
        .run(["rm", "-f", "db", "stranger"])?
        .expect_code(0);
    names.remove()
}

#[test]
fn names_come_back_with_the_next_container_after_the_server_was_killed() -> Result<()> {
    let names = Names::new("b")?;
    names.start("native", &names.back, "--name web")?;
    let web = names.address("web")?;
    let server = names.server(&names.back)?;
    kill_process(server, Signal::KILL)?;
    names.start("native", &names.back, "--name db")?;
    ensure!(names.found("db", "web")? == [web.as_str()]);
    let server = names.server(&names.back)?;
    names.hull.run(["rm", "-f", "web", "db"])?.expect_code(0);
    wait_until("it ends with its network", || {
        Ok(rustix::process::test_kill_process(server).is_err())
    })?;
    names.remove()
}
