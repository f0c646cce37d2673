"""Generate loan_approval_dataset.csv: synthetic applications with five columns of `rowcast example loans`."""

import csv
from pathlib import Path

from rowcast.tables.examples import loans

COLUMNS = ("annual_income", "loan_amount", "loan_term", "credit_score", "loan_status")

table = loans(rows=1200, seed=7)
with (Path(__file__).parent / "loan_approval_dataset.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(*(table[name] for name in COLUMNS), strict=True))
