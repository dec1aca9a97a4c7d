"""Is this installation sound? A few ops, numbers checked, in seconds; needs torch and nothing else.

    python tests/smoke.py

Run by .ci/run in environments that have only the wheel, with the oldest and the newest torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
import torch.nn.functional as F

import deformops


def check(what: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    error = (actual - expected).abs().max().item()
    assert error <= tolerance, f"{what}: off by {error:.1e}"
    print(f"  {what}: within {error:.1e}")


def convolution_at_zero_offsets() -> None:
    input, weight, bias = torch.randn(2, 6, 9, 11), torch.randn(4, 3, 3, 3), torch.randn(4)
    offset, mask = torch.zeros(2, 18, 9, 11), torch.ones(2, 9, 9, 11)
    expected = F.conv2d(input, weight, bias, padding=2, dilation=2, groups=2)
    actual = deformops.deform_conv2d(input, offset, weight, bias, padding=2, dilation=2, mask=mask)
    check("deform_conv2d with zero offsets", actual, expected)
    for algorithm in ("auto", "direct", "holes", "subsample", "winograd"):
        actual = deformops.atrous_conv2d(
            input, weight, bias, padding=2, dilation=2, groups=2, algorithm=algorithm
        )
        check(f"atrous_conv2d, {algorithm}", actual, expected)


def bilinear_weights() -> None:
    input = torch.tensor([[1.0, 2.0], [3.0, 5.0]]).reshape(1, 1, 2, 2)
    offset = torch.tensor([0.25, 0.5]).reshape(1, 2, 1, 1).expand(1, 2, 2, 2)
    # At (y, x) = (0.25, 0.5): 0.75 * (1 + 2) / 2 + 0.25 * (3 + 5) / 2. Beyond the map is zero.
    expected = torch.tensor([[2.125, 1.375], [3.0, 1.875]]).reshape(1, 1, 2, 2)
    actual = deformops.deform_conv2d(input, offset, torch.ones(1, 1, 1, 1))
    check("deform_conv2d between pixels", actual, expected, 1e-6)


def transpose_identity() -> None:
    input, offset = torch.randn(1, 2, 7, 6).double(), torch.randn(1, 18, 7, 6).double()
    columns = deformops.gather_columns(input, (3, 3), padding=1, offset=offset)
    other = torch.randn_like(columns)
    back = deformops.scatter_columns(other, (7, 6), (3, 3), padding=1, offset=offset)
    check("<gather x, y> = <x, scatter y>", (columns * other).sum(), (input * back).sum(), 1e-10)


def gradients() -> None:
    def function(*arguments: torch.Tensor) -> torch.Tensor:
        input, offset, weight, mask = arguments
        return deformops.deform_conv2d(input, offset, weight, padding=1, mask=mask)

    shapes = [(1, 2, 4, 5), (1, 18, 4, 5), (3, 2, 3, 3), (1, 9, 4, 5)]
    arguments = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(function, arguments)
    print("  deform_conv2d: gradients agree with finite differences")


def transforms() -> None:
    """What rests on parts of torch that may move between versions."""

    def convolve(input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return deformops.deform_conv2d(input, offset, weight, padding=1)

    def pool(input: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return deformops.roi_pool(input * factor, boxes, 2)

    offset, weight = torch.rand(1, 18, 3, 4).double(), torch.randn(2, 2, 3, 3).double()
    boxes, factor = torch.tensor([[0.0, 0, 0, 3, 2], [0, 1, 1, 2, 2]]), torch.rand(3, 4).double()
    transforms_of("deform_conv2d", convolve, weight)
    transforms_of("roi_pool", pool, factor)


def transforms_of(
    name: str,
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    parameter: torch.Tensor,
) -> None:
    input, inputs = torch.randn(1, 2, 3, 4).double(), torch.randn(3, 1, 2, 3, 4).double()
    forwards = torch.func.jacfwd(function)(input, parameter)
    backwards = torch.func.jacrev(function)(input, parameter)
    check(f"{name}: jacfwd = jacrev", forwards, backwards, 1e-10)
    loop = torch.stack([function(one, parameter) for one in inputs])
    batched = torch.vmap(function, (0, None))(inputs, parameter)
    check(f"{name}: vmap = loop", batched, loop, 1e-10)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    leaf = input.clone().requires_grad_()
    check(f"{name}: compiled", compiled(leaf, parameter), function(input, parameter), 1e-10)
    (got,) = torch.autograd.grad(compiled(leaf, parameter).sin().sum(), leaf)
    (want,) = torch.autograd.grad(function(leaf, parameter).sin().sum(), leaf)
    check(f"{name}: gradient of compiled", got, want, 1e-10)


def pooling() -> None:
    ramp = torch.arange(48.0).reshape(1, 1, 6, 8)
    boxes = [torch.tensor([[1.0, 1.0, 4.0, 4.0]])]
    check("roi_pool", deformops.roi_pool(ramp, boxes, 2)[0, 0], ramp[0, 0, 2:5:2, 2:5:2], 0)
    middle = deformops.roi_align(ramp, boxes, 1, 1.0, 2, True)
    check("roi_align", middle.flatten(), torch.tensor([2 * 8 + 2.0]), 1e-5)
    offset = torch.tensor([2.5, 0.0]).reshape(1, 2, 1, 1)
    still, moved = (deformops.deform_roi_pool(ramp, boxes, o, 1) for o in (None, offset))
    check("deform_roi_pool, a quarter of four pixels", moved - still, torch.ones(1), 1e-5)


def main() -> None:
    info = json.loads(torch.ops.deformops.build_info())
    print(f"deformops {deformops.__version__} from {deformops.__file__}")
    print(f"torch {torch.__version__}; {', '.join(f'{name} {info[name]}' for name in info)}")
    torch.manual_seed(0)
    parts = (
        convolution_at_zero_offsets,
        bilinear_weights,
        transpose_identity,
        gradients,
        pooling,
        transforms,
    )
    for part in parts:
        part()
    print("sound")


if __name__ == "__main__":
    main()
