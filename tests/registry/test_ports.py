"""Values that the registry's ports accept and return."""

from __future__ import annotations

from rowcast.registry.ports import GraphTensor, ImportResult, Reference


def test_a_tensor_is_shown_with_its_type_and_shape_and_without_control_characters() -> None:
    assert str(GraphTensor("x", "tensor(float)", [None, 4])) == "x (tensor(float), [N, 4])"
    assert str(GraphTensor("a\x1b", "tensor(float)", [])) == "'a\\x1b' (tensor(float), [])"


def test_a_failed_import_has_no_model_and_no_version() -> None:
    result = ImportResult("m.onnx", error="damaged")

    assert (result.model, result.version, result.error) == ("", 0, "damaged")
    assert ImportResult("m.onnx", "m", 2).error == ""


def test_a_reference_is_shown_as_users_write_it() -> None:
    assert str(Reference("loans", 3)) == "loans@3"
