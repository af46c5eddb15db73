"""Has the VaR forecast of each session recorded, and its model judged by how the sessions before came out.

What is computed stands in engine/model_validation.py; here it is remembered which sessions a verdict is of, so that it
is computed once a session and not with every report. Any number of workers may do this: what is in the log already is
not appended again.
"""

from engine.account import AccountState, Session
from engine.decide import Terms
from engine.model_validation import SessionHistory, forecast, validation_tightening, validations_of, verdicts_of
from engine.records import AnyRecord
from engine.report import ModelVerdict
from engine.risk.backtest import BASEL_RULE, TighteningRule, Validation
from gateway.accounts import Accounts
from gateway.worker.marks_first import marks_first

_Tested = tuple[tuple[SessionHistory, Validation], ...]


class Validator:
    """See the module."""

    def __init__(self, accounts: Accounts, rule: TighteningRule | None = BASEL_RULE) -> None:
        """`rule`: how a failing model tightens; None: it is flagged alone."""
        self._accounts, self._rule = accounts, rule
        self._tested: dict[str, tuple[tuple[Session, ...], _Tested, tuple[ModelVerdict, ...]]] = {}

    def verdicts(self, state: AccountState) -> tuple[ModelVerdict, ...]:
        """On the model, from the account's closed sessions."""
        return self._of(state)[1]

    def due(self, state: AccountState, terms: Terms, now_us: int) -> bool:
        """Whether the session lacks a forecast that can be made, or the limits are not as tight as the verdicts ask."""
        return bool(self._records(state, terms, now_us))

    def build(self, state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        """What is due, and before it the marks that it is computed from."""
        return marks_first(state, terms, self._accounts.quotes, now_us, self._records)

    def _records(self, state: AccountState, terms: Terms, now_us: int) -> list[AnyRecord]:
        validations = [validation for _, validation in self._of(state)[0]]
        epoch = terms.control.epoch
        return [
            *forecast(state, terms, now_us),
            *validation_tightening(state, validations, self._rule, now_us, epoch),
        ]

    def _of(self, state: AccountState) -> tuple[_Tested, tuple[ModelVerdict, ...]]:
        known = self._tested.get(state.account)
        if known is None or known[0] is not state.sessions:
            tested = validations_of(state.sessions)
            known = self._tested[state.account] = (state.sessions, tested, verdicts_of(tested))
        return known[1:]
