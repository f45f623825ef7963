//! A Redis of a test's own, which may be hurt: on a free port, without persistence, gone with the value.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct RedisProcess {
    port: u16,
    options: &'static [&'static str],
    child: Child,
    /// Where it keeps what a node of a cluster keeps of the others.
    directory: tempfile::TempDir,
}

/// A node of a cluster.
const NODE: &[&str] = &["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000"];

impl RedisProcess {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One server of a cluster that has no other yet.
    pub async fn start_node() -> Self {
        Self::start_with(NODE).await
    }

    async fn start_with(options: &'static [&'static str]) -> Self {
        // The bus of a cluster listens 10,000 above.
        let port = loop {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
            if options.is_empty() || port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
                break port;
            }
        };
        let directory = tempfile::tempdir().expect("a directory");
        let server = Self { port, options, child: spawn(port, options, directory.path()), directory };
        server.wait_until_up().await;
        server
    }

    pub fn port(&self) -> String {
        self.port.to_string()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Killed and started again, empty.
    pub async fn restart(&mut self) {
        self.stop();
        self.child = spawn(self.port, self.options, self.directory.path());
        self.wait_until_up().await;
    }

    pub async fn config(&self, name: &str, value: &str) {
        self.command(&["CONFIG", "SET", name, value]).await;
    }

    pub async fn command(&self, words: &[&str]) {
        self.try_command(words).await.expect("redis command");
    }

    /// The answer as text.
    pub async fn ask(&self, words: &[&str]) -> String {
        let answer = self.try_command(words).await.expect("redis command");
        redis::from_redis_value(answer).expect("a text")
    }

    /// Until the answer holds this.
    pub async fn wait_for(&self, words: &[&str], wanted: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.ask(words).await.contains(wanted) {
            assert!(Instant::now() < deadline, "{words:?} never told {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Drops the replicas' connections, as one who knows the password.
    pub async fn cut_replica(&self, password: &str) {
        let url = format!("redis://:{password}@127.0.0.1:{}/0", self.port);
        let mut connection = redis::Client::open(url).expect("url").get_multiplexed_async_connection().await.expect("connect");
        let cut: u32 =
            redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica").query_async(&mut connection).await.expect("cut");
        assert_eq!(cut, 1);
    }

    /// Gone, with whatever it has not told its replica.
    pub fn kill(&mut self) {
        self.stop();
    }

    /// From now on reached where `other`, which is gone, was.
    pub async fn move_to(&mut self, other: &Self) {
        self.config("port", &other.port()).await;
        self.port = other.port;
    }

    async fn try_command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }

    async fn wait_until_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.try_command(&["PING"]).await.is_err() {
            assert!(Instant::now() < deadline, "redis-server did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(port: u16, options: &[&str], directory: &Path) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
        .arg(directory)
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("start redis-server")
}
