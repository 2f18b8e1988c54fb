use super::*;
use crate::session::Event;
use crate::testing::Fixture;

fn config() -> ExecConfig {
    ExecConfig {
        document: RawValue::from_string(r#"{"args":["true"]}"#.into()).unwrap(),
        user: None,
        seccomp: None,
        stdio: protocol::record::Stdio::Pipes {
            stdin: false,
            stdin_once: false,
        },
        attach: [false; 3],
    }
}

fn asked() -> Box<RawValue> {
    RawValue::from_string("{}".into()).unwrap()
}

#[test]
fn an_exec_is_created_started_and_inspected_by_its_identifier_alone() {
    let fixture = Fixture::new();
    let id = fixture.create("web");
    fixture.engine.start("web").unwrap();
    let exec = fixture
        .engine
        .exec_create("web", config(), asked())
        .unwrap();
    let engine = fixture.another_engine();
    assert!(engine.exec_inspect(&exec).unwrap().state.is_none());
    let mut session = engine.exec_start(&exec, [false; 3]).unwrap();
    assert!(matches!(session.next().unwrap(), Event::Started { .. }));
    assert!(matches!(session.next().unwrap(), Event::Exited(_)));
    let inspected = engine.exec_inspect(&exec).unwrap();
    assert_eq!(inspected.created.container, id);
    assert!(inspected.state.is_some_and(|state| !state.running));
    engine.exec_resize(&exec, TerminalSize::default()).unwrap();
}

#[test]
fn an_exec_outlives_its_index_and_goes_with_its_container() {
    let fixture = Fixture::new();
    fixture.create("web");
    fixture.engine.start("web").unwrap();
    let exec = fixture
        .engine
        .exec_create("web", config(), asked())
        .unwrap();
    std::fs::remove_file(fixture.engine.layout().index()).unwrap();
    let engine = fixture.another_engine();
    assert!(engine.exec_inspect(&exec).is_ok());
    engine
        .remove(
            "web",
            crate::remove::Remove {
                force: true,
                volumes: true,
            },
        )
        .unwrap();
    let error = engine.exec_inspect(&exec).unwrap_err().to_string();
    assert_eq!(error, format!("No such exec instance: {exec}"));
}

#[test]
fn an_exec_needs_a_container_that_runs() {
    let fixture = Fixture::new();
    fixture.create("web");
    assert!(
        fixture
            .engine
            .exec_create("web", config(), asked())
            .is_err()
    );
    assert!(fixture.engine.exec_inspect("../../etc/passwd").is_err());
}

#[test]
fn a_monitor_of_another_build_gets_a_seccomp_program_as_numbers() {
    let exec = NewExec::new(ExecConfig {
        seccomp: Some(vec![6, 0, 255]),
        ..config()
    });
    let document = |of_our_build| -> serde_json::Value {
        let file = File::from(exec.document(of_our_build).unwrap());
        serde_json::from_reader(file).unwrap()
    };
    let (ours, theirs) = (document(true), document(false));
    assert_eq!(ours["seccomp"], "BgD/");
    assert_eq!(theirs["seccomp"], json!([6, 0, 255]));
    assert_eq!(ours["document"], theirs["document"]);
}
