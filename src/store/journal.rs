//! Sealing what a commit adds, and reading what was sealed: see `domain::journal`.
//!
//! What is sealed is what the database holds, read back before the commit, and not what was meant to be
//! written. SQLite writes each row down as a JSON array of its columns.

use std::{collections::BTreeMap, sync::LazyLock};

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{
    error::{StoreError, While as _, unreadable},
    open::WriteConnection,
    work::Work,
};
use crate::domain::{
    journal::{Hash32, Kind, Leaves, Seal, SealedRows},
    time::TimestampMs,
};

const SEALING: &str = "sealing what was added";
const READING: &str = "reading what was sealed";

/// What stands between two rows that are written down: JSON has it escaped.
const LINE_BREAK: char = '\n';

/// How the rows of a kind are written down. What is left out changes later: a job's progress, the count
/// of a quarantined message, whether an announcement is published, where an archive is.
struct Form {
    from: &'static str,
    number: &'static str,
    columns: &'static str,
}

const ACTION_COLUMNS: &str = "action_seq, at_ms, kind, who, reason, job_seq, quarantine_seq, switch, \
                              connection_id, outcome, expires_at_ms, bulk_id, detail";

const FINDING_COLUMNS: &str = "finding_seq, kind, connection_id, event_seq, detail, found_at_ms";

const fn form(kind: Kind) -> Form {
    let (from, number, columns) = match kind {
        Kind::Ledger => ("ledger", "one", "one, ledger_uuid, created_at_ms"),
        Kind::SigningKeys => ("signing_keys", "key_id", "key_id, public_key, first_used_ms"),
        Kind::Restores => (
            "restores",
            "restore_seq",
            "restore_seq, accepted_at_ms, mark_ledger, mark_attempt, book_attempt, who, reason",
        ),
        Kind::BookEvents => (
            "book_events",
            "event_seq",
            "event_seq, event_id, kind, body, hex(body_sha256), source, recorded_at_ms",
        ),
        Kind::Jobs => (
            "jobs JOIN messages USING (job_seq)",
            "job_seq",
            "job_seq, record_id, type, currency, quantity, client_id, connection_id, \
             partners_client_id, partners_connection_id, partners_record_id, hex(content_sha256), \
             received_at_ms, book_sequence, raw",
        ),
        Kind::Decisions => (
            "decisions",
            "job_seq",
            "job_seq, outcome, reject_code, reject_reason, source, seen, decided_at_ms, decided_by, \
             decided_because",
        ),
        Kind::Accounts => ("accounts", "account_seq", "account_seq, connection_id, currency, kind"),
        Kind::Transfers => (
            "transfers",
            "transfer_seq",
            "transfer_seq, job_seq, event_seq, phase, debit_account, credit_account, quantity, \
             booked_at_ms",
        ),
        Kind::Attempts => (
            "attempts",
            "attempt_seq",
            "attempt_seq, job_seq, attempt_no, outcome, nonce, body, signature, key_id, prepared_at_ms",
        ),
        Kind::AttemptEnds => (
            "attempts",
            "attempt_seq",
            "attempt_seq, result, http_status, request_id, response, detail, finished_at_ms",
        ),
        Kind::JobEvents => ("job_events", "event_seq", "event_seq, job_seq, at_ms, kind, detail"),
        Kind::Endings => (
            "jobs",
            "job_seq",
            "job_seq, state, outcome, final_outcome, state_since_ms, attempts_made",
        ),
        Kind::Quarantine => (
            "quarantine",
            "quarantine_seq",
            "quarantine_seq, queue, hex(sha256), hex(bytes), code, detail, record_id, first_seen_ms",
        ),
        Kind::Outbox => (
            "outbox",
            "outbox_seq",
            "outbox_seq, kind, job_seq, quarantine_seq, event_id, routing_key, body, created_at_ms",
        ),
        Kind::Archives => ("archives", "archive_seq", "archive_seq, archive_uuid, begun_at_ms"),
        Kind::ArchivedJobs => ("archived_jobs", "job_seq", "job_seq, archive_seq, archived_at_ms"),
        Kind::Actions => ("actions", "action_seq", ACTION_COLUMNS),
        Kind::FeedFindings => ("feed_findings", "finding_seq", FINDING_COLUMNS),
    };
    Form { from, number, columns }
}

/// How many of the rows that ?1 names there are, and how they are written down, nearly in their order:
/// [`in_order`] makes sure of it, because sorting in SQLite would copy each line more than once.
fn lines_of(kind: Kind) -> String {
    let Form { from, number, columns } = form(kind);
    let word = kind.as_str();
    // A limit keeps SQLite from merging the two selects: it would read a table that is partly in
    // archives from its begin to its end.
    format!(
        "SELECT '{word}', count(*), group_concat(line, char(10))
         FROM (SELECT json_array({columns}) AS line
               FROM (SELECT value ->> 0 AS first_of_span, value ->> 1 AS last_of_span
                     FROM json_each(?1, '$.{word}')) CROSS JOIN {from}
               WHERE {number} BETWEEN first_of_span AND last_of_span LIMIT -1)"
    )
}

