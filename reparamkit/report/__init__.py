"""Findings and verdicts for a terminal, a CI system, a browser: plain data in, text out."""
