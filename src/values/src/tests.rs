use super::*;

#[test]
fn sizes_have_docker_s_units() {
    assert_eq!(size("512m"), Ok(512 << 20));
    assert_eq!(size("1G"), Ok(1 << 30));
    assert_eq!(size("1.5g"), Ok(3 << 29));
    assert_eq!(size("64kb"), Ok(64 << 10));
    assert_eq!(size("4096"), Ok(4096));
    for bad in ["", "m", "12x", "-1m", "0", "1..5g", "99999999999t"] {
        assert_eq!(size(bad), Err(Error::Size(bad.into())));
    }
}

#[test]
fn cpus_are_exact_to_the_thousandth() {
    assert_eq!(cpus("1.5"), Ok(MilliCpus(1500)));
    assert_eq!(cpus(".25"), Ok(MilliCpus(250)));
    assert_eq!(cpus("32"), Ok(MilliCpus(32_000)));
    for bad in ["0", "-1", "1.0001", "one", ".", ""] {
        assert_eq!(cpus(bad), Err(Error::Cpus(bad.into())));
    }
}

#[test]
fn a_tmpfs_has_an_absolute_path_and_options() {
    let parsed = tmpfs("/run:size=64m,exec").unwrap();
    assert_eq!((parsed.path.as_str(), parsed.options.len()), ("/run", 2));
    assert!(tmpfs("/tmp").unwrap().options.is_empty());
    for bad in ["run", "/", "/a/../b", ""] {
        assert!(tmpfs(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_ulimit_has_one_limit_or_two() {
    assert_eq!(
        ulimit("nofile=10"),
        Ok(Ulimit {
            name: "nofile".into(),
            soft: 10,
            hard: 10
        })
    );
    assert_eq!(
        ulimit("core=0:-1"),
        Ok(Ulimit {
            name: "core".into(),
            soft: 0,
            hard: u64::MAX
        })
    );
    assert!(matches!(ulimit("nofile=20:10"), Err(Error::UlimitOrder(_))));
    assert!(matches!(ulimit("nofile"), Err(Error::Ulimit(_))));
    assert!(matches!(ulimit("=1"), Err(Error::Ulimit(_))));
}

#[test]
fn security_options_are_docker_s() {
    assert_eq!(
        security_option("no-new-privileges"),
        Ok(SecurityOption::NoNewPrivileges(true))
    );
    assert_eq!(
        security_option("no-new-privileges:false"),
        Ok(SecurityOption::NoNewPrivileges(false))
    );
    assert_eq!(
        security_option("seccomp=unconfined"),
        Ok(SecurityOption::Seccomp(Seccomp::Unconfined))
    );
    assert_eq!(
        security_option("seccomp=/p.json"),
        Ok(SecurityOption::Seccomp(Seccomp::File("/p.json".into())))
    );
    for (text, option) in [
        ("systempaths=unconfined", SecurityOption::Unmasked),
        ("apparmor=unconfined", SecurityOption::Nothing),
        ("label=disable", SecurityOption::Nothing),
    ] {
        assert_eq!(security_option(text), Ok(option));
    }
    assert!(security_option("apparmor=x").is_err());
    assert!(security_option("seccomp=").is_err());
}

#[test]
fn sizes_are_exact_however_large() {
    assert_eq!(size("107374182400"), Ok(100 << 30));
    assert_eq!(size("1.000001g"), Ok(1_073_742_897));
    assert_eq!(size("512 m"), Ok(512 << 20));
    assert_eq!(size("1p"), Ok(1 << 50));
    assert_eq!(size("18446744073709551615"), Ok(u64::MAX));
    for bad in [
        "18446744073709551616",
        "18446744073709551615p",
        "1e3",
        "0x10",
        "1.0000000001g",
    ] {
        assert_eq!(size(bad), Err(Error::Size(bad.into())));
    }
}

#[test]
fn swap_is_a_sum_or_unlimited() {
    assert_eq!(swap("1g"), Ok(Some(Swap::Total(1 << 30))));
    assert_eq!(swap("-1"), Ok(Some(Swap::Unlimited)));
    assert_eq!(swap("0"), Ok(None));
    assert!(swap("-2").is_err());
}

#[test]
fn booleans_are_docker_s() {
    assert_eq!(boolean("true"), Ok(true));
    assert_eq!(boolean("0"), Ok(false));
    assert_eq!(boolean("yes"), Err(Error::Boolean("yes".into())));
}

#[test]
fn integers_have_ends() {
    assert_eq!(oom_score("-1000"), Ok(-1000));
    assert!(matches!(oom_score("1001"), Err(Error::Range { .. })));
    assert!(matches!(
        oom_score("99999999999999999999"),
        Err(Error::Range { .. })
    ));
    for bad in ["", "-", "x", "1.5", "--1"] {
        assert!(oom_score(bad).is_err(), "{bad:?}");
    }
    assert_eq!(limit("-1"), Ok(None));
    assert_eq!(limit("64"), Ok(Some(64)));
    assert_eq!(count("0"), Ok(None));
    assert!(count("-1").is_err());
    assert_eq!(seconds("-1"), Ok(-1));
}

#[test]
fn durations_are_go_s() {
    for (text, ms) in [
        ("30s", 30_000),
        ("1m30s", 90_000),
        ("1.5h", 5_400_000),
        ("300ms", 300),
        ("1500us", 1),
        (".5s", 500),
        ("+2s", 2000),
        ("1h0m1s", 3_601_000),
    ] {
        assert_eq!(duration(text), Ok(Some(ms)), "{text}");
    }
    assert_eq!(duration("0"), Ok(None));
    assert_eq!(duration("0s"), Ok(None));
    assert_eq!(duration("-1s"), Err(Error::NegativeDuration("-1s".into())));
    assert_eq!(duration("1us"), Err(Error::ShortDuration("1us".into())));
    for bad in [
        "",
        "-",
        "5",
        "s",
        "1x",
        "1s5",
        "1s0",
        "1 s",
        "1..5s",
        "99999999999999999999h",
    ] {
        assert_eq!(duration(bad), Err(Error::Duration(bad.into())), "{bad:?}");
    }
}

#[test]
fn a_path_is_in_its_shortest_form() {
    assert_eq!(tmpfs("//run/./x/").unwrap().path, "/run/x");
    assert_eq!(absolute("/a/..b").as_deref(), Some("/a/..b"));
    for bad in ["", "a", "/", "/.", "/a/..", "/../a"] {
        assert_eq!(absolute(bad), None, "{bad}");
    }
}
