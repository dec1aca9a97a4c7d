"""atrous_conv2d by all its algorithms, and insert_holes."""

from __future__ import annotations

from functools import partial
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

ALGORITHMS = ("auto", "direct", "holes", "subsample", "winograd")


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


# Many channels, for which a kernel of our own computes output: steps of channels, parts of output
# channels, rows longer than a patch, strips that taps share and strips that they do not, taps that
# are nowhere on the map. (batch, in, out, size, kernel, stride, padding, dilation)
OWN_KERNEL = {
    "steps": (1, 300, 70, (13, 15), (3, 3), (1, 1), (2, 2), (2, 2)),
    "parts": (1, 64, 600, (9, 10), (3, 3), (1, 1), (1, 1), (1, 1)),
    "batch": (5, 65, 64, (7, 6), (2, 3), (1, 1), (1, 2), (1, 2)),
    "long rows": (1, 64, 64, (3, 500), (3, 3), (1, 1), (2, 40), (2, 40)),
    "far apart": (2, 70, 64, (30, 41), (3, 3), (1, 1), (12, 12), (12, 12)),
    "beyond the map": (1, 64, 66, (9, 8), (3, 3), (1, 1), (20, 20), (20, 20)),
    "strides": (1, 64, 64, (33, 32), (3, 2), (2, 3), (4, 1), (3, 5)),
    "one tap": (2, 64, 64, (20, 21), (1, 1), (2, 2), (0, 0), (1, 1)),
    "only padding": (1, 64, 64, (2, 3), (1, 1), (3, 3), (4, 5), (1, 1)),
}


