use super::*;

fn changed(config: Value, instructions: &[&str]) -> Result<Value, ChangeError> {
    let instructions: Vec<String> = instructions.iter().map(|text| (*text).to_owned()).collect();
    let mut config = config;
    apply(&mut config, &instructions).map(|()| config)
}

#[test]
fn commands_are_words_or_a_line_for_a_shell() {
    let config = changed(json!({}), &["CMD [\"a\", \"b c\"]", "entrypoint run it"]).unwrap();
    assert_eq!(config["Cmd"], json!(["a", "b c"]));
    assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c", "run it"]));
    let config = changed(json!({"Shell": ["/bin/bash", "-c"]}), &["CMD x"]).unwrap();
    assert_eq!(config["Cmd"], json!(["/bin/bash", "-c", "x"]));
}

#[test]
fn an_entrypoint_takes_the_image_s_command_away_but_not_one_that_was_given() {
    let config = changed(json!({"Cmd": ["old"]}), &["ENTRYPOINT [\"x\"]"]).unwrap();
    assert_eq!(config["Cmd"], Value::Null);
    let config = changed(
        json!({"Cmd": ["old"]}),
        &["CMD [\"new\"]", "ENTRYPOINT [\"x\"]"],
    );
    assert_eq!(config.unwrap()["Cmd"], json!(["new"]));
}

#[test]
fn variables_are_replaced_and_quotes_taken_away() {
    let config = changed(
        json!({"Env": ["PATH=/bin", "A=1"]}),
        &[
            "ENV A=2 B=\"x y\" C='$A' D=\\$A",
            "ENV PATH=/opt:$PATH",
            "ENV E old form",
            "LABEL at=${A}:${X:-none}:${A:+set} it='s'",
            "WORKDIR /srv/${A}",
            "WORKDIR sub/../other",
            "USER \"$B\"",
        ],
    )
    .unwrap();
    let env = [
        "PATH=/opt:/bin",
        "A=2",
        "B=x y",
        "C=$A",
        "D=$A",
        "E=old form",
    ];
    assert_eq!(config["Env"], json!(env));
    assert_eq!(config["Labels"], json!({"at": "2:none:set", "it": "s"}));
    assert_eq!(config["WorkingDir"], "/srv/2/other");
    assert_eq!(config["User"], "x y");
}

#[test]
fn sets_and_lists_grow() {
    let config = changed(
        json!({"Volumes": null, "OnBuild": null}),
        &[
            "EXPOSE 80 53/UDP 8000-8010",
            "VOLUME [\"/a b\"]",
            "VOLUME /c /d",
            "ONBUILD RUN x",
            "STOPSIGNAL SIGQUIT",
        ],
    )
    .unwrap();
    let ports = json!({"80/tcp": {}, "53/udp": {}, "8000-8010/tcp": {}});
    assert_eq!(config["ExposedPorts"], ports);
    assert_eq!(config["Volumes"], json!({"/a b": {}, "/c": {}, "/d": {}}));
    assert_eq!(config["OnBuild"], json!(["RUN x"]));
    assert_eq!(config["StopSignal"], "SIGQUIT");
}

#[test]
fn health_checks_have_options() {
    let check =
        |text: &str| changed(json!({}), &[text]).map(|config| config["Healthcheck"].clone());
    assert_eq!(
        check("HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f localhost"),
        Ok(
            json!({"Interval": 90_000_000_000_u64, "Retries": 2, "Test": ["CMD-SHELL", "curl -f localhost"]})
        )
    );
    assert_eq!(
        check("HEALTHCHECK CMD [\"x\"]"),
        Ok(json!({"Test": ["CMD", "x"]}))
    );
    assert_eq!(check("HEALTHCHECK none"), Ok(json!({"Test": ["NONE"]})));
    for wrong in [
        "HEALTHCHECK CMD",
        "HEALTHCHECK --interval=1 CMD x",
        "HEALTHCHECK --x=1s CMD x",
        "HEALTHCHECK x",
    ] {
        assert!(check(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_change_is_named() {
    let told = |text: &str| changed(json!({}), &[text]).unwrap_err().to_string();
    assert!(told("RUN make").starts_with("RUN is not a valid change command"));
    assert_eq!(told("ENV"), "ENV requires an argument: \"\"");
    assert_eq!(told("ENV A=1 B"), "ENV requires NAME=VALUE: \"A=1 B\"");
    assert!(told("EXPOSE 0").starts_with("EXPOSE requires PORT"));
    assert!(told("EXPOSE 9/icmp").starts_with("EXPOSE requires PORT"));
}
