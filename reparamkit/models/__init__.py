"""Reference architectures in their training-time form, as published: what there is to fold."""

from reparamkit.models.families import ModelInfo
from reparamkit.models.randomize import randomize
from reparamkit.models.registry import build, create, info, names

__all__ = ["ModelInfo", "build", "create", "info", "names", "randomize"]
