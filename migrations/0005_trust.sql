-- Trusting the record and not the message: what a read before the decision saw, and jobs whose message
-- OES's record does not bear out. Their states and reasons are in 0001, the steps between them in 0002.

-- The approval that was pending at OES before our first send; another one afterwards is ours.
ALTER TABLE jobs ADD COLUMN approval_before TEXT; -- the pendingApprovalId that the record had when verified_at_ms was noted

-- How OES's reads are understood where they give decimals.
ALTER TABLE currencies ADD COLUMN decimals INTEGER CHECK (decimals BETWEEN 0 AND 77); -- digits after the point; null: not known

-- What waits for the read before its decision.
CREATE INDEX jobs_unverified ON jobs (next_step_at_ms, job_seq)
    WHERE state = 'received' AND verified_at_ms IS NULL;
-- Refused jobs by the record that they named: the same message again is known.
CREATE INDEX jobs_refused ON jobs (record_id) WHERE state = 'refused';
-- Messages that came while another one had the record's id.
CREATE INDEX quarantine_of_record ON quarantine (record_id) WHERE record_id IS NOT NULL;

-- A job ends without an update only by OES's own word.
CREATE TRIGGER jobs_taken_over BEFORE UPDATE OF state ON jobs
WHEN OLD.outcome IS NULL AND NEW.state IN ('confirmed', 'overruled') AND NOT EXISTS (
    SELECT 1 FROM decisions WHERE decisions.job_seq = NEW.job_seq
        AND decisions.source = 'oes' AND decisions.outcome = NEW.final_outcome)
BEGIN SELECT RAISE(ABORT, 'a job that was not decided here ends as OES ended its record'); END;
