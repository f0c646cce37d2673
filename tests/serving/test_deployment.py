"""The names under which models are served, and the default model."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from rowcast.errors import ModelNotFound
from rowcast.serving.deployment import Deployment


class Model(NamedTuple):
    """A model without a schema or graph; a deployment uses only its name and version."""

    name: str
    version: int = 1


LOANS, SUM = Model("loans", 2), Model("sum")


def deployment(*models: Model, default: str | None = None) -> Deployment[Model]:  # type: ignore[type-var]
    return Deployment({model.name: model for model in models}, default)


def test_a_model_is_found_by_its_name_with_or_without_its_version() -> None:
    live = deployment(LOANS, SUM)

    assert (live.get("loans"), live.get("loans@2"), live.get("sum@1")) == (LOANS, LOANS, SUM)
    assert sorted(live.addresses()) == ["loans", "loans@2", "sum", "sum@1"]


@pytest.mark.parametrize("name", ["loans@1", "none", "", "loans@"])
def test_the_error_for_an_unknown_name_lists_the_available_models(name: str) -> None:
    with pytest.raises(ModelNotFound) as refused:
        deployment(LOANS, SUM).get(name)

    assert "loans, sum" in refused.value.message


def test_an_error_lists_only_the_models_that_the_caller_may_see() -> None:
    with pytest.raises(ModelNotFound) as refused:
        deployment(LOANS, SUM).get("none", {"sum"})

    assert refused.value.message.endswith("available models: sum")
    assert "loans" not in refused.value.message


def test_the_only_model_is_the_default() -> None:
    live = deployment(LOANS)

    assert live.get(None) is LOANS
    assert live.is_default(LOANS)


def test_several_models_have_no_default_unless_one_is_configured() -> None:
    assert deployment(LOANS, SUM, default="sum").get(None) is SUM
    with pytest.raises(ModelNotFound):
        deployment(LOANS, SUM).get(None)


def test_a_temporary_default_is_replaced_by_the_next_swap() -> None:
    live = deployment(LOANS, SUM, default="sum")

    live.swap({"loans": LOANS, "sum": SUM}, "loans")
    assert live.get(None) is LOANS
    live.swap({"loans": LOANS, "sum": SUM}, "none")
    assert live.get(None) is SUM


def test_an_unloaded_default_is_unavailable_until_it_is_loaded_again() -> None:
    live = deployment(LOANS, SUM, default="sum")

    live.swap({"loans": LOANS})
    with pytest.raises(ModelNotFound):
        live.get(None)
    assert not live.is_default(SUM)
    live.swap({"loans": LOANS, "sum": SUM})
    assert live.get(None) is SUM


def test_a_restricted_view_contains_only_the_named_models() -> None:
    live = deployment(LOANS, SUM, default="sum")

    assert live.restricted_to([]) is live
    view = live.restricted_to(["loans"])
    assert (view.models(), view.default) == ([LOANS], None)
    assert live.restricted_to(["sum"]).get(None) is SUM


def test_each_version_of_a_model_is_listed_once_and_in_order() -> None:
    old = Model("loans", 1)
    live = Deployment({"sum": SUM, "loans": LOANS, "loans@1": old})  # type: ignore[type-var]

    assert live.models() == [old, LOANS, SUM]
    assert live.get("loans@1") is old


def test_the_error_without_a_default_model_lists_the_visible_models() -> None:
    def message(live: Deployment[Model], name: str | None, *visible: str) -> str:  # type: ignore[type-var]
        with pytest.raises(ModelNotFound) as refused:
            live.get(name, visible)
        return refused.value.message

    both = deployment(LOANS, SUM)
    assert message(both, None) == "no default model is set; name one of the available models: loans, sum"
    assert message(both, None, "sum") == "no default model is set; name one of the available models: sum"
    assert message(deployment(), None) == "no default model is set; name one of the available models: none"
    assert message(both, "zzzzzz") == "unknown model 'zzzzzz'; available models: loans, sum"
    assert message(both, "loan").startswith("unknown model 'loan'; did you mean")


def test_a_deployment_without_a_default_has_no_default_model() -> None:
    assert not deployment(LOANS, SUM).is_default(LOANS)
    assert deployment(LOANS, SUM).default is None


def test_several_versions_of_the_only_model_do_not_prevent_a_default() -> None:
    live = Deployment({"loans": LOANS, "loans@1": Model("loans", 1)})  # type: ignore[type-var]

    assert (live.default, live.get(None)) == ("loans", LOANS)
