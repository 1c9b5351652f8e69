"""The mathematics of affine maps on feature maps. No graph, no nn.Module, no I/O."""

from reparamkit.algebra.affine import IDENTITY, AffineMap, Numbers, ScalarMap
from reparamkit.algebra.geometry import Geometry, Map, Scalar
from reparamkit.algebra.transposed import Transposed
from reparamkit.algebra.windows import Inexact

__all__ = [
    "IDENTITY",
    "AffineMap",
    "Geometry",
    "Inexact",
    "Map",
    "Numbers",
    "Scalar",
    "ScalarMap",
    "Transposed",
]
