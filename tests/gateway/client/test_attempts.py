"""The rules of retrying, with a clock that a test turns: no call, no sleep."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client import CallFailed, OutcomeUnknown, Patience, World
from gateway.client.attempts import Attempts, Backoff, Call
from gateway.client.status import NOBODY_LISTENS, Failure

CODE = grpc.StatusCode
PATIENCE = Patience(deadline_s=5.0, attempt_s=2.0, backoff_first_s=0.1, backoff_max_s=1.0)


class Trial:
    """Attempts at a call, and the clock that they see."""

    def __init__(self, leaves: str = "It may exist", splits: bool = False) -> None:
        self.now_s = 50.0
        self.chance = 0.0
        world = World(monotonic_s=lambda: self.now_s, chance=lambda: self.chance)
        call = Call("CheckOrder", None, lambda *_: None, ("id-1",), leaves, splits)
        self.attempts = Attempts(call, "gateway:1", PATIENCE, world)

    def ends_with(self, *failures: Failure) -> CallFailed:
        with pytest.raises(CallFailed) as ended:
            for failure in failures:
                self.now_s += self.attempts.failed(failure)
        return ended.value


def test_waits_double_up_to_a_maximum_and_chance_shortens_them_by_up_to_a_half() -> None:
    trial = Trial()

    waits = [trial.attempts.failed(Failure(CODE.UNAVAILABLE, "")) for _ in range(6)]
    trial.chance = 1.0
    shortened = trial.attempts.failed(Failure(CODE.UNAVAILABLE, ""))

    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert shortened == pytest.approx(0.5)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 100), st.none() | st.floats(0, 10))
def test_a_wait_is_never_under_what_the_gateway_asks_for_and_never_nothing(
    chance: float, tries: int, asked_s: float | None
) -> None:
    backoff = Backoff(PATIENCE, lambda: chance)
    for _ in range(tries):
        backoff.wait_s()

    wait_s = backoff.wait_s(asked_s)

    assert (asked_s or 0.0) + 0.05 <= wait_s <= (asked_s or 0.0) + 1.0


def test_an_attempt_has_its_own_limit_and_the_call_a_deadline() -> None:
    trial = Trial()
    assert trial.attempts.timeout_s() == 2.0

    trial.now_s += 4.5
    assert trial.attempts.timeout_s() == pytest.approx(0.5)
    assert trial.attempts.failed(Failure(CODE.UNAVAILABLE, "")) == pytest.approx(0.1)
    trial.now_s += 0.45
    assert isinstance(trial.ends_with(Failure(CODE.UNAVAILABLE, "")), OutcomeUnknown)


def test_a_wait_past_the_deadline_is_not_begun() -> None:
    assert Trial().ends_with(Failure(CODE.RESOURCE_EXHAUSTED, "full", "QUEUE_FULL", retry_s=5.0)).ids == ("id-1",)


@pytest.mark.parametrize(
    ("failures", "unknown"),
    [
        # The last failure alone says that nothing was done.
        ([Failure(CODE.INVALID_ARGUMENT, "bad")], False),
        ([Failure(CODE.PERMISSION_DENIED, "no")], False),
        ([Failure(CODE.NOT_FOUND, "no such account")], False),
        ([Failure(CODE.FAILED_PRECONDITION, "unreadable")], False),
        ([Failure(CODE.RESOURCE_EXHAUSTED, "", "QUEUE_FULL", retry_s=9.0)], False),
        ([Failure(CODE.UNAVAILABLE, NOBODY_LISTENS + "; last error", retry_s=9.0)], False),
        # It says nothing of the kind.
        ([Failure(CODE.INTERNAL, "incident")], True),
        ([Failure(CODE.UNKNOWN, "")], True),
        ([Failure(CODE.RESOURCE_EXHAUSTED, "Received message larger than max", retry_s=9.0)], True),
        ([Failure(CODE.UNAVAILABLE, "", retry_s=9.0)], True),
        ([Failure(CODE.DEADLINE_EXCEEDED, "", retry_s=9.0)], True),
        # An earlier attempt may have been heard; only what judges this very request settles it.
        ([Failure(CODE.UNAVAILABLE, ""), Failure(CODE.PERMISSION_DENIED, "no")], True),
        ([Failure(CODE.UNAVAILABLE, ""), Failure(CODE.FAILED_PRECONDITION, "unreadable")], True),
        ([Failure(CODE.DEADLINE_EXCEEDED, ""), Failure(CODE.UNAVAILABLE, NOBODY_LISTENS, retry_s=9.0)], True),
        ([Failure(CODE.UNAVAILABLE, ""), Failure(CODE.INVALID_ARGUMENT, "bad")], False),
        ([Failure(CODE.UNAVAILABLE, ""), Failure(CODE.ALREADY_EXISTS, "used")], False),
        ([Failure(CODE.UNAVAILABLE, NOBODY_LISTENS), Failure(CODE.PERMISSION_DENIED, "no")], False),
    ],
)
def test_the_end_says_whether_anything_may_exist(failures: list[Failure], unknown: bool) -> None:
    ended = Trial().ends_with(*failures)

    assert isinstance(ended, OutcomeUnknown) == unknown
    assert ("It may exist" in str(ended) and "id-1" in str(ended)) == unknown
    assert ended.code is failures[-1].code


@pytest.mark.parametrize(
    ("failure", "unknown"),
    [
        (Failure(CODE.ALREADY_EXISTS, "used"), True),
        (Failure(CODE.INVALID_ARGUMENT, "can't be booked", "FACT_UNUSABLE"), True),
        (Failure(CODE.INVALID_ARGUMENT, "malformed", "MALFORMED"), False),
        (Failure(CODE.PERMISSION_DENIED, "no"), False),
    ],
)
def test_of_several_accounts_one_may_be_done_where_another_is_refused(failure: Failure, unknown: bool) -> None:
    assert isinstance(Trial(splits=True).ends_with(failure), OutcomeUnknown) == unknown


def test_a_call_that_only_reads_never_leaves_anything_unknown() -> None:
    assert not isinstance(Trial(leaves="").ends_with(Failure(CODE.UNAVAILABLE, "", retry_s=9.0)), OutcomeUnknown)


def test_the_message_names_what_is_wrong_once() -> None:
    fields = (("order.quantity", "expected more than 0"), ("order.side", "expected a side"))

    ended = Trial().ends_with(Failure(CODE.INVALID_ARGUMENT, "order.quantity: expected more than 0", "", fields))

    assert str(ended) == "CheckOrder: order.quantity: expected more than 0; order.side: expected a side"
    assert ended.fields == fields
