"""What each declared tier of store needs, as a rule over the store's own settings.

Pure: reading the settings is the back end's part. The tiers are the rows of the table of promises
(docs: what may be promised); a tier whose settings contradict it must not serve.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    EMBEDDED = "embedded"  # the private store of one machine
    SINGLE = "single"  # one Redis, no automatic fail-over
    REPLICATED = "replicated"  # replicas, WAIT for all that may be promoted
    SENTINEL = "sentinel"  # Sentinel or Cluster without WAIT: what is lost is detected, not prevented


@dataclass(frozen=True, slots=True)
class StoreSettings:
    version: tuple[int, ...]
    role: str  # "master" or "slave", in Redis' words
    replicas_connected: int
    appendonly: str
    appendfsync: str
    maxmemory_policy: str
    wait_replicas: int  # how many the client waits for
    no_appendfsync_on_rewrite: str = "no"


def contradictions(tier: Tier, settings: StoreSettings) -> Iterator[str]:
    """Each setting that breaks the tier's promise, with what it must be."""
    if settings.version < (7, 0):
        yield f"version {'.'.join(map(str, settings.version))} must be at least 7.0"
    if settings.role != "master":
        yield f"role {settings.role!r} must be 'master': replicas refuse writes"
    if settings.maxmemory_policy != "noeviction":
        yield f"maxmemory-policy {settings.maxmemory_policy!r} must be 'noeviction': a log may not be evicted"
    if settings.appendonly != "yes":
        yield f"appendonly {settings.appendonly!r} must be 'yes'"
    if tier is not Tier.SENTINEL and settings.appendfsync != "always":
        yield f"appendfsync {settings.appendfsync!r} must be 'always' for tier {tier.value!r}"
    if tier is not Tier.SENTINEL and settings.no_appendfsync_on_rewrite != "no":
        found = settings.no_appendfsync_on_rewrite
        yield f"no-appendfsync-on-rewrite {found!r} must be 'no': a rewrite of the log would suspend appendfsync"
    if tier is Tier.REPLICATED:
        yield from _missing_replicas(settings)


def _missing_replicas(settings: StoreSettings) -> Iterator[str]:
    if settings.wait_replicas < 1:
        yield "wait_replicas must be at least 1 for tier 'replicated'"
    if settings.replicas_connected < settings.wait_replicas:
        yield f"{settings.replicas_connected} replicas are connected, {settings.wait_replicas} are waited for"
