//! `resaga demo` as a person runs it: the binary, with nothing installed.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(240);

fn demo(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_resaga"));
    // Settings of whoever runs the tests are not the demo's.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RESAGA_")) {
        command.env_remove(name);
    }
    command.arg("demo").args(arguments).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end, or ends it and fails.
fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("the demo did not end within {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_demo_verifies_its_story_and_ends_well() {
    let mut child = demo(&[]);
    let mut out = child.stdout.take().unwrap();
    let told = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let code = wait(&mut child);
    let told = told.join().unwrap().unwrap();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("1500 orders lost") && told.contains("ok      nobody paid twice"), "{told}");
    assert!(!told.contains("DIFFERS"), "{told}");
}

#[test]
fn the_demo_stays_up_to_be_asked_and_leaves_on_a_signal() {
    let mut child = demo(&["--serve"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let serving = lines.find_map(|line| {
        let line = line.unwrap();
        let address = line.strip_prefix("HTTP is at ")?.split(';').next()?.to_owned();
        Some(address)
    });
    let server = serving.expect("the demo says where it serves");
    // What is left on stdout must not fill the pipe.
    let rest = std::thread::spawn(move || lines.count());
    let asked = Command::new(env!("CARGO_BIN_EXE_resaga"))
        .args(["--server", &server, "-o", "json", "saga", "list", "--error-type", "OutOfStock", "--limit", "1"])
        .output()
        .unwrap();
    let stopped = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let code = wait(&mut child);
    rest.join().unwrap();
    assert!(asked.status.success() && stopped.success(), "{asked:?}");
    assert!(String::from_utf8_lossy(&asked.stdout).contains("order-"), "{asked:?}");
    assert_eq!(code, Some(0));
}
