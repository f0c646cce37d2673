INSERT INTO entries (writer, seq, id, model, version, label, tenant, entity, head, salt, row, row_hash, link)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (writer, seq) DO NOTHING
