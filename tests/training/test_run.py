"""Complete training runs: publication, certification and reproducibility."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import RowcastError, TrainingError
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from rowcast.schema.encoding import RowEncoder
from rowcast.schema.scores import score_rows
from rowcast.schema.stacking import stack_rows
from rowcast.serving.live_models import load_folder
from rowcast.serving.model_descriptions import describe
from rowcast.tables import examples
from rowcast.tables.encode import encode_table
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Table
from rowcast.tables.write import with_predictions
from rowcast.training.cost import Cost
from rowcast.training.events import TrainingEvent
from rowcast.training.result import TrainingResult
from support.training import customers, train_model, weighted_loans

pytestmark = pytest.mark.usefixtures("small_models")

LOANS = table_from_memory(examples.loans(600), "loans")
IRIS = table_from_memory(examples.iris(), "iris")
EVERY_KIND = table_from_memory(
    {
        "when": [f"{1 + index % 28:02d}/{1 + index % 12:02d}/2025" for index in range(300)],
        "price": [None if index % 11 == 0 else f"${index * 3:,}.50" for index in range(300)],
        "code": [f"c{index % 90}" for index in range(300)],
        "count": [index % 7 for index in range(300)],
        "own": ["Yes" if index % 3 else "No" for index in range(300)],
        "y": [index * 1.5 + (index % 7) * 20.0 for index in range(300)],
    },
    "every kind",
)
COSTLY = Cost(false_positive=5.0, false_negative=1.0)


@pytest.mark.parametrize(
    ("table", "target", "task"),
    [
        (LOANS, "loan_status", "binary"),
        (IRIS, "species", "multiclass"),
        (EVERY_KIND, "y", "regression"),
    ],
    ids=["loans", "iris", "every kind of column"],
)
@pytest.mark.parametrize("candidate", ["logistic", "ridge", "tree", "boosting", "forest", "extra"])
def test_training_publishes_a_certified_bundle(
    tmp_path: Path, table: Table, target: str, task: str, candidate: str
) -> None:
    result = train_model(tmp_path, table, target, trials=1, candidates=(candidate,))

    assert (result.model, result.version, result.task) == ("model", 1, task)
    assert result.parity.label_flips == 0
    assert result.parity.rows > 2000
    if task != "regression":
        assert result.parity.max_abs_diff <= 1e-5
    opened = bundle.open(Path(result.path))
    assert bundle.verify(Path(result.path)).digest == opened.manifest.digest == result.digest
    assert set(opened.manifest.files) == {
        "model.onnx",
        "golden.json",
        "reference.parquet",
        "training_rows.bin",
        "MODEL_CARD.md",
        "report.html",
    }
    assert opened.manifest.decision.task == task
    assert msgspec.json.decode(msgspec.json.encode(result), type=TrainingResult).digest == result.digest


@pytest.mark.parametrize("candidate", ["ridge", "boosting"])
def test_optional_columns_are_filled_with_the_median_or_treated_as_unseen(tmp_path: Path, candidate: str) -> None:
    result = train_model(tmp_path, EVERY_KIND, "y", trials=1, candidates=(candidate,), optional=("all",))
    live = load_folder(Reference("model", 1), Path(result.path), open_graph)
    row = {"when": "05/06/2025", "price": 7.5, "code": "c3", "count": 3, "own": "Yes"}

    def score(**changes: Any) -> Any:
        return live.score([live.encoder.parse({**row, **changes})])[0].prediction

    medians = {float(median) for median in range(2, 5)}
    assert score(count=None) in {score(count=median) for median in medians}
    assert score(code=None) == score(code="never seen")
    assert np.isfinite(live.score([live.encoder.read(b"{}")])[0].prediction)


@pytest.mark.parametrize(("table", "target"), [(LOANS, "loan_status"), (EVERY_KIND, "y")], ids=["loans", "every kind"])
def test_golden_rows_are_valid_client_rows_and_contain_the_scores_from_the_graph(
    tmp_path: Path, table: Table, target: str
) -> None:
    opened = bundle.open(Path(train_model(tmp_path, table, target).path))
    manifest = opened.manifest
    encoder = RowEncoder(manifest.schema, manifest.plan)
    graph = open_graph(opened.model, manifest.output.name)

    rows = [encoder.read(msgspec.json.encode(golden.row)) for golden in opened.golden]

    assert score_rows(manifest.decision, graph.run(stack_rows(encoder.plan, rows))) == [
        golden.score for golden in opened.golden
    ]
    assert len(opened.golden) == 32
    assert any(row.warnings for row in rows)
    assert any(None in golden.row.values() for golden in opened.golden)


def test_values_keep_their_format_in_golden_rows(tmp_path: Path) -> None:
    result = train_model(tmp_path, EVERY_KIND, "y", trials=1, candidates=("ridge",))
    rows = [golden.row for golden in bundle.open(Path(result.path)).golden]

    assert {type(row["count"]) for row in rows} == {int}
    assert {row["own"] for row in rows} == {"Yes", "No"}
    assert all(re.fullmatch(r"\d\d/\d\d/2025", row["when"]) for row in rows)
    assert {type(row["price"]) for row in rows} <= {float, type(None)}


@pytest.mark.parametrize(("table", "target"), [(LOANS, "loan_status"), (IRIS, "species")], ids=["loans", "iris"])
def test_identical_training_runs_produce_identical_digests(tmp_path: Path, table: Table, target: str) -> None:
    first, again, other = (train_model(tmp_path, table, target, seed=seed, trials=4) for seed in (3, 3, 4))

    assert first.digest == again.digest != other.digest
    assert (first.version, again.version, other.version) == (1, 2, 3)


@pytest.mark.parametrize(
    ("table", "target"), [(LOANS, "loan_status"), (IRIS, "species"), (EVERY_KIND, "y")], ids=["loans", "iris", "values"]
)
def test_the_number_of_threads_does_not_change_the_model(tmp_path: Path, table: Table, target: str) -> None:
    serial, parallel = (train_model(tmp_path, table, target, trials=10, jobs=jobs) for jobs in (1, 3))

    assert serial.digest == parallel.digest
    assert [(each.name, each.score, each.trials) for each in serial.candidates] == [
        (each.name, each.score, each.trials) for each in parallel.candidates
    ]


@pytest.mark.parametrize("options", [{"time": "day"}, {"group": "customer"}], ids=["time", "group"])
def test_a_model_trained_with_a_split_column_is_certified_and_reproducible(
    tmp_path: Path, options: dict[str, str]
) -> None:
    first, again = (train_model(tmp_path, customers(), trials=4, **options) for _ in range(2))

    assert first.parity.label_flips == 0
    assert first.digest == again.digest
    assert options.items() <= bundle.open(Path(first.path)).manifest.training.options.items()


def test_a_group_split_prevents_optimistic_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(150), 6)
    columns = {"customer": [f"c{each}" for each in owner], "x": rng.normal(size=150)[owner].tolist()}
    columns["y"] = rng.integers(0, 2, 150)[owner].tolist()

    random, grouped = (
        train_model(tmp_path, columns, trials=1, candidates=("forest",), exclude=("customer",), **options).score
        for options in ({}, {"group": "customer"})
    )

    assert random > 0.9
    assert grouped < 0.65


def test_the_weight_column_is_dropped_and_its_scale_has_no_effect(tmp_path: Path) -> None:
    columns = weighted_loans()
    scaled_columns = {**columns, "w": [8 * value for value in columns["w"]]}
    weight = {"weight": "w"}

    unweighted, first, again, scaled = (
        train_model(tmp_path, each, candidates=("logistic", "boosting", "forest"), **options)
        for each, options in ((columns, {}), (columns, weight), (columns, weight), (scaled_columns, weight))
    )

    assert first.digest == again.digest == scaled.digest != unweighted.digest
    assert [finding.column for finding in first.findings if finding.code == "weight"] == ["w"]
    assert bundle.open(Path(first.path)).manifest.schema.names() == ["a", "b"]


def test_costs_change_the_threshold_and_are_recorded(tmp_path: Path) -> None:
    options = {"positive": "Approved", "trials": 1, "candidates": ("logistic",)}

    even, costly = (train_model(tmp_path, LOANS, "loan_status", cost=cost, **options) for cost in (None, COSTLY))

    manifests = [bundle.verify(Path(result.path)) for result in (even, costly)]
    assert manifests[0].decision.threshold < manifests[1].decision.threshold
    assert even.digest != costly.digest
    assert manifests[1].training.options["cost"] == {"false_positive": 5.0, "false_negative": 1.0}


@pytest.mark.parametrize(
    ("options", "card_text", "report_text"),
    [
        ({"time": "day"}, "Split by time (`day`)", ""),
        ({"group": "customer"}, "Split by group (`customer`)", ""),
        ({"weight": "w"}, "each row is weighted by its w", "each row is weighted by its w"),
        ({"cost": COSTLY}, "a false positive costs 5 and a false negative costs 1", ""),
        ({"refit": True}, "trained on all rows", "refitted on all rows"),
    ],
    ids=["time", "group", "weight", "cost", "refit"],
)
def test_the_card_and_the_report_describe_the_options(
    tmp_path: Path, options: dict[str, Any], card_text: str, report_text: str
) -> None:
    columns = customers()
    columns["w"] = [1 + index % 3 for index in range(len(columns["y"]))]

    default, changed = (
        Path(train_model(tmp_path, columns, trials=1, candidates=("logistic",), **each).path) for each in ({}, options)
    )

    for file, text in ((bundle.CARD, card_text), (bundle.REPORT, report_text)):
        assert text in (changed / file).read_text()
        assert not text or text not in (default / file).read_text()


def test_the_alias_moves_to_the_new_version(tmp_path: Path) -> None:
    for options in ({}, {"alias": "challenger"}, {"alias": None}):
        train_model(tmp_path, IRIS, "species", trials=1, candidates=("logistic",), **options)

    assert FolderRegistry(tmp_path).aliases("model") == {"champion": 1, "challenger": 2}


def test_the_loan_example_can_be_learned_but_not_perfectly(tmp_path: Path) -> None:
    table = table_from_memory(examples.loans(), "loans")

    result = train_model(tmp_path, table, "loan_status", trials=1, candidates=("logistic",))

    assert 0.86 <= result.holdout["accuracy"].value <= 0.94
    assert result.holdout["calibration_error"].value < 0.06
    assert {finding.code for finding in result.findings} == {"positive-class", "dominant", "sentinel"}


def test_events_report_every_stage_and_every_trial(tmp_path: Path) -> None:
    events: list[TrainingEvent] = []

    train_model(tmp_path, LOANS, "loan_status", progress=events.append, trials=4)

    assert list(dict.fromkeys(event.stage for event in events)) == [
        "check",
        "tune",
        "fit",
        "export",
        "certify",
        "publish",
    ]
    assert events[0].findings[-1].code == "positive-class"
    trials = [event for event in events if event.stage == "tune"]
    assert [(event.trial, event.trials) for event in trials] == [(n, 4) for n in (1, 2, 3, 4)]
    assert trials[-1].seconds_left == 0.0
    best = [event.best for event in trials if event.best is not None]
    assert best == sorted(best)


@pytest.mark.parametrize(
    ("options", "slug"),
    [
        ({"target": "loan_state"}, "unknown-column"),
        ({"candidates": ("magic",)}, "training"),
        ({"metric": "rmse"}, "training"),
        ({"wire": {"reply": {"x": "$nothing"}}}, "document"),
    ],
    ids=["target", "candidates", "metric", "wire"],
)
def test_invalid_options_are_rejected_before_the_search(tmp_path: Path, options: dict[str, Any], slug: str) -> None:
    events: list[TrainingEvent] = []

    with pytest.raises(RowcastError) as caught:
        train_model(tmp_path, LOANS, **{"target": "loan_status", "progress": events.append, **options})

    assert caught.value.slug == slug
    assert not events


def test_costs_require_a_binary_target(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="option 'cost' requires a binary target; 'species' has 3 classes"):
        train_model(tmp_path, IRIS, "species", cost=COSTLY)
    assert not FolderRegistry(tmp_path).models()


def test_rare_classes_are_kept_even_if_some_folds_lack_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = np.array(["a"] * 80 + ["b"] * 60 + ["c"] * 4 + ["d"] * 2)
    columns = {"x": (rng.normal(size=146) + (label == "b")).tolist(), "y": label.tolist()}

    result = train_model(tmp_path, columns, "y")

    assert result.task == "multiclass"
    assert bundle.open(Path(result.path)).manifest.decision.classes == ("a", "b", "c", "d")


@pytest.mark.parametrize("candidate", ["logistic", "ridge", "tree", "boosting", "forest"])
@pytest.mark.parametrize("positives", [2, 5])
def test_training_succeeds_with_only_a_few_positive_rows(tmp_path: Path, positives: int, candidate: str) -> None:
    columns = {"x": [index / 7 for index in range(200)], "y": [int(index < positives) for index in range(200)]}

    result = train_model(tmp_path, columns, "y", candidates=(candidate,), holdout=0.5)

    assert result.parity.label_flips == 0


def test_spaces_around_the_target_name_are_ignored(tmp_path: Path) -> None:
    result = train_model(tmp_path, IRIS, " species ", trials=1, candidates=("logistic",))

    assert bundle.open(Path(result.path)).manifest.training.target == "species"


def test_table_predictions_equal_single_row_predictions(tmp_path: Path) -> None:
    opened = bundle.open(Path(train_model(tmp_path, LOANS, "loan_status").path))
    manifest = opened.manifest
    graph = open_graph(opened.model, manifest.output.name)
    encoder = RowEncoder(manifest.schema, manifest.plan)
    frame = LOANS.frame[:100]

    whole = with_predictions(frame, manifest.decision, graph.run(encode_table(frame, manifest.schema, manifest.plan)))

    for row, result in zip(frame.select(manifest.schema.names()).to_dicts(), whole.to_dicts(), strict=True):
        alone = score_rows(manifest.decision, graph.run(stack_rows(encoder.plan, [encoder.parse(row)])))[0]
        assert (alone.prediction, alone.score) == (result["prediction"], result["score"])


def test_no_document_contains_a_value_of_a_sensitive_column(tmp_path: Path) -> None:
    rows = 400
    table = table_from_memory(
        {
            "salary": [-7_310_999 if index % 9 == 0 else 7_310_000 + index for index in range(rows)],
            "badge": [f"{index:07d}" if index % 2 else f"0073{index:03d}" for index in range(rows)],
            "city": [f"hidden-{index % 5}" for index in range(rows)],
            "fee": ["$7,311,500.25" if index % 3 else f"${7_312_000 + index:,}.75" for index in range(rows)],
            "met": [f"{1 + index % 28:02d}/{1 + index % 12:02d}/1973" for index in range(rows)],
            "open": [index % 13 for index in range(rows)],
            "y": ["yes" if (index % 13 > 6) != (index % 5 == 0) else "no" for index in range(rows)],
        },
        "staff",
    )
    sensitive = ("salary", "badge", "city", "fee", "met")

    result = train_model(tmp_path, table, "y", sensitive=sensitive, keep=sensitive, candidates=("boosting",))

    folder = Path(result.path)
    model = load_folder(Reference("model", 1), folder, open_graph)
    values = {str(cell) for name in sensitive for cell in table.frame[name]}
    values = {value for value in values if len(value) > 5} | {"7311500", "7310999", "/1973", "1973-"}
    documents = {
        **{name: (folder / name).read_text() for name in ("MODEL_CARD.md", "report.html")},
        "findings": str(result.findings),
        "description": str(describe(model, is_default=True)),
        "row schema": str(model.schema.json_schema()),
        "examples": str([model.sample(), model.golden_example()]),
    }
    assert {name: value for name, text in documents.items() for value in values if value in text} == {}
    assert "12" in documents["row schema"]  # the values of other columns are shown
    model.encoder.parse(model.example())


def test_no_document_contains_markup_or_control_characters_from_the_table(tmp_path: Path) -> None:
    hostile = ["<script>alert(1)</script>", "[red]x[/red]\x1b[31m", "a|b`c", "x\n# y", "[go](https://example.com)"]
    columns = {name: [f"{name}{(7 * index + place) % 5}" for index in range(300)] for place, name in enumerate(hostile)}
    columns["n"] = [index % 11 for index in range(300)]  # type: ignore[misc]
    columns["<b>y</b>"] = ["<i>yes</i>\x1b[0m" if index % 11 > 5 else "no`" for index in range(300)]
    table = table_from_memory(columns, "<u>table</u>\x1b[1m")

    result = train_model(tmp_path, table, "<b>y</b>", candidates=("boosting",))

    for name in ("MODEL_CARD.md", "report.html"):
        text = (Path(result.path) / name).read_text()
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), name
        for markup in ("<script>alert", "<i>yes", "<u>table", "<b>y"):
            assert markup not in text, name
    card = (Path(result.path) / "MODEL_CARD.md").read_text()
    assert "](https" not in card
    assert "\n# y" not in card
