"""Root of the generated client code of the gateway's gRPC contract.

What lives here: nothing but the versioned packages, `riskgateway.v1`.
What must not: hand-written code; the client library is `gateway.client`.
"""
