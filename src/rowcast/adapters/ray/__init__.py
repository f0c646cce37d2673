"""Adapters for Ray, with its usage reports turned off. Ray reads the variable when it is imported."""

import os

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # noqa: TID251 - the processes that Ray starts inherit it
