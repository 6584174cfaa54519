-- What operators do, what they have switched off, and the indexes that let them find a job among millions.

-- Every action of an operator that changed something. Never changed, and never archived.
CREATE TABLE actions (
    action_seq     INTEGER NOT NULL PRIMARY KEY,              -- order of happening
    at_ms          INTEGER NOT NULL,                          -- when it was committed
    kind           TEXT    NOT NULL CHECK (kind IN (
                       'retry', 'approve', 'refuse', 'propose_end', 'confirm_end', 'requeue',
                       'switch', 'accept_snapshot')),                            -- what was done
    who            TEXT    NOT NULL CHECK (who <> ''),        -- by whom
    reason         TEXT    NOT NULL CHECK (reason <> ''),     -- what they said about it
    job_seq        INTEGER REFERENCES jobs,                   -- the job that it was done to, or
    quarantine_seq INTEGER REFERENCES quarantine,             -- the quarantined message, or
    switch         TEXT    CHECK (switch IN ('intake', 'signing', 'sending')), -- the switch
    connection_id  TEXT    CHECK (length(connection_id) = 36), -- the connection
    outcome        TEXT    CHECK (outcome IN ('cleared', 'released')), -- how OES is said to have ended the record
    expires_at_ms  INTEGER CHECK (expires_at_ms >= at_ms),    -- until when another operator may confirm it
    bulk_id        TEXT    CHECK (length(bulk_id) = 36),      -- what many actions of one request have in common
    detail         TEXT    NOT NULL CHECK (json_valid(detail)), -- what became of it
    CHECK ((kind IN ('retry', 'approve', 'refuse', 'propose_end', 'confirm_end')) = (job_seq IS NOT NULL)),
    CHECK ((kind = 'requeue') = (quarantine_seq IS NOT NULL)),
    CHECK ((kind = 'switch') = (switch IS NOT NULL)),
    CHECK ((kind = 'accept_snapshot') = (connection_id IS NOT NULL)),
    CHECK ((kind IN ('propose_end', 'confirm_end')) = (outcome IS NOT NULL)),
    CHECK ((kind = 'propose_end') = (expires_at_ms IS NOT NULL))
) STRICT;

CREATE INDEX actions_of_job ON actions (job_seq, action_seq) WHERE job_seq IS NOT NULL;
CREATE INDEX actions_of_message ON actions (quarantine_seq, action_seq) WHERE quarantine_seq IS NOT NULL;

CREATE TRIGGER actions_kept BEFORE DELETE ON actions
BEGIN SELECT RAISE(ABORT, 'an action is never removed'); END;
CREATE TRIGGER actions_unchanged BEFORE UPDATE ON actions
BEGIN SELECT RAISE(ABORT, 'an action is never changed'); END;

-- It takes two to say that OES ended a record against the decision: the last proposal counts, it must be
-- somebody else's, about the same outcome, and not too old.
CREATE TRIGGER actions_take_two BEFORE INSERT ON actions
WHEN NEW.kind = 'confirm_end' AND NOT EXISTS (
    SELECT 1 FROM actions AS proposal
    WHERE proposal.action_seq = (SELECT max(action_seq) FROM actions
                                 WHERE job_seq = NEW.job_seq AND kind = 'propose_end')
      AND proposal.outcome = NEW.outcome AND proposal.who <> NEW.who
      AND proposal.expires_at_ms >= NEW.at_ms)
BEGIN SELECT RAISE(ABORT, 'another operator must have proposed this end'); END;

-- What is switched off at present. It follows from the last action on each switch.
CREATE TABLE switches (
    switch     TEXT    NOT NULL PRIMARY KEY CHECK (switch IN ('intake', 'signing', 'sending')), -- which
    is_on      INTEGER NOT NULL CHECK (is_on IN (0, 1)), -- whether what it stands for goes on
    action_seq INTEGER REFERENCES actions                -- who set it and why; null: nobody has yet
) STRICT, WITHOUT ROWID;

INSERT INTO switches (switch, is_on) VALUES ('intake', 1), ('signing', 1), ('sending', 1);

CREATE TRIGGER switches_kept BEFORE DELETE ON switches
BEGIN SELECT RAISE(ABORT, 'a switch is never removed'); END;
CREATE TRIGGER switches_by_an_action BEFORE UPDATE ON switches
WHEN NEW.switch <> OLD.switch OR NOT EXISTS (
    SELECT 1 FROM actions WHERE actions.action_seq = NEW.action_seq AND actions.switch = NEW.switch)
BEGIN SELECT RAISE(ABORT, 'a switch is set by an operator''s action'); END;

-- Lists are read along one of these, newest or oldest first, from where the last page ended. Those of open
-- jobs hold few rows; the two that hold every job are for the questions that are asked by name.
CREATE INDEX jobs_open_by_state ON jobs (state, job_seq) WHERE final_outcome IS NULL;
CREATE INDEX jobs_open_by_time ON jobs (state_since_ms, job_seq)
    WHERE final_outcome IS NULL AND state <> 'refused';
CREATE INDEX jobs_overruled ON jobs (job_seq) WHERE state = 'overruled';
CREATE INDEX jobs_of_connection ON jobs (connection_id, job_seq);
CREATE INDEX jobs_of_partners_record ON jobs (partners_record_id);
CREATE INDEX decisions_rejected ON decisions (reject_code, job_seq) WHERE reject_code IS NOT NULL;
