"""RiskAdmin as the control port serves it: limits, instruments, marks, and the facts of an account.

Each handler admits its caller, has the request converted, asks the accounts or the registry, and has the answer
converted.
"""

from gateway.log.account_log import PARTITIONS
from gateway.registry import register
from gateway.rpc.backend import Context
from gateway.rpc.convert import requests, responses
from gateway.rpc.facts import Broker, event_build
from gateway.rpc.marks import Marks
from riskgateway.v1 import risk_admin_pb2


class RiskAdmin(Marks):
    """UpdateLimits, ListEvents and UpsertEvent are left to the generated base: UNIMPLEMENTED."""

    async def GetLimits(
        self, request: risk_admin_pb2.GetLimitsRequest, context: Context
    ) -> risk_admin_pb2.GetLimitsResponse:
        self._backend.admit(context)
        account = requests.limits_account_of(request)
        if account:
            reading = await self._backend.accounts.read(account, self._backend.deadline_us(context))
            return responses.limits_response(reading.terms.limits, account, reading.terms.control.epoch)
        return await self._backend.kept(self._all_limits(), self._backend.deadlines.allowed_us(context))

    async def _all_limits(self) -> risk_admin_pb2.GetLimitsResponse:
        """Of the partition that changed last: an arming that is under way has reached it."""
        shelf = self._backend.accounts.shelf
        await shelf.refresh()
        newest = max(range(PARTITIONS), key=lambda partition: shelf.control(partition).epoch)
        _, terms = await shelf.in_force(newest)
        return responses.limits_response(terms.limits, "", terms.control.epoch)

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
