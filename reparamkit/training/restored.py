"""The network of a checkpoint, built from its name and filled with its weights."""

from __future__ import annotations

import torch

from reparamkit.errors import UntrustedPickle, UnusableInput
from reparamkit.loading.source import Source
from reparamkit.loading.weights import fit_state_dict
from reparamkit.training.checkpoint import Checkpoint, is_code
from reparamkit.training.networks import open_network


def restored(
    checkpoint: Checkpoint, kind: str | None = None, *, code: str | None = None, trusted: bool = False
) -> Source:
    """The network with its weights, in evaluation mode, and an example of its input.

    Args:
        kind: as in `Checkpoint.weights`.
        code: the ``module:callable`` that the caller allows to run. A checkpoint might name any, so
            the name has to come from somebody who knows it.
        trusted: whatever the checkpoint names may run.

    Raises UnusableInput where the network cannot be built from its name, or is another one by now;
    `UntrustedPickle` where that would run code that the caller did not name.
    """
    about, folder = checkpoint.about, checkpoint.folder
    if about.model is None:
        raise UnusableInput(
            f"{folder} is a checkpoint of a network that was handed in as an object, and does not "
            "say how to build it; load model.safetensors into it yourself"
        )
    if code is not None and code != about.model:
        raise UnusableInput(f"{folder} is a checkpoint of {about.model}, not of {code}")
    if is_code(about.model) and code is None and not trusted:
        raise UntrustedPickle(
            f"{folder} is a checkpoint of {about.model}, which is code; name it yourself, "
            f"--model {about.model}, if you want it to run"
        )
    if not about.classes:
        raise UnusableInput(
            f"{folder} is a pre-trained encoder, which classifies nothing yet: "
            f"reparamkit train {about.model} --finetune {folder}"
        )
    module = open_network(about.model, len(about.classes), arguments=about.model_args).module
    try:
        fit_state_dict(module, checkpoint.weights(kind))
    except UnusableInput as error:
        raise UnusableInput(f"{folder} is a checkpoint of another {about.model}: {error}") from error
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(1, 3, about.input_size, about.input_size, generator=generator)
    average = checkpoint.kind(kind) == "ema"
    of = "the average of the weights" if average else "the weights of the last update"
    note = f"{folder}: {about.model}, {of}, after {about.epoch} epochs"
    name = about.model.replace(":", "_").replace(".", "_")
    return Source(module.eval(), name, folder, (example,), notes=(note,))
