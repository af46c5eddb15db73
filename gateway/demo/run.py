"""Plays the demo against running servers, over gRPC and as any client would.

A session: prices known so far are published, every account's session opens, its risk model arrives; the agents ask for
each order and send to the paper broker what was allowed; the closing prices are published, the broker fills, and every
fill is reported. On one day an operator stops it all, reconciles and resumes. Accounts are new in each run.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date

import grpc
from rich.console import Console

from engine.risk.history import PriceHistory
from gateway.demo.agents import AGENTS, MakeAgent, Order, name_of
from gateway.demo.backtest import ExceptionCount, Promise, count_exceptions
from gateway.demo.broker import PaperBroker, Report, ReportKind
from gateway.demo.client import Client, DemoError, NotAnOrder
from gateway.demo.desk import Asked, Desk
from gateway.demo.follow import RiskStates
from gateway.demo.live import Moment, Screen, screen_on
from gateway.demo.summary import Agreement, Arm, Comparison, StopStory, Summary, arm_of, compare, together
from gateway.demo.tally import Tally, merged
from gateway.demo.tape import Session, Tape, tape_of
from gateway.demo.twin import Watch, run_without_gateway
from gateway.market.prices import sample_us_stocks
from gateway.market.sample import sample_instruments
from riskgateway.v1 import account_pb2, decision_pb2, limit_pb2, risk_admin_pb2, risk_gateway_pb2

Recount = Callable[[Sequence[str]], Awaitable[int]]
"""Accounts → active breaches recomputed from their logs."""

CONFIDENCES = (0.95, 0.99)
LIMIT_CONFIDENCE = 0.99
VAR_MEASURES = {0.95: "var_95", 0.99: "var_99"}
PROBE_SHARES = 1
AFTER_STOP_SHARES = 10

CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0),)
"""The servers are this machine's own: a proxy in the environment is not for them."""

REPUBLISH_S = 2.0
"""Below the demo's limit on the age of marks, with room for a slow machine."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What is played. The defaults hold the crash of March 2020 with two months on either side."""

    seed: int = 7
    first: date = date(2020, 1, 13)
    last: date = date(2020, 5, 22)
    stop_on: date = date(2020, 3, 16)
    """The worst day of the crash: the S&P 500 fell 11.98 %."""
    cash: float = 1_000_000.0
    """What each account starts with, in dollars."""
    lookback_days: int = 756


@dataclass(slots=True)
class Trading:
    """One agent's account at the gateway and its desk at the broker."""

    account: str
    make: MakeAgent
    """Another one of its agent, which remembers nothing of this run."""
    desk: Desk
    watch: Watch
    tally: Tally = field(default_factory=Tally)
    promises: dict[float, list[Promise]] = field(default_factory=lambda: {c: [] for c in CONFIDENCES})
    gaps: list[float] = field(default_factory=list)
    """|the gateway's VaR − ours| as a share of equity, on days without open orders."""

    @property
    def strategy(self) -> str:
        return self.desk.name


async def run_demo(
    gateway_target: str,
    control_target: str,
    console: Console,
    *,
    plan: DemoPlan,
    run_id: str,
    now_us: Callable[[], int],
    recount: Recount,
    prices: PriceHistory | None = None,
    agents: Sequence[MakeAgent] = tuple(AGENTS.values()),
) -> Summary:
    """Play the plan and sum it up; nothing of the summary is printed yet.

    `run_id` (up to 40 characters) names the new accounts, `now_us` stamps marks with microseconds since the epoch on a
    clock near the store's. `prices` must hold the sample's stocks; by default they are the sample's. `agents` are made
    anew for each of the two runs. Raises DemoError where a server refuses or falls silent, TapeError where prices are
    missing, AgentError where an agent's own code fails.
    """
    tape = tape_of(prices or sample_us_stocks(), plan.first, plan.last, plan.lookback_days)
    async with connected(gateway_target, control_target, now_us) as client:
        run = DemoRun(client, tape, plan, [_trading(make, plan, run_id) for make in agents])
        async with run.following():
            with screen_on(console) as screen:
                await run.play(screen)
            return await run.summarise(recount)


