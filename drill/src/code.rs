//! The code between `%{` and `}%`: the subset of Python that scripts use.

mod info;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use super::lex::{Parsed, Position, SyntaxError};
pub(crate) use info::{constant, info, state_alone};

/// Limit of the nesting of expressions.
const DEPTH: usize = 32;
/// Limit of the tokens in a block.
const TOKENS: usize = 2000;

/// A sequence of statements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    statements: Vec<(Position, Statement)>,
}

impl Block {
    /// Returns whether the block contains an assertion, so that it can fail.
    pub(crate) fn asserts(&self) -> bool {
        self.statements.iter().any(|(_, statement)| match statement {
            Statement::Assert { .. } => true,
            Statement::If { then, otherwise, .. } => then.asserts() || otherwise.asserts(),
            _ => false,
        })
    }
}

#[derive(Clone, Debug)]
enum Statement {
    Assert { condition: Expr, message: Option<Expr>, text: String },
    Print(Vec<Expr>),
    Assign { name: String, operator: Option<char>, value: Expr },
    If { condition: Expr, then: Block, otherwise: Block },
    Nothing,
}

#[derive(Clone, Debug)]
enum Expr {
    Value(Value),
    Name(String),
    Unary(&'static str, Box<Expr>),
    Binary(&'static str, Box<Expr>, Box<Expr>),
    /// `a < b <= c`
    Compare(Box<Expr>, Vec<(&'static str, Expr)>),
    Call(String, Vec<Expr>),
    Tuple(Vec<Expr>),
}

/// The value of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Integer(i64),
    Real(f64),
    Text(String),
    Tuple(Vec<Value>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(n) => n.fmt(f),
            Value::Real(n) => n.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::Tuple(all) => {
                let all: Vec<_> = all.iter().map(Value::to_string).collect();
                write!(f, "({})", all.join(", "))
            }
        }
    }
}

impl Value {
    fn truth(&self) -> bool {
        match self {
            Value::Integer(n) => *n != 0,
            Value::Real(n) => *n != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Tuple(all) => !all.is_empty(),
        }
    }

    fn real(&self) -> Option<f64> {
        match self {
            Value::Integer(n) => Some(*n as f64),
            Value::Real(n) => Some(*n),
            _ => None,
        }
    }
}

/// Why a block stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// An assertion failed, or the code is invalid.
    Failed(Position, String),
    /// The stack has no value for this name.
    Unknown(String),
}

/// The variables and the output of blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    variables: BTreeMap<String, Value>,
    /// Printed lines.
    pub(crate) printed: Vec<String>,
}

impl Memory {
    /// Runs a block. `lookup` resolves names that the script does not define.
    pub(crate) fn run(
        &mut self,
        block: &Block,
        lookup: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<(), Stopped> {
        for (at, statement) in &block.statements {
            self.statement(*at, statement, lookup)?;
        }
        Ok(())
    }

    fn statement(
        &mut self,
        at: Position,
        statement: &Statement,
        lookup: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<(), Stopped> {
        let eval = |expr: &Expr| {
            let scope = Scope { variables: &self.variables, lookup };
            scope.eval(expr).map_err(|error| match error {
                EvalError::Unknown(name) => Stopped::Unknown(name),
                EvalError::Wrong(text) => Stopped::Failed(at, text),
            })
        };
        match statement {
            Statement::Nothing => {}
            Statement::Assert { condition, message, text } => {
                if !eval(condition)?.truth() {
                    let mut why = format!("assert {text}");
                    let scope = Scope { variables: &self.variables, lookup };
                    let known = scope.names(condition);
                    if !known.is_empty() {
                        why.push_str(&format!(", where {}", known.join(", ")));
                    }
                    if let Some(message) = message {
                        why.push_str(&format!(": {}", eval(message)?));
                    }
                    return Err(Stopped::Failed(at, why));
                }
            }
            Statement::Print(all) => {
                let all: Result<Vec<_>, _> =
                    all.iter().map(|expr| eval(expr).map(|v| v.to_string())).collect();
                self.printed.push(all?.join(" "));
            }
            Statement::Assign { name, operator, value } => {
                let mut value = eval(value)?;
                if let Some(operator) = operator {
                    let old = eval(&Expr::Name(name.clone()))?;
                    value = arithmetic(operator_name(*operator), &old, &value)
                        .map_err(|error| Stopped::Failed(at, error))?;
                }
                self.variables.insert(name.clone(), value);
            }
            Statement::If { condition, then, otherwise } => {
                let branch = if eval(condition)?.truth() { then } else { otherwise };
                self.run(branch, lookup)?;
            }
        }
        Ok(())
    }
}

enum EvalError {
    Unknown(String),
    Wrong(String),
}

struct Scope<'a> {
    variables: &'a BTreeMap<String, Value>,
    lookup: &'a dyn Fn(&str) -> Option<Value>,
}

impl Scope<'_> {
    fn name(&self, name: &str) -> Result<Value, EvalError> {
        if let Some(value) = self.variables.get(name) {
            return Ok(value.clone());
        }
        match name {
            "True" => return Ok(Value::Integer(1)),
            "False" | "None" => return Ok(Value::Integer(0)),
            _ => {}
        }
        (self.lookup)(name).ok_or_else(|| EvalError::Unknown(name.to_owned()))
    }

