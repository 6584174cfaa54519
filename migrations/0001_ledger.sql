-- The whole book of one partner: what the exchange said, what was decided, signed, sent and booked.
--
-- Rules that hold in the program are repeated here, so that no program, also not a wrong one, can
-- break them: a decision is written once, an attempt carries the decision's outcome, movements are
-- never changed, and a job only takes the steps that the state machine has.
--
-- Conventions: *_ms are milliseconds since the Unix epoch, UTC. Quantities are canonical decimal
-- text in base units; SQL never adds or compares them. UUIDs are lower-case hyphenated text.
-- Row numbers (*_seq) are given by the writer, ascending, without gaps in a committed book.

CREATE TABLE ledger (
    one           INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), -- there is one book in a file
    ledger_uuid   TEXT    NOT NULL CHECK (length(ledger_uuid) = 36), -- this book's own identity
    created_at_ms INTEGER NOT NULL                                   -- when the file was made
) STRICT;

-- The exchange's facts, each at most once. Never changed.
CREATE TABLE book_events (
    event_seq      INTEGER NOT NULL PRIMARY KEY,                 -- order of arrival
    event_id       TEXT    NOT NULL UNIQUE CHECK (event_id <> ''), -- the exchange's id
    kind           TEXT    NOT NULL CHECK (kind IN (
                       'connection.upserted', 'connection.suspended', 'currency.configured',
                       'connection.limited', 'balance.adjusted', 'balance.snapshot')), -- its type
    body           TEXT    NOT NULL CHECK (json_valid(body)),    -- the fact, compact JSON in one order
    body_sha256    BLOB    NOT NULL CHECK (length(body_sha256) = 32), -- tells a repetition from a contradiction
    source         TEXT    NOT NULL CHECK (source <> ''),        -- where it came from, e.g. import:FILE by WHOM
    recorded_at_ms INTEGER NOT NULL                              -- when it was committed
) STRICT;

CREATE TABLE connections (
    connection_id          TEXT    NOT NULL PRIMARY KEY CHECK (length(connection_id) = 36), -- BitGo's id
    client_id              TEXT    NOT NULL CHECK (length(client_id) = 36), -- BitGo's id of the client
    partners_client_id     TEXT    NOT NULL CHECK (partners_client_id <> ''),     -- the exchange's id of the client
    partners_connection_id TEXT    NOT NULL CHECK (partners_connection_id <> ''), -- the exchange's id of the connection
    active                 INTEGER NOT NULL CHECK (active IN (0, 1)),       -- whether records may be cleared
    event_seq              INTEGER NOT NULL REFERENCES book_events          -- the fact that this row shows
) STRICT, WITHOUT ROWID;

CREATE TABLE currencies (
    currency     TEXT    NOT NULL PRIMARY KEY CHECK (currency <> ''), -- the partner's mapped name
    enabled      INTEGER NOT NULL CHECK (enabled IN (0, 1)),          -- whether records may be cleared
    quantity_min TEXT    NOT NULL CHECK (quantity_min <> '' AND quantity_min NOT GLOB '*[^0-9]*'), -- smallest that is cleared
    quantity_max TEXT    NOT NULL CHECK (quantity_max <> '' AND quantity_max NOT GLOB '*[^0-9]*'), -- largest that is cleared
    exposure_max_total TEXT CHECK (exposure_max_total <> '' AND exposure_max_total NOT GLOB '*[^0-9]*'), -- most that all connections together may be exposed to; null: no limit
    exposure_max_per_connection TEXT CHECK (exposure_max_per_connection <> '' AND exposure_max_per_connection NOT GLOB '*[^0-9]*'), -- most that each may be exposed to, unless connection_limits says otherwise
    daily_allocation_max_per_connection TEXT CHECK (daily_allocation_max_per_connection <> '' AND daily_allocation_max_per_connection NOT GLOB '*[^0-9]*'), -- most that each may allocate in a day, likewise
    daily_deallocation_max_per_connection TEXT CHECK (daily_deallocation_max_per_connection <> '' AND daily_deallocation_max_per_connection NOT GLOB '*[^0-9]*'), -- most that each may deallocate in a day, likewise
    approval_above TEXT CHECK (approval_above <> '' AND approval_above NOT GLOB '*[^0-9]*'), -- largest that is cleared without an operator's approval, likewise
    event_seq    INTEGER NOT NULL REFERENCES book_events              -- the fact that this row shows
) STRICT, WITHOUT ROWID;

