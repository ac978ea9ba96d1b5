//! Families: the scripts that a template yields, and the errors of invalid templates.

use std::fs;
use std::path::Path;

use steadfast_drill::{Source, SourceError, is_drill_file, read_scripts};

/// The scripts of a template that has a file of macros in its folder.
fn family(text: &str) -> Result<Vec<Source>, SourceError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pkt.jinja");
    let macros = "{% macro open(n) %}\n0 open({{ n }}) = 3\n{% endmacro %}\n{% macro bad() %}\n{{ 1 / 0 }}\n{% endmacro %}";
    fs::write(folder.path().join("macros.jinja"), macros).unwrap();
    fs::write(&path, text).unwrap();
    read_scripts(&path)
}

#[test]
fn a_template_gives_a_script_for_each_heading() {
    let text = "{% import \"macros.jinja\" as m %}\n{# said once #}\n{% for n in [1, 2] %}\n=== A {{ n }}\n{{ m.open(n) }}\
                +0 %{ assert 1 }%\n{% endfor %}\n=== B \nlast";
    let scripts = family(text).unwrap();
    let named: Vec<_> = scripts.iter().map(|s| (s.name.as_deref().unwrap(), s.text.as_str())).collect();
    let of = |n| format!("0 open({n}) = 3\n+0 %{{ assert 1 }}%\n");
    assert_eq!(named, [("A 1", of(1).as_str()), ("A 2", of(2).as_str()), ("B", "last")]);
    assert_eq!(scripts[2].title(Path::new("x/a.pkt.jinja")), "x/a.pkt.jinja: B");
}

#[test]
fn a_plain_script_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pkt");
    fs::write(&path, "=== {{ x }}\n").unwrap();
    let scripts = read_scripts(&path).unwrap();
    assert_eq!(scripts, [Source { name: None, text: "=== {{ x }}\n".to_owned() }]);
    assert_eq!(scripts[0].title(Path::new("x/a.pkt")), "x/a.pkt");
    let files = ["a.pkt", "b.pkt.jinja", "c.jinja", "d.txt", "pkt"];
    assert_eq!(files.map(|name| is_drill_file(Path::new(name))), [true, true, false, false, false]);
}

#[test]
fn a_template_that_is_wrong_is_told_with_its_place() {
    let wrong = |text: &str, line: Option<usize>, said: &str| match family(text).unwrap_err() {
        SourceError::Template { at, reason } => {
            assert_eq!(at.map(|at| at.line), line, "{reason}");
            assert!(reason.contains(said), "{reason}");
        }
        other => panic!("{other}"),
    };
    wrong("=== A\n{% for x in [1] %}\n", Some(2), "unexpected end of input");
    wrong("=== A\n\n{{ no_such_name }}\n", Some(3), "undefined value");
    wrong("{% import \"none.jinja\" as m %}\n", Some(1), "none.jinja");
    wrong("=== A\n{% import \"macros.jinja\" as m %}\n{{ m.bad() }}\n", None, "macros.jinja:5: ");
    let endless = "{% for a in range(9999) %}\n{% for b in range(99999) %}\n{% endfor %}\n{% endfor %}\n";
    wrong(endless, Some(2), "the template does not end");
}

#[test]
fn a_text_that_does_not_fall_into_scripts_is_told() {
    let said = |text: &str| family(text).unwrap_err().to_string();
    let of = |line: usize, reason: &str| format!("line {line} of the rendered text: {reason}");
    assert_eq!(
        said("\n0 close(3) = 0\n=== A\n"),
        of(2, "expected `=== NAME` before the first script, found `0 close(3) = 0`")
    );
    assert_eq!(said("=== A\n=== B\n=== A\n"), of(3, "a second script of the name `A`"));
    assert_eq!(said("=== \n"), of(1, "expected a name without `/` after `===`, found ``"));
    assert_eq!(said("=== a/b\n"), of(1, "expected a name without `/` after `===`, found `a/b`"));
    assert_eq!(said("\n\n"), of(1, "expected a script, begun by `=== NAME`; there is none"));
}
