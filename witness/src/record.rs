//! Records of tests that did not run: one file for each run of `cargo test`.
//!
//! All test targets of a run are children of one `cargo` process. The file is named after its process id and start
//! time, so that no run reads the records of another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::Missing;

/// A test that did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRun {
    /// Target and name of the test.
    pub test: String,
    /// The requirements that are not met.
    pub missing: Vec<Missing>,
}

impl NotRun {
    /// The requirements that are not met, in one line.
    pub fn reason(&self) -> String {
        let reasons: Vec<String> = self.missing.iter().map(Missing::to_string).collect();
        reasons.join("; ")
    }

    fn to_line(&self) -> String {
        let codes: Vec<String> = self.missing.iter().map(Missing::code).collect();
        format!("{}\t{}\n", self.test, codes.join("\t"))
    }

    fn from_line(line: &str) -> Option<NotRun> {
        let mut fields = line.split('\t');
        let test = fields.next()?.to_owned();
        Some(NotRun { test, missing: fields.map(Missing::from_code).collect::<Option<_>>()? })
    }
}

/// The records of one run of `cargo test`.
#[derive(Debug)]
pub struct Records {
    file: PathBuf,
}

impl Records {
    /// The records of the run that this program is part of.
    pub fn of_this_run() -> io::Result<Records> {
        // target/debug/deps/NAME-HASH
        let program = std::env::current_exe()?;
        let target = program.parent().and_then(Path::parent).unwrap_or(Path::new("."));
        Records::of_run(&target.join("not-run"), &this_run())
    }

    /// The records of a run, in `folder`. Removes the records of runs that are over.
    fn of_run(folder: &Path, run: &str) -> io::Result<Records> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_over = name.split_once('-').is_some_and(|(id, _)| run_of(id).as_ref() != Some(&name));
            if name != run && is_over {
                // Another test may have removed it.
                fs::remove_file(entry.path()).ok();
            }
        }
        Ok(Records { file: folder.join(run) })
    }

    /// Adds a record.
    pub fn add(&self, test: &NotRun) -> io::Result<()> {
        let mut file: File = OpenOptions::new().create(true).append(true).open(&self.file)?;
        // One write, because tests run concurrently.
        file.write_all(test.to_line().as_bytes())
    }

    /// Returns all records, and removes them.
    pub fn take(&self) -> io::Result<Vec<NotRun>> {
        let text = match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        fs::remove_file(&self.file)?;
        let read = |line| {
            NotRun::from_line(line)
                .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("not a record: `{line}`")))
        };
        text.lines().map(read).collect()
    }
}

/// The name of this run of `cargo test`.
fn this_run() -> String {
    #[cfg(unix)]
    let parent = std::os::unix::process::parent_id().to_string();
    #[cfg(not(unix))]
    let parent = "0".to_owned();
    run_of(&parent).unwrap_or_else(|| format!("{parent}-0"))
}

/// The name of the run whose `cargo` has this process id: the id and its start time, in clock ticks since boot.
fn run_of(id: &str) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(id).join("stat")).ok()?;
    // The name of the program may contain anything, so fields are counted from its end (proc(5)).
    let (_, fields) = stat.rsplit_once(')')?;
    Some(format!("{id}-{}", fields.split_whitespace().nth(19)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_run(test: &str) -> NotRun {
        let missing = vec![
            Missing::Root,
            Missing::Device,
            Missing::Namespace("operation not permitted".to_owned()),
            Missing::Tool("wrk".to_owned()),
        ];
        NotRun { test: test.to_owned(), missing }
    }

    #[test]
    fn a_run_takes_what_its_tests_added_once() {
        let folder = tempfile::tempdir().unwrap();
        let records = || Records::of_run(folder.path(), &this_run()).unwrap();
        records().add(&not_run("tun: a")).unwrap();
        records().add(&not_run("tun: b")).unwrap();
        assert_eq!(records().take().unwrap(), [not_run("tun: a"), not_run("tun: b")]);
        assert_eq!(records().take().unwrap(), []);
    }

    /// A filtered run has no summary, and the next run must not show its records.
    #[test]
    fn what_another_run_left_is_not_read_and_is_removed_when_that_run_is_over() {
        let folder = tempfile::tempdir().unwrap();
        // The same process id, at another time.
        let (id, _) = this_run().split_once('-').map(|(id, at)| (id.to_owned(), at.to_owned())).unwrap();
        let stale = Records::of_run(folder.path(), &format!("{id}-1")).unwrap();
        stale.add(&not_run("tun: stale")).unwrap();
        // The process of this test goes on.
        let running = run_of(&std::process::id().to_string()).unwrap();
        Records { file: folder.path().join(&running) }.add(&not_run("tun: beside")).unwrap();
        let records = Records::of_run(folder.path(), &this_run()).unwrap();
        assert_eq!(records.take().unwrap(), []);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [running.as_str()]);
    }
}
