"""What streams remember over their connections: states told, instructions taken, orders not yet answered.

Rules and memory only. A stream that breaks is dialled again and subscribed again; what it then repeats is recognised
here, and what was under way is sent again under the same ids.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

import grpc

from gateway.client import messages
from gateway.client.attempts import REFUSED, UNHEARD, Asked, Backoff, ending, may_have_happened
from gateway.client.desk import RESERVED, Desk, Detail
from gateway.client.status import Failure
from gateway.client.values import Disconnected, Instruction, InstructionStatus, Order, RiskState, Update, Verdict
from riskgateway.v1 import risk_gateway_pb2

ENDED = Failure(grpc.StatusCode.UNAVAILABLE, "the stream ended")
REMEMBERED_MAX = 10_000
"""Instructions whose answers are kept: far more than an engine has outstanding."""
IN_FLIGHT_MAX = 256
"""Orders of one stream sent and not answered: what the gateway reads ahead."""


class Followed:
    """The states told by one follower. A snapshot that says what was told already is left out."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._told: dict[str, RiskState] = {}
        self._vain = 0

    def news(self, message: risk_gateway_pb2.RiskStateUpdate) -> Update | None:
        """What it tells; None: nothing new, or nothing that this release knows."""
        self._vain = 0
        update = messages.update(message)
        if update is None:
            return None
        self._desk.heard(update)
        if isinstance(update, RiskState):
            told = self._told.get(update.account)
            if told is not None and _repeats(update, told):
                return None
            self._told[update.account] = update
        return update

    def broken(self, failure: Failure, address: str) -> Disconnected:
        """Raises CallFailed where dialling again is in vain."""
        error = ending("StreamRiskState", address, (), failure, "")
        if failure.code in REFUSED:
            raise error
        self._vain += 1
        return Disconnected(str(error), self._vain)


def silent(silence_s: float) -> Failure:
    return Failure(grpc.StatusCode.DEADLINE_EXCEEDED, f"the stream said nothing for {silence_s:g} s", "SILENT")


def _repeats(update: RiskState, told: RiskState) -> bool:
    """The same, or one from before it. A lower place in the log at a later time is neither: the log went backwards,
    and whoever follows must see what the gateway makes of it."""
    if update.state_time < told.state_time and (update.epoch, update.sequence) <= (told.epoch, told.sequence):
        return True
    return _stamps(update) == _stamps(told)


def _stamps(state: RiskState) -> tuple[object, ...]:
    """What decides everything else in it but ages: the fold, the control, the model, the worker's report."""
    report = state.raw.report.report_time
    return (state.sequence, state.raw.head_hash, state.epoch, state.raw.risk_model, report.seconds, report.nanos)


@dataclass(slots=True)
class _Taken:
    answer: risk_gateway_pb2.InstructionOutcome | None = None


class Taken:
    """The instructions that one engine has taken, and what it answered. Each is handed on once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._taken: OrderedDict[str, _Taken] = OrderedDict()

    def first(self, message: risk_gateway_pb2.Instruction) -> Instruction | None:
        """The instruction, if it was not taken before."""
        instruction = messages.instruction(message)
        self._desk.freshness.saw(instruction.account, instruction.epoch)
        if instruction.instruction_id in self._taken:
            return None
        self._taken[instruction.instruction_id] = _Taken()
        while len(self._taken) > REMEMBERED_MAX:
            self._taken.popitem(last=False)
        return instruction

    def broken(self, failure: Failure, address: str) -> None:
        """Raises CallFailed where dialling again is in vain."""
        if failure.code in REFUSED:
            raise ending("StreamInstructions", address, (), failure, "")

    def answer(self, instruction_id: str, status: InstructionStatus, text: str) -> risk_gateway_pb2.InstructionOutcome:
        """Kept, so that it can be said again. Raises ValueError for a status that is none."""
        outcome = messages.outcome(instruction_id, status, text)
        self._taken.setdefault(instruction_id, _Taken()).answer = outcome
        return outcome

    def answered(self, instruction_id: str) -> risk_gateway_pb2.InstructionOutcome | None:
        """What was answered, for an instruction that comes again: the gateway has not heard it."""
        taken = self._taken.get(instruction_id)
        return taken.answer if taken is not None else None


@dataclass(frozen=True, slots=True)
class _Waiting:
    order: Order
    asked: Asked
    request: risk_gateway_pb2.CheckOrderRequest


class Pipeline:
    """The orders of one stream, from being asked to being answered, over all its connections."""

    def __init__(self, desk: Desk, detail: Detail) -> None:
        self._desk, self._detail = desk, detail
        self._backoff = Backoff(desk.patience, desk.world.chance)
        self._waiting: deque[_Waiting] = deque()
        self._answered = 0
        self._looked_s = float("-inf")
        self._may_have_happened = False

    @property
    def waiting(self) -> int:
        """How many orders have no answer."""
        return len(self._waiting)

    @property
    def empty(self) -> bool:
        return not self._waiting

    @property
    def answered(self) -> int:
        """How many orders have been answered: the place of the first that waits."""
        return self._answered

    @property
    def asked(self) -> int:
        """How many orders have been asked about in total."""
        return self._answered + len(self._waiting)

    def ask(self, order: Order) -> None:
        """Raises ValueError or TypeError for an order that is none: it is not asked about."""
        request = self._desk.check_request(order, False, False, False, self._detail)
        self._waiting.append(_Waiting(order, Asked(self._desk.world.monotonic_s()), request))

    def request(self, place: int) -> risk_gateway_pb2.CheckOrderRequest:
        """The request for the order at a place from `answered` up to `asked`."""
        return self._waiting[place - self._answered].request

    def look(self) -> None:
        """Answers are looked for from here on: while the caller was busy elsewhere, none could be late."""
        self._looked_s = self._desk.world.monotonic_s()

    def answer(self, response: risk_gateway_pb2.CheckOrderResponse) -> Verdict:
        """The verdict on the first order that waits."""
        waiting = self._waiting[0]
        verdict = self._desk.verdict(waiting.order, response, waiting.asked)
        self._waiting.popleft()
        self._answered += 1
        self._backoff.reset()
        return verdict

    def left_s(self) -> float:
        """How long the first order that waits may go on waiting."""
        if not self._waiting:
            return self._desk.patience.deadline_s
        since_s = max(self._waiting[0].asked.begun_s, self._looked_s)
        return since_s + self._desk.patience.deadline_s - self._desk.world.monotonic_s()

    def broken(self, failure: Failure, address: str) -> float:
        """How long to wait before the next connection, in seconds. Raises CallFailed or OutcomeUnknown, with the ids
        of all that wait, where there is none."""
        # An error is that of the first order that waits; those behind it were sent too, and may have been decided.
        others = len(self._waiting) > 1 and not failure.never_sent and failure.code not in UNHEARD
        self._may_have_happened |= others or may_have_happened(failure, splits=False)
        wait_s = self._backoff.wait_s(failure.retry_s)
        if failure.code in REFUSED or wait_s >= self.left_s():
            ids = tuple(entry.order.client_order_id for entry in self._waiting)
            raise ending("CheckOrderStream", address, ids, failure, RESERVED if self._may_have_happened else "")
        return wait_s
