"""Tables: read them, infer their schema, encode them, and write them with predictions.

Requests to a server never import this package, because polars costs 0.3 s and 60 MB.
"""

from rowcast.tables.encode import EncodedTable, encode, encode_all
from rowcast.tables.infer import Profile, infer
from rowcast.tables.read import from_memory, read
from rowcast.tables.stream import Chunk, chunks
from rowcast.tables.table import Finding, Override, Table, closest, with_target
from rowcast.tables.write import TableWriter, check_extension, open_writer, with_predictions, write

__all__ = [
    "Chunk",
    "EncodedTable",
    "Finding",
    "Override",
    "Profile",
    "Table",
    "TableWriter",
    "check_extension",
    "chunks",
    "closest",
    "encode",
    "encode_all",
    "from_memory",
    "infer",
    "open_writer",
    "read",
    "with_predictions",
    "with_target",
    "write",
]
