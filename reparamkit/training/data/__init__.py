"""Images with labels: where they come from, and how they become batches.

sources     digits, a folder, a file or a name that Hugging Face datasets reads, a callable
images      one image: decoded, cropped, of the network's size
loader      the order of an epoch, and who of several processes gets what
"""

from reparamkit.training.data.loader import Batch, training_batches, validation_batches
from reparamkit.training.data.sources import Data, open_data

__all__ = ["Batch", "Data", "open_data", "training_batches", "validation_batches"]
