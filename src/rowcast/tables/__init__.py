"""Tables: read them from anywhere, infer what their columns mean, encode them, write them back with predictions.

Never imported by the request path of a server: polars costs 0.3 s and 60 MB.
"""

from rowcast.tables.encode import Encoded, encode, encode_all
from rowcast.tables.infer import Profile, infer
from rowcast.tables.read import from_memory, read
from rowcast.tables.stream import Piece, pieces
from rowcast.tables.table import Finding, Override, Table, closest, with_target
from rowcast.tables.write import Writer, check_name, with_predictions, write, writing

__all__ = [
    "Encoded",
    "Finding",
    "Override",
    "Piece",
    "Profile",
    "Table",
    "Writer",
    "check_name",
    "closest",
    "encode",
    "encode_all",
    "from_memory",
    "infer",
    "pieces",
    "read",
    "with_predictions",
    "with_target",
    "write",
    "writing",
]
