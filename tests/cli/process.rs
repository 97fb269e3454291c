//! Processes of `tickgate`: run to their end, or kept running until the test is done with them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
#[cfg(unix)]
use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStderr, Stdio},
};

use tempfile::TempDir;

/// Runs `tickgate` in `directory`.
pub fn tickgate(directory: &Path, arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_tickgate"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    Outcome::from(output)
}

#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn empty() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[cfg(unix)]
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A `tickgate` process that is killed when the test is done with it.
#[cfg(unix)]
pub struct Running {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

#[cfg(unix)]
impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
impl Running {
    /// Starts `tickgate` in `directory`.
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tickgate"))
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log }
    }

    /// Reads its log until a line has all of `parts`.
    pub fn says(&mut self, parts: &[&str]) -> String {
        let mut said = Vec::new();
        for line in self.log.by_ref() {
            let line = line.unwrap();
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
            said.push(line);
        }
        panic!("it ended without saying {parts:?}:\n{}", said.join("\n"));
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, as an operator does.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end: the rest of its log, and its exit code.
    pub fn end(mut self) -> (String, i32) {
        let rest: Vec<String> = self.log.by_ref().map(|line| line.unwrap()).collect();
        (rest.join("\n"), self.child.wait().unwrap().code().unwrap())
    }
}

/// What an HTTP server answers.
#[cfg(unix)]
pub fn get(address: std::net::SocketAddr, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: tickgate\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
