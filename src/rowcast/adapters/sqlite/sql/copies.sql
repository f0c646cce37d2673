SELECT e.seq, e.head, e.id, e.model, e.version, e.label, e.tenant, e.entity
FROM entries AS e JOIN writers AS w ON w.number = e.writer
WHERE w.writer = ?
ORDER BY e.seq
