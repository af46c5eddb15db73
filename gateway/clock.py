"""The store's time as this process knows it: the last time the store told, plus what has passed since.

Every record is stamped with it, so that processes whose own clocks differ agree. It runs backwards only where the
store's clock was set back, and it lags the store by at most a round trip, which only makes inputs look younger by that.
"""

from collections.abc import Callable

MonotonicUs = Callable[[], int]


class StoreClock:
    def __init__(self, monotonic_us: MonotonicUs, now_us: int) -> None:
        """`now_us`: the store's time, just read."""
        self._monotonic_us = monotonic_us
        self._offset_us = now_us - monotonic_us()
        self._latest_us = now_us

    def now_us(self) -> int:
        """Microseconds since the epoch on the store's clock."""
        self._latest_us = max(self._latest_us, self._monotonic_us() + self._offset_us)
        return self._latest_us

    def observe(self, time_us: int) -> None:
        """The store has just answered that it is `time_us`."""
        self._offset_us = time_us - self._monotonic_us()
        if abs(time_us - self._latest_us) > 1_000_000:
            self._latest_us = time_us  # the store's clock was set: following it beats being refused as aged for ever
