"""RiskAnalytics as the worker serves it: figures on demand, asked for through a gateway or directly.

Each handler admits its caller, has the request converted, asks the analyst, and has the answer converted. Nothing is
computed here.
"""

from typing import Protocol

from engine.liquidation import PlanAnswer, PlanInquiry
from engine.risk.budget_answers import BudgetAnswer, BudgetInquiry
from engine.risk.greeks_answers import GreeksAnswer
from engine.risk.inquiry import GreeksInquiry, ReplayInquiry, ReverseInquiry, StressInquiry, VarInquiry
from engine.risk.loss_answers import LossAnswer
from engine.risk.report_answers import ReportAnswer
from engine.risk.sizing_answers import SizeAnswer, SizeInquiry
from engine.risk.stress_answers import ReplayAnswer, ReverseAnswer, StressAnswer
from engine.risk.var_answers import VarAnswer
from gateway.rpc.analysts import Asked
from gateway.rpc.backend import Context, Deadlines
from gateway.rpc.convert import analytics, budget, liquidation, losses, sizing
from gateway.rpc.convert import analytics_requests as requests
from riskgateway.v1 import risk_analytics_pb2, risk_analytics_pb2_grpc


class Analyst(Protocol):
    """Who knows the answers. All may raise what the accounts raise, Unanswerable, InquiryError and Overloaded."""

    async def report(self, account: str, allowed_us: int) -> ReportAnswer: ...

    async def value_at_risk(self, inquiry: VarInquiry, allowed_us: int) -> VarAnswer: ...

    async def stress(self, inquiry: StressInquiry, allowed_us: int) -> StressAnswer: ...

    async def reverse_stress(self, inquiry: ReverseInquiry, allowed_us: int) -> ReverseAnswer: ...

    async def replay(self, inquiry: ReplayInquiry, allowed_us: int) -> ReplayAnswer: ...

    async def greeks(self, inquiry: GreeksInquiry, allowed_us: int) -> GreeksAnswer: ...

    async def size(self, inquiry: SizeInquiry, allowed_us: int) -> SizeAnswer: ...

    async def budget(self, inquiry: BudgetInquiry, allowed_us: int) -> BudgetAnswer: ...

    async def losses(self, account: str, sessions: int, allowed_us: int) -> LossAnswer: ...

    async def liquidation(self, inquiry: PlanInquiry, allowed_us: int) -> PlanAnswer: ...


class RiskAnalytics(risk_analytics_pb2_grpc.RiskAnalyticsServicer):
    """See the module."""

    def __init__(self, analyst: Analyst, asked: Asked, deadlines: Deadlines) -> None:
        self._analyst, self._asked, self._deadlines = analyst, asked, deadlines

    async def GetVar(
        self, request: risk_analytics_pb2.GetVarRequest, context: Context
    ) -> risk_analytics_pb2.GetVarResponse:
        self._asked.admit(context, "GetVar")
        inquiry = requests.var_inquiry(request)
        return analytics.var_response(await self._analyst.value_at_risk(inquiry, self._allowed_us(context)))

    async def GetStress(
        self, request: risk_analytics_pb2.GetStressRequest, context: Context
    ) -> risk_analytics_pb2.GetStressResponse:
        self._asked.admit(context, "GetStress")
        inquiry = requests.stress_inquiry(request)
        return analytics.stress_response(await self._analyst.stress(inquiry, self._allowed_us(context)))

    async def GetReverseStress(
        self, request: risk_analytics_pb2.GetReverseStressRequest, context: Context
    ) -> risk_analytics_pb2.GetReverseStressResponse:
        self._asked.admit(context, "GetReverseStress")
        inquiry = requests.reverse_inquiry(request)
        return analytics.reverse_response(await self._analyst.reverse_stress(inquiry, self._allowed_us(context)))

    async def ReplayHistory(
        self, request: risk_analytics_pb2.ReplayHistoryRequest, context: Context
    ) -> risk_analytics_pb2.ReplayHistoryResponse:
        self._asked.admit(context, "ReplayHistory")
        inquiry = requests.replay_inquiry(request)
        return analytics.replay_response(await self._analyst.replay(inquiry, self._allowed_us(context)))

    async def GetGreeks(
        self, request: risk_analytics_pb2.GetGreeksRequest, context: Context
    ) -> risk_analytics_pb2.GetGreeksResponse:
        self._asked.admit(context, "GetGreeks")
        inquiry = requests.greeks_inquiry(request)
        return analytics.greeks_response(await self._analyst.greeks(inquiry, self._allowed_us(context)))

    async def GetRiskReport(
        self, request: risk_analytics_pb2.GetRiskReportRequest, context: Context
    ) -> risk_analytics_pb2.GetRiskReportResponse:
        self._asked.admit(context, "GetRiskReport")
        account = requests.account_of(request)
        return analytics.report_response(await self._analyst.report(account, self._allowed_us(context)))

    async def GetLossHistory(
        self, request: risk_analytics_pb2.GetLossHistoryRequest, context: Context
    ) -> risk_analytics_pb2.GetLossHistoryResponse:
        self._asked.admit(context, "GetLossHistory")
        account, sessions = losses.loss_request(request)
        return analytics.loss_response(await self._analyst.losses(account, sessions, self._allowed_us(context)))

    async def GetBudget(
        self, request: risk_analytics_pb2.GetBudgetRequest, context: Context
    ) -> risk_analytics_pb2.GetBudgetResponse:
        self._asked.admit(context, "GetBudget")
        inquiry = budget.budget_inquiry(request)
        return budget.budget_response(await self._analyst.budget(inquiry, self._allowed_us(context)))

    async def SizePosition(
        self, request: risk_analytics_pb2.SizePositionRequest, context: Context
    ) -> risk_analytics_pb2.SizePositionResponse:
        self._asked.admit(context, "SizePosition")
        inquiry = sizing.size_inquiry(request)
        return sizing.size_response(await self._analyst.size(inquiry, self._allowed_us(context)))

    async def PlanLiquidation(
        self, request: risk_analytics_pb2.PlanLiquidationRequest, context: Context
    ) -> risk_analytics_pb2.PlanLiquidationResponse:
        self._asked.admit(context, "PlanLiquidation")
        inquiry = liquidation.plan_inquiry(request)
        return liquidation.plan_response(await self._analyst.liquidation(inquiry, self._allowed_us(context)))

    def _allowed_us(self, context: Context) -> int:
        """Without a deadline the longest: a figure is not an order."""
        deadlines = self._deadlines
        return deadlines.max_us if context.time_remaining() is None else deadlines.allowed_us(context)
