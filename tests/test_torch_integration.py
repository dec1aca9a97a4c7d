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
from tests.reference import Geometry, Pooling
from tests.roi_cases import RoiCase, make_roi_case

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


POOLING_VARIANTS: dict[str, dict[str, Any]] = {
    "offset": {"classes": 2, "part_size": (1, 3)},
    "no offset": {},
    "bfloat16": {"classes": 1, "dtype": torch.bfloat16},
    "channels_last": {
        "layouts": {"input": "channels_last", "grad_output": "channels_last"},
        "dtype": torch.float32,
    },
    "one bin": {"output_size": (1, 1), "layouts": {"input": "channels_last"}},
    "no boxes": {"classes": 1, "boxes": 0},
}
POOLING_OPS = ("roi_average", "roi_average_backward", "roi_pool", "gather_maxima", "scatter_maxima")


def pooling_variant(name: str, device: str, output_size: tuple[int, int] = (2, 3)) -> RoiCase:
    options = dict(POOLING_VARIANTS[name])
    pooling = Pooling("aligned", options.pop("output_size", output_size), 0.37, samples=2)
    return make_roi_case(pooling, exact=False, device=device, **options)


def pooling_arguments(name: str, case: RoiCase) -> tuple[Any, ...]:
    has_offset = case.offset is not None
    index = torch.randint(-1, 6, case.grad_output.shape, device=case.input.device).int()
    arguments: dict[str, tuple[Any, ...]] = {
        "roi_average": (case.input, case.boxes, case.offset, *case.bins),
        "roi_average_backward": (
            *(case.grad_output, case.input, case.boxes, case.offset),
            *(*case.bins, [True, has_offset]),
        ),
        "roi_pool": (case.input, case.boxes, *case.bins[:2], "caffe"),
        "gather_maxima": (case.input, case.boxes, index),
        "scatter_maxima": (case.grad_output, case.boxes, index, list(case.input.shape)),
    }
    return arguments[name]


RAW_CALLS = [
    *((name, options) for name in RAW_OPS for options in VARIANTS),
    *((name, options) for name in POOLING_OPS for options in POOLING_VARIANTS),
]


def raw_call(device: Device, name: str, options: str) -> tuple[Any, tuple[Any, ...]]:
    """An operator and its arguments."""
    operator = getattr(device.raw, name).default
    if name in RAW_OPS:
        return operator, raw_arguments(name, variant(options, device.type))
    return operator, pooling_arguments(name, pooling_variant(options, device.type))