def make_many_channels(name: str, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    batch, channels, out_channels, size, kernel, stride, padding, dilation = OWN_KERNEL[name]
    tensors = {
        "input": torch.randn(batch, channels, *size),
        "weight": torch.randn(out_channels, channels, *kernel) / channels**0.5,
        "bias": torch.randn(out_channels),
    }
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    return {key: tensor.to(dtype) for key, tensor in tensors.items()}, window


def assert_close_to_exact(got: Tensor, exact: Tensor) -> None:
    """Up to the rounding of sums, and of the result if its type is a half type."""
    roundings = 1 if got.dtype in (torch.float16, torch.bfloat16) else 32
    tolerance = roundings * torch.finfo(got.dtype).eps * float(exact.detach().abs().amax())
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", OWN_KERNEL)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_many_channels(name: str, layout: torch.memory_format) -> None:
    tensors, window = make_many_channels(name, torch.float32)
    exact: dict[str, Any] = {
        key: tensor.double().requires_grad_() for key, tensor in tensors.items()
    }
    for key in ("input", "weight"):
        tensors[key] = tensors[key].contiguous(memory_format=layout)
    leaves = {key: tensor.requires_grad_() for key, tensor in tensors.items()}
    want, got = F.conv2d(**exact, **window), deformops.atrous_conv2d(**leaves, **window)
    assert got.is_contiguous(memory_format=layout)
    assert_close_to_exact(got, want)
    cotangent = torch.randn_like(got)
    gradients = torch.autograd.grad(got, list(leaves.values()), cotangent)
    exact_gradients = torch.autograd.grad(want, list(exact.values()), cotangent.double())
    for gradient, exact_gradient in zip(gradients, exact_gradients, strict=True):
        scale = float(exact_gradient.abs().amax()) or 1.0
        torch.testing.assert_close(gradient.double(), exact_gradient, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("name", OWN_KERNEL)
def test_regular_taps(name: str, dtype: torch.dtype) -> None:
    """The same kernel in all types and layouts; the same bits for any number of threads."""
    tensors, window = make_many_channels(name, dtype)
    exact: list[Any] = [tensor.double() for tensor in tensors.values()]
    want = F.conv2d(*exact, **window)
    threads = torch.get_num_threads()
    for input_layout in ("contiguous", "channels_last", "permuted", "strided"):
        for weight_layout in ("contiguous", "channels_last"):
            image = arrange(tensors["input"], input_layout)
            weight = arrange(tensors["weight"], weight_layout)
            results = []
            try:
                for count in (1, 2, 3):
                    torch.set_num_threads(count)
                    results.append(
                        torch.ops.deformops.deform_conv2d(
                            image,
                            None,
                            weight,
                            tensors["bias"],
                            None,
                            *window.values(),
                            (0, 0),
                            "v2",
                            "inner",
                        )
                    )
            finally:
                torch.set_num_threads(threads)
            assert_close_to_exact(results[0], want)
            assert all(torch.equal(results[0], other) for other in results[1:])


def test_groups_of_many_channels() -> None:
    image, weight = torch.randn(2, 3 * 40, 12, 13), torch.randn(3 * 35, 40, 3, 3)
    got = torch.ops.deformops.deform_conv2d(
        image, None, weight, None, None, (1, 1), (2, 2), (2, 2), (0, 0), "v2", "inner"
    )
    want = F.conv2d(image.double(), weight.double(), padding=2, dilation=2, groups=3)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=2e-4)


def test_no_tap_reads_beside_its_pixel() -> None:
    """An infinite pixel shows in the outputs that have a tap on it, and nowhere else."""
    image, weight = torch.rand(1, 64, 9, 11), torch.rand(64, 64, 3, 3)
    image[0, 5, 4, 6] = torch.inf
    window: dict[str, Any] = {"padding": 2, "dilation": 2}
    got, want = deformops.atrous_conv2d(image, weight, **window), F.conv2d(image, weight, **window)
    assert torch.equal(got.isinf(), want.isinf())
    assert not got.isnan().any()


# For Winograd's kernel: tiles of 3 and of 4 outputs, whole and cut off, several patches; rows too
# long for a patch; fewer channels than a vector has; dilations that leave a map one pixel; more
# tiles and weights than are transformed at a time. (batch, in, out, size, padding, dilation)
WINOGRAD = {
    "tiles of 3": (2, 40, 70, (33, 30), (12, 12), (12, 12)),
    "tiles of 4": (3, 33, 64, (41, 37), (2, 12), (1, 12)),
    "long rows": (1, 5, 3, (9, 1500), (1, 0), (2, 1)),
    "beyond the map": (1, 17, 16, (7, 6), (20, 11), (10, 11)),
    "padding only": (1, 8, 8, (1, 2), (9, 9), (2, 3)),
    "many weights": (1, 2200, 130, (9, 10), (1, 1), (1, 1)),
    "many tiles": (30, 300, 16, (24, 24), (12, 12), (12, 12)),
}


def winograd(tensors: list[Tensor], window: dict[str, Any], allow: bool = True) -> Tensor:
    """The raw op, allowed to use Winograd's algorithm or not."""
    geometry = ((1, 1), window["padding"], window["dilation"], (0, 0), "v2", "inner")
    image, weight, bias = tensors
    output: Tensor = torch.ops.deformops.deform_conv2d(
        image, None, weight, bias, None, *geometry, allow_winograd=allow
    )
    return output


def make_winograd(
    name: str, dtype: torch.dtype = torch.float32, groups: int = 1
) -> tuple[list[Tensor], dict[str, Any]]:
    batch, channels, out_channels, size, padding, dilation = WINOGRAD[name]
    image = torch.randn(batch, groups * channels, *size)
    weight = torch.randn(groups * out_channels, channels, 3, 3) / (9 * channels) ** 0.5
    tensors = [image, weight, torch.randn(groups * out_channels)]
    window = {"padding": padding, "dilation": dilation, "groups": groups}
    return [tensor.to(dtype) for tensor in tensors], window


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, torch.float32) for name in WINOGRAD]
    + [("tiles of 4", dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16)],
)
def test_winograd(name: str, dtype: torch.dtype) -> None:
    """In all types and layouts; the same bits for any number of threads; not what "direct" does."""
    groups = 2 if name == "tiles of 4" else 1
    tensors, window = make_winograd(name, dtype, groups)
    exact: list[Any] = [tensor.double() for tensor in tensors]
    want = F.conv2d(*exact, **window)
    threads = torch.get_num_threads()
    results = []
    try:
        for count, layout in ((1, "contiguous"), (2, "contiguous"), (3, "channels_last")):
            torch.set_num_threads(count)
            image, weight = (arrange(tensor, layout) for tensor in tensors[:2])
            results.append(winograd([image, weight, tensors[2]], window))
    finally:
        torch.set_num_threads(threads)
    if dtype == torch.float64:  # of the reference too
        torch.testing.assert_close(results[0], want, rtol=0, atol=1e-13)
    else:
        assert_close_to_exact(results[0], want)
    assert all(torch.equal(results[0], other) for other in results[1:])
    if dtype == torch.float32:
        assert not torch.equal(results[0], winograd(tensors, window, allow=False))
        options: dict[str, Any] = {**window, "algorithm": "winograd"}
        called = deformops.atrous_conv2d(*tensors, **options)
        assert torch.equal(results[0], called)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("place", [0, 1], ids=["input", "weight"])
def test_winograd_and_what_is_not_finite(number: float, place: int) -> None:
    """What would spread over a tile, or overflow in one, makes the result that of "direct".

    In the last image, or in the middle of a block of output channels: it is enough that one number
    of a vector is not finite.
    """
    tensors, window = make_winograd("tiles of 4")
    tensors[place][(2, 37)[place], 3, 1, 2] = number
    got, want = (winograd(tensors, window, allow=allow) for allow in (True, False))
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    exact: list[Any] = [tensor.double() for tensor in tensors]
    reaches = F.conv2d(*exact, **window).isfinite()
    if place == 0 and number != 3e38:  # torch multiplies the padding by an infinite weight too
        assert torch.equal(got.isfinite(), reaches)
        assert not got.isfinite().all()
        assert got.isfinite().any()


def test_winograd_and_an_infinite_bias() -> None:
    """It concerns its own channel, and no product."""
    tensors, window = make_winograd("tiles of 3")
    tensors[2][5] = torch.inf
    got = winograd(tensors, window)
    assert got[:, 5].isinf().all()
    assert got[:, :5].isfinite().all()
    assert got[:, 6:].isfinite().all()
    assert not torch.equal(got, winograd(tensors, window, allow=False))  # nothing is done twice


