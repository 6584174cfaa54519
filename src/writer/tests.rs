//! Which jobs leave at once, and which wait for their turn.

use serde_json::json;
use tokio::sync::oneshot;

use super::*;
use crate::{
    clock::SystemClock,
    config::{Config, OesConfig},
    domain::{
        book::BookEvent,
        ids::{ConnectionId, RecordId},
        message::parse_job,
    },
    pipeline::record::{Intake, Recorded},
    store::open_writer,
};

const KEY: &str = "88c4670be22d23e10e6914266f622500564ee1c1c4b31af25eaccb86eedd6d74";
const BATCH_MAX: usize = 64;
const CLIENT: Uuid = Uuid::from_u128(1);

/// A writer whose batches the test forms.
struct Desk {
    _folder: tempfile::TempDir,
    handle: Option<WriterHandle>,
    writer: Writer,
    budget: Arc<Budget>,
    sends: mpsc::UnboundedReceiver<Permitted>,
}

impl Desk {
    async fn new(in_flight_max: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock);
        let mut config = Config::default();
        config.decide.verify_with_oes = false;
        let oes = OesConfig {
            rate_limit: 100_000,
            rate_burst: 1_000,
            in_flight_max,
            ..OesConfig::default()
        };
        let budget = Arc::new(Budget::new(&oes, Arc::clone(&clock) as _));
        let (outlet, sends) = mpsc::unbounded_channel();
        let key = Arc::new(SigningKey::from_text(KEY).unwrap());
        let (writer, handle) = Writer::new(WriterParts {
            book: open_writer(&folder.path().join("book.db"), clock.now()).await.unwrap(),
            signing: Some(Signing { key, budget: Arc::clone(&budget), sends: outlet }),
            decides_without_key: false,
            budget: Some(Arc::clone(&budget)),
            mark: None,
            limits: config.retry.limits(),
            conditions: config.conditions(),
            gate: GateBoard::without_feed(),
            close_within: Duration::from_secs(60),
            batch_max: BATCH_MAX,
            queue_len_max: 64,
            lazy: Duration::ZERO,
            wake: Wake::default(),
            metrics: Arc::new(Metrics::new()),
            traces: Traces::default(),
            health: Arc::default(),
            clock,
        })
        .await
        .unwrap();
        let mut desk = Self { _folder: folder, handle: Some(handle), writer, budget, sends };
        let currency = json!({"type": "currency.configured", "eventId": "k", "currency": "BTC",
            "enabled": true, "quantityMin": "1", "quantityMax": "1000"});
        desk.apply(&currency).await;
        desk
    }

    async fn apply(&mut self, fact: &serde_json::Value) {
        let (answer, _told) = oneshot::channel();
        let events = vec![BookEvent::parse(&fact.to_string()).unwrap()];
        let source = "test".to_owned();
        self.writer.execute(vec![Command::ApplyBook { events, source, answer }]).await.unwrap();
    }

    async fn connect(&mut self, number: u128) -> ConnectionId {
        let id = Uuid::from_u128(number);
        let fact = json!({"type": "connection.upserted", "eventId": id, "connectionId": id,
            "clientId": CLIENT, "partnersClientId": "client", "partnersConnectionId": "conn",
            "active": true});
        self.apply(&fact).await;
        id.into()
    }

    /// A batch that records a job for each of `connections`, and then prepares what was due before it, with
    /// as many permits as there are.
    async fn batch(&mut self, connections: &[ConnectionId], prepare: usize) -> Vec<RecordId> {
        let jobs: Vec<Intake> = connections.iter().map(job).collect();
        let records = jobs.iter().map(|intake| intake.terms.record_id).collect();
        let mut batch: Vec<Command> = jobs.into_iter().map(command).collect();
        if prepare > 0 {
            let permits = self.budget.send_permits(prepare).await;
            assert_eq!(permits.len(), prepare);
            let (answer, _told) = oneshot::channel();
            batch.push(Command::Prepare { permits, due: None, answer });
        }
        self.writer.execute(batch).await.unwrap();
        records
    }

    /// What left since the last look; it is not in flight any more.
    fn sent(&mut self) -> Vec<RecordId> {
        std::iter::from_fn(|| self.sends.try_recv().ok())
            .map(|(attempt, _permit)| attempt.terms.record_id)
            .collect()
    }
}

