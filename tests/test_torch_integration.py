"""The ops inside torch's machinery: opcheck, fake tensors, compile, export, autocast."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

import deformops
from tests.cases import Case, make_case
from tests.devices import Device
from tests.reference import Geometry

VARIANTS: dict[str, dict[str, Any]] = {
    "mask": {"groups": 2, "offset_groups": 2},
    "no mask": {"mask": False, "bias": False},
    "no offset": {"offset": False, "groups": 2},
    "bfloat16": {"dtype": torch.bfloat16},
    "channels_last": {"layouts": {"input": "channels_last"}, "dtype": torch.float32},
    "empty": {"batch": 0, "dtype": torch.float32},
}
RAW_OPS = (
    "gather_columns",
    "scatter_columns",
    "contract_columns",
    "deform_conv2d",
    "deform_conv2d_backward",
)


def raw_arguments(name: str, case: Case) -> tuple[Any, ...]:
    kernel_size = list(case.geometry.kernel_size)
    points = (case.offset, case.mask)
    has_offset, has_mask = (tensor is not None for tensor in points)
    arguments: dict[str, tuple[Any, ...]] = {
        "gather_columns": (case.input, *points, kernel_size, *case.raw_geometry),
        "scatter_columns": (
            case.columns,
            *points,
            list(case.input_size),
            kernel_size,
            *case.raw_geometry,
        ),
        "contract_columns": (
            case.input,
            case.columns,
            case.offset,
            kernel_size,
            *case.raw_geometry,
            case.offset_groups,
        ),
        "deform_conv2d": (
            case.input,
            case.offset,
            case.weight,
            case.bias,
            case.mask,
            *case.raw_geometry,
        ),
        "deform_conv2d_backward": (
            case.grad_output,
            case.input,
            case.offset,
            case.weight,
            case.mask,
            *case.raw_geometry,
            [True, has_offset, True, has_mask],
        ),
    }
    return arguments[name]


def variant(name: str, device: str = "cpu") -> Case:
    geometry = Geometry((3, 2), (2, 1), (1, 1), (1, 2))
    return make_case(geometry, kinks=False, device=device, **VARIANTS[name])


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("name", RAW_OPS)
def test_opcheck(device: Device, name: str, options: str) -> None:
    """Schema, autograd registration, fake kernel and dynamic AOT tracing, with gradients."""
    arguments = raw_arguments(name, variant(options, device.type))
    with_gradients = tree_map_only(
        Tensor, lambda tensor: tensor.detach().requires_grad_(), arguments
    )
    operator = getattr(device.raw, name).default
    torch.library.opcheck(operator, with_gradients)
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_of_gradients_nobody_asked_for(device: Device) -> None:
    """Results that are not wanted are empty, and each is a tensor of its own."""
    *arguments, _ = raw_arguments("deform_conv2d_backward", variant("mask", device.type))
    operator = device.raw.deform_conv2d_backward.default
    for wanted in ([True, False, False, False], [False] * 4):
        torch.library.opcheck(operator, (*arguments, wanted))


# --- fake tensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("name", RAW_OPS)
def test_fake_results_look_like_real_ones(device: Device, name: str, options: str) -> None:
    """Shape, strides, type, device, number of results."""
    arguments = raw_arguments(name, variant(options, device.type))
    operator = getattr(device.raw, name)
    real = operator(*arguments)
    with FakeTensorMode() as mode:
        fake = operator(*tree_map_only(Tensor, mode.from_tensor, arguments))
    for one, other in zip(
        real if isinstance(real, tuple) else (real,),
        fake if isinstance(fake, tuple) else (fake,),
        strict=True,
    ):
        assert one.shape == other.shape
        assert one.stride() == other.stride()
        assert (one.dtype, one.device) == (other.dtype, other.device)


def test_meta_device() -> None:
    with torch.device("meta"):
        image, offset = torch.empty(2, 4, 9, 9), torch.empty(2, 18, 9, 9)
        output = deformops.deform_conv2d(image, offset, torch.empty(8, 4, 3, 3), padding=1)
    assert output.is_meta
    assert output.shape == (2, 8, 9, 9)


# --- compile --------------------------------------------------------------------------------------


def deform(image: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    return deformops.deform_conv2d(image, offset, weight, bias, padding=1, mask=mask).relu()


def pieces(image: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """Gather, multiply; and scatter something back."""
    columns = deformops.gather_columns(image, 3, padding=1, offset=offset, mask=mask)
    output = torch.einsum("ock,nckhw->nohw", weight.flatten(2), columns) + bias[:, None, None]
    back = deformops.scatter_columns(columns, image.shape[-2:], 3, padding=1, offset=offset)
    return output + back.mean(1, keepdim=True)


def atrous(image: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """Every algorithm; the unused tensors take part so that all have gradients."""
    rest = offset.sum() + mask.sum()
    outputs = [
        deformops.atrous_conv2d(image, weight, bias, padding=2, dilation=2, algorithm=algorithm)
        for algorithm in ("auto", "direct", "holes", "subsample")
    ]
    return torch.stack(outputs).sin().sum(0) + rest


def tensors_of(batch: int, height: int, width: int) -> tuple[Tensor, ...]:
    case = make_case(
        Geometry((3, 3), padding=(1, 1)),
        batch=batch,
        group_channels=4,
        group_out_channels=4,
        input_size=(height, width),
        dtype=torch.float32,
        kinks=False,
        seed=batch,
    )
    names = ("input", "offset", "weight", "bias", "mask")
    return tuple(getattr(case, name).requires_grad_() for name in names)


def value_and_gradients(function: Callable[..., Tensor], tensors: Any) -> tuple[Tensor, ...]:
    output = function(*tensors)
    return (output, *torch.autograd.grad(output.square().sum(), tensors))


@pytest.mark.parametrize("function", [deform, pieces, atrous])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_with_dynamic_shapes(function: Callable[..., Tensor], backend: str) -> None:
    """One graph without breaks serves other batches and sizes, forward and backward."""
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend, dynamic=True)
    for index, shape in enumerate([(2, 6, 7), (3, 9, 8), (5, 7, 12)]):
        tensors = tensors_of(*shape)
        # Inductor compiles torch's own convolution again for another width.
        once = index > 0 and (backend, function) != ("inductor", atrous)
        with torch._dynamo.config.patch(error_on_recompile=once):
            got = value_and_gradients(compiled, tensors)
        for one, other in zip(got, value_and_gradients(function, tensors), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    torch.compiler.reset()


def test_compiled_transforms() -> None:
    """torch.func inside a compiled function: gradients, batches, both."""
    torch.compiler.reset()
    tensors = tuple(tensor.detach() for tensor in tensors_of(2, 4, 4))

    def loss(*arguments: Tensor) -> Tensor:
        return deform(*arguments).sin().sum()

    gradient = torch.func.grad(loss, argnums=(0, 1, 2, 3, 4))
    got = torch.compile(gradient, fullgraph=True, backend="aot_eager")(*tensors)
    for one, other in zip(got, gradient(*tensors), strict=True):
        torch.testing.assert_close(one, other)

    per_sample = torch.func.vmap(gradient)
    stacked = tuple(torch.stack([tensor, tensor + 0.01]) for tensor in tensors)
    got = torch.compile(per_sample, fullgraph=True, backend="aot_eager")(*stacked)
    for one, other in zip(got, per_sample(*stacked), strict=True):
        torch.testing.assert_close(one, other)
    torch.compiler.reset()


def test_compiled_channels_last() -> None:
    torch.compiler.reset()
    tensors = tensors_of(2, 6, 7)
    image = tensors[0].detach().contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(deform, fullgraph=True, backend="aot_eager")
    output = compiled(image, *tensors[1:])
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, deform(image, *tensors[1:]))
    torch.compiler.reset()


# --- export ---------------------------------------------------------------------------------------


class Network(nn.Module):
    """A layer that predicts its own offsets, from the functions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = nn.Conv2d(4, 27, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))

    def forward(self, image: Tensor) -> Tensor:
        predicted = self.predict(image)
        offset, mask = predicted[:, :18], predicted[:, 18:].sigmoid()
        return deformops.deform_conv2d(image, offset, self.weight, padding=1, mask=mask)


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_dynamic_shapes(strict: bool) -> None:
    """The op survives as one node, for any batch and size, through a file."""
    network = Network()
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(
        network, (torch.randn(2, 4, 8, 9),), dynamic_shapes=(sizes,), strict=strict
    )
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("deformops.deform_conv2d.default") == 1

    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    image = torch.randn(5, 4, 11, 7)
    torch.testing.assert_close(loaded(image), network(image))


