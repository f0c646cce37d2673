-- Filters of the history list, each in the order of the list. Empty texts are in no index: most entries have no entity,
-- and the values of a regression are no labels.
CREATE INDEX entries_model ON entries (model, id);
CREATE INDEX entries_label ON entries (label, id) WHERE label <> '';
CREATE INDEX entries_tenant ON entries (tenant, id) WHERE tenant <> '';
CREATE INDEX entries_entity ON entries (entity, id) WHERE entity <> '';

-- The chain of erasures: who erased what, when, how many rows.
CREATE TABLE erasures (
    seq INTEGER PRIMARY KEY,
    head BLOB NOT NULL,
    link BLOB NOT NULL
) STRICT;

-- Erasures that wait for journals of the time they were asked to be stored and deleted.
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    mark INTEGER NOT NULL,
    request BLOB NOT NULL
) STRICT;