/// The lines of each kind.
static LINES: LazyLock<BTreeMap<Kind, String>> =
    LazyLock::new(|| Kind::ALL.into_iter().map(|kind| (kind, lines_of(kind))).collect());

/// The last seal, and the lines of every kind, in one statement.
static LINES_AND_HEAD: LazyLock<String> = LazyLock::new(|| {
    let mut sql = String::from(
        "SELECT '', coalesce(max(commit_seq), 0),
                (SELECT hex(chain) FROM journal ORDER BY commit_seq DESC LIMIT 1) FROM journal",
    );
    for lines in LINES.values() {
        sql.push_str(" UNION ALL ");
        sql.push_str(lines);
    }
    sql
});

/// A kind's word, how many rows of it there are, and how they are written down.
type Lines = (String, i64, Option<String>);

/// What rows of any kind say, as they are now.
pub(super) async fn leaves(
    connection: &mut SqliteConnection,
    rows: &SealedRows,
) -> Result<Leaves, StoreError> {
    let mut leaves = Leaves::default();
    for (kind, lines) in lines(connection, rows).await? {
        for line in lines {
            leaves.add(kind, &line);
        }
    }
    Ok(leaves)
}

/// The names of what a row of a kind is written down with, in their order.
pub(super) fn columns(kind: Kind) -> Vec<String> {
    let name = |column: &str| {
        let column = column.trim();
        column
            .strip_prefix("hex(")
            .and_then(|rest| rest.strip_suffix(')'))
            .unwrap_or(column)
            .to_owned()
    };
    form(kind).columns.split(',').map(name).collect()
}

/// How the rows of each kind that `rows` names are written down, in their order.
pub(super) async fn lines(
    connection: &mut SqliteConnection,
    rows: &SealedRows,
) -> Result<BTreeMap<Kind, Vec<String>>, StoreError> {
    let text = to_text(rows)?;
    let sql: Vec<&str> =
        rows.kinds().filter_map(|kind| LINES.get(&kind)).map(String::as_str).collect();
    let found: Vec<Lines> = sqlx::query_as(AssertSqlSafe(sql.join(" UNION ALL ")))
        .bind(text)
        .fetch_all(connection)
        .await
        .while_doing(READING)?;
    all_lines(rows, &found).map(|lines| {
        lines
            .into_iter()
            .map(|(kind, lines)| (kind, lines.into_iter().map(str::to_owned).collect()))
            .collect()
    })
}

/// How many rows of a kind there are that must have been sealed.
pub(super) async fn rows_there(
    connection: &mut SqliteConnection,
    kind: Kind,
) -> Result<u64, StoreError> {
    let (table, done) = match kind {
        Kind::Jobs => ("jobs", "true"),
        Kind::AttemptEnds => ("attempts", "result IS NOT NULL"),
        Kind::Endings => ("jobs", "final_outcome IS NOT NULL OR state = 'refused'"),
        Kind::Ledger
        | Kind::SigningKeys
        | Kind::Restores
        | Kind::BookEvents
        | Kind::Decisions
        | Kind::Accounts
        | Kind::Transfers
        | Kind::Attempts
        | Kind::JobEvents
        | Kind::Quarantine
        | Kind::Outbox
        | Kind::Archives
        | Kind::ArchivedJobs
        | Kind::Actions
        | Kind::FeedFindings => (form(kind).from, "true"),
    };
    let sql = format!("SELECT count(*) FROM {table} WHERE {done}");
    let there: i64 =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.while_doing(READING)?;
    Ok(u64::try_from(there).unwrap_or(0))
}

/// Seals the rows that this transaction has added. The last thing before its commit.
pub(super) async fn seal(
    connection: &mut SqliteConnection,
    at: TimestampMs,
    rows: SealedRows,
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let text = to_text(&rows)?;
    let mut found: Vec<Lines> = sqlx::query_as(LINES_AND_HEAD.as_str())
        .bind(&text)
        .fetch_all(&mut *connection)
        .await
        .while_doing(SEALING)?;
    let head = found.remove(0);
    let chain = head
        .2
        .map_or(Ok(Hash32::ZERO), |hex| hex.parse())
        .map_err(|error| unreadable("journal")(&error))?;
    let leaves = leaves_of(&rows, &found)?;
    let seal = Seal::next((head.1, chain), at, rows, &text, leaves.digest());
    let (at_ms, form) = (at.as_millis(), i64::from(seal.form));
    let (digest, chain) = (seal.digest.as_bytes().as_slice(), seal.chain.as_bytes().as_slice());
    sqlx::query!(
        "INSERT INTO journal (commit_seq, sealed_at_ms, form, sealed_rows, digest, chain)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        seal.commit,
        at_ms,
        form,
        text,
        digest,
        chain
    )
    .execute(connection)
    .await
    .while_doing(SEALING)?;
    Ok(())
}

