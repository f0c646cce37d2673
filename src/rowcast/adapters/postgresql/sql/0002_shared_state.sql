-- What the homes that use this store share, in addition to the history.

-- `content` is the key in JSON, with a hash instead of its secret. `number` keeps the order of creation.
CREATE TABLE rowcast.api_keys (
    number bigint PRIMARY KEY,
    content bytea NOT NULL
);

-- Every change of the keys increases this number, which servers poll.
CREATE TABLE rowcast.key_revision (
    revision bigint NOT NULL
);
INSERT INTO rowcast.key_revision VALUES (0);

-- `history` is the key for the hashes of sensitive values. The signing key is never stored here.
CREATE TABLE rowcast.secrets (
    name text PRIMARY KEY,
    secret bytea NOT NULL
);

-- Replies to requests with an Idempotency-Key. Without a reply, a row is the claim of `owner` until `expires`. Times are
-- Unix timestamps in seconds, by the clock of the database.
CREATE TABLE rowcast.repeats (
    key text COLLATE "C" PRIMARY KEY,
    fingerprint bytea NOT NULL,
    at double precision NOT NULL,
    owner text NOT NULL,
    expires double precision NOT NULL,
    reply bytea
);
CREATE INDEX repeats_at ON rowcast.repeats (at);

-- The partitions that retention has replaced by tables without rows.
CREATE TABLE rowcast.emptied_partitions (
    partition text PRIMARY KEY,
    emptied_at timestamptz NOT NULL DEFAULT now()
);