-- Five accounts per connection and currency. The totals are a convenience: they can be recomputed
-- from the transfers at any time, and `settled book verify` does.
CREATE TABLE accounts (
    account_seq   INTEGER NOT NULL PRIMARY KEY,                     -- its number in transfers
    connection_id TEXT    NOT NULL CHECK (length(connection_id) = 36), -- whose it is; OES may settle one that the book does not know
    currency      TEXT    NOT NULL CHECK (currency <> ''),          -- in what
    kind          TEXT    NOT NULL CHECK (kind IN (
                      'available', 'held', 'incoming', 'oes', 'exchange')), -- see ARCHITECTURE.md, "The book"
    debits        TEXT    NOT NULL CHECK (debits <> '' AND debits NOT GLOB '*[^0-9]*'),   -- lifetime sum that left
    credits       TEXT    NOT NULL CHECK (credits <> '' AND credits NOT GLOB '*[^0-9]*'), -- lifetime sum that arrived
    UNIQUE (connection_id, currency, kind)
) STRICT;

CREATE TABLE jobs (
    job_seq                INTEGER NOT NULL PRIMARY KEY,            -- order of arrival
    record_id              TEXT    NOT NULL CHECK (length(record_id) = 36), -- one space for both types; see jobs_one_per_record
    type                   TEXT    NOT NULL CHECK (type IN ('allocation', 'deallocation')), -- which way
    currency               TEXT    NOT NULL CHECK (currency <> ''), -- in what
    quantity               TEXT    NOT NULL CHECK (quantity GLOB '[1-9]*' AND quantity NOT GLOB '*[^0-9]*'), -- how much
    client_id              TEXT    NOT NULL CHECK (length(client_id) = 36),     -- as the message has it
    connection_id          TEXT    NOT NULL CHECK (length(connection_id) = 36), -- as the message has it; the book may not know it
    partners_client_id     TEXT    NOT NULL CHECK (partners_client_id <> ''),     -- as the message has it
    partners_connection_id TEXT    NOT NULL CHECK (partners_connection_id <> ''), -- as the message has it
    partners_record_id     TEXT    NOT NULL CHECK (partners_record_id <> ''),     -- as the message has it
    content_sha256         BLOB    NOT NULL CHECK (length(content_sha256) = 32), -- over the fields above
    received_at_ms         INTEGER NOT NULL,                        -- when it was committed
    state                  TEXT    NOT NULL CHECK (state IN (
                               'received', 'decided', 'sending', 'unknown', 'awaiting_approval',
                               'parked', 'conflict', 'confirmed', 'overruled', 'refused')), -- how far it has come
    state_reason           TEXT,                                    -- why, where the state has a reason
    state_since_ms         INTEGER NOT NULL,                        -- when it came there
    outcome                TEXT    CHECK (outcome IN ('cleared', 'released')), -- what was decided; also in decisions
    final_outcome          TEXT    CHECK (final_outcome IN ('cleared', 'released')), -- how OES ended it
    next_step_at_ms        INTEGER,                                 -- when the state's next step is due; null: when it is told
    attempts_made          INTEGER NOT NULL CHECK (attempts_made >= 0), -- attempts prepared so far
    attempts_counted       INTEGER NOT NULL CHECK (attempts_counted BETWEEN 0 AND attempts_made), -- those that count against the bound
    reads_made             INTEGER NOT NULL CHECK (reads_made >= 0), -- reads since the last attempt that settled nothing
    absences               INTEGER NOT NULL CHECK (absences BETWEEN 0 AND reads_made), -- those that OES had no such record for, or, before the decision, none that can be compared
    tried_since_ms         INTEGER,                                 -- since when the bounds of retrying count
    verified_at_ms         INTEGER,                                 -- when OES's record was last seen to be what the message says, and younger than the last restore, as far as these are asked for
    CHECK ((state IN ('unknown', 'parked', 'conflict')) = (state_reason IS NOT NULL)),
    CHECK (state <> 'unknown' OR state_reason IN (
        'no_reply', 'server_error', 'odd_answer', 'wrong_echo', 'policy_rejected', 'conflict_answer',
        'refused_answer', 'not_found', 'unauthorized', 'forbidden', 'restarted', 'sent_on')),
    CHECK (state <> 'parked' OR state_reason IN (
        'identity_mismatch', 'decide_failed', 'predates_restore', 'needs_approval', 'not_shown',
        'unreadable', 'ended_at_oes', 'book_behind', 'step_failed', 'refused_by_oes', 'not_found_at_oes',
        'policy_rejected', 'forbidden', 'attempts_exhausted', 'too_old', 'approval_unclear')),
    CHECK (state <> 'conflict' OR state_reason IN ('other_outcome', 'wrong_echo', 'other_terms')),
    CHECK ((tried_since_ms IS NULL) = (attempts_made = 0)),
    CHECK ((state IN ('confirmed', 'overruled')) = (final_outcome IS NOT NULL)),
    CHECK (state <> 'confirmed' OR final_outcome = outcome),
    CHECK (state <> 'overruled' OR final_outcome <> outcome),
    CHECK (final_outcome IS NULL OR next_step_at_ms IS NULL),
    CHECK (state <> 'refused' OR next_step_at_ms IS NULL),
    CHECK ((outcome IS NULL) = (state IN ('received', 'refused') OR (state = 'parked'
        AND state_reason IN ('identity_mismatch', 'decide_failed', 'predates_restore', 'needs_approval',
            'not_shown', 'unreadable', 'ended_at_oes', 'book_behind'))))
) STRICT;

