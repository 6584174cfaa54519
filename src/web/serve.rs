//! Connections: how many, and how long one may take to say what it wants.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Most connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// How long a request's head may take to arrive, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1_024;

/// How long open connections may take to finish at the end.
const FINISH_LIMIT: Duration = Duration::from_secs(2);

/// Accepts connections and serves each until `stop`; what is under way then is finished.
///
/// # Errors
/// Never; a listener that cannot accept is asked again.
pub(crate) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let (slots, tracker) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await.0)
            } => accepted,
        };
        let (slot, stream) = accepted;
        let (router, stop) = (router.clone(), stop.clone());
        tracker.spawn(async move {
            Box::pin(serve_connection(stream, router, stop)).await;
            drop(slot);
        });
    }
    tracker.close();
    tracker.wait().await;
    Ok(())
}

async fn serve_connection<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
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
        tracing::debug!(%error, "a connection ended early");
    }
}