async def keep_market_open(
    gateway_target: str,
    control_target: str,
    *,
    plan: DemoPlan,
    now_us: Callable[[], int],
    prices: PriceHistory | None = None,
) -> None:
    """Publish the last session's closes again and again until cancelled, so that orders can be tried after the run."""
    tape = tape_of(prices or sample_us_stocks(), plan.first, plan.last, plan.lookback_days)
    async with connected(gateway_target, control_target, now_us) as client:
        while True:
            await client.publish(tape.closing(tape.sessions[-1]))
            await asyncio.sleep(REPUBLISH_S)


@asynccontextmanager
async def connected(gateway_target: str, control_target: str, now_us: Callable[[], int]) -> AsyncIterator[Client]:
    async with (
        grpc.aio.insecure_channel(gateway_target, CHANNEL_OPTIONS) as gateway,
        grpc.aio.insecure_channel(control_target, CHANNEL_OPTIONS) as control,
    ):
        yield Client(gateway, control, now_us)


def account_name(run_id: str, agent_name: str) -> str:
    return f"DEMO-{run_id}-{agent_name.upper()}"


def _trading(make: MakeAgent, plan: DemoPlan, run_id: str) -> Trading:
    agent = make()
    desk = Desk(agent, PaperBroker(name_of(agent), plan.cash, plan.seed))
    return Trading(account_name(run_id, desk.name), make, desk, Watch(LIMIT_CONFIDENCE, plan.lookback_days))


