//! The code between `%{` and `}%`: the subset of Python that scripts use.

mod info;
mod parse;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use super::lex::Position;
pub(crate) use info::{constant, info, state_alone};
pub(crate) use parse::parse;

/// Limit of the turns of all loops in a script.
const TURNS: u32 = 10_000;

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
            Statement::For { body, .. } | Statement::While { body, .. } => body.asserts(),
            _ => false,
        })
    }
}

#[derive(Clone, Debug)]
enum Statement {
    Assert {
        condition: Expr,
        message: Option<Expr>,
        text: String,
    },
    Print(Vec<Expr>),
    Assign {
        name: String,
        operator: Option<char>,
        value: Expr,
    },
    If {
        condition: Expr,
        then: Block,
        otherwise: Block,
    },
    For {
        name: String,
        over: Expr,
        body: Block,
    },
    While {
        condition: Expr,
        body: Block,
    },
    Nothing,
    /// Python that is not interpreted, by its first word.
    Foreign(String),
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
    /// A tuple, or a list.
    Tuple(Vec<Expr>),
    /// `a if condition else b`: the condition, and both values.
    Choice(Box<(Expr, Expr, Expr)>),
    /// `a[1]`
    Index(Box<Expr>, Box<Expr>),
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
    /// It is Python that is not interpreted, with its first word.
    Foreign(Position, String),
}

/// The variables and the output of blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    variables: BTreeMap<String, Value>,
    /// The turns of loops that ran.
    turns: u32,
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
            scope.eval(expr).map_err(|error| error.at(at))
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
            Statement::For { name, over, body } => {
                let Value::Tuple(all) = eval(over)? else {
                    return Err(Stopped::Failed(at, "`for` goes over a range, a tuple or a list".to_owned()));
                };
                for value in all {
                    self.turn(at)?;
                    self.variables.insert(name.clone(), value);
                    self.run(body, lookup)?;
                }
            }
            Statement::While { condition, body } => {
                while self.truth(at, condition, lookup)? {
                    self.turn(at)?;
                    self.run(body, lookup)?;
                }
            }
            Statement::Foreign(word) => return Err(Stopped::Foreign(at, word.clone())),
        }
        Ok(())
    }

    fn truth(
        &self,
        at: Position,
        condition: &Expr,
        lookup: &dyn Fn(&str) -> Option<Value>,
    ) -> Result<bool, Stopped> {
        let scope = Scope { variables: &self.variables, lookup };
        scope.eval(condition).map(|value| value.truth()).map_err(|error| error.at(at))
    }

    /// Counts a turn of a loop.
    fn turn(&mut self, at: Position) -> Result<(), Stopped> {
        self.turns += 1;
        let more = || Stopped::Failed(at, format!("more than {TURNS} turns of loops"));
        if self.turns <= TURNS { Ok(()) } else { Err(more()) }
    }
}

enum EvalError {
    Unknown(String),
    Wrong(String),
}

impl EvalError {
    fn at(self, at: Position) -> Stopped {
        match self {
            EvalError::Unknown(name) => Stopped::Unknown(name),
            EvalError::Wrong(text) => Stopped::Failed(at, text),
        }
    }
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
            Expr::Choice(parts) => {
                let (condition, then, otherwise) = &**parts;
                self.eval(if self.eval(condition)?.truth() { then } else { otherwise })
            }
            Expr::Index(of, index) => match (self.eval(of)?, self.eval(index)?) {
                (Value::Tuple(all), Value::Integer(n)) => {
                    let from_end = if n < 0 { n.saturating_add(all.len() as i64) } else { n };
                    let found = usize::try_from(from_end).ok().and_then(|n| all.get(n)).cloned();
                    found.ok_or_else(|| EvalError::Wrong(format!("there is no element {n}")))
                }
                (of, index) => Err(EvalError::Wrong(format!("`{of}[{index}]`"))),
            },
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
        Expr::Choice(parts) => [&parts.0, &parts.1, &parts.2].into_iter().for_each(|e| collect(e, names)),
        Expr::Index(of, index) => [of, index].into_iter().for_each(|e| collect(e, names)),
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
        ("len", [Value::Tuple(all)]) => Ok(Value::Integer(all.len() as i64)),
        ("len", [Value::Text(text)]) => Ok(Value::Integer(text.chars().count() as i64)),
        ("range", [Value::Integer(end)]) => Ok(range(0, *end)),
        ("range", [Value::Integer(start), Value::Integer(end)]) => Ok(range(*start, *end)),
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

/// The numbers of a range, of which no loop needs more than it may turn.
fn range(start: i64, end: i64) -> Value {
    Value::Tuple((start..end).take(TURNS as usize + 1).map(Value::Integer).collect())
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

#[cfg(test)]
mod tests;
