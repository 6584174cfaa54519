//! A connection that can always be ended.
//!
//! The client library runs a thread for each connection, which ends when its socket does. It keeps
//! both when an attempt to connect is given up, and while the broker blocks it, when it writes
//! nothing, a close included. So this room keeps a second handle on every socket and shuts it down
//! when nobody needs the connection any more: whatever the peer does, thread and descriptor go.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    ops::Deref,
    os::fd::AsFd as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties, runtime,
    tcp::OwnedTLSConfig,
    uri::{AMQPScheme, AMQPUri},
};

use super::BrokerError;

/// What is being done while a link is opened.
const CONNECTING: &str = "connecting to the broker";

/// An open connection, whose thread and socket end with it.
#[derive(Debug)]
pub struct Link {
    // Dropped first: the library's own farewell may never be written.
    _socket: Socket,
    connection: Connection,
}

impl Deref for Link {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// A second handle on a connection's socket.
#[derive(Debug)]
struct Socket(TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        // Shut down and not just closed, because the library's thread holds the other handle. It is
        // no fault if the connection has ended already.
        if let Err(error) = self.0.shutdown(Shutdown::Both) {
            tracing::trace!(%error, "a socket was shut down already");
        }
    }
}

impl Link {
    /// Connects within a time limit. What was begun is undone when the limit passes or the future
    /// is dropped.
    pub(super) async fn open(
        uri: AMQPUri,
        properties: ConnectionProperties,
        limit: Duration,
    ) -> Result<Self, BrokerError> {
        match tokio::time::timeout(limit, Self::connect(uri, properties)).await {
            Ok(connected) => connected,
            Err(_) => Err(lost(&format!("no answer within {limit:?}"))),
        }
    }

    async fn connect(uri: AMQPUri, properties: ConnectionProperties) -> Result<Self, BrokerError> {
        let runtime = runtime::default_runtime().map_err(|error| lost(&error))?;
        // The network and TLS come first and on their own, so that a broker that is away costs
        // nothing in the library.
        let host = uri.authority.host.clone();
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host((host.as_str(), uri.authority.port))
                .await
                .map_err(|error| lost(&error))?
                .collect();
        let stream =
            AsyncTcpStream::connect(&runtime, addresses).await.map_err(|error| lost(&error))?;
        let AsyncTcpStream::Plain(plain) = &stream else {
            return Err(lost(&"a new socket is not plain"));
        };
        let second = plain.get_ref().as_fd().try_clone_to_owned().map_err(|error| lost(&error))?;
        let socket = Socket(TcpStream::from(second));
        let stream = match uri.scheme {
            AMQPScheme::AMQP => stream,
            AMQPScheme::AMQPS => {
                let tls = OwnedTLSConfig::default();
                stream.into_tls(&host, tls.as_ref()).await.map_err(|error| lost(&error))?
            }
        };
        let stream = Mutex::new(Some(stream));
        let hand_over = async move |_: AMQPUri, _| {
            // Asked once: the library's own recovery is off.
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            stream.ok_or_else(|| io::Error::other("a session has one socket").into())
        };
        let connection = Connection::connector(uri, runtime, hand_over, properties)
            .await
            .map_err(|error| lost(&error))?;
        Ok(Self { _socket: socket, connection })
    }
}

fn lost(reason: &impl ToString) -> BrokerError {
    BrokerError::lost(CONNECTING, reason.to_string())
}
