"""Every derivative of every public function: reverse, forward, twice, batched, of any subset.

Finite differences are the judges here, and loops where something is batched. Offsets stay off the
integers, where the functions are smooth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import deformops
from tests.cases import make_case
from tests.reference import Geometry, Pooling
from tests.roi_cases import kink_free_case


@pytest.fixture(autouse=True)
def no_slow_fallback() -> Iterator[None]:
    """Where there is no rule for a batch, torch would loop; here it has to raise."""
    torch._C._functorch._set_vmap_fallback_enabled(False)  # type: ignore[attr-defined]
    yield
    torch._C._functorch._set_vmap_fallback_enabled(True)  # type: ignore[attr-defined]


class Function:
    """A public function of some tensors, and tensors to call it with."""

    name: str
    """Of the raw op that it calls."""
    names: list[str]
    tensors: tuple[Tensor, ...]

    def __call__(self, *tensors: Tensor) -> Tensor:
        raise NotImplementedError

    def empty(self) -> list[Tensor]:
        """The tensors of a call without images."""
        raise NotImplementedError

    def leaves(self) -> tuple[Tensor, ...]:
        return tuple(tensor.clone().requires_grad_() for tensor in self.tensors)

    def of(self, index: int) -> Callable[[Tensor], Tensor]:
        """The function of one argument, the others held."""

        def alone(tensor: Tensor) -> Tensor:
            return self(*self.tensors[:index], tensor, *self.tensors[index + 1 :])

        return alone


class Windowed(Function):
    """A function of the convolution family."""

    def __init__(self, name: str, *, border: str = "v2", kink: str = "inner", mask: bool = True):
        geometry = Geometry((2, 1), (1, 2), (1, 0), (1, 1), border=border, kink=kink)
        case = make_case(
            geometry,
            batch=2,
            groups=2,
            offset_groups=2,
            group_channels=1,
            group_out_channels=1,
            input_size=(2, 3),
            kinks=False,
            reach=2.0,
            mask=mask,
        )
        assert case.offset is not None
        self.name = name
        arguments: dict[str, tuple[str, ...]] = {
            "deform_conv2d": ("input", "offset", "weight", "bias", "mask"),
            "gather_columns": ("input", "offset", "mask"),
            "scatter_columns": ("columns", "offset", "mask"),
        }
        self.names = [key for key in arguments[name] if getattr(case, key) is not None]
        self.tensors = tuple(getattr(case, key) for key in self.names)
        self.options: dict[str, Any] = dict(case.window)
        if name == "deform_conv2d":
            self.options.update(border=border, kink=kink)
        else:
            self.options.update(kernel_size=geometry.kernel_size)
        if name == "scatter_columns":
            self.options.update(input_size=case.input_size)

    def __call__(self, *tensors: Tensor) -> Tensor:
        named = dict(zip(self.names, tensors, strict=True))
        result: Tensor = getattr(deformops, self.name)(**named, **self.options)
        return result

    def empty(self) -> list[Tensor]:
        return [
            tensor if name in ("weight", "bias") else tensor[:0]
            for name, tensor in zip(self.names, self.tensors, strict=True)
        ]


class Pooled(Function):
    """A function of RoI pooling; its boxes are constants, two for each image."""

    def __init__(self, function: str, pooling: Pooling, classes: int | None = None, **options: Any):
        parts = options.get("part_size")
        case = kink_free_case(pooling, channels=1, boxes=4, classes=classes, part_size=parts)
        self.name = "roi_pool" if function == "roi_pool" else "roi_average"
        self.names = ["input"] if case.offset is None else ["input", "offset"]
        self.tensors = tuple(getattr(case, name) for name in self.names)
        self.function = getattr(deformops, function)
        self.arguments = (pooling.output_size, pooling.spatial_scale)
        self.options = options
        self.boxes = case.boxes
        self.boxes[:, 0] = torch.tensor([0, 0, 1, 1])

    def __call__(self, *tensors: Tensor) -> Tensor:
        input, *offset = tensors
        boxes = self.boxes[: 2 * input.shape[0]]
        result: Tensor = self.function(input, boxes, *offset, *self.arguments, **self.options)
        return result

    def empty(self) -> list[Tensor]:
        return [tensor[:0] for tensor in self.tensors]


SAMPLES = {"samples_per_bin": 2, "offset_scale": 0.43}


def deformed(
    semantics: str,
    name: str = "deform_roi_pool",
    output_size: tuple[int, int] = (2, 2),
    **options: Any,
) -> Pooled:
    groups = (1, 2) if name == "deform_ps_roi_pool" else (1, 1)
    raw = Pooling("dcn" if semantics == "dcn" else "aligned", output_size, 0.37, groups, 2, 0.43)
    if name == "deform_ps_roi_pool":
        return Pooled(name, raw, 2, group_size=groups, **SAMPLES, **options)
    return Pooled(name, raw, 1, semantics=semantics, **SAMPLES, **options)


FUNCTIONS: dict[str, Callable[[], Function]] = {
    "deform_conv2d": lambda: Windowed("deform_conv2d"),
    "deform_conv2d, no mask": lambda: Windowed("deform_conv2d", mask=False),
    "deform_conv2d, v1": lambda: Windowed("deform_conv2d", border="v1"),
    "deform_conv2d, zero": lambda: Windowed("deform_conv2d", kink="zero"),
    "gather_columns": lambda: Windowed("gather_columns"),
    "gather_columns, no mask": lambda: Windowed("gather_columns", mask=False),
    "scatter_columns": lambda: Windowed("scatter_columns"),
    "scatter_columns, no mask": lambda: Windowed("scatter_columns", mask=False),
    "roi_pool": lambda: Pooled("roi_pool", Pooling("caffe", (2, 3), 0.37)),
    "roi_align": lambda: Pooled("roi_align", Pooling("unaligned", (2, 3), 0.37)),
    "ps_roi_align": lambda: Pooled("ps_roi_align", Pooling("aligned", (2, 2), 0.37, (2, 2))),
    "ps_roi_pool": lambda: Pooled("ps_roi_pool", Pooling("rfcn", (2, 2), 0.37, (2, 2))),
    "deform_roi_pool": lambda: deformed("dcn"),
    "deform_roi_pool, mmcv": lambda: deformed("mmcv"),
    "deform_roi_pool, parts": lambda: deformed("dcn", output_size=(4, 2), part_size=(3, 1)),
    "deform_ps_roi_pool": lambda: deformed("dcn", "deform_ps_roi_pool"),
}
PLAIN = ("deform_conv2d", "gather_columns", "scatter_columns", "roi_pool", "deform_ps_roi_pool")


@pytest.fixture(params=FUNCTIONS)
def function(request: pytest.FixtureRequest) -> Function:
    return FUNCTIONS[request.param]()


@pytest.fixture(params=PLAIN)
def plain_function(request: pytest.FixtureRequest) -> Function:
    """One variant of each."""
    return FUNCTIONS[request.param]()


# --- against finite differences -------------------------------------------------------------------


def test_first_derivatives(function: Function) -> None:
    assert gradcheck(
        function,
        function.leaves(),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def test_second_derivatives(function: Function) -> None:
    assert gradgradcheck(
        function,
        function.leaves(),
        check_fwd_over_rev=True,
        check_rev_over_rev=True,
        check_batched_grad=True,
    )


def test_third_derivatives(plain_function: Function) -> None:
    """The algebra is closed: it does not end at the second derivative."""
    if len(plain_function.tensors) < 2:
        pytest.skip("is linear")
    leaves = plain_function.leaves()
    weights = torch.randn_like(plain_function(*leaves))

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        value = (plain_function(*tensors) * weights).sum()
        return torch.autograd.grad(value, tensors, create_graph=True)

    assert gradgradcheck(gradients, leaves, check_fwd_over_rev=True, fast_mode=True)


def test_each_argument_alone(plain_function: Function) -> None:
    """Gradients that only one argument asks for, forward and reverse."""
    for index, tensor in enumerate(plain_function.tensors):
        leaf = tensor.clone().requires_grad_()
        assert gradcheck(plain_function.of(index), (leaf,), check_forward_ad=True)


# --- torch.func -----------------------------------------------------------------------------------


def loss(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A scalar with curvature of its own."""
    return lambda *tensors: function(*tensors).sin().sum()


