"""Runners: one small file per back end; `open` chooses among them, `base` says what each must offer."""
