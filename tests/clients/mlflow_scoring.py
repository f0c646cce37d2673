"""Call a server with MLflow's scoring client. `test_clients.py` runs this script in a separate environment.

python mlflow_scoring.py HOST PORT ROWS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient


def main(host: str, port: str, path: str) -> None:
    """Call every operation once and print the results."""
    rows = json.loads(Path(path).read_text())
    client = ScoringServerClient(host, port)
    client.wait_server_ready(10)
    table = pd.DataFrame(rows)  # a column with missing values becomes float64 with NaN
    nullable = table.convert_dtypes()
    results = {
        "version": client.get_version(),
        "table": json.loads(client.invoke(table).to_json())["predictions"],
        "nullable": json.loads(client.invoke(nullable).to_json())["predictions"],
        "probabilities": json.loads(client.invoke(table.head(3), params={"predict_method": "predict_proba"}).to_json())[
            "predictions"
        ],
        "invalid row": "",
    }
    try:
        client.invoke(pd.DataFrame([{"x": 1}]))
    except Exception as error:
        results["invalid row"] = str(error)
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