fn job(connection: &ConnectionId) -> Intake {
    let raw = json!({"type": "allocation", "allocationId": Uuid::new_v4(), "clientId": CLIENT,
        "amount": {"currency": "BTC", "quantity": "1"}, "connectionId": connection,
        "partnersClientId": "client", "partnersConnectionId": "conn", "partnersAllocationId": "a"})
    .to_string();
    let terms = parse_job(raw.as_bytes()).unwrap();
    Intake { terms, raw, queue: "jobs".to_owned(), book_sequence: None }
}

fn command(intake: Intake) -> Command {
    let (answer, _told) = oneshot::channel();
    let arrived = std::time::Instant::now();
    Command::Record { intake: Box::new(intake), arrived, record_only: false, answer }
}

#[tokio::test]
async fn one_moment_without_room_does_not_make_every_later_job_wait() {
    let mut desk = Desk::new(2).await;
    let connection = desk.connect(7).await;
    let first = desk.batch(&[connection; 3], 0).await;
    assert_eq!(desk.sent(), first[..2], "the third has no room");

    // There is room again. The job that comes in the same batch as the turn of the third leaves with it.
    let second = desk.batch(&[connection], 1).await;
    assert_eq!(desk.sent(), [first[2], second[0]]);
    let third = desk.batch(&[connection], 0).await;
    assert_eq!(desk.sent(), third, "and whatever comes then leaves at once");
}

#[tokio::test]
async fn where_there_is_room_for_some_connections_take_turns_and_later_jobs_wait_behind() {
    let mut desk = Desk::new(3).await;
    let (one, other) = (desk.connect(7).await, desk.connect(8).await);
    let first = desk.batch(&[one; 4], 0).await;
    assert_eq!(desk.sent(), first[..3]);

    // One permit is for the fourth, two are left, and the turn after connection 7 is that of 8.
    let second = desk.batch(&[one, one, other, other], 1).await;
    assert_eq!(desk.sent(), [first[3], second[2], second[0]]);
    let third = desk.batch(&[one], 0).await;
    assert_eq!(desk.sent(), [], "those that are left come first");

    desk.batch(&[], 2).await;
    assert_eq!(desk.sent(), [second[3], second[1]]);
    desk.batch(&[], 1).await;
    assert_eq!(desk.sent(), third);
}

#[tokio::test]
async fn while_older_jobs_wait_those_of_a_batch_do_not_overtake_them() {
    let mut desk = Desk::new(2).await;
    let (one, other) = (desk.connect(7).await, desk.connect(8).await);
    let first = desk.batch(&[one; 4], 0).await;
    assert_eq!(desk.sent(), first[..2]);
    let second = desk.batch(&[other], 1).await;
    assert_eq!(desk.sent(), first[2..3], "the fourth is older than what came with this batch");
    desk.batch(&[], 2).await;
    assert_eq!(desk.sent(), [second[0], first[3]]);
}

