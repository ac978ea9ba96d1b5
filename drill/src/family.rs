//! Families: scripts generated from one template.
//!
//! A row of a decision table asks the same of several states, of each edge of a window, with and without timestamps. A
//! file `*.pkt.jinja` states it once. Rendered, it holds several scripts, each of which starts with a line `=== NAME`.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs;
use std::io;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, path_loader};

use super::lex::Position;

/// Suffix of a template's file name.
const FAMILY: &str = ".pkt.jinja";
/// Prefix of the line that starts a script in a rendered template.
const HEADING: &str = "=== ";
/// Limit of the rendering steps, which catches templates with an endless loop.
const FUEL: u64 = 50_000_000;

/// A script and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name within a family; `None` for a file with a single script.
    pub name: Option<String>,
    /// The script.
    pub text: String,
}

impl Source {
    /// Its title in reports: `window.pkt.jinja: left edge`.
    pub fn title(&self, file: &Path) -> String {
        match &self.name {
            Some(name) => format!("{}: {name}", file.display()),
            None => file.display().to_string(),
        }
    }
}

/// Why a file yields no scripts.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The template is invalid.
    #[error("{reason}")]
    Template {
        /// The place in the template; `None` for an imported file, which the reason names.
        at: Option<Position>,
        /// The reason.
        reason: String,
    },
    /// The rendered text cannot be split into scripts.
    #[error("line {line} of the rendered text: {reason}")]
    Rendered {
        /// The line of the rendered text.
        line: usize,
        /// The reason.
        reason: String,
    },
}

/// Returns whether a file holds scripts, judging by its name.
pub fn is_drill_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".pkt") || name.ends_with(FAMILY)
}

/// Reads the scripts of a file: one, or those that a template renders to. Templates import from their own folder.
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

/// Converts a template error. The innermost of its chained causes has the reason and the place.
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

/// Splits a rendered text into scripts.
fn split(rendered: &str) -> Result<Vec<Source>, SourceError> {
    let mut scripts: Vec<Source> = Vec::new();
    let mut names = BTreeSet::new();
    for (index, line) in rendered.split_inclusive('\n').enumerate() {
        let wrong = |reason: String| SourceError::Rendered { line: index + 1, reason };
        if let Some(name) = line.strip_prefix(HEADING).map(str::trim) {
            // Reports append the name to the path of the file.
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
