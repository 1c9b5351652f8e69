"""Lowering: from a module to a file that another runtime reads, verified before it appears."""
