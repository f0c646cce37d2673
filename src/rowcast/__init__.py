"""Train, serve and audit models for tabular data.

    import rowcast

    rowcast.train("loans.csv", target="loan_status")
    rowcast.load("loans").predict({"annual_income": 800000, ...})
    rowcast.predict("loans", "new_loans.csv", "scores.parquet")
    rowcast.evaluate("loans", "new_loans.csv")
    rowcast.Client("http://127.0.0.1:8000").predict({"annual_income": 800000, ...})

Each name is imported on first use, so that `import rowcast` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rowcast.version import VERSION

if TYPE_CHECKING:
    from rowcast.client import AsyncClient, Client
    from rowcast.python_api import Model, evaluate, predict, train
    from rowcast.python_api import load as load

__version__ = VERSION
__all__ = ["AsyncClient", "Client", "Model", "__version__", "evaluate", "load", "predict", "train"]


def __getattr__(name: str) -> Any:
    if name in ("Model", "evaluate", "load", "predict", "train"):
        from rowcast import python_api

        return getattr(python_api, name)
    if name in ("AsyncClient", "Client"):
        from rowcast import client

        return getattr(client, name)
    raise AttributeError(f"module 'rowcast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
