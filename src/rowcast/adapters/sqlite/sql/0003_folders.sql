-- The migrations applied to this database. `PRAGMA user_version` repeats the latest version, because releases that
-- predate this table read that value to reject newer databases. `applied_at` is a Unix timestamp in microseconds, or
-- NULL for migrations that predate this table.
CREATE TABLE schema_versions (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at INTEGER
) STRICT;

-- Journal folders whose indexers write to this store. Every erasure waits for all these folders.
CREATE TABLE journal_folders (
    folder TEXT PRIMARY KEY
) STRICT;

-- The folders that have not completed an erasure yet. `journals` is a JSON list of the journals that were in the folder
-- when its indexer first saw the erasure, or NULL if the indexer has not seen it yet. The table replaces the column
-- `requests.mark`, which is now always 0.
CREATE TABLE erasure_folders (
    number INTEGER NOT NULL REFERENCES requests (number),
    folder TEXT NOT NULL,
    journals BLOB,
    PRIMARY KEY (number, folder)
) STRICT;
