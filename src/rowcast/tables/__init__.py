"""Tables: read them from anywhere, infer what their columns mean, encode them, write them back with predictions.

Never imported by the request path of a server: polars costs 0.3 s and 60 MB.
"""

from rowcast.tables.encode import Encoded, encode, encode_all
from rowcast.tables.infer import Profile, infer
from rowcast.tables.read import from_memory, read
from rowcast.tables.table import Finding, Table, closest, flag, with_target
from rowcast.tables.write import check_name, with_predictions, write

__all__ = [
    "Encoded",
    "Finding",
    "Profile",
    "Table",
    "check_name",
    "closest",
    "encode",
    "encode_all",
    "flag",
    "from_memory",
    "infer",
    "read",
    "with_predictions",
    "with_target",
    "write",
]
