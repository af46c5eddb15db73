"""Calendars of events: one file a source, each of the one shape in source.py. What an event does stands in engine."""
