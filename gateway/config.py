"""The configuration file: its sections, their defaults, and errors that name the file, the key and what was expected.

`load` is the only place where a file or the environment is read for settings, and both are parameters of it. The
environment overrides the file: RISK_GATEWAY_<SECTION>__<KEY>. A key that does not exist is refused, with the nearest
that does. Limit rows stay raw tables here: what they mean is known to the engine alone. Nothing here connects, listens
or keeps state.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from engine.risk.level import DEFAULT_THRESHOLDS, Gauge, Level, LevelPolicy
from engine.risk.level import Thresholds as LevelThresholds
from engine.risk.scenarios import SIX_SCENARIOS, Scenario
from gateway.toml_places import given_twice

if TYPE_CHECKING:
    from engine.events import EventPolicy, EventRule

ENVIRONMENT_PREFIX = "RISK_GATEWAY_"
LEVEL_SEPARATOR = "__"
SECRET_BEARING = ("redis_url",)  # never shown in an error

Mode = Literal["demo", "paper", "live"]
Role = Literal["trader", "execution", "feed", "operator", "viewer"]
Tier = Literal["embedded", "single", "replicated", "sentinel"]
Location = tuple[str | int, ...]


class ConfigError(Exception):
    """The configuration can't be used. `problems`: a line a fault, with its key path and what was expected."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))
        self.source = source
        self.problems = tuple(problems)


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("expected a time zone such as 'UTC' or 'America/New_York'") from error
    return name


def _usable_thresholds(given: tuple[float, float, float]) -> tuple[float, float, float]:
    LevelThresholds(*given)
    return given


Port = Annotated[int, Field(ge=0, le=65535)]
Zone = Annotated[str, AfterValidator(_known_zone)]
Currency = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{2,9}$")]
RedisUrl = Annotated[str, Field(pattern=r"^(redis|rediss|unix)://")]
Shocks = Annotated[dict[str, float], Field(min_length=1)]


class Section(BaseModel):
    """A table of the file: immutable, and without keys that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ServerSettings(Section):
    """Where the gateway and the control process listen (port 0: any free one), and how long a request may take.

    `advertised_host` is where other gateways reach this machine, `peers` are those not to be found through the store.
    """

    host: str = "127.0.0.1"
    gateway_port: Port = 50051
    control_port: Port = 50052
    advertised_host: str = ""
    peers: tuple[str, ...] = ()
    deadline_default_ms: Annotated[int, Field(ge=1)] = 1_000
    deadline_max_ms: Annotated[int, Field(ge=1)] = 10_000

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.gateway_port == self.control_port != 0:
            raise ValueError(f"gateway_port and control_port must differ, both are {self.gateway_port}")
        if self.deadline_default_ms > self.deadline_max_ms:
            raise ValueError("deadline_default_ms must not be above deadline_max_ms")
        return self


class StoreSettings(Section):
    """The Redis or Valkey with the logs, and what is promised about it. Without a URL a private one is started."""

    redis_url: Annotated[RedisUrl | None, Field(repr=False)] = None  # it may hold a password
    tier: Tier = "embedded"
    wait_replicas: Annotated[int, Field(ge=0)] = 0
    socket_timeout_ms: Annotated[int, Field(ge=1)] = 250

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.redis_url is None and self.tier != "embedded":
            raise ValueError(f"tier {self.tier!r} needs redis_url")
        if self.redis_url is not None and self.tier == "embedded":
            raise ValueError("with redis_url the tier must be said: 'single', 'replicated' or 'sentinel'")
        if (self.tier == "replicated") != (self.wait_replicas > 0):
            raise ValueError("wait_replicas belongs to tier 'replicated', which needs at least 1")
        return self


class ApprovalSettings(Section):
    """How long an approval without `valid_for` holds (None: it never expires), and the key that signs approvals."""

    valid_for_default_s: Annotated[float | None, Field(gt=0)] = None
    key_file: Path | None = None


class CallerSettings(Section):
    """Someone who may connect. The token itself is never in the file."""

    name: str = Field(min_length=1)
    roles: tuple[Role, ...] = Field(min_length=1)
    token_env: str | None = None
    token_file: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.token_env is None) == (self.token_file is None):
            raise ValueError("exactly one of token_env and token_file is needed")
        return self

    def token(self, environment: Mapping[str, str]) -> str:
        """The caller's token, without surrounding white space. Raises ConfigError when it is missing or empty."""
        if self.token_env is not None:
            source, token = f"environment variable {self.token_env}", environment.get(self.token_env, "")
        else:
            source, token = _read_token(Path(self.token_file or ""))
        if not token.strip():
            raise ConfigError(source, [f"expected the token of caller {self.name!r}, found nothing"])
        return token.strip()


