"""The measure of what moves together: correlated instruments count as one exposure (CHECKS 27, correlated bucket).

Clusters are read off the risk model's days: two instruments are joined where their daily returns are correlated, in
size, by the policy's `cluster_correlation` or more, and whoever is joined to one of a cluster is in it (single linkage,
as engine.risk.correlation.threshold_clusters). The sign does not matter, since exposures count by size: long one and
short its mirror image is one bet. Only what is at stake in the limit's scope joins, and the order's own symbol.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from engine.account import Floats
from engine.limits import Limit, ScopeKind, Unit
from engine.measures.exposure import scoped_views
from engine.measures.measure import Armed, Case, Family, Measure, Reading, Survey, Unevaluable
from engine.order import Reason
from engine.risk.model import RiskModel
from engine.view import Columns, View

CORRELATION_DAYS_MIN = 30
"""With fewer a correlation of 0 is estimated to ±0.36."""

_ROUNDING = 1e-9
"""What equals the threshold is joined, on every machine."""

_FIT_SLACK = 1e-9
"""Lots, as in engine.measures.exposure."""

Joined = NDArray[np.bool_]


def joined_pairs(returns: Floats, threshold: float) -> Joined:
    """(n, n) whether the rows of `returns` (n, days) are correlated, in size, by `threshold` or more; each is with
    itself, and one that never moves with nobody else."""
    centred = returns - returns.mean(axis=1, keepdims=True)
    sizes = np.sqrt(np.einsum("it,it->i", centred, centred))
    moving = returns.min(axis=1) < returns.max(axis=1)
    scaled = np.divide(centred, sizes[:, None], out=np.zeros_like(centred), where=moving[:, None])
    joined: Joined = np.abs(scaled.dot(scaled.T)) >= threshold - _ROUNDING
    np.fill_diagonal(joined, True)
    return joined


def cluster_of(joined: Joined, start: int, among: Joined) -> Joined:
    """(n,) the members of the cluster of `start`, of those in `among` (n,), `start` itself whatever that says."""
    found = np.zeros(len(among), dtype=np.bool_)
    found[start] = True
    while True:
        grown = (joined[found].any(axis=0) & among) | found
        if (grown == found).all():
            return found
        found = grown


def _pairs(survey: Survey, columns: Columns) -> Joined:
    """Of the account's symbols, in slot order; kept until the model, the symbols or the threshold change."""
    if columns.days < CORRELATION_DAYS_MIN:
        note = f"the risk model has {columns.days} days, a correlation needs {CORRELATION_DAYS_MIN}"
        raise Unevaluable(Reason.HISTORY_MISSING, note)
    derived, model = survey.state.derived, survey.usable_model()
    key = len(survey.state.slots), survey.policy.cluster_correlation
    cached: tuple[RiskModel, object, Joined] | None = derived.get("joined pairs")
    if cached is not None and cached[0] is model and cached[1] == key:
        return cached[2]
    joined = joined_pairs(columns.returns[:, : columns.days], survey.policy.cluster_correlation)
    derived["joined pairs"] = (model, key, joined)
    return joined


def _largest(joined: Joined, exposure: Floats, among: Joined) -> float:
    """The largest exposure of a cluster of `among`."""
    left, most = among.copy(), 0.0
    while left.any():
        members = cluster_of(joined, int(left.argmax()), left)
        most = max(most, float(exposure[members].sum()))
        left &= ~members
    return most


def _own(case: Case, armed: Armed) -> tuple[View, Joined, Joined]:
    """The view, who is joined, and the cluster of the order's symbol, the order in it."""
    view, columns = case.of(armed), case.columns()
    case.need_history(view, columns)
    if columns.no_history is not None and columns.no_history[case.slot]:
        note = f"{case.instrument.symbol} has too little price history and no proxy"
        raise Unevaluable(Reason.HISTORY_MISSING, note)
    joined = _pairs(case, columns)
    return view, joined, cluster_of(joined, case.slot, view.stake.largest > 0.0)


def _cluster(case: Case, armed: Armed) -> Reading:
    """Before: the largest cluster of those that the order's symbol belongs to or brings together."""
    view, joined, members = _own(case, armed)
    per = case.equity() if armed.of_equity else 1.0
    at_stake = members & (view.stake.largest > 0.0)
    before = _largest(joined, view.exposure, at_stake)
    after = float(view.exposure[members].sum()) + case.growth(view)
    return before / per, after / per, max(case.mark_age_us, case.model_age_us)


def _elsewhere(case: Case, view: View, members: Joined) -> float:
    """Exposure of the cluster without the order's symbol."""
    return float(view.exposure[members].sum()) - float(view.exposure[case.slot])


def _cluster_fit(case: Case, armed: Armed, bound: float) -> int:
    view, _, members = _own(case, armed)
    room = bound * case.denominator(armed.unit) - _elsewhere(case, view, members)
    low, high = view.book.interval(case.slot)
    long, short = case.end_values()
    moved, value, other = (high, long, -low * short) if case.sign > 0 else (-low, short, high * long)
    return int(room / value + _FIT_SLACK) - moved if other <= room * (1.0 + _FIT_SLACK) and room > 0.0 else 0


def _cluster_filled(case: Case, armed: Armed) -> float:
    view, joined, members = _own(case, armed)
    low, high = case.ends_filled(view.book)
    exposure, among = view.exposure.copy(), members.copy()
    exposure[case.slot] = case.exposed(low, high)
    among[case.slot] = bool(low or high)
    return _largest(joined, exposure, among) / case.denominator(armed.unit)


def _cluster_now(survey: Survey, row: Limit, account: str, strategy: str) -> Iterable[tuple[str, float]]:
    columns = survey.columns()
    joined = _pairs(survey, columns)
    per = survey.denominator(row.unit or Unit.EQUITY)
    for label, view in scoped_views(survey, row, account):
        survey.need_history(view, columns)
        yield label, _largest(joined, view.exposure, view.stake.largest > 0.0) / per


CLUSTER_EXPOSURE = Measure(
    "cluster_exposure",
    Reason.CLUSTER_EXPOSURE,
    Family.PORTFOLIO,
    (Unit.EQUITY, Unit.MONEY),
    frozenset({ScopeKind.ACCOUNT, ScopeKind.STRATEGY}),
    _cluster,
    _cluster_fit,
    _cluster_filled,
    _cluster_now,
)
"""No firm's: an account's instruments may join what are two clusters in another, and sums would say less than is."""
