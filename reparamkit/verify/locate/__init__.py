"""Where two networks begin to differ. Only asked once they do, and bounded in time and memory."""

from reparamkit.verify.locate.locating import SECONDS, locate
from reparamkit.verify.locate.location import Location, Step

__all__ = ["SECONDS", "Location", "Step", "locate"]
