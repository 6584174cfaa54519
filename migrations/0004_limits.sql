-- Limits beyond the quantity of one record: the caps of single connections, the sums that caps are
-- compared with, and what guards an operator's approval.

-- The caps that one connection has of its own in a currency; where a column is null, the currency's holds.
CREATE TABLE connection_limits (
    connection_id TEXT NOT NULL CHECK (length(connection_id) = 36), -- whose
    currency      TEXT NOT NULL CHECK (currency <> ''),             -- in what
    exposure_max_per_connection TEXT CHECK (exposure_max_per_connection <> '' AND exposure_max_per_connection NOT GLOB '*[^0-9]*'), -- most that it may be exposed to
    daily_allocation_max_per_connection TEXT CHECK (daily_allocation_max_per_connection <> '' AND daily_allocation_max_per_connection NOT GLOB '*[^0-9]*'), -- most that it may allocate in a day
    daily_deallocation_max_per_connection TEXT CHECK (daily_deallocation_max_per_connection <> '' AND daily_deallocation_max_per_connection NOT GLOB '*[^0-9]*'), -- most that it may deallocate in a day
    approval_above TEXT CHECK (approval_above <> '' AND approval_above NOT GLOB '*[^0-9]*'), -- largest that is cleared without an operator's approval
    event_seq     INTEGER NOT NULL REFERENCES book_events,          -- the fact that this row shows
    PRIMARY KEY (connection_id, currency)
) STRICT, WITHOUT ROWID;

-- What all connections together are exposed to: the lifetime sums over their `oes` accounts. A
-- convenience, like the totals of accounts: it can be recomputed, and `settled book verify` does.
CREATE TABLE currency_totals (
    currency TEXT NOT NULL PRIMARY KEY CHECK (currency <> ''), -- in what
    from_oes TEXT NOT NULL CHECK (from_oes <> '' AND from_oes NOT GLOB '*[^0-9]*'), -- lifetime sum that came from OES, pending allocations included
    to_oes   TEXT NOT NULL CHECK (to_oes <> '' AND to_oes NOT GLOB '*[^0-9]*')    -- lifetime sum that went back
) STRICT, WITHOUT ROWID;

-- What was cleared in a day, by the day of the decision in UTC. Likewise a convenience.
CREATE TABLE daily_cleared (
    connection_id TEXT NOT NULL CHECK (length(connection_id) = 36), -- for whom
    currency      TEXT NOT NULL CHECK (currency <> ''),             -- in what
    day           TEXT NOT NULL CHECK (day <> ''),                  -- as in 2026-11-22
    type          TEXT NOT NULL CHECK (type IN ('allocation', 'deallocation')), -- which way
    cleared       TEXT NOT NULL CHECK (cleared <> '' AND cleared NOT GLOB '*[^0-9]*'),    -- sum of what was decided as cleared
    taken_back    TEXT NOT NULL CHECK (taken_back <> '' AND taken_back NOT GLOB '*[^0-9]*'), -- the part of it that OES ended as released
    PRIMARY KEY (connection_id, currency, day, type)
) STRICT, WITHOUT ROWID;

-- How the settings came to be is shown without looking at every trade.
CREATE INDEX book_events_settings ON book_events (event_seq)
    WHERE kind IN ('connection.upserted', 'connection.suspended', 'currency.configured', 'connection.limited');

CREATE TRIGGER currency_totals_kept BEFORE DELETE ON currency_totals
BEGIN SELECT RAISE(ABORT, 'a total is never removed'); END;
CREATE TRIGGER currency_totals_identity BEFORE UPDATE OF currency ON currency_totals
BEGIN SELECT RAISE(ABORT, 'whose total it is never changes'); END;
CREATE TRIGGER daily_cleared_kept BEFORE DELETE ON daily_cleared
BEGIN SELECT RAISE(ABORT, 'a day is never removed'); END;
CREATE TRIGGER daily_cleared_identity BEFORE UPDATE OF connection_id, currency, day, type ON daily_cleared
BEGIN SELECT RAISE(ABORT, 'whose day it is never changes'); END;

-- A job that waits for an operator's word is decided by it, or by OES, and by nothing else.
CREATE TRIGGER decisions_after_approval BEFORE INSERT ON decisions
WHEN NEW.source NOT IN ('operator', 'oes') AND EXISTS (
    SELECT 1 FROM jobs WHERE jobs.job_seq = NEW.job_seq
        AND jobs.state = 'parked' AND jobs.state_reason = 'needs_approval')
BEGIN SELECT RAISE(ABORT, 'a job that needs approval is decided by an operator''s word'); END;

-- Parked again for another reason would hide the first one. Only what waits for an operator's word or for
-- OES's record may turn out to be undecidable for another reason.
CREATE TRIGGER jobs_parked_for_one_reason BEFORE UPDATE OF state_reason ON jobs
WHEN OLD.state = 'parked' AND NEW.state = 'parked' AND OLD.state_reason <> NEW.state_reason
    AND NOT (OLD.state_reason IN ('needs_approval', 'not_shown', 'unreadable', 'ended_at_oes')
        AND NEW.outcome IS NULL)
BEGIN SELECT RAISE(ABORT, 'a parked job keeps its reason'); END;