def test_func_grad_is_autograd(function: Function) -> None:
    leaves = function.leaves()
    want = torch.autograd.grad(loss(function)(*leaves), leaves)
    got = grad(loss(function), argnums=tuple(range(len(leaves))))(*function.tensors)
    for name, one, other in zip(function.names, got, want, strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_jacobians_agree(function: Function) -> None:
    for index, tensor in enumerate(function.tensors):
        alone = function.of(index)
        want = torch.autograd.functional.jacobian(alone, tensor)
        torch.testing.assert_close(jacrev(alone)(tensor), want, msg=function.names[index])
        torch.testing.assert_close(jacfwd(alone)(tensor), want, msg=function.names[index])


def test_hessian_agrees_with_double_backward(plain_function: Function) -> None:
    for index, tensor in enumerate(plain_function.tensors):
        alone = loss(plain_function.of(index))
        want = torch.autograd.functional.hessian(alone, tensor)
        torch.testing.assert_close(hessian(alone)(tensor), want)
        torch.testing.assert_close(jacrev(jacrev(alone))(tensor), want)
        torch.testing.assert_close(jacfwd(jacfwd(alone))(tensor), want)
        torch.testing.assert_close(jacrev(jacfwd(alone))(tensor), want)


def test_mixed_hessian(plain_function: Function) -> None:
    """Blocks between two different arguments, in both orders of differentiation."""
    tensors, whole = plain_function.tensors, loss(plain_function)
    for first, second in itertools.combinations(range(len(tensors)), 2):
        block = jacfwd(jacrev(whole, first), second)(*tensors)
        other = jacrev(jacfwd(whole, second), first)(*tensors)
        order = [*range(tensors[second].dim(), other.dim()), *range(tensors[second].dim())]
        torch.testing.assert_close(block, other.permute(order))


def test_jvp_and_vjp_are_transposes(function: Function) -> None:
    """<w, J v> = <J' w, v> with tangents for all arguments at once."""
    tangents = tuple(map(torch.randn_like, function.tensors))
    output, tangent = jvp(function, function.tensors, tangents)
    torch.testing.assert_close(output, function(*function.tensors))
    cotangent = torch.randn_like(output)
    pulled = vjp(function, *function.tensors)[1](cotangent)
    left = (cotangent * tangent).sum()
    right = sum((one * other).sum() for one, other in zip(pulled, tangents, strict=True))
    torch.testing.assert_close(left, right)


def test_forward_mode_without_gradient_mode(plain_function: Function) -> None:
    """Tangents are not lost where no graph is recorded."""
    tangents = tuple(map(torch.randn_like, plain_function.tensors))
    _, want = jvp(plain_function, plain_function.tensors, tangents)
    with torch.no_grad():
        _, got = jvp(plain_function, plain_function.tensors, tangents)
        assert torch.equal(got, want)
        with forward_ad.dual_level():
            duals = map(forward_ad.make_dual, plain_function.tensors, tangents)
            got = forward_ad.unpack_dual(plain_function(*duals)).tangent
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("levels", [1, 2])
def test_forward_mode_of_one_argument(plain_function: Function, levels: int) -> None:
    """Arguments without a tangent count as constant; not as an error, not as zero output."""
    for index, tensor in enumerate(plain_function.tensors):
        alone = plain_function.of(index)
        direction = torch.randn_like(tensor)

        def along(
            step: Tensor, alone: Any = alone, tensor: Any = tensor, d: Any = direction
        ) -> Any:
            return alone(tensor + step * d)

        derivative: Any = along
        for _ in range(levels):
            derivative = jacfwd(derivative)
        got = derivative(torch.zeros((), dtype=torch.float64))
        step = 1e-4
        if levels == 1:
            want = (along(step) - along(-step)) / (2 * step)
        else:
            want = (along(step) - 2 * along(0.0) + along(-step)) / step**2
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


# --- vmap -----------------------------------------------------------------------------------------


def subsets(count: int) -> list[tuple[bool, ...]]:
    return [batched for batched in itertools.product((False, True), repeat=count) if any(batched)]


def batch(tensor: Tensor, dim: int, size: int = 3) -> Tensor:
    """Different numbers for each item, of the size of the given ones, batch at ``dim``."""
    items = [tensor + 0.01 * index * torch.randn_like(tensor).clamp(-1, 1) for index in range(size)]
    return torch.stack(items, dim)


def looped(function: Callable[..., Any], tensors: list[Tensor], dims: list[int | None]) -> Any:
    size = next(t.shape[d] for t, d in zip(tensors, dims, strict=True) if d is not None)
    results = []
    for index in range(size):
        items = (t if d is None else t.select(d, index) for t, d in zip(tensors, dims, strict=True))
        results.append(function(*items))
    if isinstance(results[0], tuple):
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return torch.stack(results)


def batched_arguments(
    function: Function, batched: tuple[bool, ...]
) -> tuple[list[Tensor], list[int | None]]:
    """The batch comes first, last or in between, another place for each argument."""
    tensors, dims = [], list[int | None]()
    for index, (tensor, flag) in enumerate(zip(function.tensors, batched, strict=True)):
        dim = (0, -1, 1, 2, -2)[index] if tensor.dim() > 1 else 0
        tensors.append(batch(tensor, dim) if flag else tensor)
        dims.append(dim if flag else None)
    return tensors, dims


def test_vmap_over_every_subset(function: Function) -> None:
    for batched in subsets(len(function.tensors)):
        tensors, dims = batched_arguments(function, batched)
        got = vmap(function, in_dims=tuple(dims))(*tensors)
        torch.testing.assert_close(got, looped(function, tensors, dims), msg=str(batched))


def test_vmap_over_nothing(function: Function) -> None:
    """A batch of no items has results of the shapes of an item's."""
    one = grad(loss(function))(*function.tensors)
    none = [tensor.expand(0, *tensor.shape) for tensor in function.tensors]
    assert vmap(function)(*none).shape == (0, *function(*function.tensors).shape)
    assert vmap(grad(loss(function)))(*none).shape == (0, *one.shape)


def test_vmap_of_gradients_over_every_subset(function: Function) -> None:
    """Per-sample gradients, whichever arguments differ between the samples."""
    everything = tuple(range(len(function.tensors)))
    gradients = grad(loss(function), argnums=everything)
    for batched in subsets(len(function.tensors)):
        tensors, dims = batched_arguments(function, batched)
        got = vmap(gradients, in_dims=tuple(dims))(*tensors)
        want = looped(gradients, tensors, dims)
        for name, one, other in zip(function.names, got, want, strict=True):
            torch.testing.assert_close(one, other, msg=f"{batched}, grad_{name}")


def test_gradient_through_vmap(plain_function: Function) -> None:
    """The other order: differentiate a batched call."""
    for batched in subsets(len(plain_function.tensors)):
        tensors, dims = batched_arguments(plain_function, batched)
        gradients = []
        for call in (vmap(plain_function, in_dims=tuple(dims)), None):
            leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
            output = call(*leaves) if call else looped(plain_function, leaves, dims)
            gradients.append(torch.autograd.grad(output.sin().sum(), leaves))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, msg=str(batched))


