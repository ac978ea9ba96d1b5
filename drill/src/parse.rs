//! Parses scripts: options, commands, events and their times, system calls.

mod packet;

use std::collections::BTreeMap;

use super::IpVersion;
use super::ast::{Action, Call, Event, Expression, Field, Script, ScriptOption, When};
use super::code;
use super::lex::{Cursor, Parsed, Position, SyntaxError};
use super::symbol;

/// Limit of the nesting of expressions.
const DEPTH: usize = 16;

/// Parses a script. `defines` holds the symbols from the command line.
pub(crate) fn script(
    text: &str,
    defines: &BTreeMap<String, String>,
    ip_version: IpVersion,
) -> Parsed<Script> {
    let mut defines = defines.clone();
    let text = conditional(text, &mut defines)?;
    for (name, value) in symbol::of_runner(ip_version) {
        defines.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    let mut parser = Parser { cursor: Cursor::new(&text), defines, depth: 0 };
    parser.script()
}

/// Blanks the lines of inactive `#ifdef` sections. Lines and columns are preserved.
fn conditional(text: &str, defines: &mut BTreeMap<String, String>) -> Parsed<String> {
    let mut kept = String::with_capacity(text.len());
    // The line of the open `#ifdef`, and whether its section is active.
    let mut open: Option<(usize, bool)> = None;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let trimmed = line.trim();
        let wrong = |expected: &str| SyntaxError {
            at: Position { line: index + 1, column: line.len() - line.trim_start().len() + 1 },
            expected: expected.to_owned(),
            found: format!("`{trimmed}`"),
        };
        let mut words = trimmed.split_whitespace();
        let on = open.is_none_or(|(_, on)| on);
        let directive = words.next().unwrap_or_default();
        match directive {
            "#ifdef" | "#ifndef" => {
                if open.is_some() {
                    return Err(wrong("`#endif` first, for `#ifdef` does not nest"));
                }
                let name = words.next().ok_or_else(|| wrong(&format!("a name after `{directive}`")))?;
                open = Some((index, defines.contains_key(name) == (directive == "#ifdef")));
            }
            "#else" => match open {
                Some((line, on)) => open = Some((line, !on)),
                None => return Err(wrong("no `#else` without `#ifdef`")),
            },
            "#endif" => {
                open.take().ok_or_else(|| wrong("no `#endif` without `#ifdef`"))?;
            }
            // A shebang line.
            _ if index == 0 && trimmed.starts_with("#!") => {}
            _ if on => {
                if let Some(definition) =
                    trimmed.strip_prefix("--define").map(|rest| &rest[rest.len().min(1)..])
                {
                    define(definition.trim(), defines);
                }
                kept.push_str(line);
                continue;
            }
            _ => {}
        }
        kept.extend(line.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
    }
    match open {
        None => Ok(kept),
        Some((line, _)) => Err(SyntaxError {
            at: Position { line: line + 1, column: 1 },
            expected: "`#endif` to this `#ifdef`".to_owned(),
            found: "the end of the script".to_owned(),
        }),
    }
}

/// Defines `NAME=VAL`; `NAME` alone has the value 1.
fn define(definition: &str, defines: &mut BTreeMap<String, String>) {
    let (name, value) = definition.split_once('=').unwrap_or((definition, "1"));
    defines.insert(name.trim().to_owned(), value.trim().trim_matches('"').to_owned());
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    defines: BTreeMap<String, String>,
    depth: usize,
}

impl Parser<'_> {
    fn script(&mut self) -> Parsed<Script> {
        let mut script = Script::default();
        while self.cursor.next_is("--") {
            script.options.push(self.option()?);
        }
        while self.cursor.peek() == Some('`') {
            script.init.push((self.cursor.position(), self.cursor.quoted('`')?));
        }
        let mut last_absolute = i64::MIN;
        while !self.cursor.at_end() {
            if self.cursor.peek() == Some('`') {
                script.cleanup.push((self.cursor.position(), self.cursor.quoted('`')?));
                if !self.cursor.at_end() {
                    return Err(self.cursor.error("nothing after the clean-up command"));
                }
                break;
            }
            let event = self.event()?;
            if let When::Absolute(time) | When::AbsoluteRange(time, _) = event.when {
                if time < last_absolute {
                    return Err(SyntaxError {
                        at: event.at,
                        expected: format!("a time not before {} s", last_absolute as f64 / 1e9),
                        found: format!("{} s", time as f64 / 1e9),
                    });
                }
                last_absolute = time;
            }
            script.events.push(event);
        }
        // Commands alone are set-up: they are no events, and have no verdict.
        if script.events.is_empty() {
            script.init.append(&mut script.cleanup);
        }
        Ok(script)
    }

    fn option(&mut self) -> Parsed<ScriptOption> {
        let at = self.cursor.position();
        self.cursor.expect("--")?;
        let name = self.cursor.word().ok_or_else(|| self.cursor.error("the name of an option"))?.to_owned();
        let assigned = self.cursor.rest().starts_with('=');
        let value = if assigned || name == "define" {
            self.cursor.eat("=");
            self.option_value()?
        } else {
            String::new()
        };
        Ok(ScriptOption { at, name, value })
    }

    fn option_value(&mut self) -> Parsed<String> {
        if self.cursor.peek() == Some('"') {
            return self.cursor.quoted('"');
        }
        let value = self.cursor.take_while(|c| !c.is_whitespace());
        if value.is_empty() {
            return Err(self.cursor.error("a value"));
        }
        Ok(value.to_owned())
    }

    fn event(&mut self) -> Parsed<Event> {
        let at = self.cursor.position();
        let offset = self.cursor.offset();
        let when = self.when()?;
        let action = self.action(when)?;
        let text = self.cursor.since(offset).split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Event { at, when, action, text })
    }

    fn when(&mut self) -> Parsed<When> {
        if self.cursor.eat("*") {
            return Ok(When::Any);
        }
        // A code block needs no time.
        if self.cursor.next_is("%{") {
            return Ok(When::Relative(0));
        }
        let relative = self.cursor.eat("+");
        let expected = "a time: `0.5`, `+.1`, `*`, `1~2` or `+1~+2`";
        let start = self.cursor.seconds()?.ok_or_else(|| self.cursor.error(expected))?;
        if !self.cursor.eat("~") {
            return Ok(if relative { When::Relative(start) } else { When::Absolute(start) });
        }
        let plus = self.cursor.eat("+");
        let at = self.cursor.position();
        let end = self.cursor.seconds()?.ok_or_else(|| self.cursor.error("the end of the range of times"))?;
        if end < start {
            let (expected, found) =
                ("an end not before the start".to_owned(), format!("{} s", end as f64 / 1e9));
            return Err(SyntaxError { at, expected, found });
        }
        if relative && !plus {
            return Err(SyntaxError {
                at,
                expected: "`+`: both ends are relative".into(),
                found: "no `+`".into(),
            });
        }
        Ok(if relative { When::RelativeRange(start, end) } else { When::AbsoluteRange(start, end) })
    }

    fn action(&mut self, when: When) -> Parsed<Action> {
        match self.cursor.peek() {
            Some('<' | '>') => Ok(Action::Packet(self.packet()?)),
            Some('`') => Ok(Action::Command(self.cursor.quoted('`')?)),
            Some('%') if self.cursor.next_is("%{") => self.code(),
            _ => {
                let until = self.until(when)?;
                self.call(until)
            }
        }
    }

    /// Parses the end of a blocking call: `...0.2`.
    fn until(&mut self, when: When) -> Parsed<Option<i64>> {
        if !self.cursor.eat("...") {
            return Ok(None);
        }
        self.cursor.eat("+");
        let at = self.cursor.position();
        let end = self.cursor.seconds()?.ok_or_else(|| self.cursor.error("when the call ends"))?;
        match when {
            When::Absolute(start) | When::Relative(start) if end >= start => Ok(Some(end)),
            When::Absolute(_) | When::Relative(_) => Err(SyntaxError {
                at,
                expected: "an end not before the start".to_owned(),
                found: format!("{} s", end as f64 / 1e9),
            }),
            _ => Err(SyntaxError {
                at,
                expected: "no end of a call that begins at any time of a range".to_owned(),
                found: format!("{} s", end as f64 / 1e9),
            }),
        }
    }

    fn code(&mut self) -> Parsed<Action> {
        let start = self.cursor.position();
        let rest = self.cursor.rest();
        let Some(len) = rest.find("}%") else {
            return Err(SyntaxError {
                at: start,
                expected: "`}%` at the end of the code".to_owned(),
                found: "the end of the script".to_owned(),
            });
        };
        let offset = self.cursor.offset();
        let block = code::parse(&rest[2..len], |within| self.cursor.position_of(offset + 2 + within))?;
        self.cursor.rewind(offset + len + 2);
        Ok(Action::Code(block))
    }

    fn call(&mut self, until: Option<i64>) -> Parsed<Action> {
        let expected = "a packet, a system call, a command in backticks or code in `%{ }%`";
        let name = self.cursor.word().ok_or_else(|| self.cursor.error(expected))?.to_owned();
        self.cursor.expect("(")?;
        let arguments = self.list(")")?;
        self.cursor.expect("=")?;
        let result = if self.cursor.eat("?") { Expression::Any } else { self.expression()? };
        let offset = self.cursor.offset();
        let errno = match self.cursor.word() {
            Some(word) if word.starts_with('E') => Some(word.to_owned()),
            _ => {
                self.cursor.rewind(offset);
                None
            }
        };
        // The error's description or flags, for human readers.
        if self.cursor.eat("(") {
            self.cursor.take_while(|c| c != ')');
            self.cursor.expect(")")?;
        }
        Ok(Action::Call(Call { name, arguments, until, result, errno }))
    }

    /// Parses expressions separated by commas, up to `close`.
    fn list(&mut self, close: &str) -> Parsed<Vec<Expression>> {
        let mut list = Vec::new();
        if self.cursor.eat(close) {
            return Ok(list);
        }
        loop {
            list.push(self.expression()?);
            if self.cursor.eat(close) {
                return Ok(list);
            }
            if !self.cursor.eat(",") {
                return Err(self.cursor.error(format!("`,` or `{close}`")));
            }
        }
    }

    fn expression(&mut self) -> Parsed<Expression> {
        if self.depth == DEPTH {
            return Err(self.cursor.error(format!("at most {DEPTH} levels of nesting")));
        }
        self.depth += 1;
        let first = self.atom()?;
        let mut all = vec![first];
        while self.cursor.eat("|") {
            all.push(self.atom()?);
        }
        self.depth -= 1;
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::Or(all) })
    }

    fn atom(&mut self) -> Parsed<Expression> {
        if self.cursor.eat("...") {
            return Ok(Expression::Any);
        }
        match self.cursor.peek() {
            Some('"') => {
                let mut text = self.cursor.quoted('"')?;
                while self.cursor.peek() == Some('"') {
                    text.push_str(&self.cursor.quoted('"')?);
                }
                self.cursor.eat("...");
                Ok(Expression::Text(text))
            }
            Some('[') => {
                self.cursor.expect("[")?;
                Ok(Expression::List(self.list("]")?))
            }
            Some('{') => self.structure(),
            Some(c) if c.is_ascii_digit() || c == '-' => {
                let number = self.cursor.integer()?.ok_or_else(|| self.cursor.error("a value"))?;
                Ok(Expression::Integer(number))
            }
            _ => self.symbol(),
        }
    }

    fn symbol(&mut self) -> Parsed<Expression> {
        let expected = "a value: `...`, a number, a name, a string, a list or a struct";
        let word = self.cursor.word().ok_or_else(|| self.cursor.error(expected))?;
        if self.cursor.eat("(") {
            return Ok(Expression::Function(word.to_owned(), self.list(")")?));
        }
        let value = self.defines.get(word).map_or(word, String::as_str);
        Ok(match Cursor::new(value).integer() {
            Ok(Some(number)) if value.chars().all(|c| c.is_ascii_hexdigit() || c == 'x' || c == '-') => {
                Expression::Integer(number)
            }
            _ => Expression::Symbol(value.to_owned()),
        })
    }

    /// Parses `{name=value, name(count)=value, value}`.
    fn structure(&mut self) -> Parsed<Expression> {
        self.cursor.expect("{")?;
        let mut fields = Vec::new();
        while !self.cursor.eat("}") {
            let offset = self.cursor.offset();
            let name = self.field_name()?;
            if name.is_none() {
                self.cursor.rewind(offset);
            }
            fields.push(Field { name, value: self.expression()? });
            if !self.cursor.eat(",") && !self.cursor.next_is("}") {
                return Err(self.cursor.error("`,` or `}`"));
            }
        }
        Ok(Expression::Struct(fields))
    }

    fn field_name(&mut self) -> Parsed<Option<String>> {
        let Some(name) = self.cursor.word() else { return Ok(None) };
        if self.cursor.eat("(") {
            self.list(")")?;
        }
        Ok(self.cursor.eat("=").then(|| name.to_owned()))
    }
}

#[cfg(test)]
mod tests;