class AccountSessionSettings(Section):
    """When the sessions of one account open, by the clock."""

    open_time: time = time(0, 0)
    zone: Zone = "UTC"
    calendar: str = ""
    """An exchange by its code in exchange-calendars, XNYS for instance, on whose holidays none opens; empty: on every
    weekday one does."""


class WorkerSettings(Section):
    """What the worker computes VaR and stress from, and when sessions roll."""

    prices: Annotated[str, Field(min_length=1)] = "sample"
    indices: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Columns (or files) of `prices` that are no instrument: indices that factors are, exchange rates."""
    splits: str = ""
    """A CSV of symbol, date, ratio: closes before a split are divided by its ratio."""
    lookback_days: Annotated[int, Field(ge=250)] = 756
    base_currency: Currency = "USD"
    refresh_s: Annotated[float, Field(gt=0)] = 1.0
    sessions: Literal["feed", "daily"] = "daily"
    session_open_time: time = time(0, 0)
    session_zone: Zone = "UTC"
    account_sessions: dict[str, AccountSessionSettings] = Field(default_factory=dict)
    """By account, where its sessions are other than those of all."""
    unmapped: Literal["unevaluable", "zero"] = "unevaluable"
    failing_model: Literal["tighten", "flag"] = "tighten"
    """Whether a VaR model that an account's sessions refute tightens the account's limits on VaR and ES."""
    rates: dict[Currency, float] = Field(default_factory=dict)
    """Risk-free rate by currency, continuously compounded, a fraction a year: of options that name none."""
    analysis_processes: Annotated[int, Field(ge=0, le=64)] = 2
    """How many accounts are analysed at once, each in a process of its own; 0: none is, beside what is asked for."""
    analysis_patience_s: Annotated[float, Field(gt=0)] = 60.0
    """An analysis that takes longer is given up, its process replaced."""
    analytics_port: Port = 0
    """Where RiskAnalytics is served; 0: any free one. Gateways find it through the store."""


class ScenarioSettings(Section):
    """A stress scenario beside the shipped ones. Shocks are decimal: price returns, changes of a yield, of a spread."""

    name: str = Field(min_length=1)
    shocks: Shocks

    @model_validator(mode="after")
    def _usable(self) -> Self:
        Scenario(self.name, self.shocks)
        return self


Thresholds = Annotated[tuple[float, float, float], AfterValidator(_usable_thresholds)]


class ReportSettings(Section):
    """From where on a report is MODERATE, HIGH and CRITICAL, gauge by gauge, and what a figure that can't be computed
    counts as."""

    levels: dict[Gauge, Thresholds] = Field(default_factory=dict)
    unevaluable: Literal["moderate", "high", "critical"] = "high"
    ultra_short_limits: dict[int, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """On the loss of an account over 1, 3 and 5 days (UVaR), by days, as a share of its equity; empty: none."""

    @model_validator(mode="after")
    def _known_horizons(self) -> Self:
        for days in self.ultra_short_limits:
            if days not in (1, 3, 5):
                raise ValueError(f"ultra_short_limits: expected 1, 3 or 5 days, got {days}")
        return self

    @property
    def policy(self) -> LevelPolicy:
        """The shipped thresholds, but for those of the file."""
        own = {gauge: LevelThresholds(*given) for gauge, given in self.levels.items()}
        return LevelPolicy({**DEFAULT_THRESHOLDS, **own}, Level[self.unevaluable.upper()])


class EventRuleSettings(Section):
    """What is done around events of a type, where it differs from the shipped rule."""

    before_minutes: Annotated[float | None, Field(ge=0)] = None
    after_minutes: Annotated[float | None, Field(ge=0)] = None
    factor: Annotated[float | None, Field(gt=0, le=1)] = None
    """On the bounds of all measures of size, exposure and risk."""
    factors: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    """By measure, beside `factor`."""
    block: bool | None = None
    alert: bool | None = None
    flatten: bool | None = None
    gap: Annotated[float | None, Field(ge=0, le=1)] = None

    @model_validator(mode="after")
    def _known_measures(self) -> Self:
        if self.factors:
            from engine.measures import MEASURES  # numpy: where nobody names a measure, nothing loads it

            for measure in self.factors:
                if measure not in MEASURES:
                    raise ValueError(f"factors: unknown measure {measure!r}{_did_you_mean(measure, list(MEASURES))}")
        return self


EVENT_FEEDS = ("shipped", "fed", "bls", "bea", "fred", "finnhub")


class EventSettings(Section):
    """Which calendars of events are followed, and what is done around events. Without sources none is."""

    sources: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Feeds by name, paths of TOML and iCalendar files, URLs of iCalendars."""
    refresh_s: Annotated[float, Field(gt=0)] = 3600.0
    stale_after_hours: Annotated[float, Field(gt=0)] = 48.0
    horizon_days: Annotated[float, Field(ge=1, le=60)] = 7.0
    exchange: Annotated[str, Field(min_length=1)] = "XNYS"
    """Whose sessions earnings are before and after."""
    holidays: tuple[date, ...] = ()
    """Of that exchange, where its calendar is not installed."""
    fred_key_env: str = "FRED_API_KEY"
    finnhub_key_env: str = "FINNHUB_API_KEY"
    urls: dict[str, Annotated[str, Field(pattern=r"^https?://")]] = Field(default_factory=dict)
    """Where a feed is read instead, a mirror of one's own for instance."""
    rules: dict[str, EventRuleSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        for source in self.sources:
            if self.sources.count(source) > 1:
                raise ValueError(f"sources: they must differ, repeated: {source!r}")
            is_file = source.startswith(("http://", "https://")) or source.endswith((".toml", ".ics"))
            if source not in EVENT_FEEDS and not is_file:
                expected = f"{', '.join(EVENT_FEEDS)}, a .toml or .ics file or a URL"
                raise ValueError(f"sources: expected {expected}, got {source!r}")
        for name in self.urls:
            if name not in EVENT_FEEDS:
                raise ValueError(f"urls: unknown feed {name!r}{_did_you_mean(name, EVENT_FEEDS)}")
        return self

    @property
    def policy(self) -> EventPolicy:
        """The shipped rules, but for what the file says."""
        from engine.events import DAY_US, DEFAULT_RULES, EventPolicy  # numpy: the command line's start needs none

        rules = {name: _event_rule(name, given) for name, given in self.rules.items()}
        return EventPolicy(
            {**DEFAULT_RULES, **rules}, int(self.horizon_days * DAY_US), int(self.stale_after_hours * DAY_US / 24)
        )


def _event_rule(name: str, given: EventRuleSettings) -> EventRule:
    from engine.events import DEFAULT_RULES, DEFAULT_TYPE, MINUTE_US, EventRule, scaled

    shipped = DEFAULT_RULES.get(name, DEFAULT_RULES[DEFAULT_TYPE])
    factors = scaled(given.factor) if given.factor is not None else shipped.factors
    told = (given.before_minutes, given.after_minutes)
    own = (shipped.before_us, shipped.after_us)
    before_us, after_us = (us if at is None else round(at * MINUTE_US) for at, us in zip(told, own, strict=True))
    return EventRule(
        before_us,
        after_us,
        {**factors, **given.factors},
        shipped.block if given.block is None else given.block,
        shipped.alert if given.alert is None else given.alert,
        shipped.flatten if given.flatten is None else given.flatten,
        shipped.gap if given.gap is None else given.gap,
    )


class LimitsSettings(Section):
    """Which shipped limit rows are armed beside those of the file, and what else the engine reads about all limits."""

    model_config = ConfigDict(
        extra="allow", frozen=True
    )  # the rest is `policy`: the engine refuses what it doesn't know

    preset: Literal["none", "conservative", "balanced", "aggressive", "macro"] = "none"
    shadow: Path | None = None
    """Another file with [limits] and [[limit]]: a whole set that is armed beside this one, without effect."""
    two_person: bool = False
    """Limits are changed by two people: one operator proposes, another one approves, and the file only seeds them."""

    @property
    def policy(self) -> dict[str, Any]:
        """The raw table for the engine's policy: market_slippage, order_types and so on, those of the preset where the
        file says nothing."""
        return {**PRESET_POLICIES.get(self.preset, {}), **(self.model_extra or {})}


class Settings(BaseSettings):
    """The whole configuration, validated. `limit` are the file's own rows; `limit_rows` are all that shall be armed."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    mode: Mode = "paper"
    server: ServerSettings = ServerSettings()
    store: StoreSettings = StoreSettings()
    approval: ApprovalSettings = ApprovalSettings()
    callers: tuple[CallerSettings, ...] = ()
    worker: WorkerSettings = WorkerSettings()
    scenario: tuple[ScenarioSettings, ...] = ()
    report: ReportSettings = ReportSettings()
    events: EventSettings = EventSettings()
    limits: LimitsSettings = LimitsSettings()
    limit: tuple[dict[str, Any], ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # the environment is a parameter of `load`, never read behind the caller's back

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _refuse_repeats("callers", [caller.name for caller in self.callers])
        _refuse_repeats("scenario", [scenario.name for scenario in self.scenario])
        _refuse_shipped([scenario.name for scenario in self.scenario])
        if self.mode == "live" and not any("operator" in caller.roles for caller in self.callers):
            raise ValueError("mode 'live' needs [[callers]], at least one of them with the role 'operator'")
        if self.limits.two_person and sum("operator" in caller.roles for caller in self.callers) < 2:
            raise ValueError("limits.two_person needs [[callers]], at least two of them with the role 'operator'")
        return self

    @property
    def limit_rows(self) -> tuple[dict[str, Any], ...]:
        """The file's rows, in its order, then those of the preset that none of them replaces."""
        if self.limits.preset == "none":
            return self.limit
        own = {_reach(row) for row in self.limit}
        return self.limit + tuple(row for row in preset_rows(self.limits.preset) if _reach(row) not in own)


def load(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """The file (None: the defaults) under the environment, validated. Raises ConfigError, which names every fault."""
    source = str(path) if path is not None else "environment"
    table = _read_table(path) if path is not None else {}
    overrides = _overrides(environment)
    try:
        settings = Settings(**_merged(table, overrides))
    except ValidationError as error:
        raise ConfigError(source, [_problem(fault, overrides) for fault in error.errors()]) from error
    return _anchored(settings, path.parent.absolute()) if path is not None else settings


def template_text() -> str:
    """A commented configuration to start from, with the balanced limits written out so that they can be edited."""
    names = ("config_template", "presets/common", "presets/balanced", "presets/waiting")
    return "\n".join(_packaged(f"{name}.toml") for name in names)


def schema_text() -> str:
    """The JSON schema of the configuration, for editors and for checks."""
    return json.dumps(Settings.model_json_schema(), indent=2) + "\n"


PRESET_POLICIES: Mapping[str, Mapping[str, Any]] = {
    "conservative": {"volatility_target": 0.10},
    "balanced": {"volatility_target": 0.12},
    "aggressive": {"volatility_target": 0.20},
}
"""What presets say beside their rows; the balanced one's stands in config_template.toml too."""


def preset_rows(name: str) -> tuple[dict[str, Any], ...]:
    """The rows of a shipped preset, as raw tables: its own, then those that all presets share."""
    return tuple(row for part in (name, "common") for row in tomllib.loads(_packaged(f"presets/{part}.toml"))["limit"])


def _reach(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row limits, whatever its bound."""
    return row.get("measure"), row.get("scope"), row.get("match", "*"), row.get("account", "*")


def _packaged(name: str) -> str:
    return resources.files("gateway").joinpath(name).read_text(encoding="utf-8")


def _read_table(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), [f"can't be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"expected UTF-8 text, found byte {error.object[error.start]:#04x}"]) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [given_twice(text, str(error)) or f"not valid TOML: {error}"]) from error


def _read_token(path: Path) -> tuple[str, str]:
    try:
        return str(path), path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), [f"can't be read: {error.strerror}"]) from error


def _overrides(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings in the environment, nested.

    Of the variables that name no section only `mode` is ours: Kubernetes sets RISK_GATEWAY_PORT and the like by itself
    for a service named risk-gateway.
    """
    ours = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): name
        for name in environment
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    for key, name in ours.items():
        section = key.partition(LEVEL_SEPARATOR)[0]
        if LEVEL_SEPARATOR in key and section not in Settings.model_fields:
            raise ConfigError(
                "environment", [f"{name}: unknown section{_did_you_mean(section, list(Settings.model_fields))}"]
            )
    source = EnvSettingsSource(Settings, env_nested_delimiter=LEVEL_SEPARATOR)
    source.env_vars = {key: environment[name] for key, name in ours.items() if LEVEL_SEPARATOR in key or key == "mode"}
    try:
        found = source()
    except SettingsError as error:
        raise ConfigError("environment", [str(error)]) from error
    return {name: _policy_read(value) if name == "limits" else value for name, value in found.items()}


def _policy_read(limits: Any) -> Any:
    """[limits] of the environment: what the engine reads as numbers, true, false and lists, for a variable is text."""
    if not isinstance(limits, dict):
        return limits
    return {key: value if key in LimitsSettings.model_fields else _value_of(value) for key, value in limits.items()}


def _value_of(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except json.JSONDecodeError:
        return text


def _merged(table: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for key, value in overrides.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _problem(fault: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    location: Location = fault["loc"]
    origin = f" (set by {_variable(location)})" if _is_set(location, overrides) else ""
    where = f"{_key_path(location)}{origin}: " if location else ""
    if fault["type"] == "extra_forbidden":
        return f"{where}unknown key{_did_you_mean(str(location[-1]), _siblings(location))}"
    if fault["type"] == "missing":
        return f"{where}required, but missing"
    message = fault["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    given = fault["input"]
    shown = f", not {given!r}" if isinstance(given, str | int | float) and location[-1:] != SECRET_BEARING else ""
    return f"{where}{message}{shown}"


def _key_path(location: Location) -> str:
    """`callers[1].name`: counted from zero, as every other tool does."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _variable(location: Location) -> str:
    return ENVIRONMENT_PREFIX + LEVEL_SEPARATOR.join(str(part) for part in location).upper()


def _is_set(location: Location, overrides: Mapping[str, Any]) -> bool:
    within: Any = overrides
    for part in location:
        if not isinstance(within, Mapping) or part not in within:
            return False
        within = within[part]
    return bool(location)


def _siblings(location: Location) -> list[str]:
    """The keys that would have been known where an unknown one stands."""
    fields = Settings.model_fields
    for part in location[:-1]:
        if isinstance(part, str):
            fields = next(_sections(fields[part].annotation)).model_fields
    return list(fields)


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections(argument)


def _did_you_mean(key: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1)
    return f", did you mean {nearest[0]!r}?" if nearest else f", expected one of {', '.join(known)}"


def _refuse_repeats(section: str, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"[[{section}]] names must differ, repeated: {', '.join(repeated)}")


def _refuse_shipped(names: Sequence[str]) -> None:
    shipped = {scenario.name for scenario in SIX_SCENARIOS}
    for index, name in enumerate(names):
        if name in shipped:
            raise ValueError(f"scenario[{index}].name: {name!r} is a shipped scenario's, expected another name")


def _anchored(settings: Settings, folder: Path) -> Settings:
    """The settings with relative paths made absolute: they start at the file's folder, not where a process started."""
    approval, worker = settings.approval, settings.worker
    changes: dict[str, Any] = {
        "callers": tuple(
            caller.model_copy(update={"token_file": folder / caller.token_file}) if caller.token_file else caller
            for caller in settings.callers
        )
    }
    if approval.key_file:
        changes["approval"] = approval.model_copy(update={"key_file": folder / approval.key_file})
    if settings.limits.shadow:
        changes["limits"] = settings.limits.model_copy(update={"shadow": folder / settings.limits.shadow})
    sources = tuple(
        str(folder / one) if one not in EVENT_FEEDS and not one.startswith(("http://", "https://")) else one
        for one in settings.events.sources
    )
    changes["events"] = settings.events.model_copy(update={"sources": sources})
    files: dict[str, Any] = {}
    if worker.prices not in ("sample", "marks"):
        files["prices"] = str(folder / worker.prices)
    if worker.splits:
        files["splits"] = str(folder / worker.splits)
    changes["worker"] = worker.model_copy(update=files)
    return settings.model_copy(update=changes)