def test_vmap_of_forward_mode(plain_function: Function) -> None:
    def pushed(*both: Tensor) -> Tensor:
        half = len(both) // 2
        tangent: Tensor = jvp(plain_function, both[:half], both[half:])[1]
        return tangent

    for batched in subsets(len(plain_function.tensors)):
        tensors, dims = batched_arguments(plain_function, batched)
        tangents = [torch.randn_like(tensor) for tensor in tensors]
        arguments, places = [*tensors, *tangents], [*dims, *dims]
        got = vmap(pushed, in_dims=tuple(places))(*arguments)
        torch.testing.assert_close(got, looped(pushed, arguments, places), msg=str(batched))


def test_nested_vmap(plain_function: Function) -> None:
    """Two batches, over different arguments, around a gradient."""
    if len(plain_function.tensors) < 2:
        pytest.skip("has one argument")
    first, second = plain_function.tensors[0], plain_function.tensors[1]
    rest = plain_function.tensors[2:]
    many_first, many_second = batch(first, 0, 2), batch(second, 0, 3)
    gradient = grad(lambda a, b: loss(plain_function)(a, b, *rest), argnums=1)
    got = vmap(lambda a: vmap(lambda b: gradient(a, b))(many_second))(many_first)
    want = torch.stack([torch.stack([gradient(a, b) for b in many_second]) for a in many_first])
    torch.testing.assert_close(got, want)


