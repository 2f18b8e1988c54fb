use super::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn config(json: &str) -> Config {
    serde_json::from_str(json).unwrap()
}

fn with_command(command: &[&str]) -> Options {
    Options {
        command: words(command),
        ..Options::default()
    }
}

#[test]
fn an_entrypoint_of_one_empty_word_is_none() {
    let image = config(r#"{"Entrypoint": [""], "Cmd": ["a", "b"]}"#);
    let args = |options: &Options| command(options, Some(&image)).unwrap();
    assert_eq!(args(&Options::default()), ["a", "b"]);
    assert_eq!(args(&with_command(&["x"])), ["x"]);
    let nothing = config(r#"{"Entrypoint": [""]}"#);
    assert!(matches!(
        command(&Options::default(), Some(&nothing)),
        Err(Error::NoCommand)
    ));
}

#[test]
fn an_empty_command_is_not_found() {
    let image = config(r#"{"Cmd": ["a"]}"#);
    let error = command(&with_command(&[""]), Some(&image)).unwrap_err();
    assert!(matches!(error, Error::EmptyCommand));
    assert_eq!(error.exit_code(), 127);
    for image in [r#"{"Cmd": [""]}"#, r#"{"Entrypoint": ["", "x"]}"#] {
        let error = command(&Options::default(), Some(&config(image))).unwrap_err();
        assert!(matches!(error, Error::EmptyCommand), "{image}");
    }
    // An empty word elsewhere is an argument like any other.
    let image = config(r#"{"Entrypoint": ["echo"]}"#);
    assert_eq!(
        command(&with_command(&[""]), Some(&image)).unwrap(),
        ["echo", ""]
    );
}

#[test]
fn numbers_of_users_end_where_docker_s_do() {
    let of = |text: &str| {
        let options = Options {
            user: Some(text.into()),
            ..Options::default()
        };
        user(&options, None)
    };
    for fine in [
        "2147483647",
        "2147483647:2147483647",
        "web",
        "0:web",
        "3000000000x",
    ] {
        assert_eq!(of(fine).unwrap().as_deref(), Some(fine));
    }
    for (bad, part) in [
        ("3000000000", "3000000000"),
        ("0:2147483648", "2147483648"),
        ("99999999999999999999999", "99999999999999999999999"),
    ] {
        let message = of(bad).unwrap_err().to_string();
        assert!(
            message.contains(part) && message.contains("0-2147483647"),
            "{message}"
        );
    }
    assert_eq!(of("").unwrap(), None);
    let options = Options {
        groups: words(&["audio", "4294967295"]),
        ..Options::default()
    };
    assert!(matches!(user(&options, None), Err(Error::UserRange(_))));
}

#[test]
fn limits_are_those_of_a_tuned_host_where_the_user_names_none() {
    let limit = |limits: &[PosixRlimit], typ| {
        let found = limits.iter().find(|limit| limit.typ() == typ).unwrap();
        (found.soft(), found.hard())
    };
    let limits = rlimits(&Options::default()).unwrap();
    assert_eq!(
        limit(&limits, PosixRlimitType::RlimitNofile),
        (1024, 524_288)
    );
    assert_eq!(
        limit(&limits, PosixRlimitType::RlimitNproc),
        (u64::MAX, u64::MAX)
    );
    let named = |soft| Ulimit {
        name: "nofile".into(),
        soft,
        hard: 20,
    };
    let mut options = Options {
        ulimits: vec![named(5), named(10)],
        ..Options::default()
    };
    let limits = rlimits(&options).unwrap();
    assert_eq!(limit(&limits, PosixRlimitType::RlimitNofile), (10, 20));
    assert_eq!(limits.len(), DEFAULT_ULIMITS.len());
    options.isolation = Isolation::Native;
    assert_eq!(rlimits(&options).unwrap().len(), 1);
}

#[test]
fn every_ulimit_is_one_of_the_kernel_s() {
    for name in ULIMITS {
        rlimit(name, 0, 0);
    }
}

#[test]
fn arguments_are_refused_where_the_kernel_would() {
    let longest = "x".repeat(MAX_WORD_LEN - 1);
    let refuse = |args: &[String], env: &[String]| refuse_too_long(args, env, &[]);
    assert_eq!(refuse(std::slice::from_ref(&longest), &[]), Ok(()));
    let args = ["sh".to_owned(), format!("{longest}x")];
    let message = refuse(&args, &[]).unwrap_err().to_string();
    assert!(
        message.starts_with("argument 1 of the command is 131072 bytes long"),
        "{message}"
    );
    let message = refuse(&[], &[format!("BIG={longest}")])
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("the environment variable BIG is"),
        "{message}"
    );
    // Twelve of 120,000 bytes are what a shell takes too; eighteen are more than 2 MiB.
    let many = |count| vec!["x".repeat(120_000); count];
    assert_eq!(refuse(&many(12), &[]), Ok(()));
    assert!(matches!(
        refuse(&many(18), &[]),
        Err(TooLong::All {
            limit: 2_097_152,
            ..
        })
    ));
    assert_eq!(
        Error::from(refuse(&many(18), &[]).unwrap_err()).exit_code(),
        126
    );
}

#[test]
fn a_larger_stack_takes_more_arguments_up_to_the_kernel_s_bound() {
    let many = |count| vec!["x".repeat(120_000); count];
    let stack = |soft| {
        [Ulimit {
            name: "stack".into(),
            soft,
            hard: u64::MAX,
        }]
    };
    assert_eq!(refuse_too_long(&many(30), &[], &stack(u64::MAX)), Ok(()));
    assert!(matches!(
        refuse_too_long(&many(60), &[], &stack(u64::MAX)),
        Err(TooLong::All {
            limit: 6_291_456,
            ..
        })
    ));
    assert!(matches!(
        refuse_too_long(&many(2), &[], &stack(4096)),
        Err(TooLong::All { limit: 131_072, .. })
    ));
}
