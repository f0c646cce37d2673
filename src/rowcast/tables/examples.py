"""Example tables: synthetic loan applications, generated from a seed, and Fisher's iris data.

The loan applicants have two hidden traits, prosperity and discipline, both normally distributed. Income is log-normal
and depends on prosperity and education. Assets depend on income, and the credit score depends mainly on discipline. The
loan amount is a multiple of income, and the term grows with that multiple. The bank's decision depends on the credit
score, the burden (yearly payment divided by income), the ratio of assets to the loan amount, the number of dependents,
the purpose of the loan, self-employment, and noise that is not in the table. The best possible model predicts about
nine out of ten decisions correctly.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rowcast.errors import TableError

ROWS: Final = 5000
EDUCATION: Final = ("high school", "bachelor", "master", "doctorate")
PURPOSES: Final = ("home", "car", "education", "business", "medical", "other")
LARGEST: Final = 15e6
"""The maximum amount. A float32 can represent every whole number up to 16,777,216."""

Columns = Mapping[str, list[Any]]


def loans(rows: int = ROWS, seed: int = 0) -> Columns:
    """Return loan applications: eleven feature columns, and the bank's decision in `loan_status`."""
    import numpy as np

    rng = np.random.default_rng(seed)
    prosperity, discipline = rng.normal(size=rows), rng.normal(size=rows)
    education = rng.choice(len(EDUCATION), rows, p=[0.34, 0.4, 0.2, 0.06])
    self_employed = rng.random(rows) < 0.18
    dependents = np.minimum(rng.poisson(1.3, rows), 5)
    income = np.exp(13.1 + 0.55 * prosperity + 0.16 * education + 0.12 * self_employed * rng.normal(size=rows))
    purpose = rng.choice(len(PURPOSES), rows, p=[0.34, 0.22, 0.12, 0.14, 0.08, 0.1])
    size = np.array([3.2, 1.0, 1.1, 2.2, 0.8, 1.0])[purpose]
    amount = np.minimum(income * size * np.exp(0.55 * rng.normal(size=rows)), LARGEST)
    term = np.clip(np.round(2 + 4.5 * size + 2.5 * rng.normal(size=rows)), 1, 30)
    credit = np.clip(np.round(640 + 95 * discipline + 18 * prosperity + 6 * education), 300, 900)
    residential = np.where(rng.random(rows) < 0.3, 0, np.minimum(income * rng.gamma(2.0, 1.4, rows), LARGEST))
    commercial = np.where(rng.random(rows) < 0.55, 0, np.minimum(income * rng.gamma(1.5, 1.2, rows), LARGEST))
    bank = np.minimum(income * rng.gamma(1.6, 0.35, rows) * np.exp(0.25 * discipline), LARGEST)
    burden = amount * (1 / term + 0.07) / income
    cover = np.log1p((residential + commercial + bank) / amount)
    risky = np.array([0.0, 0.05, 0.1, 0.45, 0.2, 0.3])[purpose] + 0.3 * self_employed
    merit = 0.024 * (credit - 632) - 3.4 * (burden - 0.42) + 1.3 * (cover - 0.9) - 0.22 * dependents - risky + 0.6
    approved = merit * 2.2 + rng.logistic(size=rows) > 0
    unknown = rng.random(rows) < 0.06  # some branches do not ask about commercial assets
    return {
        "annual_income": _rounded(income, 1000),
        "loan_amount": _rounded(amount, 1000),
        "loan_term": term.astype(int).tolist(),
        "credit_score": credit.astype(int).tolist(),
        "education": [EDUCATION[level] for level in education],
        "self_employed": ["Yes" if own else "No" for own in self_employed],
        "dependents": dependents.tolist(),
        "residential_assets": _rounded(residential, 1000),
        "commercial_assets": [
            None if is_unknown else value for value, is_unknown in zip(_rounded(commercial, 1000), unknown, strict=True)
        ],
        "bank_assets": _rounded(bank, 1000),
        "purpose": [PURPOSES[kind] for kind in purpose],
        "loan_status": ["Approved" if yes else "Rejected" for yes in approved],
    }


def _rounded(values: Any, unit: int) -> list[int]:
    return [int(value) for value in (values / unit).round() * unit]


def iris(rows: int = 150, seed: int = 0) -> Columns:
    """Return Fisher's iris data from scikit-learn: four measurements in centimeters, and the `species`."""
    del seed  # the table is not synthetic
    from sklearn.datasets import load_iris

    data = load_iris()
    names = [name.removesuffix(" (cm)").replace(" ", "_") for name in data.feature_names]
    columns = {name: data.data[:rows, index].tolist() for index, name in enumerate(names)}
    return {**columns, "species": [str(data.target_names[kind]) for kind in data.target[:rows]]}


EXAMPLES: Final[Mapping[str, Callable[..., Columns]]] = {"loans": loans, "iris": iris}


def write_example(name: str, path: str | Path, *, rows: int | None = None, seed: int = 0) -> Path:
    """Write an example table as CSV; raise TableError if the name is unknown or the file cannot be written."""
    if name not in EXAMPLES:
        raise TableError(f"unknown example {name!r}; available examples: {', '.join(EXAMPLES)}", slug="unknown-example")
    columns = EXAMPLES[name](seed=seed) if rows is None else EXAMPLES[name](rows=rows, seed=seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    path, content = Path(path), text.getvalue().encode()
    try:
        if path.exists() and path.read_bytes() != content:
            raise TableError(f"{path} exists and has other content; choose another file", slug="file-exists")
        path.write_bytes(content)
    except OSError as error:
        raise TableError(f"{path} cannot be written: {error.strerror}", slug="not-writable") from None
    return path
