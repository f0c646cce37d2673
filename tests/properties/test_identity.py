"""Row keys, bundle digests and chain links change if and only if the data that they identify changes."""

from __future__ import annotations

import math
import uuid
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from rowcast.errors import RequestError
from rowcast.history import chain
from rowcast.history.chain import Chain, Draft, Entry, SealedEntry
from rowcast.registry.bundle import SERVING_FILES, Fingerprint, Manifest, Measure, Output, Parity
from rowcast.schema import identity
from rowcast.schema.encoding import EncodedRow, RowEncoder, own_plan
from rowcast.schema.prediction import Decision
from rowcast.schema.stacking import stack_rows
from support.entries import extend
from support.models import NOW, REGRESSION, number_columns
from support.strategies import bodies, schemas

DIGEST = "rb1-00"


def key(encoder: RowEncoder, row: EncodedRow, bundle: str = DIGEST, tenant: str = "") -> str:
    return identity.row_key(bundle, encoder.plan, row, tenant)


def tensors(encoder: RowEncoder, row: EncodedRow) -> list[Any]:
    """Return the model's input as comparable values: NaN equals NaN, and -0.0 equals 0.0."""
    cells = [cell for tensor in stack_rows(encoder.plan, [row]).values() for cell in tensor.flatten().tolist()]
    return ["NaN" if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]


@given(st.data())
@settings(max_examples=300)
def test_two_rows_have_the_same_key_if_and_only_if_the_model_input_is_the_same(data: st.DataObject) -> None:
    schema = data.draw(schemas(max_columns=3), label="schema")
    encoder = RowEncoder(schema, own_plan(schema))
    try:
        left = encoder.read(data.draw(bodies(schema, damage=1), label="left"))
        right = encoder.read(data.draw(bodies(schema, damage=1), label="right"))
    except RequestError:
        return

    same_key = key(encoder, left) == key(encoder, right)

    assert same_key == (tensors(encoder, left) == tensors(encoder, right))


SCHEMA = number_columns(2)
MANIFEST = Manifest(
    name="m",
    created=NOW.isoformat(),
    schema=SCHEMA,
    plan=own_plan(SCHEMA),
    output=Output("out", "values"),
    decision=REGRESSION,
    metric="rmse",
    score=1.0,
    holdout={},
    parity=Parity(10, 0.0, 0),
    training=Fingerprint(table="t", sha256="s", rows=1, target="y", seed=0, candidate="c", params={}, calibration={}),
    versions={"rowcast": "0.1.0"},
)
FILES = dict.fromkeys([*SERVING_FILES, "reference.parquet", "MODEL_CARD.md"], "ab" * 32)
SERVING_CHANGES: dict[str, Any] = {
    "schema": number_columns(2, missing=True),
    "plan": own_plan(number_columns(1)),
    "output": Output("other", "values"),
    "decision": Decision(task="binary", classes=("a", "b"), threshold=0.25),
    "wire": {"request": {}},
}
OTHER_CHANGES: dict[str, Any] = {
    "name": "other",
    "created": "2020-01-01T00:00:00+00:00",
    "metric": "mae",
    "score": 0.5,
    "holdout": {"rmse": Measure(1, 0, 2)},
    "parity": Parity(11, 1e-7, 0),
    "training": msgspec.structs.replace(MANIFEST.training, seed=9),
    "versions": {"rowcast": "9"},
}


def digest(manifest: Manifest, files: dict[str, str]) -> str:
    return identity.bundle_digest(manifest.serving(), [(name, files[name]) for name in SERVING_FILES])


@given(
    st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in SERVING_CHANGES.items()}),
    st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in OTHER_CHANGES.items()}),
    st.dictionaries(st.sampled_from(sorted(FILES)), st.sampled_from(["cd" * 32, "ab" * 32])),
)
@settings(max_examples=200)
def test_a_digest_changes_if_and_only_if_the_serving_part_of_the_bundle_changes(
    serving: dict[str, Any], other: dict[str, Any], files: dict[str, str]
) -> None:
    changed = msgspec.structs.replace(MANIFEST, **serving, **other)
    touched = [name for name in SERVING_FILES if files.get(name, FILES[name]) != FILES[name]]

    has_changed = digest(changed, {**FILES, **files}) != digest(MANIFEST, FILES)

    assert has_changed == bool(serving or touched)


WRITER = "w1"
drafts = st.lists(
    st.builds(
        lambda at, reply, salt, row: Draft(chain.encode_head(Entry(at, DIGEST, "native", "r", reply)), salt, row),
        st.integers(0, 1 << 50),
        st.binary(max_size=20),
        st.binary(min_size=16, max_size=16),
        st.binary(max_size=20),
    ),
    min_size=1,
    max_size=6,
)