def test_rounding_of_winograd() -> None:
    """Many channels are a sum of short sums: one long sum would round nearly twice as much."""
    torch.manual_seed(0)
    image, weight = torch.randn(1, 512, 38, 50), torch.randn(128, 512, 3, 3)
    exact = F.conv2d(image.double(), weight.double(), padding=2, dilation=2)
    got = winograd([image, weight, torch.zeros(128)], {"padding": 2, "dilation": 2, "groups": 1})
    assert (got - exact).abs().max() < 2.6e-6 * exact.abs().max()


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_winograd(groups: int) -> None:
    tensors, window = make_winograd("tiles of 3", torch.float64, groups)
    leaves: list[Any] = [tensor.requires_grad_() for tensor in tensors]
    got = deformops.atrous_conv2d(*leaves, **window, algorithm="winograd")
    want = F.conv2d(*leaves, **window)
    cotangent = torch.randn_like(got)
    gradients = (torch.autograd.grad(output, leaves, cotangent) for output in (got, want))
    for gradient, exact in zip(*gradients, strict=True):
        assert_close(gradient, exact)


def test_winograd_in_transforms_is_direct() -> None:
    """A compiler, torch.func and forward mode see torch's own convolution, of any sizes."""
    (image, weight, bias), window = make_winograd("tiles of 3", torch.float64)

    def convolve(algorithm: str, image: Tensor, weight: Tensor) -> Tensor:
        return deformops.atrous_conv2d(image, weight, bias, **window, algorithm=algorithm)

    wino, direct = (partial(convolve, algorithm) for algorithm in ("winograd", "direct"))
    compiled = torch.compile(wino, fullgraph=True, backend="aot_eager", dynamic=True)
    assert torch.equal(compiled(image, weight), direct(image, weight))
    assert_close(compiled(image, weight), wino(image, weight))
    torch.compiler.reset()
    tangents = (torch.randn_like(image), torch.randn_like(weight))
    for transform in (
        lambda f: torch.func.vmap(f, (0, None))(torch.stack([image, -image]), weight),
        lambda f: torch.func.jvp(f, (image, weight), tangents)[1],
        lambda f: torch.func.grad(lambda *tensors: f(*tensors).sin().sum())(image, weight),
    ):
        assert torch.equal(transform(wino), transform(direct))


# (channels in, out, size, dilation), and whether "auto" is "winograd".
CHOICES = {
    "many channels": ((128, 128, (24, 24), 2), True),
    "few channels": ((120, 128, (24, 24), 2), False),
    "few filters": ((128, 120, (24, 24), 2), False),
    "few for so many": ((640, 128, (24, 24), 2), False),
    "few tiles": ((128, 128, (16, 16), 1), False),
    "maps of one pixel": ((128, 128, (24, 24), 20), False),
    # 2.25 times fewer products for tiles of 3, the cut off ones counted, if no tap were outside
    "maps of five pixels": ((128, 128, (30, 30), 6), False),
}


@pytest.mark.parametrize("name", CHOICES)
def test_auto_is_the_fastest(name: str) -> None:
    (channels, out_channels, size, dilation), fewer = CHOICES[name]
    image, weight = torch.randn(1, channels, *size), torch.randn(out_channels, channels, 3, 3)
    window: dict[str, Any] = {"padding": dilation, "dilation": dilation}
    auto, *others = (
        deformops.atrous_conv2d(image, weight, **window, algorithm=algorithm)
        for algorithm in ("auto", "direct", "winograd")
    )
    assert torch.equal(auto, others[fewer])
    assert not torch.equal(auto, others[not fewer])
    for options in ({"stride": 2}, {"padding": 0, "dilation": 1}):
        changed = {**window, **options}
        kernel = weight if "stride" in options else weight[..., :2, :2]
        auto, direct = (
            deformops.atrous_conv2d(image, kernel, **changed, algorithm=algorithm)
            for algorithm in ("winograd", "direct")
        )
        assert torch.equal(auto, direct)


@pytest.mark.parametrize("groups", [1, 2])
def test_auto_is_direct_in_other_types_and_in_groups(groups: int) -> None:
    dtype = torch.float64 if groups == 1 else torch.float32
    image = torch.randn(1, groups * 128, 24, 24, dtype=dtype)
    weight = torch.randn(groups * 128, 128, 3, 3, dtype=dtype)
    window: dict[str, Any] = {"padding": 2, "dilation": 2, "groups": groups}
    assert torch.equal(
        deformops.atrous_conv2d(image, weight, **window), F.conv2d(image, weight, **window)
    )


@pytest.mark.parametrize("options", [{"dilation": 0}, {"dilation": 20}, {"padding": -1}])
def test_choosing_leaves_errors_to_checks(options: dict[str, int]) -> None:
    """So many channels that the number of tiles is asked for."""
    with pytest.raises(ValueError, match=r"atrous_conv2d: "):
        deformops.atrous_conv2d(torch.zeros(1, 128, 24, 24), torch.zeros(128, 128, 3, 3), **options)


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
