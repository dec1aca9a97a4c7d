"""atrous_conv2d by all its algorithms, and insert_holes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import deformops
from tests import reference
from tests.cases import Case, arrange, assert_close, cases, make_case, numpy, pairs
from tests.reference import Geometry

ALGORITHMS = ("auto", "direct", "holes", "subsample")


def groups_of(case: Case) -> int:
    return case.input.shape[1] // case.weight.shape[1]


def call(case: Case, algorithm: str, **changed: Tensor) -> Tensor:
    tensors: dict[str, Any] = {
        name: changed.get(name, getattr(case, name)) for name in ("input", "weight", "bias")
    }
    return deformops.atrous_conv2d(
        **tensors, **case.window, groups=groups_of(case), algorithm=algorithm
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(case=cases(borders=False))
def test_matches_reference(algorithm: str, case: Case) -> None:
    want = reference.atrous_conv2d(
        **case.arrays("input", "weight", "bias"), **case.window, groups=groups_of(case)
    )
    assert_close(call(case, algorithm), want)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(case=cases(borders=False))
def test_gradients_are_conv2ds(algorithm: str, case: Case) -> None:
    def gradients(convolve: Any) -> tuple[Tensor, ...]:
        leaves = {
            name: getattr(case, name).detach().requires_grad_()
            for name in ("input", "weight", "bias")
            if getattr(case, name) is not None
        }
        output = convolve(**leaves, **case.window, groups=groups_of(case))
        return torch.autograd.grad(output, list(leaves.values()), case.grad_output)

    def ours(**arguments: Any) -> Tensor:
        return deformops.atrous_conv2d(**arguments, algorithm=algorithm)

    for got, want in zip(gradients(ours), gradients(F.conv2d), strict=True):
        assert_close(got, want)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("rate", [2, 3, 5])
def test_any_size(algorithm: str, rate: int) -> None:
    """Sizes that the rate divides and sizes that it does not, down to one row."""
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    for height in range(1, 14):
        image = torch.randn(1, 3, height, 15 - height, dtype=torch.float64)
        for stride in (1, 2, 3):
            options: dict[str, Any] = {"stride": stride, "padding": rate, "dilation": rate}
            got = deformops.atrous_conv2d(image, weight, **options, algorithm=algorithm)
            assert_close(got, F.conv2d(image, weight, **options), context=f"{height}, {stride}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_types(algorithm: str, dtype: torch.dtype) -> None:
    case = make_case(Geometry((3, 3), padding=(2, 2), dilation=(2, 2)), groups=2, dtype=dtype)
    want = reference.atrous_conv2d(
        **case.arrays("input", "weight", "bias"), **case.window, groups=2
    )
    got = call(case, algorithm)
    assert got.dtype == dtype
    # torch's convolution sums in its own way: a unit in the last place of the largest is allowed.
    tolerance = 4 * torch.finfo(dtype).eps * float(abs(want).max())
    torch.testing.assert_close(got.double(), torch.from_numpy(want), rtol=0, atol=tolerance)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_channels_last_in_channels_last_out(algorithm: str) -> None:
    for dilation in (1, 2, 5):
        for layout in ("channels_last", "contiguous"):
            case = make_case(
                Geometry((3, 3), padding=(dilation,) * 2, dilation=(dilation,) * 2),
                group_channels=8,
                group_out_channels=8,
                input_size=(11, 12),
                dtype=torch.float32,
                layouts={"input": layout},
            )
            output = call(case, algorithm)
            wanted = torch.channels_last if layout != "contiguous" else torch.contiguous_format
            assert output.is_contiguous(memory_format=wanted), (dilation, layout)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_empty_batch(algorithm: str) -> None:
    case = make_case(Geometry((3, 3), padding=(2, 2), dilation=(2, 2)), batch=0)
    image = case.input.requires_grad_()
    output = call(case, algorithm)
    assert output.shape == (0, 2, 5, 6)
    output.sum().backward()
    assert image.grad is not None
    assert image.grad.shape == image.shape


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_derivatives(algorithm: str) -> None:
    case = make_case(Geometry((2, 2), (1, 2), (2, 1), (2, 3)), batch=1, group_channels=1)
    leaves = [tensor.requires_grad_() for tensor in (case.input, case.weight)]

    def function(image: Tensor, weight: Tensor) -> Tensor:
        return deformops.atrous_conv2d(image, weight, **case.window, algorithm=algorithm)

    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, leaves)


@given(
    size=pairs(1, 4),
    dilation=pairs(1, 5),
    layout=st.sampled_from(("contiguous", "channels_last", "permuted", "strided")),
)
def test_insert_holes_matches_reference(
    size: tuple[int, int], dilation: tuple[int, int], layout: str
) -> None:
    weight = arrange(torch.randn(3, 2, *size, dtype=torch.float64), layout)
    got = deformops.insert_holes(weight, dilation)
    assert torch.equal(got, torch.from_numpy(reference.insert_holes(numpy(weight), dilation)))


def test_insert_holes_accepts_one_number() -> None:
    weight = torch.randn(1, 1, 2, 3)
    assert torch.equal(deformops.insert_holes(weight, 3), deformops.insert_holes(weight, (3, 3)))


def test_insert_holes_gradient_picks_the_taps() -> None:
    weight = torch.randn(1, 2, 3, 2, requires_grad=True)
    spread = deformops.insert_holes(weight, (2, 3))
    cotangent = torch.randn_like(spread)
    (gradient,) = torch.autograd.grad(spread, weight, cotangent)
    assert torch.equal(gradient, cotangent[:, :, ::2, ::3])


def test_holes_convolve_like_dilation() -> None:
    """Method 1 of DeepLab, by hand: a plain convolution with the larger kernel."""
    image = torch.randn(2, 3, 17, 19, dtype=torch.float64)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    for dilation in ((1, 1), (2, 2), (3, 1), (1, 4)):
        plain = F.conv2d(image, deformops.insert_holes(weight, dilation), padding=1)
        assert_close(plain, F.conv2d(image, weight, padding=1, dilation=dilation))


def reach(layers: Any, pixels: int = 32) -> int:
    """How many input pixels three neighbouring outputs of a one-dimensional stack look at."""
    image = torch.zeros(1, 1, 1, pixels, requires_grad=True)
    output = layers(image)
    middle = output.shape[-1] // 2
    (gradient,) = torch.autograd.grad(output[..., middle - 1 : middle + 2].sum(), image)
    seen = gradient.flatten().nonzero()
    return int(seen.max() - seen.min()) + 1


def test_field_of_view() -> None:
    """Three neighbours after pooling with stride 2 see 7 pixels; with stride 1, 5; atrous, 7."""
    kernel = torch.ones(1, 1, 1, 1)

    def pooled(image: Tensor, stride: int) -> Tensor:
        return F.avg_pool2d(image, (1, 3), (1, stride))

    assert reach(lambda image: F.conv2d(pooled(image, 2), kernel)) == 7
    assert reach(lambda image: F.conv2d(pooled(image, 1), kernel)) == 5

    taps = torch.ones(1, 1, 1, 3)

    def atrous(image: Tensor) -> Tensor:
        return deformops.atrous_conv2d(pooled(image, 1), taps, dilation=(1, 2))

    image = torch.zeros(1, 1, 1, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(atrous(image)[0, 0, 0, 10], image)
    seen = gradient.flatten().nonzero()
    assert int(seen.max() - seen.min()) + 1 == 7
