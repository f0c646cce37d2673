"""Generate X.csv (features) and y.csv (labels): synthetic applications like those of `rowcast example loans`."""

import csv
from pathlib import Path

from rowcast.tables.examples import loans

FOLDER = Path(__file__).parent


def write(name: str, header: list[str], rows: list[list[object]]) -> None:
    """Write a CSV file."""
    with (FOLDER / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


table = dict(loans(rows=1500, seed=11))
status = table.pop("loan_status")
write("X.csv", list(table), [list(row) for row in zip(*table.values(), strict=True)])
write("y.csv", ["loan_status"], [[int(each == "Approved")] for each in status])
