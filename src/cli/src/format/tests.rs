use proptest::prelude::*;
use serde_json::json;

use super::*;

fn render(template: &str, value: &Value) -> String {
    match Template::parse(template).and_then(|template| template.render(value)) {
        Ok(text) => text,
        Err(error) => error.to_string(),
    }
}

fn container() -> Value {
    json!({
        "Name": "/web",
        "State": {"Running": true, "Pid": 42, "Health": null},
        "Config": {"Labels": {"tier": "db", "a.b": "c"}, "Env": ["A=1", "B=2"], "Cmd": []},
        "Cost": 1.5,
    })
}

#[track_caller]
fn check(template: &str, expected: &str) {
    assert_eq!(render(template, &container()), expected, "{template}");
}

#[test]
fn fields_print_as_go_prints_them() {
    check("{{.Name}}: {{ .State.Pid }}", "/web: 42");
    check(
        "{{.State.Running}} {{.Cost}} {{.State.Health}}",
        "true 1.5 <nil>",
    );
    check(
        "{{.Config.Env}} {{.Config.Labels}}",
        "[A=1 B=2] map[a.b:c tier:db]",
    );
    check("{{json .Config.Env}}", r#"["A=1","B=2"]"#);
    check(
        "{{json .State}}",
        r#"{"Health":null,"Pid":42,"Running":true}"#,
    );
}

#[test]
fn members_of_maps_are_found_by_index_and_may_be_missing() {
    check(r#"{{index .Config.Labels "a.b"}}"#, "c");
    check(r#"{{index .Config.Labels "no"}}|"#, "|");
    check(
        "{{.Config.Labels.tier}} {{.Config.Labels.no}}",
        "db <no value>",
    );
    check("{{index .Config.Env 1}}", "B=2");
}

#[test]
fn lists_and_maps_are_gone_through() {
    check("{{range .Config.Env}}<{{.}}>{{end}}", "<A=1><B=2>");
    check(
        "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}",
        "a.b=c tier=db ",
    );
    check(
        "{{range $i, $e := .Config.Env}}{{$i}}{{$.Name}}{{end}}",
        "0/web1/web",
    );
    check("{{range .Config.Cmd}}x{{else}}none{{end}}", "none");
    check("{{range .Config.Env}}{{.}}{{break}}{{end}}", "A=1");
    check(
        "{{range .Config.Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{println .}}{{end}}",
        "B=2\n",
    );
}

#[test]
fn conditions_choose() {
    check("{{if .State.Running}}up{{else}}down{{end}}", "up");
    check(
        "{{if not .State.Running}}a{{else if gt .State.Pid 41}}b{{else}}c{{end}}",
        "b",
    );
    check(
        "{{with .State}}{{.Pid}}{{end}}{{with .State.Health}}{{.Status}}{{else}}-{{end}}",
        "42-",
    );
    check(
        "{{if and .State.Running (ne .State.Pid 0) (eq .Name \"/x\" \"/web\")}}y{{end}}",
        "y",
    );
    check("{{or .State.Health .Name}}", "/web");
}

#[test]
fn pipelines_and_functions_are_dockers() {
    check(
        r#"{{join .Config.Env ","}} {{len .Config.Env}}"#,
        "A=1,B=2 2",
    );
    check(
        r#"{{.Name | upper | printf "%-6s|%q"}}"#,
        "/WEB  |%!q(MISSING)",
    );
    check(
        r#"{{printf "%05d %.2f %s %x" .State.Pid .Cost .Name "hi"}}"#,
        "00042 1.50 /web 6869",
    );
    check(
        r#"{{title "a web"}} {{lower "ABC"}} {{pad "x" 1 2}}| {{truncate .Name 2}}"#,
        "A Web abc  x  | /w",
    );
    check(
        r#"{{range split "a/b" "/"}}[{{.}}]{{end}} {{slice .Name 1 3}}"#,
        "[a][b] we",
    );
    check("{{$x := .Name}}{{$x}}{{$x = 5}}{{$x}}", "/web5");
    check("{{(index .Config.Env 0)}}{{print 1 2 \"a\"}}", "A=11 2a");
}

#[test]
fn blanks_and_comments_are_trimmed() {
    check("a  {{- .State.Pid -}}  b", "a42b");
    check("a{{/* nothing */}}b {{- /* c */ -}} c", "abc");
    check("{{-3}}", "-3");
}

#[test]
fn errors_are_dockers() {
    let parsing = |rest: &str| format!("template parsing error: template: :1: {rest}");
    check("{{.Name", &parsing("unclosed action"));
    check("{{nope .Name}}", &parsing("function \"nope\" not defined"));
    check("{{if .Name}}x", &parsing("unexpected EOF"));
    check("{{end}}", &parsing("unexpected {{end}}"));
    check("{{$x}}", &parsing("undefined variable \"$x\""));
    check("{{}}", &parsing("missing value for command"));
    check(
        "x {{.State.Nope}}",
        "template parsing error: template: :1:4: executing \"\" at <.State.Nope>: map has no entry for key \"Nope\"",
    );
    check(
        "{{.Name.Nope}}",
        "template parsing error: template: :1:2: executing \"\" at <.Name.Nope>: can't evaluate field Nope in type string",
    );
}

#[test]
fn depth_and_padding_are_bounded() {
    let deep = "{{".to_owned() + &"(".repeat(100_000) + "1" + &")".repeat(100_000) + "}}";
    assert!(render(&deep, &Value::Null).contains("nested more than"));
    let blocks = "{{if 1}}".repeat(100_000);
    assert!(render(&blocks, &Value::Null).contains("nested more than"));
    let chain = "{{if 0}}".to_owned() + &"{{else if 0}}".repeat(100_000) + "{{end}}";
    assert!(render(&chain, &Value::Null).contains("nested more than"));
    assert!(render("{{pad \"x\" 1000000000 0}}", &Value::Null).contains("1000000000 columns"));
    assert!(render("{{printf \"%999999999d\" 1}}", &Value::Null).contains("999999999 columns"));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[A-Ca-c]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Pieces of templates in any order: more of them are nearly right than of random characters.
fn any_template() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{",
        "}}",
        "{{-",
        " -}}",
        " - ",
        "if ",
        "else",
        "end",
        "range ",
        "with ",
        "break",
        "$",
        "$x",
        " := ",
        " = ",
        ",",
        "|",
        "(",
        ")",
        ".",
        ".A",
        ".B",
        ".a",
        " ",
        "1",
        "-1",
        "0x",
        "1.5e3",
        "9223372036854775807",
        "\"",
        "\"b\"",
        "'é'",
        "`",
        "json ",
        "index ",
        "slice ",
        "printf ",
        "\"%5.2f%q%\"",
        "len ",
        "eq ",
        "lt ",
        "join ",
        "split ",
        "truncate ",
        "pad ",
        "title ",
        "/*",
        "*/",
        "é",
        "\n",
        "nil",
        "true",
        "and ",
        "not ",
        "Label ",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_template_and_no_value_makes_it_panic(template in any_template(), value in any_value()) {
        let _ = render(&template, &value);
    }

    #[test]
    fn no_expression_makes_it_panic(expression in any_template(), value in any_value()) {
        let _ = render(&format!("{{{{{expression}}}}}"), &value);
        let _ = render(&format!("{{{{range .}}}}{expression}{{{{end}}}}"), &value);
    }

    #[test]
    fn no_text_makes_it_panic(template in "\\PC*", value in any_value()) {
        let _ = render(&template, &value);
        let _ = tabs::layout(&template);
    }
}