def with_gradients(operator: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, tensors as leaves that ask for gradients, where there are any."""
    names = [argument.name for argument in operator._schema.arguments]
    return tuple(
        value.detach().requires_grad_(name not in ("boxes", "index"))
        if isinstance(value, Tensor)
        else value
        for name, value in zip(names, arguments, strict=False)
    )


@pytest.mark.parametrize(("name", "options"), RAW_CALLS)
def test_opcheck(device: Device, name: str, options: str) -> None:
    """Schema, autograd registration, fake kernel and dynamic AOT tracing, with gradients."""
    operator, arguments = raw_call(device, name, options)
    torch.library.opcheck(operator, with_gradients(operator, arguments))
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_of_gradients_nobody_asked_for(device: Device) -> None:
    """Results that are not wanted are empty, and each is a tensor of its own."""
    *arguments, _ = raw_arguments("deform_conv2d_backward", variant("mask", device.type))
    operator = device.raw.deform_conv2d_backward.default
    for wanted in ([True, False, False, False], [False] * 4):
        torch.library.opcheck(operator, (*arguments, wanted))
    *arguments, _ = pooling_arguments(
        "roi_average_backward", pooling_variant("offset", device.type)
    )
    operator = device.raw.roi_average_backward.default
    for wanted in ([True, False], [False, True], [False, False]):
        torch.library.opcheck(operator, (*arguments, wanted))


def test_opcheck_without_an_index(device: Device) -> None:
    arguments = pooling_arguments("roi_pool", pooling_variant("no offset", device.type))
    operator = device.raw.roi_pool.default
    for given in (arguments, with_gradients(operator, arguments)):
        torch.library.opcheck(operator, given, {"want_index": False})


# --- fake tensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), RAW_CALLS)
def test_fake_results_look_like_real_ones(device: Device, name: str, options: str) -> None:
    """Shape, strides, type, device, number of results."""
    operator, arguments = raw_call(device, name, options)
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
        pooled = deformops.roi_pool(image, torch.empty(3, 5), 7)
    assert output.is_meta
    assert output.shape == (2, 8, 9, 9)
    assert pooled.is_meta
    assert pooled.shape == (3, 4, 7, 7)


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


class Poolings(nn.Module):
    """Every pooling of the same boxes, added up; 8 channels, 2 x 2 bins."""

    def forward(self, image: Tensor, boxes: Tensor, offset: Tensor) -> Tensor:
        given = (image, boxes)
        plain = deformops.roi_pool(*given, 2, 0.5) + deformops.roi_align(*given, 2, 0.5)
        plain = plain + deformops.deform_roi_pool(*given, offset, 2, 0.5)
        grouped = deformops.ps_roi_pool(*given, 2, 0.5) + deformops.ps_roi_align(*given, 2, 0.5)
        grouped = grouped + deformops.deform_ps_roi_pool(*given, offset, 2, 0.5)
        return plain.sin() + grouped.repeat(1, 4, 1, 1)


def boxes_of(images: int, count: int, height: int, width: int) -> tuple[Tensor, ...]:
    pooling = Pooling("dcn", (2, 2), 0.5, samples=4)
    case = make_roi_case(
        pooling,
        images=images,
        boxes=count,
        channels=8,
        input_size=(height, width),
        classes=1,
        exact=False,
        dtype=torch.float32,
        seed=count,
    )
    assert case.offset is not None
    return case.input.requires_grad_(), case.boxes, case.offset.requires_grad_()


def poolings_and_gradients(function: Callable[..., Tensor], tensors: Any) -> tuple[Tensor, ...]:
    output = function(*tensors)
    return (output, *torch.autograd.grad(output.square().sum(), (tensors[0], tensors[2])))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_poolings_with_dynamic_shapes(backend: str) -> None:
    """One graph without breaks serves other numbers of images and boxes, and other sizes."""
    torch.compiler.reset()
    function = Poolings()
    compiled = torch.compile(function, fullgraph=True, backend=backend, dynamic=True)
    # No two sizes are equal in the first call: torch would take them for one size.
    for index, shape in enumerate([(4, 3, 6, 7), (3, 5, 9, 8), (5, 4, 7, 12)]):
        tensors = boxes_of(*shape)
        with torch._dynamo.config.patch(error_on_recompile=index > 0):
            got = poolings_and_gradients(compiled, tensors)
        for one, other in zip(got, poolings_and_gradients(function, tensors), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    torch.compiler.reset()


def test_compiled_maximum_without_gradients_has_no_index() -> None:
    """The index costs memory and time; only a graph with a backward pass has it."""
    image, boxes, _ = boxes_of(2, 3, 6, 7)
    wanted = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        for node in graph.graph.nodes:
            if node.target is torch.ops.deformops.roi_pool.default:
                wanted.append(node.kwargs.get("want_index", True))
        return graph.forward

    torch.compiler.reset()
    compile_with = torch._dynamo.backends.common.aot_autograd(fw_compiler=backend)
    compiled = torch.compile(
        lambda x: deformops.roi_pool(x, boxes, 2), fullgraph=True, backend=compile_with
    )
    compiled(image.detach())
    assert wanted == [False]
    compiled(image).sum().backward()
    assert wanted == [False, True]
    torch.compiler.reset()


def test_compiled_transforms_of_poolings() -> None:
    torch.compiler.reset()
    image, boxes, offset = (tensor.detach() for tensor in boxes_of(2, 3, 6, 7))
    function = Poolings()
    gradient = torch.func.grad(
        lambda x, moved: function(x, boxes, moved).sin().sum(), argnums=(0, 1)
    )
    stacked = (torch.stack([image, image + 0.01]), torch.stack([offset, offset + 0.01]))
    for call, given in ((gradient, (image, offset)), (torch.func.vmap(gradient), stacked)):
        got = torch.compile(call, fullgraph=True, backend="aot_eager")(*given)
        for one, other in zip(got, call(*given), strict=True):
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


@pytest.mark.parametrize("strict", [False, True])
def test_export_poolings_with_dynamic_shapes(strict: bool) -> None:
    """The ops survive, for any number of images and boxes and any size, through a file."""
    any_size = torch.export.Dim.AUTO
    count = torch.export.Dim("boxes")
    program = torch.export.export(
        Poolings(),
        tuple(tensor.detach() for tensor in boxes_of(2, 3, 6, 7)),
        dynamic_shapes=({0: any_size, 2: any_size, 3: any_size}, {0: count}, {0: count}),
        strict=strict,
    )
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("deformops.roi_pool.default") == 1
    assert targets.count("deformops.roi_average.default") == 5

    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    tensors = boxes_of(3, 5, 9, 8)
    got = poolings_and_gradients(loaded, tensors)
    for one, other in zip(got, poolings_and_gradients(Poolings(), tensors), strict=True):
        torch.testing.assert_close(one, other)


def test_export_of_boxes_for_each_image() -> None:
    class Lists(nn.Module):
        def forward(self, image: Tensor, boxes: list[Tensor]) -> Tensor:
            return deformops.roi_align(image, boxes, 2, 0.5)

    image, boxes = torch.randn(2, 3, 6, 7), [torch.rand(3, 4) * 9, torch.rand(4, 4) * 9]
    sizes: Any = ({}, [{0: torch.export.Dim.AUTO}, {0: torch.export.Dim.AUTO}])
    program = torch.export.export(Lists(), (image, boxes), dynamic_shapes=sizes)
    other = [torch.rand(5, 4) * 9, torch.rand(2, 4) * 9]
    torch.testing.assert_close(program.module()(image, other), Lists()(image, other))


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_of_poolings(device: Device, dtype: torch.dtype) -> None:
    """Boxes keep float32; a float32 offset makes the op run in float32, a half one does not."""
    image, boxes, offset = (tensor.detach().to(device.type) for tensor in boxes_of(2, 3, 6, 7))
    low = image.to(dtype)
    with torch.autocast(device.type, dtype=dtype):
        assert deformops.roi_pool(low, boxes, 2).dtype == dtype
        assert deformops.roi_align(low, boxes, 2).dtype == dtype
        assert deformops.roi_align(image, boxes, 2).dtype == torch.float32
        wide = deformops.deform_roi_pool(low, boxes, offset, 2, 0.5)
        narrow = deformops.deform_roi_pool(low, boxes, offset.to(dtype), 2, 0.5)
        mixed = deformops.deform_roi_pool(image, boxes, offset.to(dtype), 2, 0.5)
    assert (wide.dtype, narrow.dtype, mixed.dtype) == (torch.float32, dtype, torch.float32)
    assert torch.equal(wide, deformops.deform_roi_pool(low.float(), boxes, offset, 2, 0.5))
    assert torch.equal(narrow, deformops.deform_roi_pool(low, boxes, offset.to(dtype), 2, 0.5))


def test_autocast_gradients_of_poolings() -> None:
    """In the types of the leaves, across the cast."""
    image, boxes, offset = boxes_of(2, 3, 6, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = deformops.deform_roi_pool(image.bfloat16(), boxes, offset, 2, 0.5)
        other = deformops.roi_align(image.bfloat16(), boxes, 2, 0.5)
    for gradient in torch.autograd.grad(output.sum() + other.float().sum(), (image, offset)):
        assert gradient.dtype == torch.float32
        assert gradient.count_nonzero() > 0
