"""Which model answers under which name."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from rowcast.errors import ModelNotFound
from rowcast.serving.deployment import Deployment


class Model(NamedTuple):
    """A version without schema and graph: a deployment needs its name only."""

    name: str
    version: int = 1


LOANS, SUM = Model("loans", 2), Model("sum")


def deployment(*models: Model, default: str | None = None) -> Deployment[Model]:  # type: ignore[type-var]
    return Deployment({model.name: model for model in models}, default)


def test_a_model_answers_to_its_name_and_to_its_version() -> None:
    live = deployment(LOANS, SUM)

    assert (live.get("loans"), live.get("loans@2"), live.get("sum@1")) == (LOANS, LOANS, SUM)
    assert sorted(live.addresses()) == ["loans", "loans@2", "sum", "sum@1"]


@pytest.mark.parametrize("name", ["loans@1", "none", "", "loans@"])
def test_an_unknown_name_is_refused_with_the_available_models(name: str) -> None:
    with pytest.raises(ModelNotFound) as refused:
        deployment(LOANS, SUM).get(name)

    assert "loans, sum" in refused.value.message


def test_an_error_lists_only_the_models_that_the_caller_may_see() -> None:
    with pytest.raises(ModelNotFound) as refused:
        deployment(LOANS, SUM).get("none", {"sum"})

    assert "loans" not in refused.value.message


def test_the_only_model_is_the_default() -> None:
    live = deployment(LOANS)

    assert live.get(None) is LOANS
    assert live.is_default(LOANS)


def test_among_several_models_there_is_no_default_unless_one_is_configured() -> None:
    assert deployment(LOANS, SUM, default="sum").get(None) is SUM
    with pytest.raises(ModelNotFound):
        deployment(LOANS, SUM).get(None)


def test_a_temporary_default_lasts_until_the_next_swap() -> None:
    live = deployment(LOANS, SUM, default="sum")

    live.swap({"loans": LOANS, "sum": SUM}, "loans")
    assert live.get(None) is LOANS
    live.swap({"loans": LOANS, "sum": SUM}, "none")
    assert live.get(None) is SUM


def test_a_configured_default_that_is_unloaded_is_not_found_and_comes_back() -> None:
    live = deployment(LOANS, SUM, default="sum")

    live.swap({"loans": LOANS})
    with pytest.raises(ModelNotFound):
        live.get(None)
    assert not live.is_default(SUM)
    live.swap({"loans": LOANS, "sum": SUM})
    assert live.get(None) is SUM


def test_a_view_has_the_models_of_its_names_only() -> None:
    live = deployment(LOANS, SUM, default="sum")

    assert live.restricted_to([]) is live
    view = live.restricted_to(["loans"])
    assert (view.models(), view.default) == ([LOANS], None)
    assert live.restricted_to(["sum"]).get(None) is SUM


def test_versions_of_one_model_are_listed_once_and_in_order() -> None:
    old = Model("loans", 1)
    live = Deployment({"sum": SUM, "loans": LOANS, "loans@1": old})  # type: ignore[type-var]

    assert live.models() == [old, LOANS, SUM]
    assert live.get("loans@1") is old
