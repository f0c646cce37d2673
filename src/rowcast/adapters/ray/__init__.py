"""Adapters for Ray, with its usage reports turned off.

`RAY_USAGE_STATS_ENABLED` must be set before Ray is imported, because Ray reads it during the import.
"""

import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # noqa: TID251 - the processes that Ray starts inherit it
