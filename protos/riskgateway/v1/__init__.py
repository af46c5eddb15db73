"""Version 1 of the contract: `*_pb2` messages and `*_pb2_grpc` stubs, generated from the .proto files beside them.

What must not live here: anything written by hand. Change the .proto, run `protos/generate`, commit both.
"""
