"""Probes that expose mistakes, a float64 oracle, and one comparator with one verdict for one pair."""
