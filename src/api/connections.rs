//! Connections: how many, and how long each may keep us waiting. A peer that sends half a request, takes no answer or is
//! simply gone gives up its place in bounded time, and holds up no shutdown.
//!
//! Knows sockets and time-outs; must not know routes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::body::{BodyReader, WriteTimeout};
use crate::error::Result;
use crate::roles::stopped;

/// After the signal: how long an answer may still take to go out.
const LINGER: Duration = Duration::from_secs(2);
/// Before accepting is tried again where it failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Between two lines that say that there is no place left.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Open at once; more wait, and those between two requests are closed for them.
    pub connections: usize,
    /// For a request's headers, for its body, for an answer that is not taken, and between two requests.
    pub peer: Duration,
    /// After the signal: for requests that are being answered.
    pub drain: Duration,
}

/// Serves until `shutdown` says so; then requests that came whole are answered, within `drain`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    mut shutdown: watch::Receiver<bool>,
) -> Result<()> {
    let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let (crowd, crowded) = watch::channel(false);
    let mut open = JoinSet::new();
    let mut said: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut shutdown) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // The peer's own doing.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => continue,
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                    () = stopped(&mut shutdown) => break,
                }
            }
        };
        let place = if let Ok(place) = places.clone().try_acquire_owned() {
            place
        } else {
            if said.is_none_or(|at| at.elapsed() >= SAID_AGAIN_AFTER) {
                tracing::warn!(
                    limit = limits.connections,
                    "[api] max_connections are open; those between two requests are closed"
                );
                said = Some(Instant::now());
            }
            crowd.send_replace(true);
            let place = tokio::select! {
                place = places.clone().acquire_owned() => place,
                () = stopped(&mut shutdown) => break,
            };
            crowd.send_replace(false);
            let Ok(place) = place else { break };
            place
        };
        let one = connection(stream, router.clone(), limits.peer, shutdown.clone(), crowded.clone());
        open.spawn(async move {
            one.await;
            drop(place);
        });
        // What has ended is taken away, or the set would grow.
        while open.try_join_next().is_some() {}
    }
    drop(listener);
    let all = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, all).await.is_err() {
        tracing::warn!(open = open.len(), "requests that are not answered yet are dropped");
        open.shutdown().await;
    }
    Ok(())
}

/// What a connection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its first request has not come yet.
    New,
    Answering,
    /// It was answered, and may ask again.
    Between,
}

async fn connection(
    stream: TcpStream,
    router: Router,
    patience: Duration,
    mut shutdown: watch::Receiver<bool>,
    mut crowded: watch::Receiver<bool>,
) {
    let (stage, mut is) = watch::channel(Stage::New);
    let inner = TowerToHyperService::new(router);
    let body_shutdown = shutdown.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        stage.send_replace(Stage::Answering);
        let answer = inner.call(request.map(|body| BodyReader::new(body, patience, body_shutdown.clone())));
        let stage = stage.clone();
        async move {
            let answer = answer.await;
            stage.send_replace(Stage::Between);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream, patience)), service);
    tokio::pin!(connection);
    tokio::select! {
        // An error is the peer's: it left, was too slow, or does not speak HTTP.
        _ = &mut connection => return,
        () = stopped(&mut shutdown) => {}
        () = makes_room(&mut crowded, &mut is) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = &mut connection => return,
                () = stopped(&mut shutdown) => {}
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let answered = async {
        let _ = is.wait_for(|stage| *stage != Stage::Answering).await.map(drop);
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        _ = connection => {}
        // What is left is half a request, or an answer that nobody takes.
        () = answered => {}
    }
}

/// Ends when others wait for a place and this connection waits for nothing but its next request.
async fn makes_room(crowded: &mut watch::Receiver<bool>, is: &mut watch::Receiver<Stage>) {
    loop {
        // A sender that is gone asks for no room.
        if crowded.wait_for(|crowded| *crowded).await.map(drop).is_err() {
            return std::future::pending().await;
        }
        let is_over = is.wait_for(|stage| *stage == Stage::Between).await.map(drop).is_err();
        if is_over || *crowded.borrow() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::query::Document;
    use super::*;

    struct Served {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        ended: tokio::task::JoinHandle<Result<()>>,
    }

    async fn served(peer: Duration, connections: usize) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/slow", get(|| async { tokio::time::sleep(Duration::from_millis(300)).await }))
            .route("/large", get(|| async { vec![b'x'; 64 << 20] }))
            .route("/body", post(|Document(body): Document| async move { body }));
        let (stop, shutdown) = watch::channel(false);
        let limits = ConnectionLimits { connections, peer, drain: Duration::from_secs(10) };
        Served { address, stop, ended: tokio::spawn(serve(listener, router, limits, shutdown)) }
    }

    impl Served {
        async fn send(&self, text: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.expect("connected");
            stream.write_all(text.as_bytes()).await.expect("sent");
            stream
        }

        /// How long it took to end after it was told to.
        async fn end(self) -> Duration {
            let began = Instant::now();
            self.stop.send_replace(true);
            tokio::time::timeout(Duration::from_secs(9), self.ended).await.expect("ends").expect("no panic").expect("served");
            began.elapsed()
        }
    }

    /// Everything until the peer closes.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(9), stream.read_to_end(&mut text)).await.expect("closed");
        String::from_utf8_lossy(&text).into_owned()
    }

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(60);
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    #[tokio::test]
    async fn headers_that_never_end_and_connections_without_a_request_are_closed() {
        let served = served(SHORT, 10).await;
        for text in ["", "GET / HTTP/1.1\r\nHost: loc", REQUEST] {
            let answer = rest(&mut served.send(text).await).await;
            assert_eq!(answer.ends_with("hello"), text == REQUEST, "{text:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_told_so() {
        let served = served(SHORT, 10).await;
        let mut half = served.send("POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf").await;
        let answer = rest(&mut half).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"), "{answer}");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_given_up() {
        let served = served(SHORT, 1).await;
        let _silent = served.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        // Its place is free again.
        let answer = rest(&mut served.send(REQUEST).await).await;
        assert!(answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn one_too_many_takes_the_place_of_one_without_a_request() {
        let served = served(LONG, 1).await;
        let mut idle = served.send(REQUEST).await;
        let mut first = [0; 12];
        idle.read_exact(&mut first).await.expect("answered");
        let mut next = served.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        assert!(rest(&mut next).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn half_a_request_holds_up_no_shutdown_and_a_whole_one_is_answered() {
        let served = served(LONG, 10).await;
        let _headers = served.send("GET / HTTP/1.1\r\nHost: loc").await;
        let _body = served.send("POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf").await;
        let _silent = served.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let _nothing = served.send("").await;
        let mut whole = served.send("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let took = served.end().await;
        assert!(took < LINGER * 2, "{took:?}");
        assert!(rest(&mut whole).await.starts_with("HTTP/1.1 200 "));
    }
}
