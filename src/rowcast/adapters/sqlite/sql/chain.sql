SELECT e.seq, e.head, e.salt, e.row, e.row_hash, e.link
FROM entries AS e JOIN writers AS w ON w.number = e.writer
WHERE w.writer = ? AND e.seq > ?
ORDER BY e.seq
