-- One index per filter of the history list, in list order. The indexes omit empty strings: most entries have no entity,
-- and the values that a regression model predicts are not stored as labels.
CREATE INDEX entries_model ON entries (model, id);
CREATE INDEX entries_label ON entries (label, id) WHERE label <> '';
CREATE INDEX entries_tenant ON entries (tenant, id) WHERE tenant <> '';
CREATE INDEX entries_entity ON entries (entity, id) WHERE entity <> '';

-- The chain of erasures: who erased which rows, when and how many.
CREATE TABLE erasures (
    seq INTEGER PRIMARY KEY,
    head BLOB NOT NULL,
    link BLOB NOT NULL
) STRICT;

-- Erasures that are not complete yet.
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    mark INTEGER NOT NULL,
    request BLOB NOT NULL
) STRICT;
