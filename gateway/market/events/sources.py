"""The sources of a configuration by their names: which there are, whose word counts, and how one is opened.

A name is that of a feed, `shipped`, the path of a TOML or iCalendar file, or the URL of an iCalendar.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events import RANK_FILE, RANK_OFFICIAL, RANK_OFFICIAL_FILE, RANK_VENDOR
from gateway.market.events import bea, bls, fed, finnhub, fred
from gateway.market.events.files import SHIPPED, IcsFile, IcsUrl, Shipped, TomlFile
from gateway.market.events.hours import Hours, hours_of
from gateway.market.events.source import Fetch, Source, SourceError, fetch

if TYPE_CHECKING:
    from gateway.config import EventSettings

EARNINGS_DAYS = 30
"""How far ahead earnings are asked for: further they are guesses."""

RANKS = {
    "fed": RANK_OFFICIAL,
    "bls": RANK_OFFICIAL,
    "bea": RANK_OFFICIAL,
    "fred": RANK_VENDOR,
    "finnhub": RANK_VENDOR,
    SHIPPED: RANK_OFFICIAL_FILE,
}


def rank_of(name: str) -> int:
    """Of a source by its name."""
    return RANKS.get(name, RANK_VENDOR if name.startswith(("http://", "https://")) else RANK_FILE)


def ranks_of(settings: "EventSettings") -> tuple[tuple[str, int], ...]:
    return tuple((name, rank_of(name)) for name in settings.sources)


@dataclass(frozen=True, slots=True)
class Sources:
    """Opens the sources of a configuration. `environment`: where their keys are."""

    settings: "EventSettings"
    environment: Mapping[str, str]
    fetch: Fetch = fetch

    def open(self, name: str, today: date) -> Source:
        """Raises SourceError where it can't even be asked, without its key for instance."""
        feeds: dict[str, Callable[[date], Source]] = {
            "fed": lambda day: fed.Fed(self.fetch, self._url("fed", fed.URL)),
            "bls": lambda day: bls.Bls(self.fetch, self._url("bls", bls.URL)),
            "bea": lambda day: bea.Bea(self.fetch, self._url("bea", bea.URL)),
            "fred": self._fred,
            "finnhub": self._finnhub,
            SHIPPED: lambda day: Shipped(self._hours(day)),
        }
        if name in feeds:
            return feeds[name](today)
        if name.startswith(("http://", "https://")):
            return IcsUrl(self.fetch, name, name)
        path = Path(name)
        own = path.name  # wherever the file lies, its events are called the same
        return IcsFile(path, own) if path.suffix == ".ics" else TomlFile(path, self._hours(today), own)

    def _fred(self, today: date) -> Source:
        key = self._key(self.settings.fred_key_env)
        return fred.Fred(self.fetch, key, today, self._url("fred", fred.URL))

    def _finnhub(self, today: date) -> Source:
        token, until = self._key(self.settings.finnhub_key_env), today + timedelta(days=EARNINGS_DAYS)
        since = today - timedelta(days=1)
        return finnhub.Finnhub(self.fetch, token, since, until, self._hours(today), self._url("finnhub", finnhub.URL))

    def _url(self, name: str, otherwise: str) -> str:
        return self.settings.urls.get(name, otherwise)

    def _key(self, variable: str) -> str:
        key = self.environment.get(variable, "").strip()
        if not key:
            raise SourceError(f"expected its key in the environment variable {variable}")
        return key

    def _hours(self, today: date) -> Hours:
        try:
            return hours_of(today, self.settings.exchange, frozenset(self.settings.holidays))
        except ValueError as error:
            raise SourceError(str(error)) from error
