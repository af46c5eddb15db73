"""RiskAnalytics: the worker's figures on demand. Nothing is behind it yet: all methods are UNIMPLEMENTED."""

from riskgateway.v1 import risk_analytics_pb2_grpc


class RiskAnalytics(risk_analytics_pb2_grpc.RiskAnalyticsServicer):
    """The generated base answers for all methods."""