-- One job for a record, for ever; a job that was refused, because OES's record is another, gives its id up.
CREATE UNIQUE INDEX jobs_one_per_record ON jobs (record_id) WHERE state <> 'refused';

-- What is open, by state and due time: every loop finds its work here, also after a restart.
CREATE INDEX jobs_open ON jobs (state, next_step_at_ms, job_seq) WHERE final_outcome IS NULL;
-- What waits for its first attempt, by connection, because connections take turns.
CREATE INDEX jobs_first_attempts ON jobs (connection_id, job_seq)
    WHERE state = 'decided' AND attempts_made = 0;
-- What waits for another attempt.
CREATE INDEX jobs_retries ON jobs (next_step_at_ms, job_seq)
    WHERE state = 'decided' AND attempts_made > 0;
-- What waits for its connection to become known.
CREATE INDEX jobs_undecided ON jobs (connection_id) WHERE state = 'received';

-- How many jobs there are in each state, kept by the writer so that nobody has to count a history.
CREATE TABLE job_counts (
    state TEXT    NOT NULL, -- as in jobs
    type  TEXT    NOT NULL, -- as in jobs
    jobs  INTEGER NOT NULL CHECK (jobs >= 0), -- how many
    PRIMARY KEY (state, type)
) STRICT, WITHOUT ROWID;

INSERT INTO job_counts (state, type, jobs)
SELECT state.value, type.value, 0
FROM json_each('["received", "decided", "sending", "unknown", "awaiting_approval", "parked",
                 "conflict", "confirmed", "overruled", "refused"]') AS state,
     json_each('["allocation", "deallocation"]') AS type;

-- The message of each job as it arrived. Never changed.
CREATE TABLE messages (
    job_seq INTEGER NOT NULL PRIMARY KEY REFERENCES jobs, -- whose it is
    raw     TEXT    NOT NULL                              -- the exact text
) STRICT;

-- One decision per record, for ever. Never changed.
CREATE TABLE decisions (
    job_seq       INTEGER NOT NULL PRIMARY KEY REFERENCES jobs, -- about which job
    outcome       TEXT    NOT NULL CHECK (outcome IN ('cleared', 'released')), -- what is signed
    reject_code   TEXT    CHECK (reject_code <> ''),   -- the rule that released it
    reject_reason TEXT    CHECK (reject_reason <> ''), -- the text that is signed for the client
    source        TEXT    NOT NULL CHECK (source IN ('policy', 'operator', 'oes')), -- who decided
    seen          TEXT    NOT NULL CHECK (json_valid(seen)), -- what the decision saw of the book
    decided_at_ms INTEGER NOT NULL,                    -- when it was committed
    decided_by    TEXT    CHECK (decided_by <> ''),    -- the operator who approved or refused it
    decided_because TEXT  CHECK (decided_because <> ''), -- what they said about it
    CHECK ((source = 'operator') = (decided_by IS NOT NULL)),
    CHECK ((source = 'operator') = (decided_because IS NOT NULL)),
    CHECK ((outcome = 'released') = (reject_reason IS NOT NULL)),
    CHECK ((outcome = 'released') = (reject_code IS NOT NULL))
) STRICT;

