"""check_op has to find what is planted: for every check an op that fails it and one that passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from deformops.testing import CHECKS, CheckError, Report, check_op


def right(x: Tensor, y: Tensor) -> Tensor:
    return x.sin() * y


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 2, 2, 3)
    x, y = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, y


class Square(torch.autograd.Function):
    """x * x with all its derivatives; planted mistakes replace one of them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * tangent


class WrongGradient(Square):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2.02 * x * grad


class WrongSecondGradient(Square):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x.detach() * grad


class SilentZeroTangent(Square):
    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return torch.zeros_like(tangent)


class WrongBatch(Square):
    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return Square.apply(x).flip(in_dims[0]), in_dims[0]


class NoTransforms(torch.autograd.Function):
    """The old form, which torch.func does not take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


def squared(function: Any) -> Callable[..., Tensor]:
    return lambda x, y: function.apply(x) + y


LIBRARY = torch.library.Library("deformops_tests", "DEF")
LIBRARY.define("no_fake(Tensor x) -> Tensor")
LIBRARY.impl("no_fake", lambda x: x * x, "CPU")
LIBRARY.define("wrong_fake(Tensor x) -> Tensor")
LIBRARY.impl("wrong_fake", lambda x: x * x, "CPU")
torch.library.register_fake(
    "deformops_tests::wrong_fake", lambda x: x.new_empty(x.numel()), lib=LIBRARY
)
OPS = torch.ops.deformops_tests


def as_if_contiguous(x: Tensor, y: Tensor) -> Tensor:
    """Reads memory in order, whatever the strides say."""
    return x.as_strided(x.shape, torch.empty(x.shape).stride()).sin() * y


def depends_on_threads(x: Tensor, y: Tensor) -> Tensor:
    return right(x, y) * (1 + 1e-6 * torch.get_num_threads())


def divides_by_the_batch(x: Tensor, y: Tensor) -> Tensor:
    return right(x, y) * (1.0 / x.shape[0])


def always_float32(x: Tensor, y: Tensor) -> Tensor:
    result = right(x, y)
    return result if x.dtype == torch.float64 else result.float()


def decides_by_data(x: Tensor, y: Tensor) -> Tensor:
    return x * y if bool(x.sum() > 100) else right(x, y)


PLANTED: list[tuple[str, Callable[..., Tensor], dict[str, Any]]] = [
    ("values", right, {"reference": lambda x, y: right(x, y) * (1 + 1e-8)}),
    ("values", right, {"reference": lambda x, y: right(x, y)[:1]}),
    ("gradients", squared(WrongGradient), {}),
    ("second", squared(WrongSecondGradient), {}),
    ("forward", squared(SilentZeroTangent), {}),
    ("func", squared(NoTransforms), {}),
    ("func", squared(SilentZeroTangent), {}),
    ("vmap", squared(WrongBatch), {}),
    ("vmap", lambda x, y: OPS.no_fake(x) + y, {}),  # has no rule: torch would loop
    ("opcheck", right, {"raw_calls": [(OPS.wrong_fake.default, (torch.randn(3, 2),))]}),
    ("opcheck", right, {"raw_calls": [(OPS.no_fake.default, (torch.randn(3, 2),))]}),
    ("compile", lambda x, y: OPS.no_fake(x.detach()) + y + x, {}),
    ("compile", decides_by_data, {}),
    ("export", decides_by_data, {}),
    ("types", always_float32, {}),
    ("layouts", as_if_contiguous, {}),
    ("empty", divides_by_the_batch, {"batch_inputs": (0, 1)}),
    ("threads", depends_on_threads, {}),
]


def only(check: str, function: Callable[..., Tensor], **options: Any) -> Report:
    return check_op(function, *inputs(), checks=(check,), raise_on_failure=False, **options)


@pytest.mark.parametrize(
    ("check", "function", "options"),
    PLANTED,
    ids=[f"{check}-{index}" for index, (check, _, _) in enumerate(PLANTED)],
)
def test_planted_mistakes_are_found(
    check: str, function: Callable[..., Tensor], options: dict[str, Any]
) -> None:
    report = only(check, function, **options)
    assert report.failed, report
    assert [(result.check, result.status) for result in report.results] == [(check, "failed")]
    assert report.results[0].detail


def test_every_check_has_a_planted_mistake() -> None:
    assert {check for check, _, _ in PLANTED} == set(CHECKS)


@pytest.mark.parametrize("check", CHECKS)
def test_a_right_op_passes(check: str) -> None:
    options: dict[str, Any] = {
        "reference": lambda x, y: torch.from_numpy(x.sin().numpy() * y.numpy()),
        "batch_inputs": (0, 1),
        "raw_calls": [(torch.ops.aten.sin.default, (torch.randn(3),))],
    }
    report = only(check, right, **options)
    assert not report.failed, report
    assert [result.status for result in report.results] == ["passed"]


def test_failures_raise_with_the_report() -> None:
    with pytest.raises(CheckError, match="gradients") as info:
        check_op(squared(WrongGradient), *inputs(), checks=("gradients", "types"), name="planted")
    report = info.value.report
    assert report.op == "planted"
    assert [result.status for result in report.results] == ["failed", "passed"]
    assert "planted" in str(info.value)


def test_checks_that_do_not_apply_are_skipped_with_a_reason() -> None:
    report = check_op(right, *inputs(), checks=("values", "opcheck", "empty"))
    assert [result.status for result in report.results] == ["skipped"] * 3
    assert all(result.detail for result in report.results)


def test_results_are_told_as_they_come() -> None:
    told: list[str] = []
    report = check_op(
        right,
        *inputs(),
        checks=("types", "layouts"),
        on_result=lambda result: told.append(result.check),
    )
    assert told == ["types", "layouts"] == [result.check for result in report.results]


def test_an_absent_input_is_passed_on() -> None:
    def optional(x: Tensor, y: Tensor | None) -> Tensor:
        return x.sin() if y is None else right(x, y)

    x, _ = inputs()
    report = check_op(
        optional, x, None, checks=("gradients", "vmap", "types", "layouts", "threads")
    )
    assert not report.failed


def test_state_is_left_as_it_was() -> None:
    """Threads, the inputs and their gradients."""
    x, y = inputs()
    x.requires_grad_()
    before, threads = x.detach().clone(), torch.get_num_threads()
    check_op(right, x, y, checks=("gradients", "threads", "layouts"))
    assert torch.equal(x.detach(), before)
    assert x.grad is None
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((torch.randn(2),), {}, TypeError, r"inputs\[0\].*float64.*float32"),
        ((torch.randn(2).double(), 3.0), {}, TypeError, r"inputs\[1\].*float64.*float"),
        ((torch.randn(2).double(),), {"checks": ("nonsense",)}, ValueError, "checks.*nonsense"),
    ],
    ids=["type", "no tensor", "check"],
)
def test_wrong_arguments(
    arguments: Any, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        check_op(right, *arguments, **options)
