//! How far a batch is, on stderr while one waits for it: one line that changes on a terminal, else a line every five seconds.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Target;
use super::exit::{Exit, Failure};
use super::output::note;
use super::session::Session;

/// Without --timeout.
const WAIT: Duration = Duration::from_secs(3_600);
const LOOK: Duration = Duration::from_millis(250);
/// Between two lines where there is no terminal.
const PLAIN: Duration = Duration::from_secs(5);

/// Asks until the batch is done, paused or cancelled.
pub async fn until_done(session: &Session, batch: &Target, batch_id: &str) -> Result<Value, Failure> {
    let client = session.client()?;
    let deadline = Instant::now() + session.time_out.unwrap_or(WAIT);
    let is_terminal = io::stderr().is_terminal();
    let mut shown = None;
    loop {
        let answer = match client.get(batch).await {
            Ok(answer) => answer,
            // The log may not know it yet.
            Err(failure) if failure.exit == Exit::NotFound => Value::Null,
            Err(failure) => return Err(failure),
        };
        let is_over = matches!(answer["status"].as_str(), Some("done" | "paused" | "cancelled"));
        if is_terminal {
            drop(write!(io::stderr(), "\r\x1b[K{}", line(&answer)));
        } else if is_over || shown.is_none_or(|at: Instant| at.elapsed() >= PLAIN) {
            note(&line(&answer));
            shown = Some(Instant::now());
        }
        if is_over {
            if is_terminal {
                note("");
            }
            return Ok(answer);
        }
        if Instant::now() + LOOK >= deadline {
            let message = format!("batch {batch_id} is not done yet; the work goes on");
            return Err(Failure::new(Exit::TimeOut, "time_out", message).hint(format!("resaga batch get {batch_id}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn line(batch: &Value) -> String {
    let Some(status) = batch["status"].as_str() else { return "waiting for the batch to be taken up".to_owned() };
    let total = batch["total"].as_u64().unwrap_or_default();
    let counts = batch["counts"].as_object().into_iter().flatten();
    let counts: Vec<String> = counts
        .filter(|(_, count)| count.as_u64().is_some_and(|count| count > 0))
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let eta = batch["eta"].as_str().map(|eta| format!(", requested by {eta}")).unwrap_or_default();
    format!("{status}: {total} sagas: {}{eta}", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_what_there_is() {
        assert_eq!(line(&Value::Null), "waiting for the batch to be taken up");
        let batch = json!({"status": "running", "total": 9, "counts": {"accepted": 4, "failed": 0, "completed": 5}, "eta": null});
        assert_eq!(line(&batch), "running: 9 sagas: 4 accepted, 5 completed");
    }
}
