-- History that is over: the rows of old final jobs stand in other files, which are read together with
-- this one. `store::archive` says how they get there. The row of the job and its decision stay here for
-- ever, so that a message about it that comes again is known.

-- The archive files, in the order in which they were begun. Never removed.
CREATE TABLE archives (
    archive_seq   INTEGER NOT NULL PRIMARY KEY CHECK (archive_seq BETWEEN 1 AND 8), -- SQLite opens ten files together
    archive_uuid  TEXT    NOT NULL UNIQUE CHECK (length(archive_uuid) = 36), -- the file's own identity
    begun_at_ms   INTEGER NOT NULL,                            -- when the file was made
    path          TEXT    NOT NULL CHECK (path <> ''),         -- where it was when rows last went there
    attempt_seq   INTEGER NOT NULL CHECK (attempt_seq >= 0),   -- highest number of an attempt that went there
    transfer_seq  INTEGER NOT NULL CHECK (transfer_seq >= 0),  -- the same of a movement
    job_event_seq INTEGER NOT NULL CHECK (job_event_seq >= 0), -- the same of a job event
    outbox_seq    INTEGER NOT NULL CHECK (outbox_seq >= 0)     -- the same of an announcement
) STRICT;

-- Jobs whose message, attempts, movements, events and announcement stand in an archive. Never changed.
CREATE TABLE archived_jobs (
    job_seq        INTEGER NOT NULL PRIMARY KEY REFERENCES jobs, -- which job
    archive_seq    INTEGER NOT NULL REFERENCES archives,         -- in which archive
    archived_at_ms INTEGER NOT NULL                              -- when its rows went there
) STRICT;

CREATE TRIGGER archives_kept BEFORE DELETE ON archives
BEGIN SELECT RAISE(ABORT, 'an archive is never removed'); END;
CREATE TRIGGER archives_identity BEFORE UPDATE OF archive_seq, archive_uuid, begun_at_ms ON archives
BEGIN SELECT RAISE(ABORT, 'which archive it is never changes'); END;
CREATE TRIGGER archives_grow BEFORE UPDATE ON archives
WHEN NEW.attempt_seq < OLD.attempt_seq OR NEW.transfer_seq < OLD.transfer_seq
    OR NEW.job_event_seq < OLD.job_event_seq OR NEW.outbox_seq < OLD.outbox_seq
BEGIN SELECT RAISE(ABORT, 'an archive only grows: row numbers are never given twice'); END;

CREATE TRIGGER archived_jobs_are_over BEFORE INSERT ON archived_jobs
WHEN NOT EXISTS (SELECT 1 FROM jobs JOIN outbox USING (job_seq)
                 WHERE jobs.job_seq = NEW.job_seq AND final_outcome IS NOT NULL
                   AND published_at_ms IS NOT NULL)
    OR EXISTS (SELECT 1 FROM attempts WHERE attempts.job_seq = NEW.job_seq AND result IS NULL)
BEGIN SELECT RAISE(ABORT, 'only a final job whose outcome was published is archived'); END;
CREATE TRIGGER archived_jobs_kept BEFORE DELETE ON archived_jobs
BEGIN SELECT RAISE(ABORT, 'an archived job is never forgotten'); END;
CREATE TRIGGER archived_jobs_unchanged BEFORE UPDATE ON archived_jobs
BEGIN SELECT RAISE(ABORT, 'where a job is archived never changes'); END;
