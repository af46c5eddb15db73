"""The container of a risk model: the same value out as in, the same bytes for the same value, damage refused.

Models are real ones out of build_model.
"""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.risk.build import build_model
from engine.risk.model import OPTION_ARRAYS, OptionColumns, RiskModel, content_hash, decode, encode
from tests.engine.risk.builders import SESSION, book, history, instrument, levels, option, stock, walk

DAYS = 260


def built() -> RiskModel:
    """Five columns: whole, without history, without factor, and two options, one of which can't be valued."""
    closes = {"A": levels(walk(DAYS, seed=1)), "ZZZ": levels(walk(DAYS, seed=2))}
    prices = history(closes, {"SP500": levels(walk(DAYS, seed=3))})
    options = (option("A_C", 100.0, volatility=0.2), option("A_X", 100.0))
    instruments = book(stock("A"), *options, instrument("IBOVESPA", "future"), instrument("ZZZ", "crypto"))
    return build_model(instruments, "set-hash", prices, SESSION, built_time_us=1_700_000_000_000_000)


MODEL = built()
ENCODED = encode(MODEL)


def test_a_decoded_model_is_the_encoded_one() -> None:
    decoded = decode(ENCODED, expected_hash=MODEL.hash)

    for field in fields(RiskModel):
        before, after = getattr(MODEL, field.name), getattr(decoded, field.name)
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(after, before)
            assert after.dtype == before.dtype
        elif isinstance(before, OptionColumns):
            for name in ("places", *OPTION_ARRAYS):
                np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        else:
            assert after == before, field.name
    assert MODEL.has_history.tolist() == [True, True, False, False, True]
    assert MODEL.has_factor.tolist() == [True, True, False, True, False]


def test_the_bytes_depend_on_the_content_alone() -> None:
    assert encode(built()) == encode(decode(ENCODED)) == ENCODED
    assert encode(replace(MODEL, hash="")) == ENCODED
    assert encode(replace(MODEL, built_time_us=0)) != ENCODED


def test_the_sign_of_a_nan_does_not_change_the_hash() -> None:
    flipped = replace(MODEL, returns=np.where(np.isnan(MODEL.returns), -np.float64(np.nan), MODEL.returns))

    assert content_hash(encode(flipped)) == MODEL.hash


def test_the_hash_names_the_bytes() -> None:
    assert MODEL.hash == content_hash(ENCODED)
    assert len(MODEL.hash) == 32


def test_an_empty_model_survives_too() -> None:
    empty = build_model({}, "none", history({"A": levels(walk(DAYS, seed=1))}), SESSION, 0)

    assert decode(encode(empty)).returns.shape == (DAYS + 6, 0)


def test_columns_are_gathered_in_the_order_asked_for() -> None:
    for model in (MODEL, decode(ENCODED)):
        gathered = model.gather([2, 0])

        np.testing.assert_array_equal(gathered, model.returns[:, [2, 0]])
        assert gathered.shape == (model.n_rows, 2) and model.n_rows == DAYS + 6


def test_nobody_can_write_into_a_model() -> None:
    for model in (MODEL, decode(ENCODED)):
        for array in (model.returns, model.grid, model.betas, model.has_history, model.has_factor, model.unaffected):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"RGMODEL1",
        b"RGMODEL1" + ENCODED[8:],
        b"not a model at all",
        b"X" + ENCODED[1:],
        ENCODED[:-1],
        ENCODED + b"\0",
        ENCODED[:40],
        ENCODED[:8] + b"\xff\xff\xff\xff" + ENCODED[12:],
        ENCODED[:8] + b"\x00\x00\x00\x00" + ENCODED[12:],
        ENCODED.replace(b'"n_grid":27', b'"n_grid":30'),
        ENCODED.replace(b'"n_grid":27', b'"n_grib":27'),
        ENCODED.replace(b'"option_places":[1,2]', b'"option_places":[2,1]'),
        ENCODED.replace(b'"option_places":[1,2]', b'"option_places":[1,5]'),
        ENCODED.replace(b'"option_places":[1,2]', b'"option_places":[1,1]'),
        ENCODED.replace(b'"IBOVESPA"', b'"A","ZZZZ"'),
        ENCODED[:-1] + b"\x02",
    ],
)
def test_damaged_bytes_are_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="risk model"):
        decode(damaged)


def test_a_model_without_a_grid_is_refused() -> None:
    """Stress losses are read off its points: there has to be one."""
    with pytest.raises(ValueError, match="n_grid of 1 or more"):
        decode(encode(replace(MODEL, grid=MODEL.grid[:, :0])))


@given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
def test_any_flipped_byte_shows_against_the_expected_hash(place: int, mask: int) -> None:
    flipped = ENCODED[:place] + bytes([ENCODED[place] ^ mask]) + ENCODED[place + 1 :]

    with pytest.raises(ValueError, match="risk model"):
        decode(flipped, expected_hash=MODEL.hash)


@given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
def test_a_flipped_byte_raises_nothing_but_value_error(place: int, mask: int) -> None:
    flipped = ENCODED[:place] + bytes([ENCODED[place] ^ mask]) + ENCODED[place + 1 :]

    try:
        decoded = decode(flipped)
    except ValueError:
        return
    assert decoded.hash != MODEL.hash
