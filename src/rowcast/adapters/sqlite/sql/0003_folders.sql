-- The migrations applied to this database. `PRAGMA user_version` repeats the last version, because releases that predate
-- this table use it to reject newer databases. `applied_at` is in UTC microseconds, NULL for migrations that predate
-- this table.
CREATE TABLE schema_versions (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at INTEGER
) STRICT;

-- Journal folders whose indexers write here: every erasure waits for all of them.
CREATE TABLE journal_folders (
    folder TEXT PRIMARY KEY
) STRICT;

-- The folders that have not completed an erasure yet. `journals` is a JSON list of the journals that a folder still
-- waits for, NULL until its indexer has seen the erasure. The table replaces the column `requests.mark`, which is now 0.
CREATE TABLE erasure_folders (
    number INTEGER NOT NULL REFERENCES requests (number),
    folder TEXT NOT NULL,
    journals BLOB,
    PRIMARY KEY (number, folder)
) STRICT;
