//! The tokenizer of scripts, which tracks line and column.

use std::fmt;

/// A place in a script, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// A syntax error in a script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SyntaxError {
    /// The place.
    pub at: Position,
    /// The expected token.
    pub expected: String,
    /// The actual token.
    pub found: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.at;
        write!(f, "line {line}, column {column}: expected {}, found {}", self.expected, self.found)
    }
}

pub(crate) type Parsed<T> = Result<T, SyntaxError>;

/// A position in a text.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// Where the blank began that was skipped last, and where it ended.
    skipped: (usize, usize),
    lines: std::rc::Rc<Vec<usize>>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a str) -> Cursor<'a> {
        let starts = text.match_indices('\n').map(|(index, _)| index + 1);
        Cursor {
            text,
            at: 0,
            skipped: (0, 0),
            lines: std::rc::Rc::new([0].into_iter().chain(starts).collect()),
        }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    pub(crate) fn rewind(&mut self, offset: usize) {
        self.at = offset;
    }

    pub(crate) fn position_of(&self, offset: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines[line - 1];
        Position { line, column: self.text[start..offset].chars().count() + 1 }
    }

    /// The place of the next token.
    pub(crate) fn position(&mut self) -> Position {
        self.blank();
        self.position_of(self.at)
    }

    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The text consumed since `offset`, without the blanks and comments behind it.
    pub(crate) fn since(&self, offset: usize) -> &'a str {
        let end = if self.at == self.skipped.1 { self.skipped.0 } else { self.at };
        &self.text[offset..end.max(offset)]
    }

    /// Skips whitespace and comments. An unterminated comment stays, so that the next read fails there.
    pub(crate) fn blank(&mut self) {
        let from = self.at;
        self.skip();
        if from != self.skipped.1 {
            self.skipped.0 = from;
        }
        self.skipped.1 = self.at;
    }

    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            // Directives are gone by now: what begins with `#` is a comment.
            if trimmed.starts_with("//") || trimmed.starts_with('#') {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(end) = trimmed.strip_prefix("/*").and_then(|comment| comment.find("*/")) {
                self.at += end + 4;
            } else {
                return;
            }
        }
    }

    pub(crate) fn at_end(&mut self) -> bool {
        self.blank();
        self.rest().is_empty()
    }

    pub(crate) fn peek(&mut self) -> Option<char> {
        self.blank();
        self.rest().chars().next()
    }

    pub(crate) fn next_is(&mut self, token: &str) -> bool {
        self.blank();
        self.rest().starts_with(token)
    }

    /// Consumes `token` if it comes next.
    pub(crate) fn eat(&mut self, token: &str) -> bool {
        let found = self.next_is(token);
        if found {
            self.at += token.len();
        }
        found
    }

    pub(crate) fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) { Ok(()) } else { Err(self.error(format!("`{token}`"))) }
    }

    /// Skips whitespace, and consumes characters while `belongs` holds. May return an empty string.
    pub(crate) fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        self.blank();
        let rest = self.rest();
        let len = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Consumes a name.
    pub(crate) fn word(&mut self) -> Option<&'a str> {
        let first = self.peek()?;
        if !(first.is_ascii_alphabetic() || first == '_') {
            return None;
        }
        Some(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_'))
    }

    /// Consumes the name `word` if it comes next as a whole.
    pub(crate) fn eat_word(&mut self, word: &str) -> bool {
        let offset = self.at;
        let found = self.word() == Some(word);
        if !found {
            self.at = offset;
        }
        found
    }

    /// Consumes a decimal or hexadecimal (`0x`) number, possibly negative; `None` if there is none.
    pub(crate) fn integer(&mut self) -> Parsed<Option<i64>> {
        self.blank();
        let offset = self.at;
        let negative = self.eat("-");
        let hex = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        if hex {
            self.at += 2;
        }
        let digits = self.digits(if hex { 16 } else { 10 });
        if digits.is_empty() {
            self.at = offset;
            return Ok(None);
        }
        let digits: String = digits.chars().filter(|c| *c != '_').collect();
        match i64::from_str_radix(&digits, if hex { 16 } else { 10 }) {
            Ok(number) => Ok(Some(if negative { -number } else { number })),
            Err(_) => {
                self.at = offset;
                Err(self.error("a number of 64 bits"))
            }
        }
    }

    fn digits(&mut self, radix: u32) -> &'a str {
        let rest = self.rest();
        if !rest.starts_with(|c: char| c.is_digit(radix)) {
            return "";
        }
        let len = rest.find(|c: char| !c.is_digit(radix) && c != '_').unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Consumes an integer from 0 to `max`. Errors call it `what`.
    pub(crate) fn number(&mut self, what: &str, max: u64) -> Parsed<u64> {
        self.blank();
        let offset = self.at;
        let expected = || format!("{what}, a number from 0 to {max}");
        let number = self.integer()?;
        match number.and_then(|n| u64::try_from(n).ok()).filter(|n| *n <= max) {
            Some(number) => Ok(number),
            None => {
                self.at = offset;
                Err(self.error(expected()))
            }
        }
    }

    /// Consumes a time in seconds and returns nanoseconds; `None` if there is none. In `0...1` the first time is `0`.
    pub(crate) fn seconds(&mut self) -> Parsed<Option<i64>> {
        self.blank();
        let offset = self.at;
        let negative = self.eat("-");
        let whole = self.digits(10);
        let fraction = match self.rest().strip_prefix('.').and_then(|rest| rest.chars().next()) {
            Some(first) if first.is_ascii_digit() => {
                self.at += 1;
                self.digits(10)
            }
            _ => "",
        };
        if whole.is_empty() && fraction.is_empty() {
            self.at = offset;
            return Ok(None);
        }
        let nanos = nanoseconds(whole, fraction).map(|nanos| if negative { -nanos } else { nanos });
        if nanos.is_none() {
            self.at = offset;
            return Err(self.error("a time below 1000000000 s"));
        }
        Ok(nanos)
    }

    /// Consumes a string between two `quote`s, and resolves its escapes.
    pub(crate) fn quoted(&mut self, quote: char) -> Parsed<String> {
        self.blank();
        let offset = self.at;
        let mut text = String::new();
        let mut characters = self.rest().char_indices();
        characters.next();
        while let Some((index, c)) = characters.next() {
            if c == quote {
                self.at += index + c.len_utf8();
                return Ok(text);
            }
            match (c, quote) {
                ('\\', '"' | '\'') => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, '0')) => text.push('\0'),
                    Some((_, 'x')) => {
                        let digits: String = characters.clone().map(|(_, c)| c).take(2).collect();
                        let Some(byte) = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2)
                        else {
                            text.push('x');
                            continue;
                        };
                        characters.nth(1);
                        text.push(char::from(byte));
                    }
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                _ => text.push(c),
            }
        }
        self.at = offset;
        let mut error = self.error(format!("`{quote}` at the end"));
        error.found = format!("a `{quote}` that is never closed");
        Err(error)
    }

    /// A syntax error at the next token.
    pub(crate) fn error(&mut self, expected: impl Into<String>) -> SyntaxError {
        SyntaxError { at: self.position(), expected: expected.into(), found: self.found() }
    }

    fn found(&mut self) -> String {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return "the end of the script".to_owned() };
        let joined = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let len = if joined(first) {
            rest.find(|c| !joined(c)).unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            return "a comment that is never closed".to_owned();
        } else {
            first.len_utf8()
        };
        let found: String = rest[..len].chars().take(40).collect();
        format!("`{found}`")
    }
}

