"""Verification: probes that expose mistakes, a float64 oracle, runners for each back end, a verdict."""

from reparamkit.verify.check import assert_equivalent, check
from reparamkit.verify.oracle import run_float64
from reparamkit.verify.probes import Probe, probes
from reparamkit.verify.reference import Reference, inputs_accepted_by
from reparamkit.verify.runners import Runner, open_runner
from reparamkit.verify.verdict import Equivalence, OutputError

__all__ = [
    "Equivalence",
    "OutputError",
    "Probe",
    "Reference",
    "Runner",
    "assert_equivalent",
    "check",
    "inputs_accepted_by",
    "open_runner",
    "probes",
    "run_float64",
]