def sealed(drafted: list[Draft], writer: str = WRITER) -> list[SealedEntry]:
    return [
        SealedEntry(seq, draft.head, draft.salt, draft.row, chain.row_hash(draft.salt, draft.row), linked)
        for seq, (draft, linked) in enumerate(zip(drafted, extend(Chain(writer), drafted), strict=True))
    ]


@given(drafts)
def test_a_chain_passes_verification_with_and_without_its_rows(drafted: list[Draft]) -> None:
    entries = sealed(drafted)

    assert list(chain.verify(WRITER, entries)) == []
    assert list(chain.verify(WRITER, [entry._replace(salt=None, row=None) for entry in entries])) == []


@given(drafts, st.data())
def test_a_chain_passes_verification_after_any_of_its_rows_are_erased(
    drafted: list[Draft], data: st.DataObject
) -> None:
    erased = [
        entry._replace(salt=None, row=None) if data.draw(st.booleans(), label="erase") else entry
        for entry in sealed(drafted)
    ]

    assert list(chain.verify(WRITER, erased)) == []


@given(drafts, st.integers(0, 5))
def test_a_chain_can_be_extended_in_several_steps(drafted: list[Draft], cut: int) -> None:
    whole, pieces = Chain(WRITER), Chain(WRITER)

    assert extend(whole, drafted) == extend(pieces, drafted[:cut]) + extend(pieces, drafted[cut:])
    assert (whole.seq, whole.previous) == (pieces.seq, pieces.previous)


def flipped(data: bytes | None, bit: int) -> bytes:
    """Return the bytes with one bit flipped, or a single byte if the input is empty."""
    if not data:
        return b"\x01"
    place = bit % (len(data) * 8)
    return bytes(byte ^ (1 << place % 8 if index == place // 8 else 0) for index, byte in enumerate(data))


@given(drafts, st.data())
@settings(max_examples=300)
def test_any_change_removal_swap_or_insertion_breaks_the_chain(drafted: list[Draft], data: st.DataObject) -> None:
    entries = sealed(drafted)
    place = data.draw(st.integers(0, len(entries) - 1), label="place")
    change = data.draw(st.sampled_from(["head", "row", "salt", "row_hash", "link", "seq", "drop", "swap", "insert"]))
    bit = data.draw(st.integers(0, 1000), label="bit")
    tampered = list(entries)
    if change == "drop":
        del tampered[place]
    elif change == "insert":
        tampered.insert(place, entries[place])
    elif change == "swap":
        other = (place + 1) % len(entries)
        tampered[place], tampered[other] = tampered[other], tampered[place]
    elif change == "seq":
        tampered[place] = entries[place]._replace(seq=entries[place].seq + 1 + bit)
    else:
        tampered[place] = entries[place]._replace(**{change: flipped(getattr(entries[place], change), bit)})
    # Entries missing at the end are detected only by comparing the chain with the writer's head.
    is_prefix = tampered == entries[: len(tampered)]

    assert bool(list(chain.verify(WRITER, tampered))) == (not is_prefix)


@given(drafts)
def test_renumbering_after_a_removal_breaks_the_chain(drafted: list[Draft]) -> None:
    renumbered = [entry._replace(seq=seq) for seq, entry in enumerate(sealed(drafted)[1:])]

    assert bool(list(chain.verify(WRITER, renumbered))) == bool(renumbered)


@given(drafts)
def test_a_chain_fails_verification_as_the_chain_of_another_writer(drafted: list[Draft]) -> None:
    assert [broken.seq for broken in chain.verify("w2", sealed(drafted))] == [0]


@given(st.builds(Entry, st.integers(0, 1 << 60), st.text(), st.text(), st.text(), st.binary(), st.text(), st.text()))
def test_decoding_an_encoded_entry_returns_the_same_entry(entry: Entry) -> None:
    assert chain.decode_head(chain.encode_head(entry)) == entry


@given(st.integers(0, (1 << 48) - 1), st.integers(1, 50), st.data())
def test_ids_are_distinct_lower_case_uuid7s_with_the_given_timestamp(
    milliseconds: int, count: int, data: st.DataObject
) -> None:
    needed = identity.uuid7_randomness(count)
    random = bytes(range(3)) + b"".join(n.to_bytes(6) for n in range(count))
    assert len(random) == needed

    ids = identity.uuid7s(milliseconds, random)

    assert len(set(ids)) == count
    assert all(str(uuid.UUID(each)) == each for each in ids)
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in ids} == {(7, uuid.RFC_4122)}
    assert {uuid.UUID(each).int >> 80 for each in ids} == {milliseconds}
