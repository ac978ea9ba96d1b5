//! Families: many scripts that one template gives.
//!
//! A row of a decision table asks the same of several states, of each edge of a window, with and without timestamps.
//! A file `*.pkt.jinja` says it once; rendered it holds scripts one after the other, each begun by a line `=== NAME`.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs;
use std::io;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, path_loader};

use super::lex::Position;

/// How the name of a template ends.
const FAMILY: &str = ".pkt.jinja";
/// What begins a script in a rendered template.
const HEADING: &str = "=== ";
/// Steps that rendering may take: a template with an endless loop is an error.
const FUEL: u64 = 50_000_000;

/// A script and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Within a family; a file of its own has none.
    pub name: Option<String>,
    /// The script.
    pub text: String,
}

impl Source {
    /// What reports call it: `window.pkt.jinja: SA-EST-10 left`.
    pub fn title(&self, file: &Path) -> String {
        match &self.name {
            Some(name) => format!("{}: {name}", file.display()),
            None => file.display().to_string(),
        }
    }
}

/// Why a file gives no scripts.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The template is wrong.
    #[error("{reason}")]
    Template {
        /// The place in the template; `None`: in a file that it imports, which the reason names.
        at: Option<Position>,
        /// What is wrong.
        reason: String,
    },
    /// What it renders to does not fall into scripts.
    #[error("line {line} of the rendered text: {reason}")]
    Rendered {
        /// The line.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Whether a file holds scripts, by its name.
pub fn is_drill_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".pkt") || name.ends_with(FAMILY)
}

/// The scripts of a file: of a template each that it gives, otherwise one. Templates import from their own folder.
pub fn read_scripts(path: &Path) -> Result<Vec<Source>, SourceError> {
    let bytes = fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    if !path.to_string_lossy().ends_with(FAMILY) {
        return Ok(vec![Source { name: None, text: text.into_owned() }]);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    split(&render(&name, &text, path.parent().unwrap_or(Path::new(".")))?)
}

fn render(name: &str, text: &str, folder: &Path) -> Result<String, SourceError> {
    let mut environment = Environment::new();
    environment.set_loader(path_loader(folder));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    let whitespace =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(whitespace.map_err(|error| template_error(name, &error))?);
    environment.render_named_str(name, text, ()).map_err(|error| template_error(name, &error))
}

/// Of the errors that led to each other the innermost says what is wrong and where.
fn template_error(name: &str, error: &Error) -> SourceError {
    let mut innermost = error;
    while let Some(source) = innermost.source().and_then(|source| source.downcast_ref::<Error>()) {
        innermost = source;
    }
    let reason = match (innermost.kind(), innermost.detail()) {
        (ErrorKind::OutOfFuel, _) => "the template does not end".to_owned(),
        (kind, None) => kind.to_string(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
    };
    let at = innermost.line().map(|line| Position { line, column: 1 });
    match (at, innermost.name()) {
        (Some(Position { line, .. }), Some(imported)) if imported != name => {
            SourceError::Template { at: None, reason: format!("{imported}:{line}: {reason}") }
        }
        _ => SourceError::Template { at, reason },
    }
}

/// Takes a rendered text apart.
fn split(rendered: &str) -> Result<Vec<Source>, SourceError> {
    let mut scripts: Vec<Source> = Vec::new();
    let mut names = BTreeSet::new();
    for (index, line) in rendered.split_inclusive('\n').enumerate() {
        let wrong = |reason: String| SourceError::Rendered { line: index + 1, reason };
        if let Some(name) = line.strip_prefix(HEADING).map(str::trim) {
            // Reports put it behind the path of the file.
            if name.is_empty() || name.contains('/') {
                return Err(wrong(format!("expected a name without `/` after `===`, found `{name}`")));
            }
            if !names.insert(name.to_owned()) {
                return Err(wrong(format!("a second script of the name `{name}`")));
            }
            scripts.push(Source { name: Some(name.to_owned()), text: String::new() });
        } else if let Some(script) = scripts.last_mut() {
            script.text.push_str(line);
        } else if !line.trim().is_empty() {
            return Err(wrong(format!(
                "expected `=== NAME` before the first script, found `{}`",
                line.trim()
            )));
        }
    }
    if scripts.is_empty() {
        let reason = "expected a script, begun by `=== NAME`; there is none".to_owned();
        return Err(SourceError::Rendered { line: 1, reason });
    }
    Ok(scripts)
}