# --- boxes: constants that a batch may have many of -----------------------------------------------


def many_boxes() -> Tensor:
    """Three sets of four boxes, of the same numbers of images in other orders."""
    boxes = Pooled("roi_align", Pooling("aligned", (2, 2), 0.37)).boxes
    moved = [boxes, boxes.flip(0), boxes.roll(1, 0)]
    shift = torch.tensor([0, 0.31, 0.17, 0.23, 0.41], dtype=torch.float64)
    return torch.stack([one + index * shift for index, one in enumerate(moved)])


POOLED_OF_BOXES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "maximum": lambda x, boxes, _: deformops.roi_pool(x, boxes, 2, 0.37),
    "mean": lambda x, boxes, _: deformops.roi_align(x, boxes, 2, 0.37, 2),
    "pixels": lambda x, boxes, _: deformops.ps_roi_pool(x, boxes, 2, 0.37),
    "moved": lambda x, boxes, moves: deformops.deform_roi_pool(x, boxes, moves, 2, 0.37),
}


@pytest.mark.parametrize("batched", subsets(2), ids=str)
@pytest.mark.parametrize("name", POOLED_OF_BOXES)
def test_vmap_over_boxes(name: str, batched: tuple[bool, bool]) -> None:
    """With images and offsets of each item's own, or shared: values, gradients, tangents."""
    function = POOLED_OF_BOXES[name]
    image = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    offset = torch.randn(4, 2, 2, 2, dtype=torch.float64)
    tensors = [
        batch(image, 1) if batched[0] else image,
        many_boxes(),
        batch(offset, 0) if batched[1] else offset,
    ]
    dims = [1 if batched[0] else None, 0, 0 if batched[1] else None]
    got = vmap(function, in_dims=tuple(dims))(*tensors)
    torch.testing.assert_close(got, looped(function, tensors, dims))

    wanted = (0, 2) if name == "moved" else (0,)
    gradients = grad(loss(function), argnums=wanted)
    for one, other in zip(
        vmap(gradients, in_dims=tuple(dims))(*tensors),
        looped(gradients, tensors, dims),
        strict=True,
    ):
        torch.testing.assert_close(one, other)

    def pushed(x: Tensor, boxes: Tensor, moves: Tensor) -> Tensor:
        tangents = (x.cos(), moves.cos())
        tangent: Tensor = jvp(lambda a, b: function(a, boxes, b), (x, moves), tangents)[1]
        return tangent

    got = vmap(pushed, in_dims=tuple(dims))(*tensors)
    torch.testing.assert_close(got, looped(pushed, tensors, dims))