-- Movements between two accounts. Never changed.
CREATE TABLE transfers (
    transfer_seq   INTEGER NOT NULL PRIMARY KEY,                 -- order of booking
    job_seq        INTEGER REFERENCES jobs,                      -- the record it belongs to, or
    event_seq      INTEGER REFERENCES book_events,               -- the fed fact it belongs to
    phase          TEXT    NOT NULL CHECK (phase IN (
                       'pending', 'posted', 'voided', 'overruled', 'adjusted')), -- see ARCHITECTURE.md, "The book"
    debit_account  INTEGER NOT NULL REFERENCES accounts,         -- where the quantity leaves
    credit_account INTEGER NOT NULL REFERENCES accounts,         -- where it arrives
    quantity       TEXT    NOT NULL CHECK (quantity GLOB '[1-9]*' AND quantity NOT GLOB '*[^0-9]*'), -- how much
    booked_at_ms   INTEGER NOT NULL,                             -- when it was committed
    CHECK (debit_account <> credit_account),
    CHECK ((phase = 'adjusted') = (event_seq IS NOT NULL)),
    CHECK ((phase = 'adjusted') = (job_seq IS NULL))
) STRICT;

-- Money moves once: one hold and one closing for a record, one movement for a fact.
CREATE UNIQUE INDEX transfers_one_hold ON transfers (job_seq) WHERE phase = 'pending';
CREATE UNIQUE INDEX transfers_one_closing ON transfers (job_seq)
    WHERE phase IN ('posted', 'voided', 'overruled');
CREATE UNIQUE INDEX transfers_one_per_event ON transfers (event_seq) WHERE event_seq IS NOT NULL;

CREATE TABLE signing_keys (
    key_id        INTEGER NOT NULL PRIMARY KEY, -- its number in attempts
    public_key    TEXT    NOT NULL UNIQUE CHECK (length(public_key) = 66), -- compressed, hexadecimal
    first_used_ms INTEGER NOT NULL              -- when this book first saw it
) STRICT;

-- Every byte that may have left: one row before each send. Only the result is added later, once.
CREATE TABLE attempts (
    attempt_seq    INTEGER NOT NULL PRIMARY KEY,               -- order of signing
    job_seq        INTEGER NOT NULL REFERENCES jobs,           -- for which job
    attempt_no     INTEGER NOT NULL CHECK (attempt_no >= 1),   -- its number for that job
    outcome        TEXT    NOT NULL CHECK (outcome IN ('cleared', 'released')), -- the decision's
    nonce          TEXT    NOT NULL UNIQUE CHECK (nonce <> ''), -- never sent twice
    body           TEXT    NOT NULL,                           -- the exact request body, payload and signature in it
    signature      TEXT    NOT NULL CHECK (length(signature) = 130), -- over the payload
    key_id         INTEGER NOT NULL REFERENCES signing_keys,   -- by which key
    prepared_at_ms INTEGER NOT NULL,                           -- when it was committed, before the send
    result         TEXT    CHECK (result <> ''),               -- what the answer meant; null: not known yet
    http_status    INTEGER,                                    -- the answer's status, if there was an answer
    request_id     TEXT,                                       -- OES's own id of the request, if it gave one
    response       TEXT,                                       -- the start of the answer's body
    detail         TEXT,                                       -- what happened, for a reader
    finished_at_ms INTEGER,                                    -- when the result was committed
    UNIQUE (job_seq, attempt_no),
    CHECK ((result IS NULL) = (finished_at_ms IS NULL))
) STRICT;

-- At most one attempt of a job is under way.
CREATE UNIQUE INDEX attempts_one_open ON attempts (job_seq) WHERE result IS NULL;

