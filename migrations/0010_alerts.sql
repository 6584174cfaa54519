-- What is shown to those who watch, without counting a history, and what they are told.

-- Two lifetime sums for each currency; what is at risk now is the one less the other. A convenience, like
-- the other columns: they can be recomputed, and `settled book verify` does.
ALTER TABLE currency_totals ADD COLUMN taken_in TEXT NOT NULL DEFAULT '0'
    CHECK (taken_in <> '' AND taken_in NOT GLOB '*[^0-9]*'); -- lifetime sum of the records that were taken in
ALTER TABLE currency_totals ADD COLUMN ended TEXT NOT NULL DEFAULT '0'
    CHECK (ended <> '' AND ended NOT GLOB '*[^0-9]*');       -- lifetime sum of those of them that are final

ALTER TABLE accounts ADD COLUMN overdrawn INTEGER NOT NULL DEFAULT 0
    CHECK (overdrawn IN (0, 1)); -- whether what is available is below zero; follows from debits and credits
CREATE INDEX accounts_overdrawn ON accounts (account_seq) WHERE overdrawn = 1;

-- Released records that OES has not confirmed: their clients' funds are stuck.
CREATE INDEX jobs_released_unconfirmed ON jobs (received_at_ms)
    WHERE outcome = 'released' AND final_outcome IS NULL;

-- Messages that were not what OES's record says: somebody may have forged them.
CREATE INDEX quarantine_forged ON quarantine (quarantine_seq) WHERE code = 'not_as_at_oes';

-- Alerts that hold or fire now, so that a restart neither repeats nor forgets one. No decision rests on
-- them, so they are not sealed.
CREATE TABLE alerts (
    name          TEXT    NOT NULL CHECK (name <> ''),   -- the kind, as in docs/RUNBOOK.md
    subject       TEXT    NOT NULL,                      -- which of several, e.g. a side of the broker; '' where there is one
    stage         TEXT    NOT NULL CHECK (stage IN ('pending', 'firing')), -- whether it was told
    held_since_ms INTEGER NOT NULL,                      -- since when it holds
    things        INTEGER NOT NULL CHECK (things >= 0),  -- about how many things it is
    summary       TEXT    NOT NULL,                      -- what holds, for a reader; as last written down
    fired_at_ms   INTEGER,                               -- since when it fires
    told_at_ms    INTEGER,                               -- when it was last told
    told_things   INTEGER CHECK (told_things >= 0),      -- about how many things it was then
    clear_since_ms INTEGER,                              -- since when it does not hold any more; it is over after a while
    CHECK ((stage = 'firing') = (fired_at_ms IS NOT NULL)),
    CHECK ((stage = 'firing') = (told_at_ms IS NOT NULL)),
    CHECK ((stage = 'firing') = (told_things IS NOT NULL)),
    CHECK (stage = 'firing' OR clear_since_ms IS NULL),
    PRIMARY KEY (name, subject)
) STRICT, WITHOUT ROWID;

-- What is to be told, and was: a row for each channel, written together with what the alert has become.
CREATE TABLE alert_notices (
    notice_seq    INTEGER NOT NULL PRIMARY KEY,          -- order of writing; those of one alert are told in this order
    notice_id     TEXT    NOT NULL UNIQUE CHECK (length(notice_id) = 36), -- stays the same however often it is sent
    channel       TEXT    NOT NULL CHECK (channel IN ('webhook', 'command')), -- by which way
    name          TEXT    NOT NULL CHECK (name <> ''),   -- about which alert
    subject       TEXT    NOT NULL,                      -- likewise
    event         TEXT    NOT NULL CHECK (event IN ('firing', 'worse', 'repeated', 'resolved')), -- what about it
    body          TEXT    NOT NULL CHECK (json_valid(body)), -- the exact text that is sent
    created_at_ms INTEGER NOT NULL,                      -- when it became true
    tries_made    INTEGER NOT NULL CHECK (tries_made >= 0), -- how often sending it has failed
    next_try_at_ms INTEGER NOT NULL,                     -- when it is sent next
    ended_at_ms   INTEGER,                               -- when it was taken or given up; null: it waits
    result        TEXT    CHECK (result IN ('delivered', 'given_up')), -- which of the two
    detail        TEXT    CHECK (detail <> ''),          -- what the last try came to, for a reader
    CHECK ((ended_at_ms IS NULL) = (result IS NULL))
) STRICT;
CREATE INDEX alert_notices_waiting ON alert_notices (channel, name, subject, notice_seq)
    WHERE ended_at_ms IS NULL;