@pytest.mark.parametrize("number", [2.0, -1.0, 3.0, 0.5])
@pytest.mark.parametrize("name", POOLED_OF_BOXES)
def test_vmap_does_not_lend_images(name: str, number: float) -> None:
    """A box of an image that there is not gets none of another item's."""
    images = torch.randn(3, 2, 4, 6, 7, dtype=torch.float64)
    boxes, offset = many_boxes(), torch.zeros(4, 2, 2, 2, dtype=torch.float64)
    boxes[0, 1, 0] = number
    with pytest.raises(RuntimeError, match="image"):
        vmap(POOLED_OF_BOXES[name], in_dims=(0, 0, None))(images, boxes, offset)


@pytest.mark.parametrize("name", POOLED_OF_BOXES)
def test_boxes_have_no_gradient(name: str) -> None:
    """As in all implementations: corners are constants, in reverse and in forward mode."""
    function = POOLED_OF_BOXES[name]
    image = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    boxes = many_boxes()[0].requires_grad_()
    offset = torch.zeros(4, 2, 2, 2, dtype=torch.float64)
    assert not function(image, boxes, offset).requires_grad
    held = boxes.detach()
    tangent = jvp(lambda b: function(image, b, offset), (held,), (torch.ones_like(held),))[1]
    assert not tangent.any()


def test_raw_ops_take_boxes_for_constants() -> None:
    """Also of boxes that ask for a gradient, or have a tangent, of another type than the result."""
    image = torch.randn(2, 4, 6, 7, requires_grad=True)
    boxes = many_boxes()[0].float().requires_grad_()
    half, held = image.detach().half(), boxes.detach()
    bins = ([2, 2], 0.37, "aligned", [1, 1], 2, 0.1, [0, 0])
    raw = torch.ops.deformops
    functions: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, b: raw.roi_average(x, b, None, *bins),
        lambda x, b: raw.roi_pool(x, b, [2, 2], 0.37, "caffe")[0],
    ]
    for function in functions:
        output = function(image, boxes)
        gradients = torch.autograd.grad(output.sum(), (image, boxes), allow_unused=True)
        assert gradients[0].count_nonzero() > 0
        assert gradients[1] is None
        tangent = jvp(partial(function, half), (held,), (held,))[1]
        assert tangent.dtype == torch.float16
        assert not tangent.any()


def test_empty_vmap_item(plain_function: Function) -> None:
    """Items with an empty batch of images inside."""
    empty = plain_function.empty()
    stacked = [torch.stack([tensor, tensor]) for tensor in empty]
    got = vmap(plain_function)(*stacked)
    assert got.shape == (2, *plain_function(*empty).shape)


