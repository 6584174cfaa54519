//! Connections, one by one: a handler can have its own reset.
//!
//! `axum::serve` hides the socket, so this is an accept loop of our own. A reset is a real one: the
//! socket is closed with a linger of zero, and the peer gets RST instead of an answer.

use std::{convert::Infallible, io, pin::Pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Most connections at a time; more wait to be accepted.
pub const CONNECTIONS_MAX: usize = 1_024;

/// How long a request's head may take to arrive, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause after an accept that failed, e.g. because there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long open connections may take to finish when the sandbox ends.
const FINISH_LIMIT: Duration = Duration::from_secs(2);

/// Resets the connection that a request came on.
#[derive(Clone, Debug, Default)]
pub(super) struct Reset(CancellationToken);

impl Reset {
    /// Resets it. Never returns: the connection goes away under whoever asked.
    pub(super) async fn now(self) -> Infallible {
        self.0.cancel();
        std::future::pending().await
    }
}

/// Accepts connections and serves each until the sandbox ends.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tracker.spawn(async move {
                    serve_connection(stream, router, stop).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the sandbox cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

async fn serve_connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    let reset = Reset::default();
    let service = TowerToHyperService::new(router.layer(Extension(reset.clone())));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = reset.0.cancelled() => {
            let stream = connection.into_parts().io.into_inner();
            if let Err(error) = stream.set_zero_linger() {
                tracing::warn!(%error, "a connection is closed instead of being reset");
            }
            return;
        }
        () = stop.cancelled() => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        Pin::new(&mut connection).graceful_shutdown();
        match tokio::time::timeout(FINISH_LIMIT, connection).await {
            Ok(ended) => ended,
            Err(_) => return,
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the sandbox ended early");
    }
}
