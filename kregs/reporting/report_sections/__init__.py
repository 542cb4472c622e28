"""Sections of the report of a search: each reads facts and returns what the template shows."""
