"""The tables that `make bench-unseen` uses, and its comparison of the results."""

from __future__ import annotations

from typing import Any

from support.scripts import load_script

DRAWN = [
    "AER/DoctorVisits",
    "wooldridge/k401ksubs",
    "MatchIt/lalonde",
    "causaldata/black_politicians",
    "stevedata/anes_vote84",
    "COUNT/azpro",
    "COUNT/rwm1984",
    "carData/Cowles",
    "modeldata/grants_other",
    "ISLR/Wage",
    "Stat2Data/Kershaw",
    "AER/PSID1982",
    "COUNT/medpar",
    "openintro/mlb_players_18",
    "wooldridge/voucher",
    "statsmodels/randhie",
    "DAAG/science",
    "AER/CPS1988",
    "carData/GSSvocab",
    "modeldata/cells",
]


load_script("bench/peers.py")
load_script("bench/machine.py")
load_script("bench/contest.py")
unseen_tables = load_script("bench/unseen_tables.py")
unseen_page = load_script("bench/unseen_page.py")


def _line(table: str, system: str, score: float, *, seed: int = 0, **facts: Any) -> dict[str, Any]:
    preset = system if system in unseen_page.LEAST else ""
    name = "rowcast" if preset else system
    return {"table": table, "system": name, "preset": preset, "seed": seed, "score": score, "measure": "r2", **facts}


def test_the_drawn_tables_are_those_that_were_fixed_before_the_first_measurement():
    listing = unseen_tables.read_list()

    assert [table.name for table in listing.draw(listing.seed, listing.count)] == DRAWN


def test_every_eligible_table_quotes_its_documentation_and_is_not_listed_as_ineligible():
    listing = unseen_tables.read_list()

    for table in listing.eligible:
        assert table.quote, table.name
        assert table.name not in listing.reasons
        assert table.target not in table.exclude


def test_a_table_with_the_same_columns_in_another_order_and_notation_is_a_copy():
    import polars as pl

    table = pl.DataFrame({"a": ["1", "2", "3"], "b": ["x", "y", " z"]})
    copy = pl.DataFrame({"label": ["z", "x", "y"], "number": ["3.0", "1.0", "2.0"]})

    assert unseen_tables.fingerprints(table) == unseen_tables.fingerprints(copy)


def test_only_seeds_that_every_system_has_finished_are_compared():
    lines = [_line("a", system, 0.5, seed=seed) for system in ("best", "autogluon", "flaml") for seed in (0, 1)]
    lines += [_line("b", "best", 0.9)]

    figures = unseen_page.Figures([line for line in lines if line != _line("a", "flaml", 0.5, seed=1)], ["a", "b"])

    assert figures.tables == ["a"]
    assert figures.seeds == [0]


def test_the_better_of_two_systems_is_chosen_for_each_table_by_the_mean_over_the_seeds():
    scores = {"best": (0.6, 0.6), "autogluon": (0.9, 0.1), "flaml": (0.4, 0.8)}
    lines = [_line("a", system, pair[seed], seed=seed) for system, pair in scores.items() for seed in (0, 1)]

    figures = unseen_page.Figures(lines, ["a"])

    assert round(figures.gaps("best", unseen_page.BETTER)["a"], 9) == 0.0  # 0.6, and the larger of 0.5 and 0.6


def test_a_failure_violates_a_requirement_only_if_a_preset_of_rowcast_fails():
    lines = [_line("a", "best", 0.0, error="exit status 2"), _line("a", "autogluon", 0.5), _line("a", "flaml", 0.5)]

    figures = unseen_page.Figures(lines, ["a"])
    failures = {item.text: item.kept for item in unseen_page.quality(figures) if "failed" in item.text}

    assert failures == {
        "`best`: tables on which it failed": False,
        "AutoGluon: tables on which it failed": True,
        "FLAML: tables on which it failed": True,
    }


def test_a_score_difference_below_the_limit_violates_the_requirement_for_the_preset():
    kept = {}
    for score in (0.4969, 0.4971):
        lines = [_line("a", "balanced", score), _line("a", "autogluon", 0.5), _line("a", "flaml", 0.1)]
        figures = unseen_page.Figures(lines, ["a"])
        kept[score] = next(item.kept for item in unseen_page.quality(figures))

    assert kept == {0.4969: False, 0.4971: True}
