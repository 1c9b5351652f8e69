"""The numbers of a form: the affine map of each of its sources."""

from __future__ import annotations

from collections.abc import Callable

from reparamkit.algebra import Numbers
from reparamkit.engine.form import Form

Terms = dict[int, Numbers]
Below = Callable[[Form], Terms]
"""Gives the numbers of the forms that a form is composed of."""
