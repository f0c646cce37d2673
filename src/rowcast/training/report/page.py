"""`report.html`: how a model was made and how good it is, as one page that needs no script, no host and no other file.

Every value that is shown is escaped; figures come from `charts`, what they show from `evidence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any, Final

import msgspec
import numpy as np

from rowcast.registry.bundle import Manifest, Measure
from rowcast.schema.prediction import label_text
from rowcast.schema.schema import Column
from rowcast.schema.scores import winning_classes
from rowcast.tables import Finding
from rowcast.training import certificate as certify
from rowcast.training import metrics
from rowcast.training.events import TrainingEvent
from rowcast.training.report import charts
from rowcast.training.report import evaluation as evidence
from rowcast.training.report import threshold_section as tradeoff
from rowcast.training.report.charts import Bar, Line, clipped
from rowcast.training.report.evaluation import Bench, Dependence, Importance, Slice
from rowcast.training.report.markup import figures, number, scrolling, table
from rowcast.training.result import CandidateScore

DEPENDENCES: Final = 4
BARS: Final = 20
WEAK_SLICES: Final = 12
DOTS: Final = 800
CLASS_LINES: Final = 6
MATRIX_CLASSES: Final = 40
UNIT: Final = (-0.02, 1.02)

Section = tuple[str, str, str]
"""Anchor, heading, body."""


def page(
    manifest: Manifest,
    bench: Bench,
    findings: Sequence[Finding],
    candidates: Sequence[CandidateScore],
    trials: Sequence[TrainingEvent],
) -> str:
    """The whole page; the same for equal input but for the times in it."""
    weights, measured = evidence.importance(bench)
    sections = [
        ("data", "Data check", _findings(findings)),
        ("search", "Candidates and trials", _search(manifest, candidates, trials)),
        ("quality", "On the rows kept aside", _measures(manifest) + _quality(bench)),
        ("threshold", "Threshold and cost", tradeoff.section(bench)),
        ("importance", "What the model uses", _importance(bench, weights, measured)),
        ("dependence", "How the answer follows a column", _dependences(bench, weights)),
        ("slices", "Where the model is weak", _slices(bench)),
        ("parity", "Parity certificate", _parity(manifest)),
        ("columns", "Columns", _columns(manifest)),
        ("training", "Training", _training(manifest)),
    ]
    return _document(manifest, [section for section in sections if section[2]])


def _document(manifest: Manifest, sections: Sequence[Section]) -> str:
    name, style = escape(manifest.name), resources.files("rowcast.training").joinpath("report.css").read_text("utf-8")
    links = "".join(f'<li><a href="#{anchor}">{escape(heading)}</a></li>' for anchor, heading, _ in sections)
    body = "".join(
        f'<section id="{anchor}" aria-labelledby="{anchor}-heading"><h2 id="{anchor}-heading">{escape(heading)}</h2>'
        f"{content}</section>\n"
        for anchor, heading, content in sections
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{name}: training report</title>\n<style>\n{style}</style></head>\n<body>"
        f'<a class="skip" href="#main">To the content</a>\n<header><h1>{name}</h1>{_headline(manifest)}'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n<main id="main">\n{body}</main>\n'
        f"<footer><p>Every figure of this page that decides is also in bundle.json. Rowcast "
        f"{escape(manifest.versions.get('rowcast', ''))}</p></footer></body></html>\n"
    )


def _headline(manifest: Manifest) -> str:
    training, decision = manifest.training, manifest.decision
    aside = manifest.training.options.get("holdout")
    share = f"{aside:.0%} of them kept aside for measuring" if isinstance(aside, float) else ""
    if manifest.training.options.get("refit"):
        share += "; the served model learnt from them too, once measured"
    facts = [
        ("Predicts", training.target, _kind(manifest)),
        ("From", f"{training.rows:,} rows, {len(manifest.schema.columns)} columns", share),
    ]
    measure = manifest.holdout.get(manifest.metric)
    if measure is not None:
        facts.append((f"{_named(manifest.metric)} on the rows kept aside", number(measure.value), _interval(measure)))
    for other in [name for name in ("accuracy", "r2") if name != manifest.metric and name in manifest.holdout]:
        facts.append((f"{_named(other)} on the rows kept aside", number(manifest.holdout[other].value), ""))
        facts[-1] = (*facts[-1][:2], _interval(manifest.holdout[other]))
    facts.append(("Model", training.candidate, f"calibration: {training.calibration.get('method', 'none')}"))
    if decision.task == "binary":
        positive = label_text(decision.classes[decision.positive])
        facts.append(("Decision threshold", number(decision.threshold), f"{positive} from this probability on"))
    items = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for what, value, more in facts
    )
    made = f"Made {manifest.created} from {training.table}."
    return f'<p class="quiet">{escape(made)}</p><dl class="facts">{items}</dl>'


def _kind(manifest: Manifest) -> str:
    if manifest.decision.task == "regression":
        return "a value"
    return f"one of {len(manifest.decision.classes)} classes"


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>Nothing was noticed.</p>"
    rows = [(found.column or "the table", found.message, found.action, str(found.override or "")) for found in findings]
    return table("What was noticed in the table", ("column", "noticed", "so", "change it with"), rows)


def _search(manifest: Manifest, candidates: Sequence[CandidateScore], trials: Sequence[TrainingEvent]) -> str:
    name = _named(manifest.metric)
    rows = [(each.name, number(each.score), str(each.trials), f"{each.seconds:.1f}") for each in candidates]
    body = table("The best of each kind, by cross-validation", ("candidate", name, "trials", "seconds"), rows, 3)
    known = [(event.trial, event.best) for event in trials if event.best is not None]
    if len(known) < 2:
        return body
    x, y = np.array([trial for trial, _ in known], np.float64), np.array([best for _, best in known], np.float64)
    word = "higher" if manifest.metric in metrics.GREATER else "lower"
    says = (
        f"{number(float(y[0]))} after the first trial, {number(float(y[-1]))} after {known[-1][0]}; {word} is better."
    )
    drawn = charts.lines("Best score so far", says, ("trial", name), [Line(name, x, y, dots=len(x) < 40)])
    return body + figures(drawn)


def _measures(manifest: Manifest) -> str:
    rows = [(_named(name), number(m.value), number(m.low), number(m.high)) for name, m in manifest.holdout.items()]
    says = "Rows that were never used to fit, tune, calibrate or choose; intervals are 95 % by bootstrap"
    weight = manifest.training.options.get("weight")
    if weight:
        says += f"; each row counts by its {weight}, whereas curves, matrices and slices below count rows alike"
    return table(says, ("metric", "value", "from", "to"), rows, 3)


def _quality(bench: Bench) -> str:
    if bench.decision.task == "regression":
        return _residuals(bench)
    return _binary(bench) if bench.decision.task == "binary" else _classes(bench)


def _binary(bench: Bench) -> str:
    decision = bench.decision
    positive = bench.rows.target == 1
    score = bench.output[:, decision.positive].astype(np.float64)
    label, base = label_text(decision.classes[decision.positive]), float(positive.mean())
    roc, pr = evidence.roc(score, positive), evidence.precision_recall(score, positive)
    bins = evidence.reliability(score, positive)
    grid, curves = evidence.by_threshold(score, positive)
    share = f"{base:.1%} of {len(positive)} rows are {label}."
    drawn = [
        charts.lines(
            "ROC curve",
            "True against false positive rate at every threshold; the dashed line is chance.",
            ("false positive rate", "true positive rate"),
            [Line("model", *roc)],
            x_range=UNIT,
            y_range=UNIT,
            diagonal=True,
        ),
        charts.lines(
            "Precision and recall",
            f"Precision against recall at every threshold. {share}",
            ("recall", "precision"),
            [Line("model", *pr), Line("chance", np.array([0.0, 1.0]), np.array([base, base]))],
            x_range=UNIT,
            y_range=UNIT,
        ),
        _calibration(bins),
        charts.lines(
            "What the threshold decides",
            f"The chosen threshold is {number(decision.threshold)}; it was chosen on other rows, by cross-validation.",
            ("threshold", "share"),
            [Line(name, grid, values) for name, values in curves.items()],
            x_range=UNIT,
            y_range=UNIT,
            mark=(decision.threshold, "chosen"),
        ),
    ]
    counted = [(f"{b.low:.1f} to {b.high:.1f}", str(b.count), f"{b.score:.3f}", f"{b.share:.3f}") for b in bins]
    heads = ("predicted", "rows", "mean predicted", f"share of {label}")
    return figures(*drawn) + _confusion(bench) + table("Calibration in numbers", heads, counted, 3)


def _calibration(bins: Sequence[evidence.Bin]) -> str:
    score, share = np.array([each.score for each in bins]), np.array([each.share for each in bins])
    low, high = np.array([each.share_low for each in bins]), np.array([each.share_high for each in bins])
    says = "Predicted probability against what came true, with 95 % intervals; on the dashed line it is right."
    drawn = Line("model", score, share, low, high, dots=True)
    axes = ("mean predicted probability", "observed share")
    return charts.lines("Calibration", says, axes, [drawn], x_range=UNIT, y_range=UNIT, diagonal=True)


def _classes(bench: Bench) -> str:
    names = bench.decision.names()
    counted = evidence.confusion(bench.rows.target, winning_classes(bench.decision, bench.output), len(names))
    rows = [
        (name, str(each["rows"]), *(number(each[key]) for key in ("precision", "recall", "f1")))
        for name, each in zip(names, evidence.per_class(counted), strict=True)
    ]
    return _confusion(bench) + table("Each class", ("class", "rows", "precision", "recall", "F1"), rows, 4)


def _confusion(bench: Bench) -> str:
    decision, names = bench.decision, bench.decision.names()
    if len(names) > MATRIX_CLASSES:
        return f"<p>The confusion matrix is left out: {len(names)} classes.</p>"
    true = bench.rows.target
    if decision.task == "binary":
        true = np.where(true == 1, decision.positive, 1 - decision.positive)
    counted = evidence.confusion(true, winning_classes(decision, bench.output), len(names))
    head = "".join(f'<th scope="col">{escape(clipped(name, 40))}</th>' for name in names)
    body = ""
    for name, row in zip(names, counted.tolist(), strict=True):
        cells = [(count, count / max(sum(row), 1)) for count in row]
        shown = "".join(_counted(count, part) for count, part in cells)
        body += f'<tr><th scope="row">{escape(clipped(name, 40))}</th>{shown}</tr>'
    at = f" at the threshold {number(decision.threshold)}" if decision.task == "binary" else ""
    many = " many" if len(names) > 8 else ""
    return scrolling(
        "Confusion matrix",
        f'<table class="matrix{many}"><caption>Confusion matrix{at}: rows are what was true, columns what was '
        "predicted; shares are of each row</caption>"
        f'<thead><tr><th scope="col">true ↓ predicted →</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>",
    )


def _counted(count: int, part: float) -> str:
    share = f"<small>{part:.0%}</small>" if count else ""
    return f'<td style="--share:{part:.2f}">{count}{share}</td>'


def _residuals(bench: Bench) -> str:
    said, true = bench.output.astype(np.float64).reshape(-1), bench.rows.target.astype(np.float64)
    left = true - said
    kept = np.arange(len(true))
    if len(true) > DOTS:
        kept = np.sort(np.random.default_rng([bench.seed, 8]).choice(len(true), DOTS, replace=False))
    shown = f"{len(kept)} of {len(true)} rows" if len(kept) < len(true) else f"{len(true)} rows"
    middle = f"Half of the residuals lie between {number(_at(left, 0.25))} and {number(_at(left, 0.75))}."
    return figures(
        charts.points(
            "Predicted against actual",
            f"{shown}; on the dashed line the prediction is right.",
            ("actual", "predicted"),
            true[kept],
            said[kept],
            diagonal=True,
        ),
        charts.points(
            "Residuals",
            f"Actual minus predicted, {shown}. A pattern here is something the model has not learnt.",
            ("predicted", "residual"),
            said[kept],
            left[kept],
            level=True,
        ),
        charts.histogram("How residuals are spread", middle, ("residual", "rows"), left),
    )


def _at(values: Any, share: float) -> float:
    return float(np.quantile(values, share))


def _importance(bench: Bench, weights: Sequence[Importance], rows: int) -> str:
    if not weights:
        return "<p>The metric cannot be measured on the rows kept aside.</p>"
    says = (
        f"How much {_named(bench.metric)} gets worse when one column is shuffled, on {rows} rows kept aside; "
        "lines are 95 % intervals over shuffles and rows. Columns that say the same share their importance."
    )
    drawn = [Bar(each.place.column.name, each.value, each.low, each.high) for each in weights[:BARS]]
    more = f"<p>{len(weights) - BARS} more columns matter less.</p>" if len(weights) > BARS else ""
    return figures(charts.bars("Permutation importance", says, f"loss of {_named(bench.metric)}", drawn)) + more


def _dependences(bench: Bench, weights: Sequence[Importance]) -> str:
    found = [evidence.dependence(bench, each.place) for each in weights[:DEPENDENCES] if each.value > 0]
    drawn = [_dependence(bench, each) for each in found if each is not None]
    if not drawn:
        return ""
    says = "The mean answer when every row gets the same value in one column and keeps its others (partial dependence)."
    return f"<p>{says} Values that never occur together may be among them.</p>" + figures(*drawn)


def _dependence(bench: Bench, found: Dependence) -> str:
    column, decision = found.place.column, bench.decision
    name = column.name
    if decision.task == "multiclass":
        return _class_dependence(bench, found)
    label = (
        f"probability of {label_text(decision.classes[decision.positive])}" if decision.task == "binary" else "value"
    )
    says = f"The mean {label} lies between {number(float(found.means.min()))} and {number(float(found.means.max()))}."
    if found.x is None:
        drawn = [Bar(text, value) for text, value in zip(found.names, found.means.tolist(), strict=True)]
        return charts.bars(name, says, f"mean {label}", drawn)
    return charts.lines(name, says, (_axis(column), f"mean {label}"), [Line(name, found.x, found.means, dots=True)])


def _class_dependence(bench: Bench, found: Dependence) -> str:
    column, names = found.place.column, bench.decision.names()
    common = np.argsort(-np.bincount(bench.rows.target, minlength=len(names)), kind="stable")[:CLASS_LINES]
    shown = sorted(common.tolist())
    says = f"The mean probability of {'each class' if len(shown) == len(names) else 'the commonest classes'}."
    if found.x is None:
        rows = [
            (text, *(f"{values[k]:.3f}" for k in shown)) for text, values in zip(found.names, found.means, strict=True)
        ]
        return table(f"{column.name}: {says}", ("value", *(names[k] for k in shown)), rows, len(shown))
    drawn = [Line(names[k], found.x, found.means[:, k]) for k in shown]
    return charts.lines(column.name, says, (_axis(column), "mean probability"), drawn, y_range=UNIT)


def _axis(column: Column) -> str:
    if column.kind == "datetime":
        return f"{column.name}, days since {evidence.on_day(column, 0)}"
    return f"{column.name}, {column.unit}" if column.unit else column.name


def _slices(bench: Bench) -> str:
    found, whole, looked = evidence.slices(bench)
    word = "mean absolute error" if bench.decision.task == "regression" else "share of wrong labels"
    if not found:
        return (
            f"<p>No slice of at least {evidence.FEWEST_IN_SLICE} rows was kept aside; there is nothing to compare.</p>"
        )
    weak = [each for each in found if each.low > whole]
    says = (
        f"The {word} is {number(whole)} over all rows kept aside. Slices with at least {evidence.FEWEST_IN_SLICE} "
        f"rows: {looked}; worse than the whole by more than their 95 % interval: {len(weak)} (by chance alone about "
        f"{looked / 40:.1f})."
    )
    heads = ("column", "slice", "rows", "error", "from", "to", "")
    rows = [_slice_row(each, whole) for each in found[:WEAK_SLICES]]
    return f"<p>{escape(says)}</p>" + table(f"The slices with the highest {word}", heads, rows, 4, start=2)


def _slice_row(each: Slice, whole: float) -> tuple[str, ...]:
    verdict = "worse" if each.low > whole else "within chance"
    return each.column, each.what, str(each.rows), number(each.error), number(each.low), number(each.high), verdict


def _parity(manifest: Manifest) -> str:
    parity, probabilities = manifest.parity, manifest.decision.task != "regression"
    limit = f"{certify.TOLERANCE:.0e}" if probabilities else f"{certify.TOLERANCE:.0e} of the value and of its spread"
    says = (
        "The served ONNX graph was held against the trained model on the rows kept aside, on random and awkward rows, "
        "and at every threshold of the model with its two neighbours in float32. A graph that parts is not published."
    )
    rows = [
        ("rows compared", f"{parity.rows:,}"),
        ("largest difference", f"{parity.max_abs_diff:.2g}"),
        ("allowed difference", limit),
    ]
    if probabilities:
        rows.append(("labels that differ", str(parity.label_flips)))
    return f"<p>{says}</p>" + table("Certificate", ("what", "value"), rows)


def _columns(manifest: Manifest) -> str:
    rows = [
        (each.name, each.kind, "yes" if each.missing else "no", seen(each), each.unit)
        for each in manifest.schema.columns
    ]
    heads = ("column", "kind", "missing allowed", "seen in training", "unit")
    return table(f"{len(rows)} columns the model takes", heads, rows)


def seen(column: Column) -> str:
    """What training saw of a column, in a few words."""
    if column.levels:
        more = f" and {len(column.levels) - 8} more" if len(column.levels) > 8 else ""
        return ", ".join(clipped(level, 60) for level in column.levels[:8]) + more
    if column.low is not None and column.high is not None:
        return f"{column.low:.15g} to {column.high:.15g}"
    return (", ".join(column.words) or "true, false") if column.kind == "boolean" else ""


def _training(manifest: Manifest) -> str:
    training = manifest.training
    made = [
        ("table", training.table),
        ("sha256 of the table", training.sha256),
        ("rows with a target", f"{training.rows:,}"),
        ("seed", str(training.seed)),
        ("made", manifest.created),
        *[(f"with {name}", version) for name, version in manifest.versions.items()],
    ]
    settings = [
        *training.params.items(),
        *[(f"calibration: {key}", each) for key, each in training.calibration.items()],
    ]
    options = [(name, _shown(value)) for name, value in training.options.items() if value is not None]
    return (
        table("Enough to train it again", ("what", "value"), made)
        + table(f"Settings of {training.candidate}", ("setting", "value"), [(k, _shown(v)) for k, v in settings])
        + table("TrainingOptions it was trained with", ("option", "value"), options)
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return number(value) if isinstance(value, float) else msgspec.json.encode(value).decode()


def _interval(measure: Measure) -> str:
    return f"95 % interval {number(measure.low)} to {number(measure.high)}"


def _named(metric: str) -> str:
    return {"roc_auc": "ROC AUC", "pr_auc": "PR AUC", "f1": "F1", "rmse": "RMSE", "mae": "MAE", "r2": "R²"}.get(
        metric, metric.replace("_", " ")
    )