    fn eval(&self, expr: &Expr) -> Result<Value, EvalError> {
        match expr {
            Expr::Value(value) => Ok(value.clone()),
            Expr::Name(name) => self.name(name),
            Expr::Tuple(all) => Ok(Value::Tuple(all.iter().map(|e| self.eval(e)).collect::<Result<_, _>>()?)),
            Expr::Unary(operator, value) => {
                let value = self.eval(value)?;
                match (*operator, value) {
                    ("not", value) => Ok(Value::Integer(i64::from(!value.truth()))),
                    ("-", Value::Integer(n)) => Ok(Value::Integer(n.wrapping_neg())),
                    ("-", Value::Real(n)) => Ok(Value::Real(-n)),
                    ("~", Value::Integer(n)) => Ok(Value::Integer(!n)),
                    (operator, value) => Err(EvalError::Wrong(format!("`{operator}` of {value}"))),
                }
            }
            Expr::Binary("and", left, right) => {
                let left = self.eval(left)?;
                if left.truth() { self.eval(right) } else { Ok(left) }
            }
            Expr::Binary("or", left, right) => {
                let left = self.eval(left)?;
                if left.truth() { Ok(left) } else { self.eval(right) }
            }
            Expr::Binary(operator, left, right) => {
                arithmetic(operator, &self.eval(left)?, &self.eval(right)?).map_err(EvalError::Wrong)
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first)?;
                for (operator, right) in rest {
                    let right = self.eval(right)?;
                    if *operator == "in" {
                        let Value::Tuple(all) = &right else {
                            return Err(EvalError::Wrong(format!("`in` of {right}")));
                        };
                        let found = all.iter().any(|one| compare("==", &left, one) == Ok(true));
                        return Ok(Value::Integer(found.into()));
                    }
                    if !compare(operator, &left, &right).map_err(EvalError::Wrong)? {
                        return Ok(Value::Integer(0));
                    }
                    left = right;
                }
                Ok(Value::Integer(1))
            }
            Expr::Call(name, arguments) => {
                let arguments: Vec<_> = arguments.iter().map(|e| self.eval(e)).collect::<Result<_, _>>()?;
                call(name, &arguments).map_err(EvalError::Wrong)
            }
        }
    }

    /// Describes the value of each name in an expression, once per name.
    fn names(&self, expr: &Expr) -> Vec<String> {
        let mut names = Vec::new();
        collect(expr, &mut names);
        let shown = |name: &String| {
            let value = self.name(name).ok()?;
            Some(format!("{name} is {value}"))
        };
        let varying = names.iter().filter(|name| constant(name).is_none());
        varying.filter_map(shown).collect()
    }
}

fn collect(expr: &Expr, names: &mut Vec<String>) {
    match expr {
        Expr::Value(_) => {}
        Expr::Name(name) => {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Expr::Unary(_, inner) => collect(inner, names),
        Expr::Binary(_, left, right) => [left, right].into_iter().for_each(|e| collect(e, names)),
        Expr::Compare(first, rest) => {
            collect(first, names);
            rest.iter().for_each(|(_, e)| collect(e, names));
        }
        Expr::Call(_, all) | Expr::Tuple(all) => all.iter().for_each(|e| collect(e, names)),
    }
}

fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let wrong = || format!("{name}() is not known for {} arguments", arguments.len());
    match (name, arguments) {
        ("abs", [Value::Integer(n)]) => Ok(Value::Integer(n.wrapping_abs())),
        ("abs", [Value::Real(n)]) => Ok(Value::Real(n.abs())),
        ("int", [value]) => Ok(Value::Integer(value.real().ok_or_else(wrong)? as i64)),
        ("float", [value]) => Ok(Value::Real(value.real().ok_or_else(wrong)?)),
        ("str", [value]) => Ok(Value::Text(value.to_string())),
        ("min" | "max", [first, rest @ ..]) => {
            let mut best = first.clone();
            for value in rest {
                if compare(if name == "min" { "<" } else { ">" }, value, &best)? {
                    best = value.clone();
                }
            }
            Ok(best)
        }
        _ => Err(wrong()),
    }
}

