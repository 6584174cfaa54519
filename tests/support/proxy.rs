//! A network between the daemon and what it talks to, which can do what networks do.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// What becomes of connections that are made from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They work.
    Pass,
    /// They are closed at once.
    Refuse,
    /// They are taken, and nothing is ever said: what arrives is swallowed.
    Stall,
    /// Everything takes this long, in each direction.
    Delay(Duration),
    /// They end after so many bytes from the server.
    Truncate(usize),
}

/// What the connections listen to: how new ones are treated, and how often all were cut or stalled.
#[derive(Clone, Copy, Debug)]
struct Orders {
    mode: Mode,
    cuts: u64,
    stalls: u64,
}

/// A proxy for TCP on a port of its own.
pub(crate) struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Proxy {
    /// Stands before `server`, and works.
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, _) = watch::channel(Orders { mode: Mode::Pass, cuts: 0, stalls: 0 });
        let (accepted, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let stop = CancellationToken::new();
        let (listen_orders, counts) = (orders.clone(), (Arc::clone(&accepted), Arc::clone(&open)));
        let (tracker, stopped) = (TaskTracker::new(), stop.clone());
        tracker.clone().spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                counts.0.fetch_add(1, Ordering::SeqCst);
                let connection = Connection {
                    orders: listen_orders.subscribe(),
                    stalled: Arc::default(),
                    _open: Open::one_more(&counts.1),
                };
                let task = connection.run(client, server);
                tracker.spawn(stopped.clone().run_until_cancelled_owned(task));
            }
        }));
        Self { address, orders, accepted, open, _stop: stop.drop_guard() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What becomes of connections that are made from now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.orders.send_modify(|orders| orders.mode = mode);
    }

    /// Ends every connection that there is.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// Leaves every connection that there is open and lets nothing through any more, in neither
    /// direction, as a network does that drops packets.
    pub(crate) fn stall(&self) {
        self.orders.send_modify(|orders| orders.stalls += 1);
    }

    /// How many connections were ever made.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// How many connections the client holds open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// One open connection, counted until this is dropped.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Connection {
    orders: watch::Receiver<Orders>,
    stalled: Arc<AtomicBool>,
    _open: Open,
}

impl Connection {
    async fn run(self, client: TcpStream, server: SocketAddr) {
        let at_accept = *self.orders.borrow();
        let ended = self.ended(at_accept);
        let (from_client, to_client) = client.into_split();
        match at_accept.mode {
            Mode::Refuse => {}
            Mode::Stall => {
                tokio::select! {
                    () = swallow(from_client) => {}
                    () = ended => {}
                }
            }
            Mode::Pass | Mode::Delay(_) | Mode::Truncate(_) => {
                let Ok(server) = TcpStream::connect(server).await else { return };
                let (from_server, to_server) = server.into_split();
                let (stalled, mode) = (&*self.stalled, at_accept.mode);
                let upwards = if let Mode::Truncate(_) = mode { Mode::Pass } else { mode };
                tokio::select! {
                    () = pump(from_client, to_server, upwards, stalled) => {}
                    () = async {
                        pump(from_server, to_client, mode, stalled).await;
                        // A peer that is cut off never learns that the server has hung up.
                        if stalled.load(Ordering::SeqCst) {
                            std::future::pending::<()>().await;
                        }
                    } => {}
                    () = ended => {}
                }
            }
        }
    }

    /// Returns once the connection is to be cut; notes meanwhile when it is to stall.
    async fn ended(&self, at_accept: Orders) {
        let mut orders = self.orders.clone();
        loop {
            let now = *orders.borrow_and_update();
            if now.stalls > at_accept.stalls {
                self.stalled.store(true, Ordering::SeqCst);
            }
            if now.cuts > at_accept.cuts || orders.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Copies until either side ends.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: Mode, stalled: &AtomicBool) {
    let mut bytes = vec![0; 16 * 1024];
    let mut left = if let Mode::Truncate(most) = mode { most } else { usize::MAX };
    while left > 0 {
        let count = match from.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count.min(left),
        };
        if stalled.load(Ordering::SeqCst) {
            continue;
        }
        if let Mode::Delay(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
        left -= count;
    }
}

async fn swallow(mut from: OwnedReadHalf) {
    let mut bytes = [0; 1024];
    while matches!(from.read(&mut bytes).await, Ok(1..)) {}
}
