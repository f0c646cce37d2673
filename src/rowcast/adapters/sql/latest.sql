SELECT w.writer, e.seq, e.head, e.salt, e.row, e.row_hash, e.link
FROM entries AS e JOIN writers AS w ON w.number = e.writer
WHERE (:before IS NULL OR e.id < :before) AND (:model IS NULL OR e.model = :model)
ORDER BY e.id DESC
LIMIT :limit
