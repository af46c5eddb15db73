"""RiskAdmin as the control port serves it: limits, instruments, marks, and the facts of an account.

Each handler admits its caller, has the request converted, asks the accounts or the registry, and has the answer
converted.
"""

from engine.decide import Terms
from gateway.log.account_log import PARTITIONS
from gateway.registry import Why, newest, register, update_limits
from gateway.rpc.backend import Context
from gateway.rpc.convert import limits, requests
from gateway.rpc.facts import Broker, event_build
from gateway.rpc.marks import Marks
from riskgateway.v1 import risk_admin_pb2


class RiskAdmin(Marks):
    """ListEvents and UpsertEvent are left to the generated base: UNIMPLEMENTED."""

    async def GetLimits(
        self, request: risk_admin_pb2.GetLimitsRequest, context: Context
    ) -> risk_admin_pb2.GetLimitsResponse:
        self._backend.admit(context)
        account = requests.limits_account_of(request)
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

    async def ReconcilePositions(
        self, request: risk_admin_pb2.ReconcilePositionsRequest, context: Context
    ) -> risk_admin_pb2.ReconcilePositionsResponse:
        self._backend.admit(context, "operator")
        accounts = self._backend.accounts
        told = requests.reconciliation_of(request, accounts.clock.now_us())
        broker = Broker(told)
        recorded = await accounts.record(told.account, broker.build, self._backend.deadline_us(context))
        return risk_admin_pb2.ReconcilePositionsResponse(sequence=recorded.seq, differences=broker.differences)

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


def _told(terms: Terms, request: risk_admin_pb2.GetLimitsRequest, epoch: int) -> risk_admin_pb2.GetLimitsResponse:
    """The limits in force, or those in shadow, of an account or all."""
    shadow = terms.control.shadow_limit_set
    if not request.shadow:
        return limits.limits_response(terms.limits, request.account, epoch, shadow)
    if terms.shadow is None:
        return risk_admin_pb2.GetLimitsResponse(stop_epoch=epoch)
    return limits.limits_response(terms.shadow, request.account, epoch, shadow)