/// How two values compare; tuples by their first difference. `None`: a number is not one.
fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, String> {
    Ok(match (left, right) {
        (Value::Text(left), Value::Text(right)) => left.partial_cmp(right),
        (Value::Integer(left), Value::Integer(right)) => left.partial_cmp(right),
        (Value::Tuple(left), Value::Tuple(right)) => {
            for (left, right) in left.iter().zip(right) {
                match order(left, right)? {
                    Some(Ordering::Equal) => {}
                    differs => return Ok(differs),
                }
            }
            left.len().partial_cmp(&right.len())
        }
        _ => match (left.real(), right.real()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => return Err(format!("{left} and {right} cannot be compared")),
        },
    })
}

fn compare(operator: &str, left: &Value, right: &Value) -> Result<bool, String> {
    let Some(order) = order(left, right)? else { return Ok(false) };
    Ok(match operator {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        "!=" => order.is_ne(),
        _ => order.is_eq(),
    })
}

fn operator_name(operator: char) -> &'static str {
    match operator {
        '+' => "+",
        '-' => "-",
        '*' => "*",
        '/' => "/",
        '&' => "&",
        '|' => "|",
        _ => "%",
    }
}

fn arithmetic(operator: &str, left: &Value, right: &Value) -> Result<Value, String> {
    if let (Value::Text(format), "%") = (left, operator) {
        return Ok(Value::Text(formatted(format, right)));
    }
    if let (Value::Text(left), Value::Text(right), "+") = (left, right, operator) {
        return Ok(Value::Text(format!("{left}{right}")));
    }
    let wrong = || format!("`{operator}` of {left} and {right}");
    if let (Value::Integer(a), Value::Integer(b)) = (left, right) {
        let shift = u32::try_from(*b).ok().filter(|shift| *shift < 64);
        let result = match operator {
            "+" => a.checked_add(*b),
            "-" => a.checked_sub(*b),
            "*" => a.checked_mul(*b),
            "//" => a.checked_div_euclid(*b),
            "%" => a.checked_rem_euclid(*b),
            "&" => Some(a & b),
            "|" => Some(a | b),
            "^" => Some(a ^ b),
            "<<" => shift.and_then(|shift| a.checked_shl(shift)),
            ">>" => shift.and_then(|shift| a.checked_shr(shift)),
            "/" if *b != 0 && a % b == 0 => Some(a / b),
            "/" if *b != 0 => return Ok(Value::Real(*a as f64 / *b as f64)),
            _ => None,
        };
        return result.map(Value::Integer).ok_or_else(wrong);
    }
    let (Some(a), Some(b)) = (left.real(), right.real()) else { return Err(wrong()) };
    Ok(Value::Real(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" | "//" if b == 0.0 => return Err(wrong()),
        "/" => a / b,
        "//" => (a / b).floor(),
        "%" => a.rem_euclid(b),
        _ => return Err(wrong()),
    }))
}

/// Formats values with `%d` and similar conversions; each consumes the next value.
fn formatted(format: &str, values: &Value) -> String {
    let one = [values.clone()];
    let mut values = match values {
        Value::Tuple(all) => all.iter(),
        _ => one.iter(),
    };
    let mut out = String::new();
    let mut characters = format.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        while characters.next_if(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '+')).is_some() {}
        match characters.next() {
            Some('%') => out.push('%'),
            Some(_) => out.push_str(&values.next().map_or_else(|| "?".to_owned(), Value::to_string)),
            None => out.push('%'),
        }
    }
    out
}

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
const OPERATORS: [&str; 32] = [
    "//=", "==", "!=", "<=", ">=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "//", "<<", ">>", "<", ">", "+",
    "-", "*", "/", "%", "&", "|", "^", "~", "=", "(", ")", ",", ":", "!",
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
                    "(" => open += 1,
                    ")" => open = open.saturating_sub(1),
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
            return Err(self.error("a statement: assert, print, if or an assignment"));
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
            _ => {
                let operators = [("=", None), ("+=", Some('+')), ("-=", Some('-')), ("*=", Some('*'))];
                let more = [("/=", Some('/')), ("&=", Some('&')), ("|=", Some('|')), ("%=", Some('%'))];
                let found = operators.into_iter().chain(more).find(|(text, _)| self.eat(text));
                let Some((_, operator)) = found else {
                    self.at = before;
                    return Err(self.error("a statement: assert, print, if or an assignment"));
                };
                Ok(Statement::Assign { name, operator, value: self.expression()? })
            }
        }
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
                if self.eat("(") {
                    return Ok(Expr::Call(name, self.arguments()?));
                }
                Ok(Expr::Name(name))
            }
            Token::Operator("(") => {
                self.at += 1;
                let mut all = self.arguments()?;
                Ok(if all.len() == 1 { all.remove(0) } else { Expr::Tuple(all) })
            }
            _ => Err(self.error("a value")),
        }
    }

    /// Parses arguments; the opening parenthesis was consumed.
    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        let mut all = Vec::new();
        while !self.eat(")") {
            all.push(self.expression()?);
            if !self.eat(",") && !matches!(self.peek(), Token::Operator(")")) {
                return Err(self.error("`,` or `)`"));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
