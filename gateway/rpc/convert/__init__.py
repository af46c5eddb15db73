"""The only bridge between protobuf and the engine.

`form` reads single fields and collects what is wrong with them, `requests` turns whole requests into engine values,
`responses` and `risk_state` turn engine values into messages. Pure: no I/O, no clock, no decision.
"""
