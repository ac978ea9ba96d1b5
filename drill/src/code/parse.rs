//! Parses code: the subset of Python that scripts use.

use super::{Block, Expr, Statement, Value};
use crate::lex::{Parsed, Position, SyntaxError};

/// Limit of the nesting of expressions.
const DEPTH: usize = 32;
/// Limit of the tokens in a block.
const TOKENS: usize = 2000;

/// Parses a block. `position` maps a byte offset in the block to a place in the script.
pub(crate) fn parse(text: &str, position: impl Fn(usize) -> Position) -> Parsed<Block> {
    let tokens = tokens(text, &position)?;
    let mut parser = CodeParser { tokens, at: 0, depth: 0, text, position: &position };
    let block = parser.block(None)?;
    Ok(block)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Value(Value),
    Operator(&'static str),
    /// The start of a statement, and its indentation.
    Line(usize),
    Semicolon,
    End,
}

/// Longest first, so that a prefix never matches in place of a longer operator.
const OPERATORS: [&str; 34] = [
    "//=", "==", "!=", "<=", ">=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "//", "<<", ">>", "<", ">", "+",
    "-", "*", "/", "%", "&", "|", "^", "~", "=", "(", ")", ",", ":", "!", "[", "]",
];

fn tokens(text: &str, position: &dyn Fn(usize) -> Position) -> Parsed<Vec<(usize, Token)>> {
    let mut tokens: Vec<(usize, Token)> = vec![(0, Token::Line(0))];
    let mut at = 0;
    // A newline within parentheses does not end a statement.
    let mut open = 0usize;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let len = match c {
            '\n' => {
                let indent = rest[1..].len() - rest[1..].trim_start_matches([' ', '\t']).len();
                if open == 0 {
                    tokens.push((at, Token::Line(indent)));
                }
                1
            }
            '\\' if rest[1..].starts_with('\n') => 2,
            _ if c.is_whitespace() => c.len_utf8(),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            ';' => {
                tokens.push((at, Token::Semicolon));
                1
            }
            '"' | '\'' => {
                let Some(len) = rest[1..].find(c) else {
                    let found = "a string that is never closed".to_owned();
                    return Err(SyntaxError {
                        at: position(at),
                        expected: format!("`{c}` at the end"),
                        found,
                    });
                };
                tokens.push((at, Token::Value(Value::Text(rest[1..1 + len].to_owned()))));
                len + 2
            }
            _ if c.is_ascii_digit() || c == '.' => {
                let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len());
                tokens.push((at, Token::Value(number(&rest[..len], position(at))?)));
                len
            }
            _ if c.is_ascii_alphabetic() || c == '_' => {
                let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                tokens.push((at, Token::Name(rest[..len].to_owned())));
                len
            }
            _ => {
                let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) else {
                    let (expected, found) = ("code".to_owned(), format!("`{c}`"));
                    return Err(SyntaxError { at: position(at), expected, found });
                };
                match *operator {
                    "(" | "[" => open += 1,
                    ")" | "]" => open = open.saturating_sub(1),
                    _ => {}
                }
                tokens.push((at, Token::Operator(operator)));
                operator.len()
            }
        };
        at += len;
        if tokens.len() > TOKENS {
            let (expected, found) = (format!("at most {TOKENS} words of code"), "more".to_owned());
            return Err(SyntaxError { at: position(at), expected, found });
        }
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

fn number(text: &str, at: Position) -> Parsed<Value> {
    let hex = text.strip_prefix("0x").or(text.strip_prefix("0X"));
    let value = match hex {
        Some(hex) => i64::from_str_radix(hex, 16).ok().map(Value::Integer),
        None => {
            let integer = text.trim_end_matches(['L', 'l']).parse().ok().map(Value::Integer);
            integer.or_else(|| text.parse().ok().filter(|n: &f64| n.is_finite()).map(Value::Real))
        }
    };
    value.ok_or_else(|| SyntaxError { at, expected: "a number".to_owned(), found: format!("`{text}`") })
}

struct CodeParser<'a> {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    text: &'a str,
    position: &'a dyn Fn(usize) -> Position,
}

