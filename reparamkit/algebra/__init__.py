"""The mathematics of affine maps on feature maps. No graph, no nn.Module, no I/O."""

from reparamkit.algebra.affine import IDENTITY, AffineMap, Numbers, ScalarMap
from reparamkit.algebra.geometry import Geometry, Inexact, Map, Scalar

__all__ = ["IDENTITY", "AffineMap", "Geometry", "Inexact", "Map", "Numbers", "Scalar", "ScalarMap"]
