-- Comparisons of the book with OES, and what they found. Never changed; but no decision rests on them, so
-- they are not sealed.

CREATE TABLE reconcile_runs (
    run_seq        INTEGER NOT NULL PRIMARY KEY,                 -- order of ending
    started_at_ms  INTEGER NOT NULL,                             -- when it began
    finished_at_ms INTEGER NOT NULL CHECK (finished_at_ms >= started_at_ms), -- when it ended
    since_ms       INTEGER NOT NULL,                             -- jobs that were taken in from then on
    until_ms       INTEGER NOT NULL,                             -- to then; and every open job
    source         TEXT    NOT NULL CHECK (source <> ''),        -- who asked: schedule, or a person
    result         TEXT    NOT NULL CHECK (result IN ('clean', 'differences', 'failed')), -- how it ended
    jobs           INTEGER NOT NULL CHECK (jobs >= 0),           -- jobs that were compared
    balances       INTEGER NOT NULL CHECK (balances >= 0),       -- balances that were compared
    differences    INTEGER NOT NULL CHECK (differences >= 0),    -- findings that are differences
    counts         TEXT    NOT NULL CHECK (json_valid(counts)),  -- findings by kind, all of them
    error          TEXT    CHECK (error <> ''),                  -- why it could not be done
    CHECK ((result = 'failed') = (error IS NOT NULL)),
    CHECK (result = 'failed' OR (result = 'differences') = (differences > 0))
) STRICT;

CREATE TABLE reconcile_findings (
    run_seq       INTEGER NOT NULL REFERENCES reconcile_runs, -- found by which run
    finding_no    INTEGER NOT NULL CHECK (finding_no >= 1),   -- its number there; only the first ones are kept
    kind          TEXT    NOT NULL CHECK (kind <> ''),        -- what it is about
    record_id     TEXT    CHECK (length(record_id) = 36),     -- the record, where it is about one
    connection_id TEXT    CHECK (length(connection_id) = 36), -- the connection, where it is known
    currency      TEXT,                                       -- the currency, where it is known
    here          TEXT    NOT NULL,                           -- what the book said
    oes           TEXT    NOT NULL,                           -- what OES said
    note          TEXT    NOT NULL,                           -- more of it
    PRIMARY KEY (run_seq, finding_no)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER reconcile_runs_kept BEFORE DELETE ON reconcile_runs
BEGIN SELECT RAISE(ABORT, 'a comparison is never removed'); END;
CREATE TRIGGER reconcile_runs_unchanged BEFORE UPDATE ON reconcile_runs
BEGIN SELECT RAISE(ABORT, 'a comparison is never changed'); END;
CREATE TRIGGER reconcile_findings_kept BEFORE DELETE ON reconcile_findings
BEGIN SELECT RAISE(ABORT, 'what was found is never removed'); END;
CREATE TRIGGER reconcile_findings_unchanged BEFORE UPDATE ON reconcile_findings
BEGIN SELECT RAISE(ABORT, 'what was found is never changed'); END;

-- The exchange's last word about a connection, among everything else that was fed.
CREATE INDEX book_events_of_connection ON book_events (body ->> 'connectionId', event_seq)
    WHERE kind IN ('connection.upserted', 'connection.suspended');
