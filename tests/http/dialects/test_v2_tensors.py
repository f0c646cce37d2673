"""How inference requests in the Open Inference Protocol are read, and how their outputs are written."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rowcast.access.context import RequestContext
from rowcast.errors import BodyError, InvalidRows, RequestError
from rowcast.http.dialects import v2_infer, v2_metadata
from rowcast.http.dialects.scoring import ScoredRow
from rowcast.http.dialects.v2_infer import Inference, RequestedOutput
from rowcast.http.dialects.v2_metadata import OutputSpec
from rowcast.http.routes import Request, Response
from rowcast.schema.encoding import RowWarning, more_warnings
from rowcast.schema.schema import Column, Schema
from rowcast.schema.tensors import Tensor, TensorHeader
from rowcast.serving.live_models import LiveModel
from support import models


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveModel:
    folder: Path = tmp_path_factory.mktemp("models")
    columns = models.number_columns(2)
    return models.live(folder, "m", models.mlp_graph(2, 2), columns, models.classes("no", "yes"), "probabilities")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> LiveModel:
    folder: Path = tmp_path_factory.mktemp("models")
    return models.live(folder, "s", models.sum_graph(1), models.number_columns(1), models.REGRESSION, "values")


def request(body: bytes = b"", **headers: str) -> Request:
    named = {name.replace("_", "-").encode(): text.encode() for name, text in headers.items()}
    return Request("/v2/models/m/infer", named, body, RequestContext("v2", "r"))


def head(name: str = "x0", rows: int = 1, **fields: Any) -> TensorHeader:
    return TensorHeader(name, [rows, 1], "FP64", **fields)


def tensor(name: str, *cells: float, width: int = 1) -> Tensor:
    return Tensor(name, "FP64", (len(cells) // width, width), np.array(cells))


def error(call: Any, *arguments: Any) -> str:
    with pytest.raises(RequestError) as refused:
        call(*arguments)
    return refused.value.message


@pytest.mark.parametrize(
    ("rows", "sizes", "is_block"),
    [(15, (120, 120), False), (16, (128, 128), True), (16, (128, None), False), (16, (), False)],
)
def test_at_least_16_rows_of_binary_columns_are_a_block(rows: int, sizes: tuple[Any, ...], *, is_block: bool) -> None:
    heads = [
        head(f"x{number}", rows, parameters=None if size is None else {"binary_data_size": size})
        for number, size in enumerate(sizes)
    ]

    columns = v2_infer.block_columns(v2_infer.Call(Inference(heads), []), rows)

    assert (columns is not None) is is_block
    if columns is not None:
        assert [msgspec.structs.astuple(column) for column in columns] == [("x0", "FP64", 128), ("x1", "FP64", 128)]


def test_the_json_length_in_the_header_must_be_a_number_of_bytes_within_the_body(live: LiveModel) -> None:
    body = b'{"inputs":[{"name":"x0","datatype":"FP64","shape":[1],"parameters":{"binary_data_size":8}}]}'
    cells = np.array([2.5]).tobytes()

    call = v2_infer.read(request(body + cells, inference_header_content_length=str(len(body))), live)

    assert (call.tail, call.inputs[0].cells()) == (cells, [2.5])
    for length, words in (
        ("x", "must be a whole number of bytes"),
        ("1" * 19, "must be a whole number of bytes"),
        ("5", "is 5, but the body has 4 bytes"),
    ):
        assert words in error(v2_infer.read, request(b"1234", inference_header_content_length=length), live)


def test_raw_data_is_split_into_rows(single: LiveModel, live: LiveModel) -> None:
    one = v2_infer.read_raw(single, memoryview(np.array([1.5, 2.5]).tobytes()))
    whole = v2_infer.read_raw(live, memoryview(np.array([1, 2, 3, 4], "<f4").tobytes()))

    assert (one.name, one.datatype, one.shape, one.cells()) == ("x0", "FP64", (2, 1), [1.5, 2.5])
    assert (whole.name, whole.datatype, whole.shape) == ("rowcast_numbers", "FP32", (2, 2))
    assert error(v2_infer.read_raw, single, memoryview(b"123456789")) == (
        "the body size of 9 bytes is not a multiple of the row size (1 x FP64)"
    )
    assert error(v2_infer.read_raw, live, memoryview(b"1234")) == (
        "the body size of 4 bytes is not a multiple of the row size (2 x FP32)"
    )


def test_a_raw_string_is_one_row_for_a_model_with_one_string_column() -> None:
    class Texts:
        """The parts of a model that `read_raw` uses."""

        schema = Schema((Column(name="t", kind="category", example="a", levels=("a",)),))

        class encoder:  # noqa: N801
            plan = ()

    text = v2_infer.read_raw(Texts(), memoryview("é".encode()))  # type: ignore[arg-type]

    assert (text.name, text.datatype, text.shape, list(text.cells())) == ("t", "BYTES", (1, 1), ["é"])
    assert error(v2_infer.read_raw, Texts(), memoryview(b"\xff")) == "the raw input is not valid UTF-8"


def test_inputs_must_match_the_columns_or_the_graph(live: LiveModel) -> None:
    def read(*inputs: Tensor, limit: int = 2) -> dict[str, Tensor]:
        return v2_infer.inputs_by_name(live, inputs, limit)

    x0, x1 = tensor("x0", 1, 2), tensor("x1", 3, 4)
    assert read(x0, x1) == {"x0": x0, "x1": x1}
    assert read(x0) == {"x0": x0}
    numbers = tensor("rowcast_numbers", 1, 2, 3, 4, width=2)
    assert read(numbers) == {"rowcast_numbers": numbers}
    assert error(read, x0, x0) == "two inputs have the same name"
    assert error(read, tensor("y", 1)) == "unknown input 'y'; known inputs: x0, x1"
    assert error(read, x0, tensor("x1", 1)) == "the inputs must all have the same number of rows"
    assert error(read, tensor("x0", 1, 2, width=2)) == "input 'x0' is a single column; its shape must be [rows, 1]"
    assert error(read, numbers, x0) == ("the inputs do not match the model; send exactly these inputs: rowcast_numbers")
    for inputs, slug in (((), "no-rows"), ((tensor("x0", 1, 2, 3),), "too-many-rows")):
        with pytest.raises(BodyError) as refused:
            read(*inputs)
        assert refused.value.slug == slug


def test_the_requested_outputs_are_sent_in_their_own_encoding(live: LiveModel) -> None:
    def requested(*outputs: RequestedOutput, **parameters: Any) -> list[tuple[str, bool]]:
        inference = Inference([], parameters=parameters or None, outputs=list(outputs) or None)
        return [(spec.name, binary) for spec, binary in v2_infer.requested_outputs(live, inference)]

    every = ["prediction", "probability", "score", "probabilities"]
    assert requested() == [(name, False) for name in every]
    assert requested(binary_data_output=True) == [(name, True) for name in every]
    text = RequestedOutput("id", {"binary_data": False})
    assert requested(RequestedOutput("score"), text, binary_data_output=True) == [("score", True), ("id", False)]
    with pytest.raises(BodyError, match="parameter 'binary_data_output' must be true or false"):
        requested(binary_data_output=1)
    with pytest.raises(BodyError, match="output id: parameter 'binary_data' must be true or false"):
        requested(RequestedOutput("id", {"binary_data": 1}))
    with pytest.raises(BodyError, match="known outputs: prediction, probability, score, probabilities, id"):
        requested(RequestedOutput("x"))
    with pytest.raises(BodyError, match="the same output is requested twice"):
        requested(text, text)
    for word in ("shared_memory_region", "classification"):
        with pytest.raises(RequestError, match=f"output id: {word} is not supported") as refused:
            requested(RequestedOutput("id", {word: 1}))
        assert refused.value.slug == "not-supported"


def test_unsupported_parameters_of_inputs_are_rejected() -> None:
    body = b'{"inputs":[{"name":"x0","datatype":"FP64","shape":[1],"parameters":{"shared_memory_region":"a"}}]}'

    assert error(v2_infer.read_inference, body).endswith(": shared_memory_region is not supported")


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[{"name":"x","name":"x","datatype":"FP64","shape":[1],"data":["a:b"]}]}',
        b'{"id":"a:b","inputs":[],"inputs":[]}',
        b'{"inputs":[],"outputs":[{"name":"a:b","name":"c"}]}',
        b'{"inputs":[],"parameters":{"a":":","a":1}}',
        b'{"inputs":[],"outputs":[{"name":"a","parameters":{"binary_data":true,"binary_data":true}}]}',
        b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1],"data":[1]}],"id":":"}',
    ],
)
def test_a_duplicate_key_is_found_in_every_part_of_a_request(body: bytes) -> None:
    with pytest.raises(InvalidRows) as refused:
        v2_infer.read_inference(body)

    assert refused.value.problems[0].code == "duplicate-key"


ROWS = [
    ScoredRow("i0", "yes", 0.75, 0.75, {"no": 0.25, "yes": 0.75}),
    ScoredRow("i1", "no", 0.5, 0.5, {"no": 0.5, "yes": 0.5}),
]


def test_the_values_of_each_output_are_read_from_the_predictions(live: LiveModel) -> None:
    def values(name: str, datatype: str = "FP32") -> Any:
        found = v2_infer.data(OutputSpec(name, datatype), live.decision, ROWS)
        return found if isinstance(found, list) else (str(found.dtype), found.tolist())

    assert values("id", "BYTES") == ["i0", "i1"]
    assert values("prediction", "BYTES") == ["yes", "no"]
    assert values("probability") == values("score") == ("float32", [0.75, 0.5])
    assert values("probabilities") == ("float32", [0.25, 0.75, 0.5, 0.5])


def test_at_most_100_warnings_are_sent_followed_by_the_number_of_the_remaining_warnings() -> None:
    warned = msgspec.structs.replace(ROWS[0], warnings=(RowWarning("x0", "unseen-category", "new"),))

    all_of_them = msgspec.json.decode(v2_infer.warnings(row.warnings for row in [ROWS[0], *[warned] * 100]))
    listed = msgspec.json.decode(v2_infer.warnings(row.warnings for row in [ROWS[0], *[warned] * 102]))

    assert v2_infer.warnings(row.warnings for row in ROWS) == ""
    assert (len(all_of_them), len(listed)) == (100, 101)
    assert listed[:100] == all_of_them
    assert (listed[100]["row"], listed[100]["message"]) == (101, more_warnings(2).message)
    assert listed[0] == {"row": 1, "column": "x0", "code": "unseen-category", "message": "new"}


@pytest.mark.parametrize(
    ("coding", "unpack"), [("gzip", gzip.decompress), (" GZip ", gzip.decompress), ("deflate", zlib.decompress)]
)
def test_a_response_is_compressed_if_the_client_accepts_exactly_one_encoding(coding: str, unpack: Any) -> None:
    plain = Response(b"x" * 1000, headers=[(b"a", b"b")])

    packed = v2_infer.compress(request(accept_encoding=coding), plain)

    assert unpack(packed.body) == plain.body
    assert len(packed.body) < 100
    name = coding.strip().lower().encode()
    assert packed.headers == [(b"a", b"b"), (b"content-encoding", name), (b"vary", b"Accept-Encoding")]
    assert v2_infer.compress(request(accept_encoding=coding), plain).body == packed.body


@pytest.mark.parametrize("coding", ["", "gzip, deflate", "br", "*"])
def test_other_responses_are_not_compressed(coding: str) -> None:
    plain = Response(b"x" * 1000)

    assert v2_infer.compress(request(accept_encoding=coding), plain) is plain
    assert v2_infer.compress(request(), plain) is plain


@pytest.mark.parametrize(
    ("classes", "datatype"),
    [
        ((True, False), "BOOL"),
        ((0, 1), "INT64"),
        ((-(2**63), 2**63 - 1), "INT64"),
        ((-(2**63) - 1, 0), "BYTES"),
        ((0, 2**63), "BYTES"),
        ((0.5, 1), "FP64"),
        ((0.5, 1.5), "FP64"),
        (("a", 1), "BYTES"),
        ((True, 1.5), "BYTES"),
    ],
)
def test_labels_have_the_smallest_datatype_that_holds_every_class(classes: tuple[Any, ...], datatype: str) -> None:
    assert v2_metadata.label_datatype(models.classes(*classes)) == datatype


def test_columns_of_every_kind_have_an_input_datatype() -> None:
    kinds = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "category": "BYTES", "datetime": "BYTES"}

    assert kinds == v2_metadata.DATATYPES_BY_KIND


def test_imported_models_and_classifiers_without_probabilities_have_their_own_outputs(
    single: LiveModel, live: LiveModel
) -> None:
    class Changed:
        """A model with some changed attributes."""

        def __init__(self, model: LiveModel, **changes: Any) -> None:
            self.decision = model.decision
            self.is_own_export, self.has_probabilities = model.is_own_export, model.has_probabilities
            self.__dict__.update(changes)

    assert v2_metadata.outputs(single) == [OutputSpec("prediction", "FP32")]
    assert v2_metadata.outputs(Changed(single, is_own_export=False)) == [OutputSpec("prediction", "FP64")]  # type: ignore[arg-type]
    assert v2_metadata.outputs(Changed(live, has_probabilities=False)) == [OutputSpec("prediction", "BYTES")]  # type: ignore[arg-type]
    assert OutputSpec("x", "FP32").width == 1
