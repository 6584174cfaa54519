-- What is shown to those who watch, without counting a history: how much open records move, and which
-- balances are below zero.

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