-- What happened to a job that no other table tells: reads that moved it, why it was parked, who sent it
-- on, who approved or refused it, and who said how it ended at OES. Never changed.
CREATE TABLE job_events (
    event_seq INTEGER NOT NULL PRIMARY KEY,                       -- order of happening
    job_seq   INTEGER NOT NULL REFERENCES jobs,                   -- to which job
    at_ms     INTEGER NOT NULL,                                   -- when
    kind      TEXT    NOT NULL CHECK (kind IN (
                  'read_back', 'parked', 'sent_on', 'approved', 'refused', 'end_proposed',
                  'end_confirmed')),                              -- what
    detail    TEXT    NOT NULL CHECK (json_valid(detail))         -- more of it
) STRICT;

CREATE INDEX job_events_of_job ON job_events (job_seq, event_seq);

-- Each time that a database which was restored from a backup was accepted. What was signed between the
-- backup and its acceptance is not in here. Never changed.
CREATE TABLE restores (
    restore_seq    INTEGER NOT NULL PRIMARY KEY, -- order of acceptance
    accepted_at_ms INTEGER NOT NULL,             -- when; records that OES has from before are not decided
    mark_ledger    TEXT    NOT NULL CHECK (length(mark_ledger) = 36), -- whose mark it was
    mark_attempt   INTEGER NOT NULL CHECK (mark_attempt >= 0), -- how far that ledger had signed
    book_attempt   INTEGER NOT NULL CHECK (book_attempt >= 0), -- how far this database knew of
    who            TEXT    NOT NULL CHECK (who <> ''), -- who accepted it
    reason         TEXT    NOT NULL CHECK (reason <> '') -- what they said about it
) STRICT;

-- Messages that never act. The bytes stay as they came.
CREATE TABLE quarantine (
    quarantine_seq  INTEGER NOT NULL PRIMARY KEY,                -- order of arrival
    queue           TEXT    NOT NULL CHECK (queue <> ''),        -- where it came from
    sha256          BLOB    NOT NULL CHECK (length(sha256) = 32), -- over the bytes
    bytes           BLOB    NOT NULL,                            -- the message
    code            TEXT    NOT NULL CHECK (code <> ''),         -- the kind of fault
    detail          TEXT    NOT NULL,                            -- what exactly is wrong, for a reader
    record_id       TEXT,                                        -- the record it names, where that could be read
    times_seen      INTEGER NOT NULL CHECK (times_seen >= 1),    -- deliveries of these bytes
    first_seen_ms   INTEGER NOT NULL,                            -- first delivery
    last_seen_ms    INTEGER NOT NULL,                            -- latest delivery
    UNIQUE (queue, sha256)
) STRICT;

-- Messages to publish, written in the transaction that makes them true.
CREATE TABLE outbox (
    outbox_seq      INTEGER NOT NULL PRIMARY KEY,                -- order of writing, and of publishing
    kind            TEXT    NOT NULL CHECK (kind IN ('outcome', 'dead_letter')), -- to which exchange
    job_seq         INTEGER REFERENCES jobs,                     -- an outcome's job
    quarantine_seq  INTEGER REFERENCES quarantine,               -- a dead letter's message
    event_id        TEXT    NOT NULL CHECK (length(event_id) = 36), -- the message id; stays the same for ever
    routing_key     TEXT    NOT NULL CHECK (routing_key <> ''),  -- where to
    body            TEXT    CHECK (json_valid(body)),            -- an outcome's body; a dead letter's is in quarantine
    created_at_ms   INTEGER NOT NULL,                            -- when it became true
    published_at_ms INTEGER,                                     -- when the broker confirmed it; null: not yet
    CHECK ((kind = 'outcome') = (job_seq IS NOT NULL AND body IS NOT NULL)),
    CHECK ((kind = 'dead_letter') = (quarantine_seq IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX outbox_one_outcome ON outbox (job_seq) WHERE job_seq IS NOT NULL;
CREATE UNIQUE INDEX outbox_one_dead_letter ON outbox (quarantine_seq) WHERE quarantine_seq IS NOT NULL;
CREATE INDEX outbox_unpublished ON outbox (outbox_seq) WHERE published_at_ms IS NULL;