# --- what is computed, and kept -------------------------------------------------------------------


class Calls(TorchDispatchMode):
    """Records the raw ops that run, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "deformops":
            names = [argument.name for argument in func._schema.arguments]
            arguments = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
            self.calls.append((func._opname, arguments))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("asked", subsets(5), ids=lambda asked: "".join("01"[a] for a in asked))
def test_only_wanted_gradients_are_computed(asked: tuple[bool, ...]) -> None:
    function = FUNCTIONS["deform_conv2d"]()
    leaves = [
        tensor.clone().requires_grad_(flag)
        for tensor, flag in zip(function.tensors, asked, strict=True)
    ]
    output = function(*leaves)
    with Calls() as recorded:
        output.sum().backward()
    for name, leaf, flag in zip(function.names, leaves, asked, strict=True):
        assert (leaf.grad is not None) == flag, name
    needed = dict(zip(function.names, asked, strict=True))
    flags = [needed[name] for name in ("input", "offset", "weight", "mask")]
    if any(flags):
        assert [name for name, _ in recorded.calls] == ["deform_conv2d_backward"]
        assert list(recorded.calls[0][1]["wanted"]) == flags
    else:
        assert recorded.calls == []


@pytest.mark.parametrize("asked", subsets(2), ids=str)
def test_only_wanted_gradients_of_poolings_are_computed(asked: tuple[bool, bool]) -> None:
    function = FUNCTIONS["deform_roi_pool"]()
    leaves = [
        tensor.clone().requires_grad_(flag)
        for tensor, flag in zip(function.tensors, asked, strict=True)
    ]
    output = function(*leaves)
    with Calls() as recorded:
        output.sum().backward()
    assert [leaf.grad is not None for leaf in leaves] == list(asked)
    assert [name for name, _ in recorded.calls] == ["roi_average_backward"]
    assert list(recorded.calls[0][1]["wanted"]) == list(asked)


def test_the_index_of_a_maximum_is_kept_for_derivatives_alone() -> None:
    """Nobody else asks for it: it takes memory and time."""
    function = FUNCTIONS["roi_pool"]()
    (image,) = function.tensors

    def asked(call: Callable[[], Any]) -> list[bool]:
        with Calls() as recorded:
            call()
        calls = [given for name, given in recorded.calls if name == "roi_pool"]
        return [given.get("want_index", True) for given in calls]

    leaf = image.clone().requires_grad_()
    assert asked(lambda: function(image)) == [False]
    assert asked(lambda: function(leaf)) == [True]
    with torch.no_grad():
        assert asked(lambda: function(leaf)) == [False]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(image, torch.ones_like(image))
        assert asked(lambda: function(dual)) == [True]
        assert asked(lambda: function(image)) == [False]
    with torch.inference_mode():
        assert asked(lambda: function(image)) == [False]
    stacked = torch.stack([image, image])
    assert asked(lambda: vmap(function)(stacked)) == [False]
    assert asked(lambda: grad(loss(function))(image)) == [True]
    assert asked(lambda: vmap(grad(loss(function)))(stacked)) == [True]


def test_no_gradient_work_without_gradients(plain_function: Function) -> None:
    with Calls() as recorded:
        output = plain_function(*plain_function.tensors)
    assert [name for name, _ in recorded.calls] == [plain_function.name]
    assert not output.requires_grad
    with torch.no_grad():
        assert not plain_function(*plain_function.leaves()).requires_grad
    with torch.inference_mode():
        assert plain_function(*plain_function.tensors).is_inference()


def test_changing_a_saved_tensor_is_noticed(plain_function: Function) -> None:
    """Gradients of numbers that are gone must not be made up."""
    leaves = plain_function.leaves()
    copies = [leaf * 1.0 for leaf in leaves]
    output = plain_function(*copies)
    copies[-1].data.add_(0.0)  # behind autograd's back: allowed
    copies[-1].add_(0.25)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_checkpoint(plain_function: Function) -> None:
    want = torch.autograd.grad(
        plain_function(*(leaves := plain_function.leaves())).sin().sum(), leaves
    )
    leaves = plain_function.leaves()
    output = checkpoint(plain_function, *leaves, use_reentrant=False)
    got = torch.autograd.grad(output.sin().sum(), leaves)
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


def test_graph_is_freed_after_backward(plain_function: Function) -> None:
    output = plain_function(*plain_function.leaves()).sum()
    output.backward()
    with pytest.raises(RuntimeError, match="second time"):
        output.backward()
