"""dense_crf: mean field in a conditional random field that connects all pairs of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from deformops.ops import _mean_field
from deformops.ops._points import like_map
from deformops.ops.pairwise import DEEPLAB, Compatibility, Pairwise

OnStep = Callable[[int, Tensor], None]


@overload
def dense_crf(
    unary: Tensor,
    image: Tensor | None = ...,
    *,
    pairwise: Sequence[Pairwise] | None = ...,
    iterations: int = ...,
    normalization: str = ...,
    compatibility: Compatibility | None = ...,
    method: str = ...,
    self_message: bool = ...,
    log: bool = ...,
    return_kl: Literal[False] = ...,
    on_step: OnStep | None = ...,
) -> Tensor: ...


@overload
def dense_crf(
    unary: Tensor,
    image: Tensor | None = ...,
    *,
    pairwise: Sequence[Pairwise] | None = ...,
    iterations: int = ...,
    normalization: str = ...,
    compatibility: Compatibility | None = ...,
    method: str = ...,
    self_message: bool = ...,
    log: bool = ...,
    return_kl: Literal[True],
    on_step: OnStep | None = ...,
) -> tuple[Tensor, Tensor]: ...


def dense_crf(
    unary: Tensor,
    image: Tensor | None = None,
    *,
    pairwise: Sequence[Pairwise] | None = None,
    iterations: int = 10,
    normalization: str = "symmetric",
    compatibility: Compatibility | None = None,
    method: str = "lattice",
    self_message: bool = True,
    log: bool = False,
    return_kl: bool = False,
    on_step: OnStep | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Approximates the marginals of a dense CRF by mean field.

    A labelling x of the pixels of an image has the probability exp(-E(x)) / Z, where

        E(x) = sum_i unary_i(x_i) + sum_{i < j} sum_k w_k mu_k(x_i, x_j) K_k(i, j).

    K_k are Gaussian kernels of positions, of positions and colours, or of any features; mu(l, m) is
    what the labels l and m cost beside each other. From Q = softmax(-unary) on, a step is

        Q_i(l) <- softmax_l( -unary_i(l) - sum_k w_k sum_m mu_k(l, m) sum_j K_k(i, j) Q_j(m) ).

    With the defaults these are the numbers of `pydensecrf`, for the arguments that DeepLab uses.
    Differentiable to any order, backwards and forwards, in unary and image and in the bandwidths,
    weights and compatibilities that are tensors.

    Where nobody wants derivatives (`torch.no_grad`, or nothing requires them), log or return_kl,
    all steps on lattices are one call that keeps nothing: it is faster, and takes for two terms 8
    to 10 times the memory of unary, 160 MB for 500 x 375 pixels of 21 labels and 1.3 GB for
    2048 x 1024 of 19, lattices and result included (on photos; the more their colours vary, the
    more vertices there are). With derivatives each step keeps its Q besides, and where weights or
    compatibilities learn, what each filter gave. On the CPU results have the same bits for any
    number of threads.

    Args:
        unary: [N, L, ...] energies, -log of probabilities up to a constant for each pixel; see
            `unary_from_probabilities` and `unary_from_labels`. Any number of spatial dimensions.
            Infinite: the pixel cannot have the label.
        image: [N, C, ...] of the same spatial dimensions, any channels, floating-point numbers or
            integers; what `Bilateral` terms look at, in units that fit their sigma_rgb. None if
            there are no such terms.
        pairwise: `Gaussian`, `Bilateral` and `FeatureKernel` terms. None: DeepLab's, which are
            Gaussian(1, weight=3) and Bilateral(67, 3, weight=4), for colours from 0 to 255.
        iterations: steps.
        normalization: what each K is divided by; s are the sums of its rows, j = i included.
            "symmetric" (as pydensecrf): K_ij / sqrt(s_i s_j); "after" (DeepLab's own code):
            K_ij / s_i; "before": K_ij / s_j; "none". Only "symmetric" and "none" belong to a
            symmetric K, and so to an energy.
        compatibility: the penalty mu of all terms that have none of their own. None or a number c:
            Potts, c (default 1) where l != m, 0 where they are the same. A vector v, [L]: v_l
            where both have the label l, 0 where they differ; positive numbers push apart, negative
            ones attract. A matrix [L, L]: its symmetric part.
        method: "lattice" approximates K on the permutohedral lattice, in linear time; "exact" sums
            over all pairs, which takes some tenths of a second a step for 5,000 pixels, and 100
            times that for 50,000.
        self_message: whether j = i takes part in the step, as in pydensecrf. Without it the
            response of a pixel to itself is taken out (on the lattice, the lattice's).
        log: return log Q, which does not underflow: for losses.
        return_kl: return also the free energy of Q before each step and at the end.
        on_step: called after each step with its number, from 1 on, and Q.

    Returns:
        Q, [N, L, ...], of the type of unary: half types are computed in float32. With
        `return_kl`, also [iterations + 1, N]: the expected energy under Q, each pair once, less
        the entropy of Q, which is KL(Q | P) - log Z. Exactly so with `self_message=False`; else
        pixels are pairs with themselves, too.

    Raises:
        ValueError: a shape, a number or an option does not fit; features are too large for the
            lattice, NaN or infinite, which happens where a sigma is too small.
        TypeError: an argument has the wrong type.

    Example:
        >>> probabilities = network(image).softmax(1)
        >>> unary = deformops.unary_from_probabilities(probabilities)
        >>> labels = deformops.dense_crf(unary, image).argmax(1)

    Source: Kraehenbuehl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge
    Potentials (2011); Chen et al., DeepLab (2016), section 3.3.
    """
    if isinstance(iterations, bool) or not isinstance(iterations, int):
        raise TypeError(f"dense_crf: iterations: expected an integer, got {iterations!r}")
    if iterations < 0:
        raise ValueError(f"dense_crf: iterations: expected an integer >= 0, got {iterations}")
    # Filters sum over thousands of pixels: not in half precision.
    with torch.autocast(_device_type(unary), enabled=False):
        crf = _mean_field.build(
            "dense_crf",
            unary,
            image,
            DEEPLAB if pairwise is None else pairwise,
            normalization=normalization,
            compatibility=compatibility,
            method=method,
            self_message=self_message,
        )

        def show(number: int, q: Tensor) -> None:
            if on_step is not None:
                on_step(number, like_map(q, unary))

        if crf.fusible and not (return_kl or log):
            q = crf.run(0 if on_step is not None else iterations, None)
            for number in range(1, iterations + 1) if on_step is not None else ():
                q = crf.run(1, q)
                show(number, q)
            return like_map(q, unary)

        crf = crf.contiguous()
        logits = -crf.unary
        energies = []
        for number in range(iterations + 1):
            q = logits.softmax(2)
            if number > 0:
                show(number, q)
            if return_kl:
                energies.append(crf.energy(q) - torch.special.entr(q).sum((1, 2)))
            if number < iterations:
                logits = crf.logits(q)
        result = like_map(logits.log_softmax(2) if log else q, unary)
        return (result, torch.stack(energies)) if return_kl else result


def _device_type(unary: object) -> str:
    return unary.device.type if isinstance(unary, Tensor) else "cpu"