impl CodeParser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, token)| token)
    }

    fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.text.len(), |(offset, _)| *offset)
    }

    fn error(&self, expected: &str) -> SyntaxError {
        let found = match self.peek() {
            Token::Name(name) => format!("`{name}`"),
            Token::Value(value) => format!("`{value}`"),
            Token::Operator(operator) => format!("`{operator}`"),
            Token::Line(_) => "the end of the line".to_owned(),
            Token::Semicolon => "`;`".to_owned(),
            Token::End => "the end of the code".to_owned(),
        };
        SyntaxError { at: (self.position)(self.offset()), expected: expected.to_owned(), found }
    }

    fn eat(&mut self, operator: &str) -> bool {
        let found = matches!(self.peek(), Token::Operator(next) if *next == operator);
        self.at += usize::from(found);
        found
    }

    fn eat_name(&mut self, name: &str) -> bool {
        let found = matches!(self.peek(), Token::Name(next) if next == name);
        self.at += usize::from(found);
        found
    }

    /// Parses the statements that are indented by more than `outer`.
    fn block(&mut self, outer: Option<usize>) -> Parsed<Block> {
        let mut block = Block::default();
        loop {
            match self.peek() {
                Token::End => return Ok(block),
                Token::Semicolon => self.at += 1,
                Token::Line(indent) => {
                    let next = self.tokens.get(self.at + 1).map(|(_, token)| token);
                    let empty = matches!(next, Some(Token::Line(_)));
                    if !empty && outer.is_some_and(|outer| *indent <= outer) {
                        return Ok(block);
                    }
                    self.at += 1;
                }
                _ => {
                    let at = (self.position)(self.offset());
                    let indent = self.indent();
                    let statement = self.statement(indent)?;
                    block.statements.push((at, statement));
                    if !matches!(self.peek(), Token::End | Token::Semicolon | Token::Line(_)) {
                        return Err(self.error("the end of the statement"));
                    }
                }
            }
        }
    }

    /// The indentation of the current line.
    fn indent(&self) -> usize {
        let lines = self.tokens[..self.at].iter().rev();
        let line = lines.into_iter().find_map(|(_, token)| match token {
            Token::Line(indent) => Some(*indent),
            _ => None,
        });
        line.unwrap_or(0)
    }

    fn statement(&mut self, indent: usize) -> Parsed<Statement> {
        let Token::Name(name) = self.peek().clone() else {
            return Err(self.error("a statement: assert, print, if, for, while or an assignment"));
        };
        let before = self.at;
        self.at += 1;
        match name.as_str() {
            "assert" => {
                let start = self.offset();
                let condition = self.expression()?;
                let text = self.text[start..self.offset().min(self.text.len())].trim();
                let text = text.trim_end_matches([',', ';']).split_whitespace().collect::<Vec<_>>().join(" ");
                let message = if self.eat(",") { Some(self.expression()?) } else { None };
                Ok(Statement::Assert { condition, message, text })
            }
            "print" => {
                if matches!(self.peek(), Token::End | Token::Semicolon | Token::Line(_)) {
                    return Ok(Statement::Print(Vec::new()));
                }
                let mut all = vec![self.expression()?];
                while self.eat(",") {
                    all.push(self.expression()?);
                }
                Ok(Statement::Print(match all.as_slice() {
                    [Expr::Tuple(values)] => values.clone(),
                    _ => all,
                }))
            }
            "pass" => Ok(Statement::Nothing),
            "import" | "from" => {
                while !matches!(self.peek(), Token::End | Token::Semicolon | Token::Line(_)) {
                    self.at += 1;
                }
                Ok(Statement::Nothing)
            }
            "if" => self.conditional(indent),
            "for" => self.for_loop(indent),
            "while" => {
                let condition = self.expression()?;
                Ok(Statement::While { condition, body: self.inner(indent)? })
            }
            // The rest of the block is not read.
            "def" | "class" | "try" | "with" | "return" | "global" | "del" | "lambda" => {
                self.at = self.tokens.len() - 1;
                Ok(Statement::Foreign(name))
            }
            _ => {
                let operators = [("=", None), ("+=", Some('+')), ("-=", Some('-')), ("*=", Some('*'))];
                let more = [("/=", Some('/')), ("&=", Some('&')), ("|=", Some('|')), ("%=", Some('%'))];
                let found = operators.into_iter().chain(more).find(|(text, _)| self.eat(text));
                let Some((_, operator)) = found else {
                    self.at = before;
                    return Err(self.error("a statement: assert, print, if, for, while or an assignment"));
                };
                Ok(Statement::Assign { name, operator, value: self.expression()? })
            }
        }
    }

    fn for_loop(&mut self, indent: usize) -> Parsed<Statement> {
        let Token::Name(name) = self.peek().clone() else { return Err(self.error("a name")) };
        self.at += 1;
        if !self.eat_name("in") {
            return Err(self.error("`in`"));
        }
        let over = self.expression()?;
        Ok(Statement::For { name, over, body: self.inner(indent)? })
    }

    /// The body of a loop.
    fn inner(&mut self, indent: usize) -> Parsed<Block> {
        if self.depth == DEPTH {
            return Err(self.error("at most 32 levels of nesting"));
        }
        self.depth += 1;
        let body = self.branch(indent)?;
        self.depth -= 1;
        Ok(body)
    }

    fn conditional(&mut self, indent: usize) -> Parsed<Statement> {
        if self.depth == DEPTH {
            return Err(self.error("at most 32 levels of nesting"));
        }
        self.depth += 1;
        let condition = self.expression()?;
        let then = self.branch(indent)?;
        let before = self.at;
        while matches!(self.peek(), Token::Line(_)) {
            self.at += 1;
        }
        let otherwise = if self.eat_name("else") {
            self.branch(indent)?
        } else if self.eat_name("elif") {
            let at = (self.position)(self.offset());
            Block { statements: vec![(at, self.conditional(indent)?)] }
        } else {
            self.at = before;
            Block::default()
        };
        self.depth -= 1;
        Ok(Statement::If { condition, then, otherwise })
    }

    fn branch(&mut self, indent: usize) -> Parsed<Block> {
        if !self.eat(":") {
            return Err(self.error("`:`"));
        }
        if matches!(self.peek(), Token::Line(_)) {
            return self.block(Some(indent));
        }
        let at = (self.position)(self.offset());
        Ok(Block { statements: vec![(at, self.statement(indent)?)] })
    }

    fn expression(&mut self) -> Parsed<Expr> {
        if self.depth == DEPTH {
            return Err(self.error("at most 32 levels of nesting"));
        }
        self.depth += 1;
        let mut left = self.conjunction()?;
        while self.eat_name("or") {
            left = Expr::Binary("or", Box::new(left), Box::new(self.conjunction()?));
        }
        if self.eat_name("if") {
            let condition = self.conjunction()?;
            if !self.eat_name("else") {
                return Err(self.error("`else`"));
            }
            left = Expr::Choice(Box::new((condition, left, self.expression()?)));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn conjunction(&mut self) -> Parsed<Expr> {
        let mut left = self.negation()?;
        while self.eat_name("and") {
            left = Expr::Binary("and", Box::new(left), Box::new(self.negation()?));
        }
        Ok(left)
    }

    fn negation(&mut self) -> Parsed<Expr> {
        let mut negations = 0;
        while self.eat_name("not") {
            negations += 1;
        }
        let first = self.binary(0)?;
        let mut rest = Vec::new();
        while let Some(operator) =
            ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|operator| self.eat(operator))
        {
            rest.push((operator, self.binary(0)?));
        }
        if self.eat_name("in") {
            rest.push(("in", self.binary(0)?));
        }
        let compared = if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) };
        Ok(match negations {
            0 => compared,
            _ if negations % 2 == 1 => Expr::Unary("not", Box::new(compared)),
            _ => Expr::Unary("not", Box::new(Expr::Unary("not", Box::new(compared)))),
        })
    }

    /// Parses binary operators. Levels bind tighter as they increase.
    fn binary(&mut self, level: usize) -> Parsed<Expr> {
        const LEVELS: [&[&str]; 6] =
            [&["|"], &["^"], &["&"], &["<<", ">>"], &["+", "-"], &["*", "//", "/", "%"]];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(operator) = operators.iter().copied().find(|operator| self.eat(operator)) {
            left = Expr::Binary(operator, Box::new(left), Box::new(self.binary(level + 1)?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        for operator in ["-", "~"] {
            if self.eat(operator) {
                if self.depth == DEPTH {
                    return Err(self.error("at most 32 levels of nesting"));
                }
                self.depth += 1;
                let inner = self.unary()?;
                self.depth -= 1;
                return Ok(Expr::Unary(operator, Box::new(inner)));
            }
        }
        self.eat("+");
        self.primary()
    }

    fn primary(&mut self) -> Parsed<Expr> {
        match self.peek().clone() {
            Token::Value(value) => {
                self.at += 1;
                Ok(Expr::Value(value))
            }
            Token::Name(name) => {
                self.at += 1;
                let found =
                    if self.eat("(") { Expr::Call(name, self.arguments(")")?) } else { Expr::Name(name) };
                if !self.eat("[") {
                    return Ok(found);
                }
                let index = self.expression()?;
                if !self.eat("]") {
                    return Err(self.error("`]`"));
                }
                Ok(Expr::Index(Box::new(found), Box::new(index)))
            }
            Token::Operator("(") => {
                self.at += 1;
                let mut all = self.arguments(")")?;
                Ok(if all.len() == 1 { all.remove(0) } else { Expr::Tuple(all) })
            }
            Token::Operator("[") => {
                self.at += 1;
                Ok(Expr::Tuple(self.arguments("]")?))
            }
            _ => Err(self.error("a value")),
        }
    }

    /// Parses values up to `end`; the opening parenthesis was consumed.
    fn arguments(&mut self, end: &'static str) -> Parsed<Vec<Expr>> {
        let mut all = Vec::new();
        while !self.eat(end) {
            all.push(self.expression()?);
            if !self.eat(",") && *self.peek() != Token::Operator(end) {
                return Err(self.error(&format!("`,` or `{end}`")));
            }
        }
        Ok(all)
    }
}
