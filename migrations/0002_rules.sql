-- The rules that a CHECK cannot hold: what is never changed, and the steps a job may take.
-- They rely on `PRAGMA recursive_triggers = ON`, so that REPLACE cannot get round them. Rows of a job go
-- only once it is written down in which archive they are.

CREATE TRIGGER ledger_kept BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the identity of a book is never removed'); END;
CREATE TRIGGER ledger_unchanged BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the identity of a book is never changed'); END;

CREATE TRIGGER book_events_kept BEFORE DELETE ON book_events
BEGIN SELECT RAISE(ABORT, 'a book event is never removed'); END;
CREATE TRIGGER book_events_unchanged BEFORE UPDATE ON book_events
BEGIN SELECT RAISE(ABORT, 'a book event is never changed'); END;

CREATE TRIGGER accounts_kept BEFORE DELETE ON accounts
BEGIN SELECT RAISE(ABORT, 'an account is never removed'); END;
CREATE TRIGGER accounts_identity BEFORE UPDATE OF account_seq, connection_id, currency, kind ON accounts
BEGIN SELECT RAISE(ABORT, 'whose account it is never changes'); END;

CREATE TRIGGER transfers_kept BEFORE DELETE ON transfers
WHEN NOT EXISTS (SELECT 1 FROM archived_jobs WHERE archived_jobs.job_seq = OLD.job_seq)
BEGIN SELECT RAISE(ABORT, 'a movement is never removed'); END;
CREATE TRIGGER transfers_unchanged BEFORE UPDATE ON transfers
BEGIN SELECT RAISE(ABORT, 'a movement is never changed'); END;

CREATE TRIGGER messages_kept BEFORE DELETE ON messages
WHEN NOT EXISTS (SELECT 1 FROM archived_jobs WHERE archived_jobs.job_seq = OLD.job_seq)
BEGIN SELECT RAISE(ABORT, 'a message is never removed'); END;
CREATE TRIGGER messages_unchanged BEFORE UPDATE ON messages
BEGIN SELECT RAISE(ABORT, 'a message is never changed'); END;

CREATE TRIGGER decisions_kept BEFORE DELETE ON decisions
BEGIN SELECT RAISE(ABORT, 'a decision is never removed'); END;
CREATE TRIGGER decisions_unchanged BEFORE UPDATE ON decisions
BEGIN SELECT RAISE(ABORT, 'a decision is never changed'); END;

CREATE TRIGGER job_events_kept BEFORE DELETE ON job_events
WHEN NOT EXISTS (SELECT 1 FROM archived_jobs WHERE archived_jobs.job_seq = OLD.job_seq)
BEGIN SELECT RAISE(ABORT, 'history is never removed'); END;
CREATE TRIGGER job_events_unchanged BEFORE UPDATE ON job_events
BEGIN SELECT RAISE(ABORT, 'history is never changed'); END;

CREATE TRIGGER signing_keys_kept BEFORE DELETE ON signing_keys
BEGIN SELECT RAISE(ABORT, 'a signing key is never removed'); END;
CREATE TRIGGER signing_keys_unchanged BEFORE UPDATE ON signing_keys
BEGIN SELECT RAISE(ABORT, 'a signing key is never changed'); END;

-- No signature without its decision, none for the other outcome, and none where OES had decided.
CREATE TRIGGER attempts_follow_the_decision BEFORE INSERT ON attempts
WHEN NOT EXISTS (SELECT 1 FROM decisions
                 WHERE decisions.job_seq = NEW.job_seq AND decisions.outcome = NEW.outcome
                   AND decisions.source <> 'oes')
BEGIN SELECT RAISE(ABORT, 'an attempt carries the outcome that was decided'); END;
CREATE TRIGGER attempts_kept BEFORE DELETE ON attempts
WHEN NOT EXISTS (SELECT 1 FROM archived_jobs WHERE archived_jobs.job_seq = OLD.job_seq)
BEGIN SELECT RAISE(ABORT, 'an attempt is never removed'); END;
CREATE TRIGGER attempts_signed BEFORE UPDATE OF attempt_seq, job_seq, attempt_no, outcome, nonce, body,
    signature, key_id, prepared_at_ms ON attempts
BEGIN SELECT RAISE(ABORT, 'what was signed is never changed'); END;
CREATE TRIGGER attempts_result_once BEFORE UPDATE ON attempts WHEN OLD.result IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'the result of an attempt is written once'); END;

CREATE TRIGGER restores_kept BEFORE DELETE ON restores
BEGIN SELECT RAISE(ABORT, 'a restore is never removed'); END;
CREATE TRIGGER restores_unchanged BEFORE UPDATE ON restores
BEGIN SELECT RAISE(ABORT, 'a restore is never changed'); END;

