-- The exchange's feed: how far it has come, what is missing, and what does not agree.

-- What the whole feed is about.
CREATE TABLE feed_state (
    one                  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), -- there is one feed
    gate_open_ms         INTEGER NOT NULL CHECK (gate_open_ms >= 0),   -- for how long the book was far enough for decisions; what jobs may wait for the book is counted in it
    heartbeat_sent_at_ms INTEGER                                       -- when the exchange sent its last heartbeat, by its clock but not later than ours; null: none yet
) STRICT;

INSERT INTO feed_state (one, gate_open_ms) VALUES (1, 0);

CREATE TRIGGER feed_state_kept BEFORE DELETE ON feed_state
BEGIN SELECT RAISE(ABORT, 'the state of the feed is never removed'); END;
CREATE TRIGGER feed_state_goes_on BEFORE UPDATE ON feed_state
WHEN NEW.gate_open_ms < OLD.gate_open_ms OR NEW.heartbeat_sent_at_ms < OLD.heartbeat_sent_at_ms
    OR (NEW.heartbeat_sent_at_ms IS NULL AND OLD.heartbeat_sent_at_ms IS NOT NULL)
BEGIN SELECT RAISE(ABORT, 'the feed never goes back'); END;

-- What is known of the feed of a connection; a row from its first number or snapshot on, or since a restore.
CREATE TABLE connection_feeds (
    connection_id    TEXT    NOT NULL PRIMARY KEY REFERENCES connections, -- whose
    last_sequence    INTEGER CHECK (last_sequence >= 1),    -- the highest number that came; null: the exchange gives none
    stated_sequence  INTEGER CHECK (stated_sequence BETWEEN 1 AND last_sequence),  -- the highest that stated or suspended the connection
    limited_sequence INTEGER CHECK (limited_sequence BETWEEN 1 AND last_sequence), -- the highest that set its limits
    compared_sequence INTEGER CHECK (compared_sequence BETWEEN 1 AND last_sequence), -- the highest that had come when the last snapshot was compared
    missing          TEXT    NOT NULL CHECK (json_valid(missing)), -- ranges of numbers below the highest that did not come, [[first, last], …]
    differs          TEXT    NOT NULL CHECK (json_valid(differs)), -- in what the last snapshot differed from the book, less what came late since, [{currency, expected, found}, …]
    is_unproven      INTEGER NOT NULL CHECK (is_unproven IN (0, 1)), -- whether the book was restored and nothing has shown since that it is right about this connection
    CHECK (missing = '[]' OR last_sequence IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX connection_feeds_missing ON connection_feeds (connection_id) WHERE missing <> '[]';
CREATE INDEX connection_feeds_differing ON connection_feeds (connection_id) WHERE differs <> '[]';
CREATE INDEX connection_feeds_unproven ON connection_feeds (connection_id) WHERE is_unproven = 1;

CREATE TRIGGER connection_feeds_kept BEFORE DELETE ON connection_feeds
BEGIN SELECT RAISE(ABORT, 'what is known of a feed is never removed'); END;
CREATE TRIGGER connection_feeds_go_on BEFORE UPDATE ON connection_feeds
WHEN NEW.connection_id <> OLD.connection_id
    OR (OLD.last_sequence IS NOT NULL AND (NEW.last_sequence IS NULL OR NEW.last_sequence < OLD.last_sequence))
BEGIN SELECT RAISE(ABORT, 'a feed never goes back'); END;

-- What was found to be wrong with the feed, with the event that showed it. Never changed.
CREATE TABLE feed_findings (
    finding_seq   INTEGER NOT NULL PRIMARY KEY,             -- order of finding
    kind          TEXT    NOT NULL CHECK (kind IN ('gap', 'difference')), -- numbers are missing, or a snapshot differs from the book
    connection_id TEXT    NOT NULL REFERENCES connections,  -- whose feed
    event_seq     INTEGER NOT NULL REFERENCES book_events,  -- the event that showed it
    detail        TEXT    NOT NULL CHECK (json_valid(detail)), -- which numbers, or which totals
    found_at_ms   INTEGER NOT NULL                          -- when it was committed
) STRICT;
CREATE INDEX feed_findings_of_connection ON feed_findings (connection_id, finding_seq);

CREATE TRIGGER feed_findings_kept BEFORE DELETE ON feed_findings
BEGIN SELECT RAISE(ABORT, 'a finding is never removed'); END;
CREATE TRIGGER feed_findings_unchanged BEFORE UPDATE ON feed_findings
BEGIN SELECT RAISE(ABORT, 'a finding is never changed'); END;

-- What a job waits for before its decision.
ALTER TABLE jobs ADD COLUMN book_sequence INTEGER CHECK (book_sequence >= 1); -- the number that its connection's feed must have reached; null: none
ALTER TABLE jobs ADD COLUMN gate_ms INTEGER CHECK (gate_ms >= 0); -- feed_state.gate_open_ms at the time from which its waiting counts; null: no feed was configured
ALTER TABLE jobs ADD COLUMN waits_for_book INTEGER NOT NULL DEFAULT 0 CHECK (waits_for_book IN (0, 1)); -- whether it is only looked at again when its connection's feed moves or next_step_at_ms has come

CREATE TRIGGER jobs_book_sequence BEFORE UPDATE OF book_sequence ON jobs
BEGIN SELECT RAISE(ABORT, 'what a job waits for never changes'); END;
