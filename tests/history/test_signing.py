"""Signatures of heads and erasures."""

from __future__ import annotations

import msgspec

from rowcast.history.chain import Erasure, genesis
from rowcast.history.heads import ChainHead
from rowcast.history.signing import has_valid_signature, is_signed_erasure, sign_erasure, sign_head

KEY = bytes(range(32))
HEAD = ChainHead("w", 4, "ab" * 32)
ERASURE = Erasure(1, "user", "erase", b"{}", 3, 1)


def test_signatures_never_change() -> None:
    """Published heads and stored erasures contain signatures that later releases must verify."""
    assert sign_head(HEAD, KEY).signature == "aabc6a343d4446f975027ca0e26490188e4a819dc13bed9958363ecb8797a436"
    assert (
        sign_erasure(ERASURE, seq=2, previous=bytes(32), key=KEY).signature.hex()
        == "127c532d6550728be6c5533a078ec6d5bec6de7d8df4c556ed6ee7ecb9f11e99"
    )


def test_the_signature_of_a_head_covers_every_field() -> None:
    signed = sign_head(HEAD, KEY)

    assert has_valid_signature(signed, KEY)
    assert not has_valid_signature(signed, bytes(32))
    assert not has_valid_signature(HEAD, KEY)
    for change in ({"writer": "v"}, {"seq": 5}, {"link": "cd" * 32}):
        assert not has_valid_signature(msgspec.structs.replace(signed, **change), KEY)


def test_the_signature_of_an_erasure_covers_every_field_and_its_position() -> None:
    signed = sign_erasure(ERASURE, seq=0, previous=None, key=KEY)

    assert is_signed_erasure(signed, seq=0, previous=None, key=KEY)
    assert is_signed_erasure(signed, seq=0, previous=genesis("erasures"), key=KEY)
    assert not is_signed_erasure(signed, seq=1, previous=None, key=KEY)
    assert not is_signed_erasure(signed, seq=0, previous=bytes(32), key=KEY)
    assert not is_signed_erasure(signed, seq=0, previous=None, key=bytes(32))
    for change in ({"at": 2}, {"by": "x"}, {"reason": "purge"}, {"selection": b"[]"}, {"rows": 4}, {"request": 2}):
        assert not is_signed_erasure(msgspec.structs.replace(signed, **change), seq=0, previous=None, key=KEY)