class DemoRun:
    """One run over all sessions: within `following`, `play` first, then `summarise`."""

    def __init__(self, client: Client, tape: Tape, plan: DemoPlan, tradings: Sequence[Trading]) -> None:
        self.stop: StopStory | None = None
        self._client, self._tape, self._plan, self._tradings = client, tape, plan, tuple(tradings)
        self._states = RiskStates(client.gateway, [trading.account for trading in tradings])

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Open the accounts and follow their states. `play` and `summarise` run within."""
        await self._prepare()
        following = asyncio.create_task(self._states.follow())
        try:
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    async def play(self, screen: Screen) -> None:
        for session in self._tape.sessions:
            await self._play(session, screen)

    async def _prepare(self) -> None:
        instruments = sample_instruments()
        await self._client.register(instruments[symbol] for symbol in self._tape.symbols)
        await asyncio.gather(*(self._client.open_account(t.account, self._plan.cash) for t in self._tradings))

    # --- a session ---------------------------------------------------------------------------------------------------

    async def _play(self, session: Session, screen: Screen) -> None:
        await self._client.publish(self._tape.opening(session))
        await asyncio.gather(*(self._open(trading, session) for trading in self._tradings))
        await asyncio.gather(*(self._trade(trading, session, screen) for trading in self._tradings))
        await self._client.publish(self._tape.closing(session))
        if session.date == self._plan.stop_on:
            self.stop = await self._stop_and_resume(session, screen)
        else:
            await asyncio.gather(*(self._close(trading, session) for trading in self._tradings))
        screen.show(self._moment(session))

    async def _open(self, trading: Trading, session: Session) -> None:
        """Open the session and wait for the model that was built for it on the days before."""
        day = session.date.isoformat()
        sequence = await self._client.open_session(trading.account, day)
        await self._states.until(
            trading.account,
            lambda state: state.sequence >= sequence and state.model_session_date == day,
            f"the risk model of session {day}",
        )

    async def _trade(self, trading: Trading, session: Session, screen: Screen) -> None:
        await self._take_promises(trading, session)
        desk, broker = trading.desk, trading.desk.broker
        cancels = [broker.request_cancel(client_order_id) for client_order_id in desk.stale_orders(session)]
        await self._client.report(trading.account, trading.strategy, cancels)
        entered = []
        for asked in desk.asks(self._tape, session):
            try:
                answer = await self._check(trading, asked)
            except NotAnOrder as refusal:
                self._note_refusal(trading, session, screen, asked.order, str(refusal))
                continue
            if answer.allowed:
                entered.append(broker.enter(asked.ticket(answer.allowed_quantity), session.number))
        await self._client.report(trading.account, trading.strategy, entered)

    async def _check(self, trading: Trading, asked: Asked) -> risk_gateway_pb2.CheckOrderResponse:
        short = trading.desk.sells_short(asked.order)
        answer = await self._client.check(trading.account, trading.strategy, asked, short=short)
        trading.tally.count(asked.order.shares, answer)
        return answer

    @staticmethod
    def _note_refusal(trading: Trading, session: Session, screen: Screen, order: Order, words: str) -> None:
        """An agent's mistake is told when it first occurs, and counted from then on."""
        if words not in trading.tally.not_orders:
            screen.say(f"{session.date} {trading.strategy}: {order} is no order: {words}", "bold yellow")
        trading.tally.not_orders[words] += 1

    async def _take_promises(self, trading: Trading, session: Session) -> None:
        """The VaR that the gateway itself judges by as the session opens, and what the same book then did."""
        own = trading.watch.take(trading.desk, self._tape, session)
        broker = trading.desk.broker
        if not broker.positions:
            return
        opening = self._tape.opening(session)
        equity = broker.equity(opening)
        pnl = trading.desk.held_pnl(opening, self._tape.closing(session))
        probe = Asked(f"{session.date}-probe", Order(self._tape.symbols[0], PROBE_SHARES))
        answer = await self._client.check(trading.account, trading.strategy, probe, short=False, probe=True)
        told = values_before(answer, equity)
        for confidence, measure in VAR_MEASURES.items():
            if measure in told:
                trading.promises[confidence].append(Promise(told[measure], pnl))
        if not broker.open and VAR_MEASURES[LIMIT_CONFIDENCE] in told:
            trading.gaps.append(abs(told[VAR_MEASURES[LIMIT_CONFIDENCE]] - own) / equity)

    async def _close(self, trading: Trading, session: Session) -> list[Report]:
        reports = trading.desk.close(self._tape, session)
        await self._client.report(trading.account, trading.strategy, reports)
        return reports

    def _moment(self, session: Session) -> Moment:
        states = {
            t.strategy: self._states.latest[t.account] for t in self._tradings if t.account in self._states.latest
        }
        tally = merged([trading.tally for trading in self._tradings])
        return Moment(session, len(self._tape.sessions), tally, states)

    # --- the operator ------------------------------------------------------------------------------------------------

    async def _stop_and_resume(self, session: Session, screen: Screen) -> StopStory:
        """Stop in the fall, be refused, pull what works, reconcile with the broker, resume with a reason."""
        client = self._client
        fall = f"prices fell {-self._market_move(session):.1%} on average"
        stopped = await client.stop_all(f"operator: {fall} on {session.date}, orders still working")
        accounts = {trading.account for trading in self._tradings}
        named = [order for order in stopped.open_orders if order.account in accounts]
        screen.say(f"{session.date} STOP ALL: {fall}; epoch {stopped.stop_epoch}, {len(named)} orders open", "bold red")
        refused = [await self._be_refused(trading, session, screen) for trading in self._tradings]
        reports = [report for trading in self._tradings for report in await self._pull(trading, session)]
        reason = f"after the stop of {session.date}"
        reconciled = [await self._reconcile(trading, reason) for trading in self._tradings]
        resumed = await client.resume("operator: working orders pulled, every account reconciled with the broker")
        story = StopStory(
            date=session.date,
            stop_epoch=stopped.stop_epoch,
            open_orders=len(named),
            refused=tuple(refused),
            cancelled=sum(report.kind is ReportKind.CANCELLED for report in reports),
            late_fills=sum(report.kind is ReportKind.FILL for report in reports),
            differences=sum(len(answer.differences) for answer in reconciled),
            resume_epoch=resumed.stop_epoch,
        )
        screen.say(
            f"{session.date} RESUME: {story.cancelled} orders cancelled, {story.late_fills} fills before their cancel, "
            f"{story.differences} differences with the broker; epoch {story.resume_epoch}",
            "bold green",
        )
        return story

    def _market_move(self, session: Session) -> float:
        opening, closing = self._tape.opening(session), self._tape.closing(session)
        return sum(closing[s] / opening[s] - 1.0 for s in self._tape.symbols) / len(self._tape.symbols)

    async def _be_refused(self, trading: Trading, session: Session, screen: Screen) -> str:
        asked = Asked(f"{session.date}-after-stop", Order(self._tape.symbols[0], AFTER_STOP_SHARES))
        answer = await self._check(trading, asked)
        if answer.action != decision_pb2.ACTION_HALT:
            raise DemoError(f"{trading.account}: an order was not refused after StopAll had returned: {answer.message}")
        screen.say(f"    {trading.strategy}: buy {AFTER_STOP_SHARES} {asked.order.symbol} → HALT, {answer.message}")
        return answer.message

    async def _pull(self, trading: Trading, session: Session) -> list[Report]:
        """Cancel all that works; fills may come in before, and are facts even while trading is stopped."""
        broker = trading.desk.broker
        asked = [broker.request_cancel(i) for i, order in list(broker.open.items()) if not order.cancel_requested]
        await self._client.report(trading.account, trading.strategy, asked)
        return await self._close(trading, session)

    # --- the summary -------------------------------------------------------------------------------------------------

    async def summarise(self, recount: Recount) -> Summary:
        """Run the twin, recount the breaches, compare the books a last time."""
        bound = var_bound(await self._client.limits())
        settled = await asyncio.gather(*(self._settle(trading) for trading in self._tradings))
        accounts = tuple(trading.account for trading in self._tradings)
        comparisons, all_together = self._comparisons(bound)
        counters = [state.counters for state, _ in settled]
        gaps = [gap for trading in self._tradings for gap in trading.gaps]
        sessions = self._tape.sessions
        return Summary(
            first=sessions[0].date,
            last=sessions[-1].date,
            sessions=len(sessions),
            seed=self._plan.seed,
            accounts=accounts,
            comparisons=comparisons,
            together=all_together,
            exceptions=self._exceptions(),
            agreement=Agreement(len(gaps), max(gaps, default=0.0)),
            var_limit=bound,
            tally=merged([trading.tally for trading in self._tradings]),
            stop=self.stop,
            active_counted=sum(counts.active_breaches for counts in counters),
            active_recounted=await recount(accounts),
            passive=sum(counts.passive_breaches for counts in counters),
            book_differences=sum(differences for _, differences in settled),
        )

    async def _settle(self, trading: Trading) -> tuple[account_pb2.RiskState, int]:
        """The account's state once the worker has judged all of its log, and how many places differ at the broker."""
        reconciled = await self._reconcile(trading, "end of the demo")
        state = await self._states.until(
            trading.account, lambda state: state.report.sequence >= reconciled.sequence, "the last report"
        )
        return state, len(reconciled.differences)

    async def _reconcile(self, trading: Trading, reason: str) -> risk_admin_pb2.ReconcilePositionsResponse:
        return await self._client.reconcile(trading.account, trading.strategy, trading.desk.broker, reason)

    def _comparisons(self, bound: float | None) -> tuple[tuple[Comparison, ...], Comparison]:
        dates = [session.date for session in self._tape.sessions]
        controlled: list[Arm] = []
        free: list[Arm] = []
        for trading in self._tradings:
            controlled.append(arm_of(trading.desk, trading.watch.days_over(bound)))
            desk, watch = run_without_gateway(
                trading.make(),
                self._tape,
                self._plan.cash,
                self._plan.seed,
                LIMIT_CONFIDENCE,
                self._plan.lookback_days,
            )
            free.append(arm_of(desk, watch.days_over(bound)))
        comparisons = tuple(
            compare(trading.strategy, with_gateway, without, dates)
            for trading, with_gateway, without in zip(self._tradings, controlled, free, strict=True)
        )
        return comparisons, compare("all", together(controlled), together(free), dates)

    def _exceptions(self) -> Mapping[str, tuple[ExceptionCount, ...]]:
        counts = {
            trading.strategy: tuple(count_exceptions(trading.promises[c], c) for c in CONFIDENCES)
            for trading in self._tradings
        }
        every = {c: [promise for trading in self._tradings for promise in trading.promises[c]] for c in CONFIDENCES}
        return {**counts, "all": tuple(count_exceptions(every[c], c) for c in CONFIDENCES)}


def values_before(answer: risk_gateway_pb2.CheckOrderResponse, equity: float) -> dict[str, float]:
    """Measures of the whole account without the order, in base currency, of those that could be computed."""
    return {
        check.measure: check.before * equity if check.unit == "ratio" else check.before
        for check in answer.checks
        if check.scope.startswith("account:") and check.HasField("before")
    }


def var_bound(limits: Sequence[limit_pb2.Limit]) -> float | None:
    """The account's limit on 99 % VaR as a share of equity, if one is armed."""
    measure = VAR_MEASURES[LIMIT_CONFIDENCE]
    for row in limits:
        if row.measure == measure and row.scope == "account" and row.HasField("limit") and row.unit in ("equity", ""):
            return row.limit
    return None
