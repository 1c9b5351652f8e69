"""Verification: probes that expose mistakes, a float64 oracle, runners for each back end, a verdict.

`check` asks whether two networks can be exchanged for each other; `compare`, in the file of that name, asks
the same of any two, whatever their back ends, names and precisions, and can answer that it cannot tell.
"""

from reparamkit.verify.check import assert_equivalent, check
from reparamkit.verify.comparison import Comparison
from reparamkit.verify.criteria import Criteria
from reparamkit.verify.oracle import run_float64
from reparamkit.verify.probes import Probe, probes
from reparamkit.verify.recorded import Recorded
from reparamkit.verify.reference import Reference, inputs_accepted_by
from reparamkit.verify.runners import Runner, open_runner
from reparamkit.verify.verdict import Equivalence, OutputError

__all__ = [
    "Comparison",
    "Criteria",
    "Equivalence",
    "OutputError",
    "Probe",
    "Recorded",
    "Reference",
    "Runner",
    "assert_equivalent",
    "check",
    "inputs_accepted_by",
    "open_runner",
    "probes",
    "run_float64",
]
