"""The references against published numbers, torchvision, torch and finite differences.

Everything else is judged by them, so they are judged first, and without the package.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from torch.nn.grad import conv2d_input, conv2d_weight

from tests import reference
from tests.cases import Array, Case, cases, make_case, numpy
from tests.goldens import CASE_A, CASE_M, GIVEN, POOLED, Given, Learned, Pooled
from tests.reference import Geometry, Pooling
from tests.roi_cases import MEANS, SAMPLED, RoiCase, kink_free_case, make_roi_case, roi_cases


def square(side: int, padding: int, border: str = "v2", kink: str = "inner") -> Geometry:
    return Geometry((side, side), padding=(padding, padding), border=border, kink=kink)


@pytest.mark.parametrize("case", GIVEN.values(), ids=GIVEN.keys())
def test_golden_values(case: Given) -> None:
    geometry = square(case.weight.shape[-1], case.padding, border=case.border)
    output = reference.deform_conv2d(
        case.input, case.offset, case.weight, case.bias, case.mask, geometry
    )
    np.testing.assert_allclose(output, case.output, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kink", ["inner", "zero"])
@pytest.mark.parametrize("case", [CASE_A, CASE_M], ids=["A", "M"])
def test_golden_gradients(case: Learned, kink: str) -> None:
    geometry = square(2, case.padding, kink=kink)
    padding = geometry.padding
    predicted = reference.atrous_conv2d(
        case.input, case.offset_weight, case.offset_bias, padding=padding
    )
    offset, logit = predicted[:, :8], predicted[:, 8:]
    mask = 1 / (1 + np.exp(-logit)) if case.modulated else None

    output = reference.deform_conv2d(case.input, offset, case.weight, None, mask, geometry)
    np.testing.assert_allclose(output, case.output, atol=1e-12)

    gradients = reference.deform_conv2d_backward(
        np.ones_like(output), case.input, offset, case.weight, mask, geometry
    )
    np.testing.assert_allclose(gradients.weight, case.grad_weight, atol=1e-12)
    assert gradients.offset is not None
    grad_predicted = gradients.offset
    if mask is not None:
        assert gradients.mask is not None
        grad_predicted = np.concatenate(
            [gradients.offset, gradients.mask * mask * (1 - mask)], axis=1
        )
    np.testing.assert_allclose(
        grad_predicted.sum((0, 2, 3)), case.grad_offset_bias[kink], atol=1e-12
    )
    pulled = torch.from_numpy(grad_predicted)
    grad_offset_weight = conv2d_weight(
        torch.from_numpy(case.input), case.offset_weight.shape, pulled, padding=padding
    )
    np.testing.assert_allclose(grad_offset_weight, case.grad_offset_weight[kink], atol=1e-12)
    through_offset = conv2d_input(
        case.input.shape, torch.from_numpy(case.offset_weight), pulled, padding=padding
    )
    np.testing.assert_allclose(
        gradients.input + through_offset.numpy(), case.grad_input, atol=1e-12
    )


@given(cases(dtypes=(torch.float64,), borders=False, always_offset=True))
def test_torchvision_agrees(case: Case) -> None:
    names = ["input", "offset", "weight"]
    names += ["mask"] if case.mask is not None else []
    names += ["bias"] if case.bias is not None else []
    leaves = {name: getattr(case, name).clone().requires_grad_() for name in names}
    output = torchvision.ops.deform_conv2d(**leaves, **case.window)
    got = reference.deform_conv2d(
        **case.arrays("input", "offset", "weight", "bias", "mask"), geometry=case.geometry
    )
    np.testing.assert_allclose(got, numpy(output), atol=1e-9)

    gradients = reference.deform_conv2d_backward(
        **case.arrays("grad_output", "input", "offset", "weight", "mask"), geometry=case.geometry
    )
    wanted = torch.autograd.grad(output, list(leaves.values()), case.grad_output)
    for name, want in zip(names, wanted, strict=True):
        np.testing.assert_allclose(
            getattr(gradients, name), numpy(want), atol=1e-9, err_msg=f"grad_{name}"
        )


def central_difference(function: object, at: Array, step: float = 1e-5) -> Array:
    assert callable(function)
    gradient = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[place] += step
        behind[place] -= step
        gradient[place] = (function(ahead) - function(behind)) / (2 * step)
    return gradient


@pytest.mark.parametrize("border", ["v2", "v1"])
@pytest.mark.parametrize("name", ["input", "offset", "weight", "mask"])
def test_gradients_are_slopes(name: str, border: str) -> None:
    geometry = Geometry((2, 2), (2, 1), (1, 1), (1, 2), border=border)
    case = make_case(geometry, groups=2, batch=1, input_size=(4, 5), kinks=False, bias=False)
    arrays = {key: case.numpy(key) for key in ("input", "offset", "weight", "mask")}

    def loss(value: Array) -> float:
        given: dict[str, Any] = {**arrays, name: value, "bias": None}
        output = reference.deform_conv2d(**given, geometry=case.geometry)
        return float((output * case.numpy("grad_output")).sum())

    gradients = reference.deform_conv2d_backward(
        case.numpy("grad_output"), **arrays, geometry=case.geometry
    )
    want = central_difference(loss, arrays[name])
    np.testing.assert_allclose(getattr(gradients, name), want, atol=1e-7)


def test_slope_weights_are_the_right_derivative() -> None:
    """At integers, on borders and between: slope = (value(p + h) - value(p)) / h."""
    step = 2.0**-10
    points = np.arange(-3 * 16, 7 * 16) / 16.0
    for border in ("v2", "v1"):
        ahead = reference.axis_weights(points + step, 4, border=border)
        here = reference.axis_weights(points, 4, border=border)
        slope = reference.axis_weights(points, 4, order=1, border=border)
        np.testing.assert_allclose(slope, (ahead - here) / step, atol=1e-9, err_msg=border)


def test_slope_on_the_kink() -> None:
    """``zero`` differs from ``inner`` exactly on -1 and nowhere else."""
    points = np.array([-1 - 2.0**-20, -1.0, -1 + 2.0**-20, 0.0, 4.0])
    inner = reference.axis_weights(points, 4, order=1, kink="inner")
    zero = reference.axis_weights(points, 4, order=1, kink="zero")
    np.testing.assert_array_equal(inner[1], [1, 0, 0, 0])
    np.testing.assert_array_equal(zero[1], 0)
    np.testing.assert_array_equal(np.delete(inner, 1, 0), np.delete(zero, 1, 0))


@given(cases(dtypes=(torch.float64,), orders=True))
def test_scatter_is_the_transpose(case: Case) -> None:
    offset, mask, geometry = case.numpy("offset"), case.numpy("mask"), case.geometry
    gathered = reference.gather_columns(case.numpy("input"), offset, mask, geometry)
    scattered = reference.scatter_columns(
        case.numpy("columns"), offset, mask, case.input_size, geometry
    )
    left = (gathered * case.numpy("columns")).sum()
    right = (scattered * case.numpy("input")).sum()
    assert left == pytest.approx(right, abs=1e-9)


@given(cases(dtypes=(torch.float64,), borders=False))
def test_atrous_conv_is_torchs(case: Case) -> None:
    groups = case.input.shape[1] // case.weight.shape[1]
    want = F.conv2d(case.input, case.weight, case.bias, **case.window, groups=groups)
    small = replace(case, input=case.input[:1])
    got = reference.atrous_conv2d(
        **small.arrays("input", "weight", "bias"), groups=groups, **case.window
    )
    np.testing.assert_allclose(got, numpy(want)[:1], atol=1e-9)


def test_insert_holes_by_hand() -> None:
    weight = np.arange(1.0, 5.0).reshape(1, 1, 2, 2)
    want = [[1, 0, 0, 2], [0, 0, 0, 0], [3, 0, 0, 4]]
    np.testing.assert_array_equal(reference.insert_holes(weight, (2, 3))[0, 0], want)


# --- RoI pooling ----------------------------------------------------------------------------------


def pooling_of(case: Pooled) -> Pooling:
    """What the options of a public function mean."""
    options = case.options
    side = options.get("output_size", 2)
    semantics = {
        "roi_pool": options.get("semantics", "caffe"),
        "roi_align": "aligned" if options.get("aligned") else "unaligned",
        "ps_roi_pool": options.get("semantics", "rfcn"),
        "deform_roi_pool": "aligned",
        "deform_ps_roi_pool": "dcn",
    }[case.op]
    samples = options.get("sampling_ratio", options.get("samples_per_bin", 0))
    return Pooling(
        semantics,
        (side, side),
        options.get("spatial_scale", 1.0),
        (side, side) if "ps_" in case.op else (1, 1),
        4 if semantics == "dcn" else samples,
    )


@pytest.mark.parametrize("case", POOLED.values(), ids=POOLED.keys())
def test_golden_poolings(case: Pooled) -> None:
    pooling = pooling_of(case)
    if case.op == "roi_pool":
        output, index = reference.roi_pool(case.input, case.box, pooling)
        np.testing.assert_array_equal(output, case.output)
        np.testing.assert_array_equal(
            reference.gather_maxima(case.input, case.box, index), case.output
        )
        gradient = reference.scatter_maxima(np.ones_like(output), case.box, index, case.input.shape)
    else:
        output = reference.roi_average(case.input, case.box, case.offset, pooling)
        np.testing.assert_allclose(output, case.output, rtol=0, atol=1e-12)
        gradient, _ = reference.roi_average_backward(
            np.ones_like(output), case.input, case.box, case.offset, pooling
        )
    if case.grad_input is not None:
        np.testing.assert_allclose(gradient, case.grad_input, rtol=0, atol=1e-12)


@given(roi_cases(("caffe",)))
def test_torchvision_agrees_on_maxima(case: RoiCase) -> None:
    """On every bit, in float32 too."""
    pooling = case.pooling
    want = torchvision.ops.roi_pool(
        case.input, case.boxes, pooling.output_size, pooling.spatial_scale
    )
    output, _ = reference.roi_pool(numpy(case.input), case.rows, pooling)
    np.testing.assert_array_equal(output, numpy(want))


@pytest.mark.parametrize(
    ("semantics", "offset"),
    [*((name, False) for name in MEANS), *((name, True) for name in SAMPLED)],
)
def test_gradients_of_means_are_slopes(semantics: str, offset: bool) -> None:
    sampled = semantics in SAMPLED
    pooling = Pooling(semantics, (2, 2), 0.37, (1, 2), 2 if sampled else 0, 0.43)
    case = kink_free_case(
        pooling, images=1, boxes=3, channels=1, classes=2 if offset else None, input_size=(4, 5)
    )
    given = {"input": numpy(case.input), "offset": numpy(case.offset)}
    grad = numpy(case.grad_output)

    def loss(name: str, value: Array) -> float:
        arrays = {**given, name: value}
        output = reference.roi_average(arrays["input"], case.rows, arrays["offset"], pooling)
        return float((output * grad).sum())

    gradients = reference.roi_average_backward(
        grad, given["input"], case.rows, given["offset"], pooling
    )
    for name, gradient in zip(("input", "offset"), gradients, strict=True):
        if gradient is not None:
            want = central_difference(lambda value, name=name: loss(name, value), given[name])
            np.testing.assert_allclose(gradient, want, atol=1e-7, err_msg=name)


def test_gradient_of_maxima_is_their_transpose() -> None:
    case = make_roi_case(Pooling("mmcv", (3, 2), 0.5), boxes=8)
    image, grad = numpy(case.input), numpy(case.grad_output)
    output, index = reference.roi_pool(image, case.rows, case.pooling)
    gradient = reference.scatter_maxima(grad, case.rows, index, image.shape)
    assert (output * grad).sum() == pytest.approx((image * gradient).sum(), abs=1e-9)
