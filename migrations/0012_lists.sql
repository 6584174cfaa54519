-- Indexes that let operators find a job among millions by more questions than 0009_operators.sql foresaw.

-- Each job is written here once, when it ends: those that change most often are in jobs_open_by_time.
CREATE INDEX jobs_ended_by_time ON jobs (state_since_ms, job_seq) WHERE final_outcome IS NOT NULL;
CREATE INDEX jobs_refused_by_time ON jobs (state_since_ms, job_seq) WHERE state = 'refused';

-- The client as the message has it: also where the book does not know the connection.
CREATE INDEX jobs_of_client ON jobs (client_id, job_seq);

-- The exchange's names, by their beginnings.
CREATE INDEX connections_by_partners_client ON connections (partners_client_id);
CREATE INDEX connections_by_partners_connection ON connections (partners_connection_id);
