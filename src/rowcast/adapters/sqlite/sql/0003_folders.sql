-- The migrations that this database has seen. `PRAGMA user_version` repeats the last version, because releases before
-- this table refuse newer databases by it. `applied_at` is UTC microseconds, NULL for migrations before this table.
CREATE TABLE schema_versions (
    version INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    applied_at INTEGER
) STRICT;

-- Journal folders whose indexers write here: every erasure waits for all of them.
CREATE TABLE journal_folders (
    folder TEXT PRIMARY KEY
) STRICT;

-- The folders that have not completed an erasure yet, with the journals that each waits for as a JSON list; NULL until
-- the folder has learned of the erasure. They replace the column `requests.mark`, which is 0 from now on.
CREATE TABLE erasure_folders (
    number INTEGER NOT NULL REFERENCES requests (number),
    folder TEXT NOT NULL,
    journals BLOB,
    PRIMARY KEY (number, folder)
) STRICT;
