"""The dense CRF: types, layouts, numbers that are none, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import deformops
from deformops import (
    Bilateral,
    FeatureKernel,
    Gaussian,
    PermutohedralLattice,
    dense_crf,
)
from deformops.nn import DenseCRF
from tests.cases import arrange, assert_close
from tests.crf_cases import random

# --- types, layouts, steps -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types(dtype: torch.dtype) -> None:
    """Half types are computed in float32 and rounded once; autocast changes nothing."""
    unary, image = random(1, 3, 5, 6).to(dtype), 50 * random(1, 3, 5, 6, seed=1).float()
    options: dict[str, Any] = {"pairwise": [Bilateral(3.0, 40.0, 2.0)]}
    want = dense_crf(unary.float(), image, **options)
    got = dense_crf(unary, image, **options)
    assert got.dtype == dtype
    assert torch.equal(got, want.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(dense_crf(unary.float(), image, **options), want)
        assert torch.equal(
            dense_crf(unary.float(), image, compatibility=torch.eye(3), **options),
            dense_crf(unary.float(), image, compatibility=torch.eye(3).double(), **options),
        )


def test_whole_numbers_and_layouts() -> None:
    image = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8)
    unary = random(2, 4, 5, 6)
    want = dense_crf(unary, image.double())
    assert torch.equal(dense_crf(unary, image), want)
    last = dense_crf(unary.contiguous(memory_format=torch.channels_last), image)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert_close(last, want)
    assert_close(dense_crf(arrange(unary, "strided"), arrange(image, "permuted")), want)


@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_steps_are_shown(method: str) -> None:
    unary, image = random(1, 3, 4, 5), random(1, 3, 4, 5, seed=1)
    options: dict[str, Any] = {"pairwise": [Bilateral(2.0, 1.0)], "method": method}
    shown: list[tuple[int, Tensor]] = []
    final = dense_crf(
        unary, image, iterations=3, on_step=lambda n, q: shown.append((n, q)), **options
    )
    assert [n for n, _ in shown] == [1, 2, 3]
    for n, q in shown:
        assert_close(q, dense_crf(unary, image, iterations=n, **options))
    assert_close(shown[-1][1], final)


def test_impossible_labels() -> None:
    """An infinite energy forbids a label and harms nothing else."""
    unary = random(1, 3, 4, 5)
    unary[0, 1, 2] = torch.inf
    for method in ("exact", "lattice"):
        q, kl = dense_crf(unary, pairwise=[Gaussian(2.0)], method=method, return_kl=True)
        assert (q[0, 1, 2] == 0).all()
        assert q.isfinite().all()
        assert kl.isfinite().all()


def test_log_does_not_underflow() -> None:
    unary = torch.zeros(1, 2, 1, 3)
    unary[0, 1] = 500.0
    q = dense_crf(unary, pairwise=[Gaussian(1.0)])
    log = dense_crf(unary, pairwise=[Gaussian(1.0)], log=True)
    assert (q[0, 1] == 0).all()
    assert (log[0, 1] < -490).all()
    assert log.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5)])
@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_empty(shape: tuple[int, ...], method: str) -> None:
    unary = torch.zeros(shape, requires_grad=True)
    image = torch.zeros(shape[0], 3, *shape[2:])
    for used in (unary, unary.detach()):
        output = dense_crf(used, image, method=method)
        assert output.shape == shape
    dense_crf(unary, image, method=method).sum().backward()


# --- bad input -----------------------------------------------------------------------------------

ops: Any = deformops  # which takes what it should not
layer: Any = DenseCRF
_UNARY, _IMAGE = torch.zeros(1, 2, 3, 4), torch.zeros(1, 3, 3, 4)
_LABELS = torch.zeros(1, 3, 4, dtype=torch.int64)

BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "unary's type": (lambda: ops.dense_crf(3), TypeError, "unary.*int"),
    "unary of integers": (lambda: ops.dense_crf(_LABELS[None], _IMAGE), TypeError, "unary.*int64"),
    "unary's rank": (lambda: ops.dense_crf(_UNARY[0, 0], _IMAGE), ValueError, r"unary.*\[3, 4\]"),
    "no labels": (lambda: ops.dense_crf(_UNARY[:, :0], _IMAGE), ValueError, "unary.*one label"),
    "image's size": (
        lambda: ops.dense_crf(_UNARY, _IMAGE[..., :3]),
        ValueError,
        r"image.*\[1, 3, 4\].*\[1, 3, 3, 3\]",
    ),
    "images": (
        lambda: ops.dense_crf(_UNARY, _IMAGE.repeat(2, 1, 1, 1)),
        ValueError,
        "image.*unary",
    ),
    "no image": (lambda: ops.dense_crf(_UNARY), ValueError, "image.*None"),
    "image's device": (
        lambda: ops.dense_crf(_UNARY, _IMAGE.to("meta")),
        ValueError,
        "image.*device",
    ),
    "steps": (lambda: ops.dense_crf(_UNARY, _IMAGE, iterations=-1), ValueError, "iterations.*-1"),
    "steps' type": (lambda: ops.dense_crf(_UNARY, _IMAGE, iterations=1.5), TypeError, "iterations"),
    "normalization": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, normalization="all"),
        ValueError,
        "normalization.*'after'.*'all'",
    ),
    "method": (lambda: ops.dense_crf(_UNARY, _IMAGE, method="fast"), ValueError, "method.*'fast'"),
    "terms": (lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=3), TypeError, "pairwise.*int"),
    "a term": (lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[3]), TypeError, "pairwise.*int"),
    "sigma": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[Gaussian(0.0)]),
        ValueError,
        r"^dense_crf: pairwise\[0\].sigma: .*above 0.*0.0",
    ),
    "sigma a word": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[Gaussian(1.0), ops.Bilateral("wide", 1.0)]),
        TypeError,
        r"^dense_crf: pairwise\[1\].sigma_xy: expected numbers, got 'wide'",
    ),
    "sigmas": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[Bilateral(1.0, (1.0, 2.0))]),
        ValueError,
        r"sigma_rgb.*3.*\[2\]",
    ),
    "small sigma": (
        lambda: ops.dense_crf(_UNARY, _IMAGE + 255, pairwise=[Bilateral(1.0, 1e-9)]),
        ValueError,
        r"^dense_crf: pairwise\[0\]: features: expected .*NaN",
    ),
    "weight": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[Gaussian(1.0, torch.ones(2))]),
        ValueError,
        "weight.*number",
    ),
    "compatibility": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, compatibility=[1.0, 2.0, 3.0]),
        ValueError,
        r"compatibility.*\[2\].*\[3\]",
    ),
    "compatibility of rows": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, compatibility=[[1.0, 2.0], [3.0]]),
        TypeError,
        r"^dense_crf: compatibility: expected numbers, got \[\[1.0, 2.0\], \[3.0\]\]",
    ),
    "weight a word": (
        lambda: ops.dense_crf(_UNARY, _IMAGE, pairwise=[ops.Gaussian(1.0, "much")]),
        TypeError,
        r"^dense_crf: pairwise\[0\].weight: expected numbers, got 'much'",
    ),
    "lattice": (
        lambda: ops.dense_crf(
            _UNARY, pairwise=[FeatureKernel(PermutohedralLattice(torch.zeros(1, 2, 3, 5)))]
        ),
        ValueError,
        r"pairwise\[0\].*lattice.*\[1, 3, 5\]",
    ),
    "exact lattice": (
        lambda: ops.dense_crf(
            _UNARY,
            pairwise=[FeatureKernel(PermutohedralLattice(torch.zeros(1, 2, 3, 4)))],
            method="exact",
        ),
        ValueError,
        "exact",
    ),
    "labels' type": (
        lambda: ops.crf_energy(_UNARY, None, _UNARY[:, 0], pairwise=[]),
        TypeError,
        "labels.*integers.*float32",
    ),
    "labels' size": (
        lambda: ops.crf_energy(_UNARY, None, _LABELS[:, :2], pairwise=[]),
        ValueError,
        "labels.*unary",
    ),
    "label": (
        lambda: ops.crf_energy(_UNARY, None, _LABELS + 2, pairwise=[]),
        ValueError,
        "labels from 0 to 1.*2",
    ),
    "grid's label": (
        lambda: ops.grid_energy(_UNARY, _LABELS - 1, torch.zeros(2, 2)),
        ValueError,
        "labels from 0 to 1.*-1",
    ),
    "grid's costs": (
        lambda: ops.grid_energy(_UNARY, _LABELS, [torch.zeros(2, 2)]),
        ValueError,
        "pairwise.*2",
    ),
    "label of a unary": (
        lambda: ops.unary_from_labels(_LABELS + 3, 2, 0.7),
        ValueError,
        "labels from 1 to 2.*3",
    ),
    "probability": (lambda: ops.unary_from_labels(_LABELS, 2, 1.0), ValueError, "gt_prob.*1.0"),
    "scale": (lambda: ops.unary_from_probabilities(_UNARY, scale=0.0), ValueError, "scale.*0.0"),
    "clip": (lambda: ops.unary_from_probabilities(_UNARY, clip=2.0), ValueError, "clip.*2.0"),
    "layer's labels": (lambda: layer(0), ValueError, "num_labels.*0"),
    "layer's labels, a word": (lambda: layer("two"), TypeError, "num_labels: .*integer.*'two'"),
    "layer's sigma": (
        lambda: layer(2, pairwise=[Gaussian(-1.0)]),
        ValueError,
        "sigma.*above 0.*-1.0",
    ),
    "layer's term": (
        lambda: layer(2, pairwise=[FeatureKernel(_IMAGE)]),
        TypeError,
        "pairwise.*FeatureKernel",
    ),
    "layer's unary": (lambda: layer(3)(_UNARY, _IMAGE), ValueError, r"compatibility.*\[3, 3\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, says = BAD[name]
    with pytest.raises(error, match=says):
        call()