impl WriteConnection {
    /// The last link of the journal as `SEAL:HASH`: noted in the log, it outlives the book.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn journal_head(&mut self) -> Result<String, StoreError> {
        let row = sqlx::query!(
            r#"SELECT commit_seq AS "commit_seq!", lower(hex(chain)) AS "chain!: String" FROM journal
               ORDER BY commit_seq DESC LIMIT 1"#
        )
        .fetch_one(&mut self.connection)
        .await
        .while_doing(READING)?;
        Ok(format!("{}:{}", row.commit_seq, row.chain))
    }
}

fn to_text(rows: &SealedRows) -> Result<String, StoreError> {
    serde_json::to_string(rows).map_err(|error| unreadable("journal")(&error))
}

fn leaves_of(rows: &SealedRows, found: &[Lines]) -> Result<Leaves, StoreError> {
    let mut leaves = Leaves::default();
    for (kind, lines) in all_lines(rows, found)? {
        for line in lines {
            leaves.add(kind, line);
        }
    }
    Ok(leaves)
}

/// The lines of the rows that were found, which must be all that were named.
fn all_lines<'a>(
    rows: &SealedRows,
    found: &'a [Lines],
) -> Result<BTreeMap<Kind, Vec<&'a str>>, StoreError> {
    let mut all = BTreeMap::new();
    for kind in rows.kinds() {
        let lines = found.iter().find(|(word, ..)| word == kind.as_str());
        let (changed, text) = lines.map_or((0, ""), |(_, count, text)| {
            (u64::try_from(*count).unwrap_or(0), text.as_deref().unwrap_or_default())
        });
        let named = rows.count(kind);
        if changed != named {
            let expected = usize::try_from(named).unwrap_or(usize::MAX);
            return Err(StoreError::Moved { doing: SEALING, expected, changed });
        }
        all.insert(kind, in_order(text.split(LINE_BREAK).collect()));
    }
    Ok(all)
}

/// Lines in the order of their rows' numbers, which every line begins with.
fn in_order(mut lines: Vec<&str>) -> Vec<&str> {
    let number = |line: &&str| -> Option<i64> {
        let end = line.find([',', ']'])?;
        line.get(1..end)?.parse().ok()
    };
    if !lines.is_sorted_by_key(number) {
        lines.sort_by_key(number);
    }
    lines
}

/// What a batch adds, as it is sealed.
pub(super) fn rows_of(work: &Work) -> SealedRows {
    let changes = &work.changes;
    let mut rows = SealedRows::default();
    rows.add(Kind::BookEvents, changes.book_events.iter().map(|new| new.seq.get()));
    rows.add(Kind::Jobs, changes.raw_messages.iter().map(|(job, _)| job.get()));
    rows.add(Kind::Decisions, changes.decisions.iter().map(|new| new.job.get()));
    let new_accounts = work.accounts.values().filter(|account| account.before.is_none());
    rows.add(Kind::Accounts, new_accounts.map(|account| account.seq));
    rows.add(Kind::Transfers, changes.transfers.iter().map(|new| new.seq));
    rows.add(Kind::Attempts, changes.attempts.iter().map(|new| new.seq.get()));
    rows.add(Kind::AttemptEnds, changes.attempt_ends.iter().map(|(seq, _)| seq.get()));
    rows.add(Kind::JobEvents, changes.job_events.iter().map(|new| new.seq));
    rows.add(Kind::Actions, changes.actions.iter().map(|new| new.seq));
    rows.add(Kind::FeedFindings, changes.feed_findings.iter().map(|new| new.seq));
    let ended =
        work.jobs.values().filter(|tracked| tracked.changed && tracked.job.state.is_final());
    rows.add(Kind::Endings, ended.map(|tracked| tracked.job.seq.get()));
    rows.add(Kind::Quarantine, changes.quarantined.iter().map(|(seq, _)| seq.get()));
    let outcomes = changes.outcomes.iter().map(|(seq, _)| seq.get());
    rows.add(Kind::Outbox, outcomes.chain(changes.dead_letters.iter().map(|(seq, ..)| seq.get())));
    if let Some(archiving) = &changes.archiving {
        rows.add(Kind::Archives, archiving.archive.is_new.then_some(archiving.archive.seq));
        rows.add(Kind::ArchivedJobs, archiving.jobs.iter().copied());
    }
    rows
}

/// The rows that a transaction outside the writer's batches adds.
pub(super) fn rows(kind: Kind, numbers: impl IntoIterator<Item = i64>) -> SealedRows {
    let mut rows = SealedRows::default();
    rows.add(kind, numbers);
    rows
}
