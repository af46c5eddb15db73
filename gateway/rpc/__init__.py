"""The gRPC border: one module per service, and what they share.

`convert` is the only bridge between protobuf and engine, `status` the one table from exceptions to gRPC codes, `caller`
says who may do what, `server` builds and drains. Nothing is decided here.
"""
