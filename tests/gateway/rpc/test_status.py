"""The table from exceptions to codes: every domain exception has its row, unforeseen ones say nothing."""

import inspect

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from engine.facts import FactError
from engine.instrument import InstrumentError
from engine.records import PoisonRecord
from engine.risk.inquiry import InquiryError, Unanswerable
from gateway import errors
from gateway.rpc.caller import Denied, Unauthenticated
from gateway.rpc.convert.form import Invalid
from gateway.rpc.status import SlowReader, Unimplemented, status_of
from gateway.stopping import StopIncomplete

TABLE = [
    (Invalid([("order.side", "expected")]), code_pb2.INVALID_ARGUMENT),
    (FactError("symbol", "unknown"), code_pb2.INVALID_ARGUMENT),
    (FactError("account", "open", precondition=True), code_pb2.FAILED_PRECONDITION),
    (InstrumentError("AAPL", "lot_size", "frozen"), code_pb2.FAILED_PRECONDITION),
    (Unauthenticated("no token"), code_pb2.UNAUTHENTICATED),
    (Denied("bob", frozenset({"operator"})), code_pb2.PERMISSION_DENIED),
    (errors.UnknownAccount("X"), code_pb2.NOT_FOUND),
    (errors.IdReused("A"), code_pb2.ALREADY_EXISTS),
    (errors.DeadlinePassed("late"), code_pb2.DEADLINE_EXCEEDED),
    (errors.Overloaded("full"), code_pb2.RESOURCE_EXHAUSTED),
    (SlowReader(30.0), code_pb2.RESOURCE_EXHAUSTED),
    (errors.Draining("bye"), code_pb2.UNAVAILABLE),
    (errors.AnalyticsAway("no worker"), code_pb2.UNAVAILABLE),
    (InquiryError("strategy", "unknown"), code_pb2.INVALID_ARGUMENT),
    (Unanswerable("no mark for KO"), code_pb2.FAILED_PRECONDITION),
    (StopIncomplete([3], "timeout"), code_pb2.UNAVAILABLE),
    (errors.StoreUnavailable("host secret:6379"), code_pb2.UNAVAILABLE),
    (errors.StoreRefused("dir /secret"), code_pb2.FAILED_PRECONDITION),
    (errors.StoreMissing("no binary"), code_pb2.UNAVAILABLE),
    (errors.StoreInUse("pid 1"), code_pb2.UNAVAILABLE),
    (PoisonRecord("secret record"), code_pb2.FAILED_PRECONDITION),
    (Unimplemented("GetVar"), code_pb2.UNIMPLEMENTED),
]


def shown(error: Exception) -> status_pb2.Status:
    return status_of(error, lambda: "incident-1")


@pytest.mark.parametrize(("error", "code"), TABLE)
def test_each_domain_exception_has_its_code_and_a_reason(error: Exception, code: int) -> None:
    status = shown(error)

    info = error_details_pb2.ErrorInfo()
    assert status.code == code
    assert status.details[0].Unpack(info)
    assert info.domain == "riskgateway" and info.reason
    assert "secret" not in str(status)


def test_no_exception_of_the_gateway_is_missing_from_the_table() -> None:
    known = {type(error) for error, _ in TABLE}
    ours = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}

    assert ours - known == {errors.StoreError}


def test_an_unforeseen_exception_shows_an_incident_and_nothing_else() -> None:
    status = shown(KeyError("secret"))

    assert status.code == code_pb2.INTERNAL
    assert "the outcome is unknown: ask again with the same id" in status.message
    assert "incident-1" in status.message
    assert "secret" not in str(status)


def test_what_passes_by_itself_says_when_to_try_again() -> None:
    retried = {
        type(error)
        for error, _ in TABLE
        if any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in shown(error).details)
    }

    assert retried == {
        errors.Overloaded,
        errors.Draining,
        errors.AnalyticsAway,
        errors.StoreUnavailable,
        errors.StoreMissing,
        errors.StoreInUse,
        StopIncomplete,
    }


def test_an_incomplete_stop_names_the_partitions() -> None:
    info = error_details_pb2.ErrorInfo()
    shown(StopIncomplete([3, 61], "timeout")).details[0].Unpack(info)

    assert info.metadata["partitions"] == "3,61"


def test_many_violations_still_fit_into_trailers() -> None:
    status = shown(Invalid([(f"orders[{i}].quantity", "é" * 100) for i in range(500)]))

    bad_request = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad_request)
    assert bad_request.field_violations[0].field == "orders[0].quantity"
    assert status.ByteSize() * 4 / 3 + 3 * len(status.message.encode()) < 8_192
