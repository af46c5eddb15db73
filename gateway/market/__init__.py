"""Market data: daily closes from files, and the sample instruments of the demo.

What comes in from outside is checked here, once, and named by file, line and column when it is wrong. No risk numbers.
"""