#[tokio::test]
async fn while_jobs_wait_for_their_first_attempt_a_batch_takes_few_new_ones_in_their_order() {
    let mut desk = Desk::new(1).await;
    let connection = desk.connect(7).await;
    let record_of = |command: &Command| match command {
        Command::Record { intake, .. } => Some(intake.terms.record_id),
        _ => None,
    };
    let new_jobs =
        |count: usize| -> Vec<Command> { (0..count).map(|_| command(job(&connection))).collect() };

    // Nothing waits: a batch is left as it came.
    let mut batch = new_jobs(BATCH_MAX);
    let came: Vec<_> = batch.iter().map(record_of).collect();
    desk.writer.hold_back(&mut batch);
    assert_eq!(batch.iter().map(record_of).collect::<Vec<_>>(), came);

    desk.batch(&[connection; 2], 0).await;
    assert!(desk.writer.first_attempts_wait);
    let mut left: VecDeque<_> = came.into();
    for round in 0..4 {
        let (answer, _told) = oneshot::channel();
        batch.insert(0, Command::StopPreparing { answer });
        desk.writer.hold_back(&mut batch);
        let mut taken: VecDeque<_> = batch.drain(..).collect();
        assert_eq!(taken.pop_front().map(|command| command.name()), Some("stop_preparing"));
        let taken: Vec<_> = taken.iter().map(record_of).collect();
        assert_eq!(taken.len(), BATCH_MAX / 4, "in round {round}");
        assert_eq!(taken, left.drain(..taken.len()).collect::<Vec<_>>());
        batch = new_jobs(BATCH_MAX / 4);
        left.extend(batch.iter().map(record_of));
    }

    // A large backlog does not keep new jobs out: whatever else there is leaves them their places.
    let mut full: Vec<Command> = (0..desk.writer.most_taken())
        .map(|_| Command::StopPreparing { answer: oneshot::channel().0 })
        .collect();
    desk.writer.hold_back(&mut full);
    assert_eq!(full.len(), BATCH_MAX);
    let taken: Vec<_> = full.iter().filter_map(record_of).map(Some).collect();
    assert_eq!(taken, left.drain(..BATCH_MAX / 4).collect::<Vec<_>>());
    let more = new_jobs(BATCH_MAX / 2);
    left.extend(more.iter().map(record_of));
    batch.extend(more);

    // Nothing waits any more: as many as there is room for, the oldest first, behind what others want.
    desk.writer.first_attempts_wait = false;
    let (answer, _told) = oneshot::channel();
    batch.push(Command::StopPreparing { answer });
    desk.writer.hold_back(&mut batch);
    let taken: Vec<_> = batch.iter().skip(1).map(record_of).collect();
    assert_eq!(taken.len(), BATCH_MAX - 1);
    assert_eq!(taken, left.drain(..taken.len()).collect::<Vec<_>>());
    let mut rest = Vec::new();
    desk.writer.hold_back(&mut rest);
    assert_eq!(rest.iter().map(record_of).collect::<Vec<_>>(), Vec::from(left));
    assert!(desk.writer.held_back.is_empty());
}

#[tokio::test]
async fn what_is_held_back_is_taken_in_before_the_writer_ends() {
    let mut desk = Desk::new(1).await;
    let connection = desk.connect(7).await;
    desk.batch(&[connection; 2], 0).await;
    let handle = desk.handle.take().unwrap();
    let mut answers = Vec::new();
    for _ in 0..3 * BATCH_MAX / 4 {
        answers.push(handle.record(job(&connection)).await.unwrap());
    }
    drop(handle);
    desk.writer.run().await.unwrap();
    for answer in answers {
        let recording = answer.await.unwrap();
        assert!(matches!(recording, Recording::Recorded(Recorded::New(_))), "{recording:?}");
    }
}

#[tokio::test]
async fn what_has_become_free_since_permits_were_asked_for_is_used_for_all_that_wait_by_then() {
    let mut desk = Desk::new(6).await;
    let connection = desk.connect(7).await;
    let first = desk.batch(&[connection; 8], 0).await;
    let mut in_flight: Vec<_> = std::iter::from_fn(|| desk.sends.try_recv().ok()).collect();
    assert_eq!(in_flight.len(), 6);
    desk.writer.deferred_since = 0;
    in_flight.pop();
    let permits = desk.budget.send_permits(2).await;
    assert_eq!(permits.len(), 1, "two are due");

    // One more has come, and all answers.
    let second = desk.batch(&[connection], 0).await;
    drop(in_flight);
    let (answer, _told) = oneshot::channel();
    let due = Some(2);
    desk.writer.execute(vec![Command::Prepare { permits, due, answer }]).await.unwrap();
    assert_eq!(desk.sent(), [first[6], first[7], second[0]]);
    assert!(!desk.writer.first_attempts_wait);

    // Where one job after the other is tried, nothing is added.
    desk.writer.first_attempts_wait = true;
    let third = desk.batch(&[connection; 2], 0).await;
    let permits = desk.budget.send_permits(1).await;
    let (answer, _told) = oneshot::channel();
    let due = None;
    desk.writer.execute(vec![Command::Prepare { permits, due, answer }]).await.unwrap();
    assert_eq!(desk.sent(), third[..1]);
}