# --- autocast -------------------------------------------------------------------------------------


def autocast_case() -> dict[str, Tensor]:
    case = make_case(
        Geometry((3, 3), padding=(1, 1)),
        group_channels=8,
        dtype=torch.float32,
        kinks=False,
    )
    names = ("input", "offset", "weight", "bias", "mask")
    return {name: getattr(case, name).requires_grad_() for name in names}


def test_autocast_does_not_round_offsets(device: Device) -> None:
    """With float32 offsets the op runs in float32, whatever the others come in."""
    tensors = autocast_case()
    arguments = {name: tensor.to(device.type) for name, tensor in tensors.items()}
    arguments["input"] = arguments["input"].bfloat16()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = deformops.deform_conv2d(**arguments, padding=1)
    assert output.dtype == torch.float32
    arguments["input"] = arguments["input"].float()
    assert torch.equal(output, deformops.deform_conv2d(**arguments, padding=1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_runs_in_its_type(device: Device, dtype: torch.dtype) -> None:
    """With offsets of autocast's type, as a convolution under autocast predicts them."""
    tensors = autocast_case()
    arguments = {name: tensor.to(device.type) for name, tensor in tensors.items()}
    low = {name: tensor.to(dtype) for name, tensor in arguments.items()}
    want = deformops.deform_conv2d(**low, padding=1)
    arguments["offset"] = low["offset"]
    with torch.autocast(device.type, dtype=dtype):
        output = deformops.deform_conv2d(**arguments, padding=1)
    assert output.dtype == dtype
    assert torch.equal(output, want)
    output.float().square().sum().backward()
    for name, tensor in tensors.items():
        assert tensor.grad is not None, name
        assert tensor.grad.dtype == torch.float32
        assert tensor.grad.count_nonzero() > 0


def test_autocast_leaves_float64_alone(device: Device) -> None:
    case = make_case(Geometry((3, 3), padding=(1, 1)), device=device.type)
    arguments = (case.input, case.offset, case.weight, case.bias)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = deformops.deform_conv2d(*arguments, padding=1)
    assert output.dtype == torch.float64


def test_autocast_trains_a_network() -> None:
    """A whole layer under autocast: parameters and their gradients stay in float32."""
    network = Network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network(torch.randn(2, 4, 8, 8)).float().square().mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
        assert parameter.grad.count_nonzero() > 0, name


@pytest.mark.parametrize("name", ["gather_columns", "scatter_columns"])
def test_autocast_of_columns_takes_the_widest_type(name: str) -> None:
    case = make_case(Geometry((3, 3), padding=(1, 1)), dtype=torch.float32)
    assert case.offset is not None
    options: dict[str, Any] = {"padding": 1, "offset": case.offset}
    low = case.input.bfloat16() if name == "gather_columns" else case.columns.bfloat16()

    def call(tensor: Tensor, **changed: Any) -> Tensor:
        given = {**options, **changed}
        if name == "gather_columns":
            return deformops.gather_columns(tensor, 3, **given)
        return deformops.scatter_columns(tensor, case.input_size, 3, **given)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert call(low).dtype == torch.float32
        assert torch.equal(call(low), call(low.float()))
        assert call(low, offset=case.offset.bfloat16()).dtype == torch.bfloat16
