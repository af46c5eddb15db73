"""The details of an error, read with protobuf alone: as the library that the client does without would read them."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client.status import Failure, read_details
from tests.gateway.client.relay import status_of

CODE = grpc.StatusCode.RESOURCE_EXHAUSTED
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(TEXTS.filter(bool), st.integers(0, 10**7), st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_details_are_read_as_they_were_packed(reason: str, retry_ms: int, fields: list[tuple[str, str]]) -> None:
    packed = status_of(8, "full", reason, retry_ms, tuple(fields)).SerializeToString()

    failure = read_details(CODE, "full", packed)

    assert (failure.reason, failure.fields) == (reason, tuple(fields))
    assert failure.retry_s == pytest.approx(retry_ms / 1e3)


def test_what_is_not_there_is_not_made_up() -> None:
    assert read_details(CODE, "full", b"") == Failure(CODE, "full")
    assert read_details(CODE, "full", status_of(8, "full").SerializeToString()) == Failure(CODE, "full")


@given(st.binary(max_size=200))
def test_rubbish_is_no_error_of_its_own(packed: bytes) -> None:
    failure = read_details(CODE, "full", packed)

    assert (failure.code, failure.said) == (CODE, "full")


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_details_that_were_cut_off_are_left_out_or_read_in_part(cut: int) -> None:
    packed = status_of(8, "full", "QUEUE_FULL", 100, (("order", "less"),)).SerializeToString()

    assert read_details(CODE, "full", packed[:-cut]).code is CODE