fn nanoseconds(whole: &str, fraction: &str) -> Option<i64> {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let (whole, fraction) = (digits(whole), digits(fraction));
    let seconds: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = 0;
    for place in 0..9 {
        nanos = nanos * 10 + fraction.as_bytes().get(place).map_or(0, |digit| i64::from(digit - b'0'));
    }
    (seconds < 1_000_000_000).then(|| seconds * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_and_three_dots_are_no_fraction() {
        let read = |text| Cursor::new(text).seconds().unwrap();
        assert_eq!(read("0.000001"), Some(1_000));
        assert_eq!(read(".2"), Some(200_000_000));
        assert_eq!(read("-1.5"), Some(-1_500_000_000));
        let mut cursor = Cursor::new("0...0.25 x");
        assert_eq!(cursor.seconds().unwrap(), Some(0));
        assert!(cursor.eat("..."));
        assert_eq!(cursor.seconds().unwrap(), Some(250_000_000));
    }

    #[test]
    fn positions_count_lines_and_columns_from_1_past_comments() {
        let mut cursor = Cursor::new("// one\n/* two\n */  ab cd");
        assert_eq!(cursor.position(), Position { line: 3, column: 6 });
        assert_eq!(cursor.word(), Some("ab"));
        assert_eq!(cursor.error("x").to_string(), "line 3, column 9: expected x, found `cd`");
    }
}
