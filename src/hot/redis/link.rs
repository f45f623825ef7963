//! A connection that is made when it is needed and dropped when it is over: one try with a time-out per call, the next
//! call reconnects. After a call that had no answer in time the link rests: for as long as the time-out calls fail at
//! once, so that a search of many reads does not wait for a hung server at each of them. Knows no keys.

use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisResult, Value};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::{connection_is_over, explain, is_no_script, resting, timed_out};
use super::url::Server;
use crate::error::Result;

/// Several requests can be in flight on one link; what was sent first is executed first, per node.
pub(super) struct Link {
    server: Arc<Server>,
    /// `host:port`, for messages.
    address: Arc<str>,
    timeout: Duration,
    open: Mutex<OpenConnection>,
    /// Until then calls fail at once.
    rests: std::sync::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct OpenConnection {
    connection: Option<Connection>,
    /// Counts connections, so that a late failure of an old one does not drop its successor.
    number: u64,
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    pub fn new(server: Arc<Server>, address: Arc<str>, timeout: Duration) -> Self {
        Self { server, address, timeout, open: Mutex::default(), rests: std::sync::Mutex::default() }
    }

    /// Sends a pipeline whose keys lie in one bucket; any command that failed is an error.
    pub async fn pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T> {
        self.call(async |connection| match connection {
            Connection::Single(connection) => pipeline.query_async(connection).await,
            Connection::Cluster(connection) => pipeline.query_async(connection).await,
        })
        .await
    }

    /// Runs a script by its hash, and by its text if the server does not have it.
    pub async fn script<T: FromRedisValue>(&self, by_hash: &Cmd, by_text: &Cmd) -> Result<T> {
        self.call(async |connection| match connection.query(by_hash).await {
            Err(error) if is_no_script(&error) => connection.query(by_text).await,
            other => other,
        })
        .await
    }

    /// Asks every server that holds data; one answer each.
    pub async fn each_server<T: FromRedisValue>(&self, command: &Cmd) -> Result<Vec<T>> {
        self.call(async |connection| match connection {
            Connection::Single(connection) => Ok(vec![command.query_async(connection).await?]),
            Connection::Cluster(connection) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let Value::Map(answers) = connection.route_command(command.clone(), all).await? else {
                    return Ok(Vec::new());
                };
                answers.into_iter().map(|(_, answer)| Ok(T::from_redis_value(answer)?)).collect()
            }
        })
        .await
    }

    /// One try within the time-out, unless the link rests. The time-out includes connecting and waiting for another call that connects.
    async fn call<T>(&self, run: impl AsyncFnOnce(&mut Connection) -> RedisResult<T>) -> Result<T> {
        if self.rests.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until) {
            return Err(resting(&self.address, self.timeout));
        }
        let mut used = None;
        let outcome = tokio::time::timeout(self.timeout, async {
            let (mut connection, number) = self.connection().await?;
            used = Some(number);
            run(&mut connection).await
        })
        .await;
        let (over, error) = match outcome {
            Ok(Ok(answer)) => {
                self.rest(None);
                return Ok(answer);
            }
            Ok(Err(error)) => (connection_is_over(&error), explain(error, &self.address)),
            Err(_) => {
                self.rest(Some(Instant::now() + self.timeout));
                (true, timed_out(&self.address, self.timeout))
            }
        };
        if let Some(number) = used.filter(|_| over) {
            self.drop_connection(number).await;
        }
        Err(error)
    }

    fn rest(&self, until: Option<Instant>) {
        *self.rests.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    async fn connection(&self) -> RedisResult<(Connection, u64)> {
        let mut open = self.open.lock().await;
        if let Some(connection) = &open.connection {
            return Ok((connection.clone(), open.number));
        }
        let connection = match &*self.server {
            Server::Single(client) => {
                // `call` is the time-out of everything.
                let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
                Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
            Server::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        };
        open.number += 1;
        open.connection = Some(connection.clone());
        Ok((connection, open.number))
    }

    async fn drop_connection(&self, number: u64) {
        let mut open = self.open.lock().await;
        if open.number == number {
            open.connection = None;
        }
    }
}

impl Connection {
    async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_time_out_calls_fail_at_once_for_a_while_and_then_try_again() {
        // Takes connections and never says a word.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = silent.local_addr().expect("address").to_string();
        let client = redis::Client::open(format!("redis://{address}")).expect("client");
        let timeout = Duration::from_millis(400);
        let link = Link::new(Arc::new(Server::Single(Box::new(client))), address.into(), timeout);
        let call = async || {
            let began = Instant::now();
            let answer = link.each_server::<String>(&redis::cmd("PING")).await;
            assert!(answer.expect_err("nobody answers").is_unavailable());
            began.elapsed()
        };
        assert!(call().await >= timeout);
        let ended = Instant::now();
        assert!(call().await < timeout, "it rests");
        let deadline = ended + Duration::from_secs(30);
        while call().await < timeout {
            assert!(Instant::now() < deadline, "it tries again");
            tokio::task::yield_now().await;
        }
        assert!(ended.elapsed() >= timeout * 2, "not before it has rested");
    }
}
