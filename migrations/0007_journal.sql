-- The chain of hashes over every row that is never changed: `domain::journal` says what is hashed.

-- One seal for each commit that adds such rows. Never changed.
CREATE TABLE journal (
    commit_seq   INTEGER NOT NULL PRIMARY KEY,                    -- place in the chain, without gaps
    sealed_at_ms INTEGER NOT NULL,                                -- when the rows were committed
    form         INTEGER NOT NULL CHECK (form >= 1),              -- how the rows are written down to be hashed
    sealed_rows  TEXT    NOT NULL CHECK (json_valid(sealed_rows)), -- which rows, as ranges of their numbers
    digest       BLOB    NOT NULL CHECK (length(digest) = 32),    -- over what the rows say
    chain        BLOB    NOT NULL CHECK (length(chain) = 32)      -- over this seal and the one before it
) STRICT;

-- The seals of a job's rows are found by the times of the rows.
CREATE INDEX journal_by_time ON journal (sealed_at_ms);

CREATE TRIGGER journal_in_order BEFORE INSERT ON journal
WHEN NEW.commit_seq <> (SELECT coalesce(max(commit_seq), 0) + 1 FROM journal)
BEGIN SELECT RAISE(ABORT, 'the seals of the journal have no gaps'); END;
CREATE TRIGGER journal_kept BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'a seal is never removed'); END;
CREATE TRIGGER journal_unchanged BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'a seal is never changed'); END;
