"""The losses of training, as functions of logits (N, K).

    base          (1/N) Σ_n Σ_k −q_nk log softmax(z_n)_k,   q = (1 − ε) t + ε/K
    distillation  (1 − α) · base + α · d
        soft      d = τ² (1/N) Σ_n KL(softmax(u_n/τ) ‖ softmax(z_n/τ))
        hard      d = (1/N) Σ_n −log softmax(z_n)[argmax_k u_nk]

`t` are the labels, as class indices or, where images are mixed, as probabilities; `u` the logits of the
teacher, which is frozen and in evaluation mode. τ² keeps the gradient's size independent of the temperature
(Hinton et al., 2015, arXiv:1503.02531); the hard form is that of DeiT (Touvron et al., 2021,
arXiv:2012.12877). DeiT's code divides the soft form by N · K; here it is a mean over the images, as written.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from reparamkit.errors import UnusableInput


def base_loss(logits: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy, a scalar; `target` is (N) of class indices or (N, K) of probabilities."""
    return F.cross_entropy(logits, target, label_smoothing=label_smoothing)


def soft_distillation(logits: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """τ² times the Kullback-Leibler divergence from the teacher's probabilities, both at temperature τ."""
    divergence = F.kl_div(
        F.log_softmax(logits / tau, -1),
        F.log_softmax(teacher / tau, -1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * tau**2


def hard_distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy with the teacher's decisions."""
    return F.cross_entropy(logits, teacher.argmax(-1))


def distilled(base: Tensor, logits: Tensor, teacher: Tensor, kind: str, alpha: float, tau: float) -> Tensor:
    """(1 − alpha) · base + alpha · distillation; `kind` is "soft" or "hard".

    Raises UnusableInput where teacher and student tell other numbers of classes apart.
    """
    if teacher.shape != logits.shape:
        raise UnusableInput(
            f"the teacher tells {teacher.shape[-1]} classes apart and the network {logits.shape[-1]}; "
            "give a teacher that was trained on the same classes"
        )
    if kind == "hard":
        return (1 - alpha) * base + alpha * hard_distillation(logits, teacher)
    return (1 - alpha) * base + alpha * soft_distillation(logits, teacher, tau)