CREATE TRIGGER quarantine_kept BEFORE DELETE ON quarantine
BEGIN SELECT RAISE(ABORT, 'a quarantined message is never removed'); END;
CREATE TRIGGER quarantine_unchanged BEFORE UPDATE OF quarantine_seq, queue, sha256, bytes, code, detail,
    record_id, first_seen_ms ON quarantine
BEGIN SELECT RAISE(ABORT, 'a quarantined message is never changed'); END;

CREATE TRIGGER outbox_kept BEFORE DELETE ON outbox
WHEN NOT EXISTS (SELECT 1 FROM archived_jobs WHERE archived_jobs.job_seq = OLD.job_seq)
BEGIN SELECT RAISE(ABORT, 'an announcement is never removed'); END;
CREATE TRIGGER outbox_unchanged BEFORE UPDATE OF outbox_seq, kind, job_seq, quarantine_seq, event_id,
    routing_key, body, created_at_ms ON outbox
BEGIN SELECT RAISE(ABORT, 'an announcement is never changed'); END;
CREATE TRIGGER outbox_published_once BEFORE UPDATE OF published_at_ms ON outbox
WHEN OLD.published_at_ms IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'an announcement is confirmed once'); END;

CREATE TRIGGER jobs_kept BEFORE DELETE ON jobs
BEGIN SELECT RAISE(ABORT, 'a job is never removed'); END;
CREATE TRIGGER jobs_terms BEFORE UPDATE OF job_seq, record_id, type, currency, quantity, client_id,
    connection_id, partners_client_id, partners_connection_id, partners_record_id, content_sha256,
    received_at_ms ON jobs
BEGIN SELECT RAISE(ABORT, 'the terms of a job never change'); END;
CREATE TRIGGER jobs_decided_once BEFORE UPDATE OF outcome ON jobs
WHEN OLD.outcome IS NOT NULL AND NEW.outcome IS NOT OLD.outcome
BEGIN SELECT RAISE(ABORT, 'what was decided never changes'); END;
CREATE TRIGGER jobs_ended_once BEFORE UPDATE ON jobs
WHEN OLD.final_outcome IS NOT NULL OR OLD.state = 'refused'
BEGIN SELECT RAISE(ABORT, 'a final job never changes'); END;

-- The steps of `domain::state`, by name. One transaction takes one step, but for a received job, which
-- may be decided and its first attempt prepared at once.
CREATE TRIGGER jobs_steps BEFORE UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state AND NOT CASE OLD.state
    WHEN 'received' THEN NEW.state IN ('decided', 'sending', 'confirmed', 'refused')
        OR (NEW.state = 'parked' AND NEW.outcome IS NULL)
    WHEN 'decided' THEN NEW.state IN ('sending', 'parked')
    WHEN 'sending' THEN NEW.state IN ('decided', 'unknown', 'awaiting_approval', 'confirmed')
    WHEN 'unknown' THEN NEW.state IN ('decided', 'awaiting_approval', 'parked', 'conflict', 'confirmed', 'overruled')
    WHEN 'awaiting_approval' THEN NEW.state IN ('parked', 'conflict', 'confirmed', 'overruled')
    WHEN 'parked' THEN CASE
        WHEN OLD.state_reason = 'needs_approval' THEN NEW.state IN ('decided', 'confirmed', 'refused')
        WHEN OLD.state_reason IN ('not_shown', 'unreadable', 'ended_at_oes')
            THEN NEW.state IN ('received', 'confirmed', 'refused')
        ELSE NEW.state IN ('received', 'conflict', 'confirmed', 'overruled')
            OR (NEW.state = 'unknown' AND NEW.state_reason = 'sent_on')
    END
    WHEN 'conflict' THEN NEW.state IN ('confirmed', 'overruled')
    ELSE 0
END
BEGIN SELECT RAISE(ABORT, 'a job cannot take that step'); END;
CREATE TRIGGER jobs_undecided_parked_stay BEFORE UPDATE OF state ON jobs
WHEN OLD.state = 'parked' AND OLD.outcome IS NULL AND NEW.state NOT IN ('parked', 'received')
    AND NOT (OLD.state_reason = 'needs_approval' AND NEW.state = 'decided')
    AND NOT (OLD.state_reason IN ('needs_approval', 'not_shown', 'unreadable', 'ended_at_oes')
        AND NEW.state IN ('confirmed', 'refused'))
BEGIN SELECT RAISE(ABORT, 'a job that was parked undecided cannot end'); END;
