"""The account log: one append-only chain of records per account, and a control head per partition.

`account_log` and `bulletin` say what a back end promises; `redis` and `memory` are the two that exist, held
to the same promises by tests/gateway/log/test_contract.py. Everything stored is bytes: what a record means
is the engine's business and nobody's here.
"""
