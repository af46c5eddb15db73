"""The terms of an option: what is refused, by field, and what may never change."""

from datetime import date
from typing import Any

import msgspec
import pytest

from engine.instrument import (
    AssetClass,
    Instrument,
    InstrumentError,
    InstrumentSet,
    OptionModel,
    OptionRight,
    OptionStyle,
    OptionTerms,
    check_instrument,
)

TERMS = OptionTerms(100.0, OptionRight.CALL, OptionStyle.EUROPEAN, OptionModel.BLACK_SCHOLES_MERTON)
CALL = Instrument(
    "A_C", AssetClass.OPTION, "USD", 1.0, 0.01, 100.0, underlying="A", expiry=date(2026, 12, 18), option=TERMS
)


def changed(**fields: Any) -> Instrument:
    """Fields of the instrument, or of its terms where they have them."""
    terms = {name: fields.pop(name) for name in list(fields) if name in OptionTerms.__struct_fields__}
    option = msgspec.structs.replace(TERMS, **terms)
    return msgspec.structs.replace(CALL, **({"option": option} | fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"strike": 0.0}, "option.strike"),
        ({"strike": float("nan")}, "option.strike"),
        ({"volatility": 0.0}, "option.volatility"),
        ({"volatility": 20.0}, "option.volatility"),
        ({"rate": 5.0}, "option.rate"),
        ({"rate": float("nan")}, "option.rate"),
        ({"dividend_yield": -2.0}, "option.dividend_yield"),
        ({"dividend_yield": 0.01, "model": OptionModel.BLACK_76}, "option.dividend_yield"),
        ({"underlying": ""}, "underlying"),
        ({"underlying": "A_C"}, "underlying"),
        ({"expiry": None}, "expiry"),
        ({"option": None}, "option"),
        ({"asset_class": AssetClass.EQUITY}, "option"),
        ({"factors": {"SP500": 1.0}}, "factors"),
        ({"proxy": "A"}, "proxy"),
    ],
)
def test_an_option_that_could_not_be_priced_is_refused_by_field(fields: dict[str, Any], named: str) -> None:
    check_instrument(CALL)

    with pytest.raises(InstrumentError) as refused:
        check_instrument(changed(**fields))
    assert refused.value.field == named


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"strike": 110.0}, "option.strike"),
        ({"right": OptionRight.PUT}, "option.right"),
        ({"style": OptionStyle.AMERICAN}, "option.style"),
        ({"model": OptionModel.BLACK_76}, "option.model"),
        ({"underlying": "B"}, "underlying"),
        ({"expiry": date(2027, 1, 15)}, "expiry"),
    ],
)
def test_a_known_option_never_becomes_another(fields: dict[str, Any], named: str) -> None:
    known = InstrumentSet().with_added([CALL])

    with pytest.raises(InstrumentError) as refused:
        known.with_added([changed(**fields)])
    assert refused.value.field == named


def test_what_it_is_valued_with_may_change() -> None:
    known = InstrumentSet().with_added([CALL])
    later = known.with_added([changed(rate=0.04, volatility=0.3, dividend_yield=0.01)])

    assert later.instruments["A_C"].option == msgspec.structs.replace(
        TERMS, rate=0.04, volatility=0.3, dividend_yield=0.01
    )
    assert InstrumentSet.decode(later.encode()).instruments == later.instruments


def test_other_instruments_are_encoded_as_before() -> None:
    stock = Instrument("A", AssetClass.EQUITY, "USD", 1.0, 0.01)

    assert b"option" not in InstrumentSet({"A": stock}).encode()
    renamed = msgspec.structs.replace(stock, underlying="B", expiry=date(2026, 1, 1))
    assert InstrumentSet().with_added([stock]).with_added([renamed]).instruments["A"] == renamed
