-- Jobs. `job` contains the whole job; the other columns copy values from it for queries.
CREATE TABLE rowcast.jobs (
    id text COLLATE "C" PRIMARY KEY,
    place text NOT NULL,
    tenant text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    repeat_key text UNIQUE,
    is_open boolean NOT NULL,
    remove_at bigint NOT NULL,
    job bytea NOT NULL
);
CREATE INDEX jobs_open ON rowcast.jobs (place, id) WHERE is_open;
CREATE INDEX jobs_ended ON rowcast.jobs (place, remove_at) WHERE NOT is_open;
CREATE INDEX jobs_tenant ON rowcast.jobs (tenant, id);

-- The finished chunks of open and finished jobs.
CREATE TABLE rowcast.job_chunks (
    job text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    chunk bytea NOT NULL,
    PRIMARY KEY (job, number)
);

-- The workers that run jobs, with the time at which they were last seen.
CREATE TABLE rowcast.job_workers (
    worker text PRIMARY KEY,
    place text NOT NULL,
    seen bigint NOT NULL
);
