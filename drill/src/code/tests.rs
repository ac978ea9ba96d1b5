use super::*;

fn run(text: &str) -> Result<Memory, Stopped> {
    let block = parse(text, |offset| Position { line: 1, column: offset + 1 }).unwrap();
    let mut memory = Memory::default();
    memory.run(&block, &|name| (name == "tcpi_rtt").then_some(Value::Integer(100)))?;
    Ok(memory)
}

fn holds(text: &str) -> bool {
    run(&format!("assert {text}")).is_ok()
}

#[test]
fn expressions_have_the_precedence_of_python() {
    for text in [
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "not 1 == 2",
        "not not 1",
        "1 < 2 < 3 and not 3 < 2",
        "7 & 3 == 3",
        "1 << 4 | 1 == 17",
        "-7 // 2 == -4 and -7 % 2 == 1",
        "5 / 2 == 2.5",
        "0x10 == 16 and ~0 == -1",
        "abs(-3) == 3 and min(3, 1, 2) == 1 and max(1, 2) == 2",
        "'a' + 'b' == 'ab'",
        "tcpi_rtt == 100 or nothing",
        "True and not False",
    ] {
        assert!(holds(text), "{text}");
    }
    assert!(!holds("1 < 2 < 2"));
}

#[test]
fn what_is_printed_is_kept() {
    let memory = run("print 1, 'two'\nprint('%d of %s' % (3, 'x'))\nprint()").unwrap();
    assert_eq!(memory.printed, ["1 two", "3 of x", ""]);
}

#[test]
fn a_branch_is_taken_by_its_condition() {
    let text = "x = 0\nif tcpi_rtt > 50:\n    x = 1\n    x += 1\nelif 1:\n    x = 7\nelse:\n    x = 9\nassert x == 2";
    assert!(run(text).is_ok());
    assert!(run(&text.replace("> 50", "< 50").replace("x == 2", "x == 7")).is_ok());
}

#[test]
fn an_assertion_tells_the_values_that_it_saw() {
    let Err(Stopped::Failed(at, reason)) = run("x = 2\nassert tcpi_rtt == x * 3, 'rtt %d' % tcpi_rtt") else {
        panic!()
    };
    assert_eq!(at.column, 7);
    assert_eq!(reason, "assert tcpi_rtt == x * 3, where tcpi_rtt is 100, x is 2: rtt 100");
    assert!(matches!(run("assert tcpi_lost == 0"), Err(Stopped::Unknown(name)) if name == "tcpi_lost"));
}

#[test]
fn loops_lists_and_choices_are_those_of_python() {
    for text in [
        "x = 0\nfor i in range(2, 5):\n  x += i\nassert x == 9",
        "x = 0\nfor i in [1, 2]: x += i\nassert x == 3",
        "x = 5\nwhile x > 2:\n  x -= 1\nassert x == 2",
        "a = [1, 2, 3]; assert len(a) == 3 and a[0] == 1 and a[-1] == 3",
        "assert (1 if tcpi_rtt > 50 else 2) == 1",
        "assert (1, 2) < (1, 3) and (1, 2) == (1, 2)",
    ] {
        assert!(run(text).is_ok(), "{text}: {:?}", run(text).err());
    }
}

#[test]
fn a_loop_without_end_fails() {
    for text in ["while True: pass", "for i in range(1000000000000): pass"] {
        assert!(matches!(run(text), Err(Stopped::Failed(..))), "{text}");
    }
}

#[test]
fn python_that_is_not_interpreted_is_named() {
    let foreign = run("def f(x):\n  return x\nassert f(1) == 1");
    assert!(matches!(foreign, Err(Stopped::Foreign(_, word)) if word == "def"));
}
