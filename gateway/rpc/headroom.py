"""GetHeadroom: what an account may still trade, as of one verified moment.

Symbols that the account has never traded and prices that it has not recorded yet are brought in on a copy of its state,
as the committer would with an order's batch: nothing is appended. The work is done in slices, between which the loop
has time for others: no order waits for five hundred answers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from engine.account import AccountState
from engine.decide import Terms
from engine.facts import listings, observation, tracked_symbols
from engine.headroom import Headroom, headroom
from gateway.committer import Reading
from gateway.rpc.backend import Backend

SLICE_S = 0.001
"""So long one question is worked on before the others have as long: an order that comes meanwhile is answered within
about two slices more than usual."""


@dataclass(frozen=True, slots=True)
class Headrooms:
    """The answer, with what it was computed from."""

    reading: Reading
    now_us: int
    of_symbols: tuple[Headroom, ...]


async def headrooms(
    backend: Backend, account: str, strategy: str, symbols: Sequence[str], deadline_us: int
) -> Headrooms:
    """The headroom in each symbol, in order; none named: all that the account holds or has open orders in. Raises
    UnknownAccount, StoreUnavailable, DeadlinePassed."""
    reading, turns = await backend.accounts.read(account, deadline_us), Turns(SLICE_S)
    now_us, terms = backend.accounts.clock.now_us(), reading.terms
    asked = tuple(symbols) or tuple(tracked_symbols(reading.state))
    state = await _with_symbols(reading.state, terms, asked, now_us, turns)
    tracked = dict.fromkeys((*tracked_symbols(state), *(symbol for symbol in asked if symbol in state.slots)))
    valued = observation(state, backend.accounts.quotes, tracked, now_us, terms.control.epoch)
    if valued is not None:
        state.apply(valued)
    found = []
    for symbol in asked:
        found.append(headroom(state, terms, strategy, symbol, now_us))
        await turns.end()
    return Headrooms(reading, now_us, tuple(found))


class Turns:
    """Slices of the loop's time for one task that has much to do."""

    def __init__(self, slice_s: float) -> None:
        self._loop, self._slice_s = asyncio.get_running_loop(), slice_s
        self._over_s = self._loop.time() + slice_s

    async def end(self) -> None:
        """Give way for as long as a slice, if this one is used up."""
        if self._loop.time() >= self._over_s:
            await asyncio.sleep(self._slice_s)
            self._over_s = self._loop.time() + self._slice_s


async def _with_symbols(
    read: AccountState, terms: Terms, symbols: Sequence[str], now_us: int, turns: Turns
) -> AccountState:
    """A fork that lists the symbols, to be dropped. It lives beside the committer's own forks, which it may: it adds
    nothing to the memories that they share."""
    state = read.fork()
    for symbol in symbols:
        instrument = terms.instruments.get(symbol)
        for record in listings(state, terms.instruments, instrument, now_us, terms.control.epoch) if instrument else ():
            state.apply(record)
            await turns.end()
    return state
