-- The tables have the same meaning as in SQLite; docs/reference/history.md describes them.
CREATE SCHEMA IF NOT EXISTS rowcast;

CREATE TABLE rowcast.schema_versions (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- `last_seq` and `last_link` are the position of the writer's last entry. A transaction that adds entries locks the
-- writer's row, so that (writer, seq) is unique across partitions.
CREATE TABLE rowcast.writers (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    writer text COLLATE "C" NOT NULL UNIQUE,
    last_seq bigint NOT NULL DEFAULT -1,
    last_link bytea
);

-- `head` and `link` are the evidence; the columns `id` to `entity` copy values from `head` for queries. Ids are UUIDv7,
-- so they are ordered by time, and each partition contains the ids of one month.
CREATE TABLE rowcast.entries (
    writer bigint NOT NULL,
    seq bigint NOT NULL,
    id uuid NOT NULL,
    model text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    label text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    entity text COLLATE "C" NOT NULL,
    head bytea NOT NULL,
    salt bytea,
    "row" bytea,
    row_hash bytea NOT NULL,
    link bytea NOT NULL
) PARTITION BY RANGE (id);

-- An id belongs to exactly one partition, so this index makes ids unique in the whole table.
CREATE UNIQUE INDEX entries_id ON rowcast.entries (id);
CREATE INDEX entries_model ON rowcast.entries (model, id);
-- A label can be longer than the largest value that an index accepts.
CREATE INDEX entries_label ON rowcast.entries (left(label, 200), id) WHERE label <> '';
CREATE INDEX entries_tenant ON rowcast.entries (tenant, id) WHERE tenant <> '';
CREATE INDEX entries_entity ON rowcast.entries (entity, id) WHERE entity <> '';

-- The chain of erasures: who erased which rows, when and how many.
CREATE TABLE rowcast.erasures (
    seq bigint PRIMARY KEY,
    head bytea NOT NULL,
    link bytea NOT NULL
);

-- Erasures that are not complete yet.
CREATE TABLE rowcast.requests (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request bytea NOT NULL
);

-- Journal folders whose indexers write to this store. Every erasure waits for all these folders.
CREATE TABLE rowcast.journal_folders (
    folder text PRIMARY KEY
);

-- The folders that have not completed an erasure yet. `journals` is a JSON list of the journals that were in the folder
-- when its indexer first saw the erasure, or NULL if the indexer has not seen it yet.
CREATE TABLE rowcast.erasure_folders (
    number bigint NOT NULL REFERENCES rowcast.requests (number),
    folder text NOT NULL,
    journals bytea,
    PRIMARY KEY (number, folder)
);

-- The partitions that must be vacuumed because rows were erased. `transaction` is the most recent erasing transaction.
CREATE TABLE rowcast.unscrubbed (
    partition text PRIMARY KEY,
    transaction xid8 NOT NULL
);
