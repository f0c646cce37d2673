-- Table `entries` has one row per entry. `head` and `link` are the evidence; the columns `id` to `entity` copy values
-- from `head` for queries.
CREATE TABLE writers (
    number INTEGER PRIMARY KEY,
    writer TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE entries (
    writer INTEGER NOT NULL REFERENCES writers (number),
    seq INTEGER NOT NULL,
    id TEXT NOT NULL,
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    label TEXT NOT NULL,
    tenant TEXT NOT NULL,
    entity TEXT NOT NULL,
    head BLOB NOT NULL,
    salt BLOB,
    row BLOB,
    row_hash BLOB NOT NULL,
    link BLOB NOT NULL,
    UNIQUE (writer, seq)
) STRICT;

-- Ids are UUIDv7, so this index serves lookups as well as lists in chronological order.
CREATE UNIQUE INDEX entries_id ON entries (id);
