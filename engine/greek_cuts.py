"""What of the positions is cut where a cap on a Greek is passed by far, and why.

Caps refuse what would pass them (engine.measures.greeks); a market that moves can carry positions past them all the
same. Past `Policy.greeks_cut_at` × the cap, each position on the side of the excess is cut in proportion, so that the
rest is at the cap. Positions alone: open orders are cancelled as misfits. One cap at a time, none twice in a row in a
session, and nothing of a position in which the gateway's own orders work. engine.instructions makes the orders.
"""

from collections.abc import Iterable, Iterator

from engine.account import AccountState, book_key
from engine.decide import Terms
from engine.limits import EVERY, Limit, ScopeKind, Unit, share_of
from engine.liquidation import Place, cut_lots, own_orders, unfinished_cuts
from engine.measures import MEASURES
from engine.measures.greeks import CAPS, greeks_per_lot
from engine.measures.measure import Survey, Unevaluable, scope_label
from engine.order import Reason
from engine.view import grouping_of

Cut = tuple[dict[Place, int], tuple[Reason, str]]
"""Lots > 0 by strategy and symbol, and the cause."""

NOTHING: Cut = {}, (Reason.NONE, "")

_SCOPES = (ScopeKind.FIRM, ScopeKind.ACCOUNT, ScopeKind.STRATEGY)


def greek_cuts(state: AccountState, terms: Terms, now_us: int) -> Cut:
    """The cut that the first cap asks for that is passed so far; nothing where none is, or where Greeks can't be told:
    what can't be valued opens nothing, and nobody sells blind."""
    policy = terms.limits.policy
    if policy.greeks_cut_at is None or state.session is None:
        return NOTHING
    survey = Survey(state, terms.instruments, terms.model, policy, now_us)
    try:
        return next(_asked(survey, terms, policy.greeks_cut_at), NOTHING)
    except Unevaluable:
        return NOTHING


def _asked(survey: Survey, terms: Terms, cut_at: float) -> Iterator[Cut]:
    state = survey.state
    busy = {place for place, _ in unfinished_cuts(state, terms.control)}
    busy.update(place for place in state.holdings if own_orders(state, place))
    for row in terms.limits.rows_for(state.account):
        if row.measure not in CAPS or row.scope not in _SCOPES or not row.is_hard:
            continue
        bound = row.limit * share_of(row, state.account) * survey.denominator(row.unit or Unit.MONEY)
        for label, held in _held(survey, row):
            total = sum(held.values())
            if abs(total) <= cut_at * bound:
                continue
            excess = {place: money for place, money in held.items() if money * total > 0.0}
            fraction = min(1.0, (abs(total) - bound) / abs(sum(excess.values())))
            lots = {place: cut_lots(state.holding(*place).lots, fraction) for place in excess if place not in busy}
            cause = f"{row.measure} of {label} past {cut_at:g} times its cap in session {_session(state)}"
            if any(_is_new(state, place, cause) for place in lots):
                yield lots, (MEASURES[row.measure].reason, cause)


def _held(survey: Survey, row: Limit) -> Iterable[tuple[str, dict[Place, float]]]:
    """What each position adds to the capped Greek, by group of the row, base currency."""
    state, cap = survey.state, CAPS[row.measure]
    strategies = [""] if row.scope is not ScopeKind.STRATEGY else [key for key in state.books if _matches(row, key)]
    for key in strategies:
        survey.need_options(survey.view(key, None, open_orders=False))
        survey.usable_model()
        per_lot = cap.of(greeks_per_lot(survey))
        label = scope_label(row.scope, state.account, key, None)
        groups: dict[str, dict[Place, float]] = {}
        names = grouping_of(state, survey.instruments, "underlying")
        for (strategy, symbol), holding in state.holdings.items():
            slot = state.slots[symbol]
            money = holding.lots * per_lot.item(slot)
            if money and key in ("", book_key(strategy)):
                name = names.names[names.index[slot]] if cap.by_underlying else ""
                groups.setdefault(name, {})[strategy, symbol] = money
        for name, held in groups.items():
            yield f"{label} underlying:{name}" if name else label, held


def _matches(row: Limit, key: str) -> bool:
    return row.match == EVERY or book_key(row.match) == key


def _session(state: AccountState) -> str:
    return "" if state.session is None else state.session.date


def _is_new(state: AccountState, place: Place, cause: str) -> bool:
    """Whether the cut has not been begun there."""
    progress = state.liquidations.get(place)
    return progress is None or not progress.is_cut or progress.cause != cause
