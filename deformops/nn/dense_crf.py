"""DenseCRF: the dense CRF as a recurrent layer whose parameters are learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deformops.ops import DEEPLAB, Bilateral, Gaussian, dense_crf
from deformops.ops._checks import Checks


class _Term(nn.Module):
    """A pairwise term: its weight, and the logarithms of its bandwidths."""

    def __init__(self, term: Gaussian | Bilateral, dtype: torch.dtype, device: Any) -> None:
        super().__init__()

        def parameter(value: Any) -> nn.Parameter:
            return nn.Parameter(torch.as_tensor(value, dtype=dtype, device=device).detach().clone())

        self.weight = parameter(term.weight)
        if isinstance(term, Gaussian):
            self.log_sigma = parameter(term.sigma)
        else:
            self.log_sigma_xy = parameter(term.sigma_xy)
            self.log_sigma_rgb = parameter(term.sigma_rgb)
        with torch.no_grad():
            for name, sigma in self.named_parameters():
                if name != "weight":
                    if not bool((sigma > 0).all()):
                        expected = f"numbers above 0, got {sigma.tolist()}"
                        raise ValueError(f"DenseCRF: {name[4:]}: expected {expected}")
                    sigma.log_()

    def forward(self) -> Gaussian | Bilateral:
        """The term as `dense_crf` takes it."""
        if hasattr(self, "log_sigma"):
            return Gaussian(self.log_sigma.exp(), self.weight)
        return Bilateral(self.log_sigma_xy.exp(), self.log_sigma_rgb.exp(), self.weight)

    def extra_repr(self) -> str:
        """The present numbers."""
        numbers = [f"weight={_text(self.weight)}"]
        for name, value in self.named_parameters():
            if name != "weight":
                numbers.append(f"{name[4:]}={_text(value.exp())}")
        return ", ".join(numbers)


class DenseCRF(nn.Module):
    """Mean field in a dense CRF as a layer: "CRF as RNN".

    Weights and bandwidths of the pairwise terms and the compatibility of labels are parameters, and
    the gradients reach whatever computes the unary energies, and the image. Everything that
    `deformops.dense_crf` has is here: any labels, any channels, 1 to 3 spatial dimensions, batches.

    The state_dict has, for term k in the order of `pairwise`,

        terms.k.weight           []
        terms.k.log_sigma        [] or one for each axis       Gaussian
        terms.k.log_sigma_xy     [] or one for each axis       Bilateral
        terms.k.log_sigma_rgb    [] or one for each channel    Bilateral
        compatibility            [L, L]

    Bandwidths are stored as logarithms, so that they stay above 0. The compatibility is the penalty
    mu of two labels beside each other, of which the symmetric part counts; it starts as Potts', 1
    where labels differ.

    Args:
        num_labels: L.
        pairwise: `deformops.Gaussian` and `deformops.Bilateral` terms: where learning starts, and
            how many bandwidths there are. None: DeepLab's, for colours from 0 to 255.
        iterations: steps; may be changed at any time, CRF as RNN trains with 5 and tests with 10.
        normalization: see `deformops.dense_crf`.
        method: likewise.
        self_message: likewise.
        device: where the parameters are made.
        dtype: their type.

    Raises:
        ValueError: an argument does not fit.
        TypeError: an argument has the wrong type.

    Example:
        >>> crf = DenseCRF(num_labels=21)
        >>> log_q = crf(-network(image), image, log=True)
        >>> loss = torch.nn.functional.nll_loss(log_q, labels, ignore_index=255)

    Source: Zheng et al., Conditional Random Fields as Recurrent Neural Networks (2015).
    """

    def __init__(
        self,
        num_labels: int,
        *,
        pairwise: Sequence[Gaussian | Bilateral] | None = None,
        iterations: int = 5,
        normalization: str = "symmetric",
        method: str = "lattice",
        self_message: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        Checks("DenseCRF").integer("num_labels", num_labels)
        if num_labels < 1:
            raise ValueError(f"DenseCRF: num_labels: expected at least 1, got {num_labels}")
        self.num_labels = num_labels
        self.iterations = iterations
        self.normalization = normalization
        self.method = method
        self.self_message = self_message
        kind = torch.get_default_dtype() if dtype is None else dtype
        terms = []
        for term in DEEPLAB if pairwise is None else pairwise:
            if not isinstance(term, (Gaussian, Bilateral)) or term.compatibility is not None:
                raise TypeError(
                    "DenseCRF: pairwise: expected Gaussian and Bilateral without compatibilities "
                    f"of their own, got {term!r}"
                )
            terms.append(_Term(term, kind, device))
        self.terms = nn.ModuleList(terms)
        self.compatibility = nn.Parameter(
            torch.empty(num_labels, num_labels, device=device, dtype=kind)
        )
        self.reset_compatibility()

    def reset_compatibility(self) -> None:
        """Makes the compatibility Potts': 1 where labels differ."""
        with torch.no_grad():
            self.compatibility.fill_(1.0).fill_diagonal_(0.0)

    def forward(self, unary: Tensor, image: Tensor | None = None, *, log: bool = False) -> Tensor:
        """Infers the labels.

        Args:
            unary: [N, L, ...] energies: for logits of a network, these with a minus sign.
            image: [N, C, ...].
            log: return log Q: for losses.

        Returns:
            Q, or log Q, [N, L, ...].
        """
        return dense_crf(
            unary,
            image,
            pairwise=[term() for term in self.terms],
            iterations=self.iterations,
            normalization=self.normalization,
            compatibility=self.compatibility,
            method=self.method,
            self_message=self.self_message,
            log=log,
        )

    def extra_repr(self) -> str:
        """What the constructor was told, where it is not the default."""
        text = f"num_labels={self.num_labels}, iterations={self.iterations}"
        for name, default in (
            ("normalization", "symmetric"),
            ("method", "lattice"),
            ("self_message", True),
        ):
            value = getattr(self, name)
            text += f", {name}={value!r}" if value != default else ""
        return text


def _text(value: Tensor) -> str:
    numbers = [f"{number:.3g}" for number in value.detach().reshape(-1).tolist()]
    return numbers[0] if value.dim() == 0 else f"[{', '.join(numbers)}]"
