"""RiskAdmin as the control port serves it: limits, instruments, marks, events, and the facts of an account.

Each handler admits its caller, has the request converted, asks the accounts or the registry, and has the answer
converted.
"""

import structlog

from engine.decide import Terms
from engine.proposals import need_named, need_one_person
from gateway.log.account_log import PARTITIONS
from gateway.market.events import kept
from gateway.proposals import approve_limits, armings, named_set, proposals, propose_limits, reject_limits
from gateway.registry import Why, newest, register, update_limits
from gateway.rpc.backend import Context
from gateway.rpc.caller import LOCAL_NAME, Caller
from gateway.rpc.convert import budget_loans, events, limits, requests
from gateway.rpc.convert import proposals as convert
from gateway.rpc.facts import Broker, event_build, lending_build
from gateway.rpc.marks import Marks
from riskgateway.v1 import risk_admin_pb2

LOGGER = structlog.get_logger()


class RiskAdmin(Marks):
    """See the module."""

    async def GetLimits(
        self, request: risk_admin_pb2.GetLimitsRequest, context: Context
    ) -> risk_admin_pb2.GetLimitsResponse:
        self._backend.admit(context)
        account, asked_for = requests.limits_account_of(request), convert.set_asked_for(request)
        if asked_for:
            named = await self._backend.kept(
                named_set(self._backend.log, asked_for), self._backend.deadlines.allowed_us(context)
            )
            return limits.limits_response(named, "", 0, "")
        if account:
            reading = await self._backend.accounts.read(account, self._backend.deadline_us(context))
            return _told(reading.terms, request, reading.terms.control.epoch)
        return await self._backend.kept(self._all_limits(request), self._backend.deadlines.allowed_us(context))

    async def _all_limits(self, request: risk_admin_pb2.GetLimitsRequest) -> risk_admin_pb2.GetLimitsResponse:
        """Of the partition that got its limits last: an arming that is under way has reached it."""
        shelf = self._backend.accounts.shelf
        await shelf.refresh()
        controls = [shelf.control(partition) for partition in range(PARTITIONS)]
        _, terms = await shelf.in_force(controls.index(newest(controls)))
        return _told(terms, request, max(control.epoch for control in controls))

    async def UpdateLimits(
        self, request: risk_admin_pb2.UpdateLimitsRequest, context: Context
    ) -> risk_admin_pb2.UpdateLimitsResponse:
        caller = self._backend.admit(context, "operator")
        update = limits.update_of(request)
        need_one_person(self._backend.two_person and not update.validate_only)
        armed = await self._backend.kept(
            update_limits(
                self._backend.log, update.rows, update.expected, Why(caller.name, update.reason), update.validate_only
            ),
            self._backend.deadlines.allowed_us(context),
        )
        return risk_admin_pb2.UpdateLimitsResponse(
            limit_set=armed.limit_set,
            previous_limit_set=armed.previous,
            changes=limits.limit_changes(armed.changes),
            stop_epoch=armed.epoch,
            acknowledged_partitions=armed.partitions,
        )

    async def ProposeLimits(
        self, request: risk_admin_pb2.ProposeLimitsRequest, context: Context
    ) -> risk_admin_pb2.ProposeLimitsResponse:
        caller = self._changer(context)
        put = limits.proposal_of(request)
        work = propose_limits(self._backend.log, put.rows, put.policy, put.expected, Why(caller.name, put.reason))
        made = await self._backend.kept(work, self._backend.deadlines.allowed_us(context))
        return risk_admin_pb2.ProposeLimitsResponse(proposal=convert.proposal(made))

    async def ApproveLimits(
        self, request: risk_admin_pb2.ApproveLimitsRequest, context: Context
    ) -> risk_admin_pb2.ApproveLimitsResponse:
        caller = self._changer(context)
        verdict = convert.verdict_of(request)
        why, two_person = Why(caller.name, verdict.reason), self._backend.two_person
        work = approve_limits(self._backend.log, verdict.proposal_id, why, two_person)
        made = await self._backend.kept(work, self._backend.deadlines.allowed_us(context))
        return risk_admin_pb2.ApproveLimitsResponse(proposal=convert.proposal(made), acknowledged_partitions=PARTITIONS)

    async def RejectLimits(
        self, request: risk_admin_pb2.RejectLimitsRequest, context: Context
    ) -> risk_admin_pb2.RejectLimitsResponse:
        caller = self._backend.admit(context, "operator")
        verdict = convert.verdict_of(request)
        work = reject_limits(self._backend.log, verdict.proposal_id, Why(caller.name, verdict.reason))
        made = await self._backend.kept(work, self._backend.deadlines.allowed_us(context))
        return risk_admin_pb2.RejectLimitsResponse(proposal=convert.proposal(made))

    async def ListProposals(
        self, request: risk_admin_pb2.ListProposalsRequest, context: Context
    ) -> risk_admin_pb2.ListProposalsResponse:
        self._backend.admit(context)
        in_force, kept_ones = await self._backend.kept(
            proposals(self._backend.log), self._backend.deadlines.allowed_us(context)
        )
        return risk_admin_pb2.ListProposalsResponse(
            proposals=[convert.proposal(one) for one in kept_ones],
            limit_set=in_force,
            two_person=self._backend.two_person,
        )

    async def ListLimitSets(
        self, request: risk_admin_pb2.ListLimitSetsRequest, context: Context
    ) -> risk_admin_pb2.ListLimitSetsResponse:
        self._backend.admit(context)
        work = armings(self._backend.log, convert.page_of(request))
        return convert.arming_list(await self._backend.kept(work, self._backend.deadlines.allowed_us(context)))

    def _changer(self, context: Context) -> Caller:
        """An operator, who is told apart from others where limits are changed by two people."""
        caller = self._backend.admit(context, "operator")
        need_named(caller.name != LOCAL_NAME, self._backend.two_person)
        return caller

    async def ReconcilePositions(
        self, request: risk_admin_pb2.ReconcilePositionsRequest, context: Context
    ) -> risk_admin_pb2.ReconcilePositionsResponse:
        self._backend.admit(context, "operator")
        accounts = self._backend.accounts
        told = requests.reconciliation_of(request, accounts.clock.now_us())
        broker = Broker(told)
        recorded = await accounts.record(told.account, broker.build, self._backend.deadline_us(context))
        return risk_admin_pb2.ReconcilePositionsResponse(sequence=recorded.seq, differences=broker.differences)

    async def ListEvents(
        self, request: risk_admin_pb2.ListEventsRequest, context: Context
    ) -> risk_admin_pb2.ListEventsResponse:
        self._backend.admit(context)
        now_us, calendars = self._backend.accounts.clock.now_us(), self._backend.calendars
        listing = events.listing_of(request, now_us)
        found = await self._backend.kept(
            kept.calendar(self._backend.log.bulletin, calendars.ranks), self._backend.deadlines.allowed_us(context)
        )
        return events.list_response(found, calendars.policy, listing, now_us)

    async def UpsertEvent(
        self, request: risk_admin_pb2.UpsertEventRequest, context: Context
    ) -> risk_admin_pb2.UpsertEventResponse:
        caller = self._backend.admit(context, "operator")
        event = events.entered_of(request)
        created = await self._backend.kept(
            kept.enter(self._backend.log.bulletin, event), self._backend.deadlines.allowed_us(context)
        )
        LOGGER.info("event entered", event_id=event.event_id, name=event.name, by=caller.name, reason=event.reason)
        now_us = self._backend.accounts.clock.now_us()
        return events.upsert_response(event, created, self._backend.calendars.policy, now_us)

    async def RegisterInstruments(
        self, request: risk_admin_pb2.RegisterInstrumentsRequest, context: Context
    ) -> risk_admin_pb2.RegisterInstrumentsResponse:
        self._backend.admit(context, "operator")
        instruments = requests.instruments_of(request)
        registered = await self._backend.kept(
            register(self._backend.log, instruments), self._backend.deadlines.allowed_us(context)
        )
        return risk_admin_pb2.RegisterInstrumentsResponse(
            instrument_set=registered.instrument_set,
            added=len(registered.added),
            unchanged=len(registered.unchanged),
            changed=len(registered.changed),
        )

    async def ReportAccountEvent(
        self, request: risk_admin_pb2.ReportAccountEventRequest, context: Context
    ) -> risk_admin_pb2.ReportAccountEventResponse:
        self._backend.admit(context, "operator")
        account, event_id, event = requests.account_event_of(request)
        build, opens = event_build(event_id, event), isinstance(event, requests.Opening)
        deadline_us = self._backend.deadline_us(context)
        recorded = await self._backend.accounts.record(account, build, deadline_us, opens=opens)
        return risk_admin_pb2.ReportAccountEventResponse(sequence=recorded.seq, duplicate=not recorded.records)

    async def AdjustBudget(
        self, request: risk_admin_pb2.AdjustBudgetRequest, context: Context
    ) -> risk_admin_pb2.AdjustBudgetResponse:
        caller = self._backend.admit(context, "operator")
        account, lending = budget_loans.lending_of(request, caller.name)
        recorded = await self._backend.accounts.record(
            account, lending_build(lending), self._backend.deadline_us(context)
        )
        return risk_admin_pb2.AdjustBudgetResponse(sequence=recorded.seq, duplicate=not recorded.records)


def _told(terms: Terms, request: risk_admin_pb2.GetLimitsRequest, epoch: int) -> risk_admin_pb2.GetLimitsResponse:
    """The limits in force, or those in shadow, of an account or all."""
    shadow = terms.control.shadow_limit_set
    if not request.shadow:
        return limits.limits_response(terms.limits, request.account, epoch, shadow)
    if terms.shadow is None:
        return risk_admin_pb2.GetLimitsResponse(stop_epoch=epoch)
    return limits.limits_response(terms.shadow, request.account, epoch, shadow)
