"""Checks of an op on the machine at hand, for this package's ops and for yours.

    >>> report = check_op(my_op, input, weight, reference=slow_and_obvious)
    >>> print(report)

`check_op` takes a function of tensors and float64 inputs on which it is smooth, and asks all that a
differentiable op of PyTorch can be asked; `deformops check` runs it for every op of the package.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

__all__ = ["CHECKS", "CheckError", "Report", "Result", "check_op"]

Inputs = tuple[Tensor | None, ...]
Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Result:
    """What came of one check."""

    check: str
    status: str
    """"passed", "failed" or "skipped"."""
    detail: str
    """The largest error, or why it failed or was skipped."""
    seconds: float


@dataclass(frozen=True)
class Report:
    """The results of all checks of one op."""

    op: str
    results: tuple[Result, ...]

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(result.status == "failed" for result in self.results)

    def __str__(self) -> str:
        lines = [self.op]
        for result in self.results:
            first, *_ = result.detail.splitlines() or [""]
            lines.append(f"  {result.check:<10}{result.status:<8}{result.seconds:6.2f} s  {first}")
        return "\n".join(lines)


class CheckError(AssertionError):
    """A check of `check_op` failed; `report` has all results."""

    def __init__(self, report: Report) -> None:
        failures = (result for result in report.results if result.status == "failed")
        details = "\n\n".join(f"{result.check}: {result.detail}" for result in failures)
        super().__init__(f"{report}\n\n{details}")
        self.report = report


class _InapplicableError(Exception):
    """A check does not apply, for the reason given."""


@dataclass(frozen=True)
class _Subject:
    """What is checked, and with what."""

    function: Function
    inputs: Inputs
    reference: Function | None
    raw_calls: Sequence[tuple[Any, tuple[Any, ...]]]
    batch_inputs: Sequence[int]
    dtypes: Sequence[torch.dtype]
    exhaustive: bool

    @property
    def present(self) -> list[int]:
        """The inputs that are tensors."""
        return [i for i, value in enumerate(self.inputs) if value is not None]

    def leaves(self, inputs: Inputs | None = None) -> Any:
        """The inputs as tensors of their own that ask for gradients; layouts are kept."""
        inputs = self.inputs if inputs is None else inputs
        return tuple(None if x is None else x.detach().requires_grad_() for x in inputs)

    def run(
        self, inputs: Inputs, grad: Tensor | None = None, function: Function | None = None
    ) -> list[Tensor]:
        """The output and the gradient of each input, for a fixed or the given grad_output."""
        leaves = self.leaves(inputs)
        output = (function or self.function)(*leaves)
        grad = _like(output, 0) if grad is None else grad
        gradients = torch.autograd.grad(output, [x for x in leaves if x is not None], grad)
        return [output.detach(), *gradients]


def check_op(
    function: Function,
    *inputs: Tensor | None,
    reference: Function | None = None,
    raw_calls: Sequence[tuple[Any, tuple[Any, ...]]] = (),
    batch_inputs: Sequence[int] = (),
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16, torch.float16),
    exhaustive: bool = False,
    checks: Sequence[str] | None = None,
    name: str | None = None,
    on_result: Callable[[Result], None] | None = None,
    raise_on_failure: bool = True,
) -> Report:
    """Checks an op.

    The checks, by name (`CHECKS`):

    - values: equal to `reference`.
    - gradients, second, forward: derivatives of the first order backwards, of the second, and
      forwards, against finite differences (`torch.autograd.gradcheck`).
    - func: `torch.func.jacrev` and `jacfwd` agree with `torch.autograd`.
    - vmap: over each input alone, each pair, and all, it equals a loop, by a rule of its own.
    - opcheck: `torch.library.opcheck` of each call in `raw_calls`.
    - compile: `torch.compile(fullgraph=True)` with dynamic shapes: output and gradients.
    - export: `torch.export` gives a program with the same output.
    - types: the other types, against float64 with the same numbers; outputs keep the type.
    - layouts: channels_last, strided, and expanded inputs and grad_output change nothing.
    - empty: a batch of no images.
    - threads: the same bits with 1, 2 and 3 threads and when repeated, in float32.

    Args:
        function: takes the inputs, returns a tensor. Options go into a closure.
        *inputs: float64 tensors where the op is smooth (for bilinear sampling: no point near a
            pixel), small if `exhaustive`; or None.
        reference: what the function should return, computed otherwise.
        raw_calls: operators, as `torch.ops.mine.op.default`, with arguments for `opcheck`.
        batch_inputs: positions of the inputs whose first dimension is the batch.
        dtypes: of the check of types.
        exhaustive: whether finite differences take each number in turn, and not all numbers at once
            in random directions, which finds the same mistakes but does not say where they are.
        checks: names of the checks to run; all if None.
        name: how the op is called in the report; the function's name if None.
        on_result: called after each check, to show progress.
        raise_on_failure: whether to raise.

    Returns:
        The results. A check that does not apply is skipped, with the reason.

    Raises:
        CheckError: an `AssertionError`, if a check failed and `raise_on_failure` is set.
        TypeError: an input is no float64 tensor.
        ValueError: there is no check of that name.
    """
    for i, value in enumerate(inputs):
        if value is not None and not (isinstance(value, Tensor) and value.dtype == torch.float64):
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(
                f"check_op: inputs[{i}]: expected a float64 tensor or None, got {found}"
            )
    for check in checks or ():
        if check not in CHECKS:
            raise ValueError(f"check_op: checks: expected some of {list(CHECKS)}, got {check!r}")
    subject = _Subject(function, inputs, reference, raw_calls, batch_inputs, dtypes, exhaustive)
    results = []
    for check in CHECKS if checks is None else checks:
        result = _result(check, subject)
        results.append(result)
        if on_result is not None:
            on_result(result)
    report = Report(name or str(getattr(function, "__name__", "op")), tuple(results))
    if raise_on_failure and report.failed:
        raise CheckError(report)
    return report


def _result(check: str, subject: _Subject) -> Result:
    start = time.perf_counter()
    try:
        error = _CHECKS[check](subject)
        status, detail = "passed", f"error {error:.1e}" if error > 0 else ""
    except _InapplicableError as reason:
        status, detail = "skipped", str(reason)
    except Exception as raised:  # whatever an op raises is the finding
        last = traceback.extract_tb(raised.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno}"
        status, detail = "failed", f"{type(raised).__name__}: {raised} ({place})"
    return Result(check, status, detail, time.perf_counter() - start)


def _values(subject: _Subject) -> float:
    if subject.reference is None:
        raise _InapplicableError("no reference given")
    return _compare(subject.function(*subject.inputs), subject.reference(*subject.inputs), 1e-10)


def _gradients(subject: _Subject) -> float:
    torch.autograd.gradcheck(
        subject.function,
        subject.leaves(),
        check_batched_grad=True,
        fast_mode=not subject.exhaustive,
    )
    return 0.0


def _second(subject: _Subject) -> float:
    torch.autograd.gradgradcheck(
        subject.function, subject.leaves(), fast_mode=not subject.exhaustive
    )
    return 0.0


def _forward(subject: _Subject) -> float:
    torch.autograd.gradcheck(
        subject.function,
        subject.leaves(),
        check_forward_ad=True,
        check_backward_ad=False,
        check_undefined_grad=False,
        fast_mode=not subject.exhaustive,
    )
    return 0.0


def _func(subject: _Subject) -> float:
    present = subject.present

    def function(*tensors: Tensor) -> Tensor:
        return subject.function(*_filled(subject.inputs, present, tensors))

    tensors = tuple(x for x in subject.leaves() if x is not None)
    positions = tuple(range(len(tensors)))
    expected = torch.autograd.functional.jacobian(function, tensors)
    error = 0.0
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        for actual, wanted in zip(transform(function, positions)(*tensors), expected, strict=True):
            error = max(error, _compare(actual, wanted, 1e-10))
    return error


def _vmap(subject: _Subject) -> float:
    present = subject.present
    subsets = [*combinations(present, 1), *combinations(present, 2), tuple(present)]
    error = 0.0
    with _no_fallback():
        for subset in subsets:
            stacked = [
                torch.stack([x * (1 + 0.01 * copy) for copy in range(3)])
                for x in (subject.inputs[i] for i in subset)
                if x is not None
            ]
            dims = tuple(0 if i in subset else None for i in range(len(subject.inputs)))
            actual = torch.vmap(subject.function, dims)(*_filled(subject.inputs, subset, stacked))
            for copy in range(3):
                single = _filled(subject.inputs, subset, [x[copy] for x in stacked])
                error = max(error, _compare(actual[copy], subject.function(*single), 1e-10))
    return error


def _opcheck(subject: _Subject) -> float:
    if not subject.raw_calls:
        raise _InapplicableError("no raw calls given")
    for operator, arguments in subject.raw_calls:
        torch.library.opcheck(operator, arguments)
    return 0.0


def _compile(subject: _Subject) -> float:
    torch._dynamo.reset()
    try:
        compiled = torch.compile(
            subject.function, fullgraph=True, dynamic=True, backend="aot_eager"
        )
        expected = subject.run(subject.inputs)
        return _compare_all(subject.run(subject.inputs, function=compiled), expected, 1e-10)
    finally:
        torch._dynamo.reset()


def _export(subject: _Subject) -> float:
    class Module(torch.nn.Module):
        def forward(self, *inputs: Tensor | None) -> Tensor:
            return subject.function(*inputs)

    program = torch.export.export(Module(), subject.inputs).module()
    return _compare(program(*subject.inputs), subject.function(*subject.inputs), 1e-10)


# The largest error, as a part of the largest number, that rounding of sums of some products allows.
_TOLERANCES = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def _types(subject: _Subject) -> float:
    error = 0.0
    for dtype in subject.dtypes:
        rounded = tuple(None if x is None else x.to(dtype) for x in subject.inputs)
        actual = subject.run(rounded)
        for tensor in actual:
            assert tensor.dtype == dtype, f"expected {dtype}, got {tensor.dtype}"
        grad = _like(actual[0], 0).double()
        same = tuple(None if x is None else x.double() for x in rounded)
        expected = subject.run(same, grad)
        wide = [tensor.double() for tensor in actual]
        error = max(error, _compare_all(wide, expected, _TOLERANCES[dtype]))
    return error


def _layouts(subject: _Subject) -> float:
    expected = subject.run(subject.inputs)
    error = 0.0
    for arrange in (_channels_last, _strided):
        arranged = tuple(None if x is None else arrange(x) for x in subject.inputs)
        grad = arrange(_like(expected[0], 0))
        error = max(error, _compare_all(subject.run(arranged, grad), expected, 1e-10))
    expanded = tuple(None if x is None else x[:1].expand_as(x) for x in subject.inputs)
    dense = tuple(None if x is None else x.contiguous() for x in expanded)
    one = expected[0].new_ones(())
    grad = one.expand_as(expected[0])
    return max(
        error,
        _compare_all(subject.run(expanded, grad), subject.run(dense, grad.contiguous()), 1e-10),
    )


def _empty(subject: _Subject) -> float:
    if not subject.batch_inputs:
        raise _InapplicableError("no inputs with a batch given")
    inputs = tuple(
        x[:0] if x is not None and i in subject.batch_inputs else x
        for i, x in enumerate(subject.inputs)
    )
    output, *gradients = subject.run(inputs)
    assert output.shape[0] == 0, f"expected a batch of 0, got shape {list(output.shape)}"
    for gradient in gradients:
        assert not gradient.any(), "expected gradients of zero"
    return 0.0


def _threads(subject: _Subject) -> float:
    inputs = tuple(None if x is None else x.float() for x in subject.inputs)
    if any(x is not None and x.device.type != "cpu" for x in inputs):
        raise _InapplicableError("threads are the CPU's")
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            runs.append(subject.run(inputs))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        for actual, expected in zip(run, runs[0], strict=True):
            assert torch.equal(actual, expected), "bits depend on the number of threads"
    return 0.0


_CHECKS: dict[str, Callable[[_Subject], float]] = {
    "values": _values,
    "gradients": _gradients,
    "second": _second,
    "forward": _forward,
    "func": _func,
    "vmap": _vmap,
    "opcheck": _opcheck,
    "compile": _compile,
    "export": _export,
    "types": _types,
    "layouts": _layouts,
    "empty": _empty,
    "threads": _threads,
}
CHECKS: tuple[str, ...] = tuple(_CHECKS)
"""The names of all checks."""


def _filled(inputs: Inputs, positions: Sequence[int], tensors: Sequence[Tensor]) -> Inputs:
    """The inputs, some replaced."""
    replaced = dict(zip(positions, tensors, strict=True))
    return tuple(replaced.get(i, value) for i, value in enumerate(inputs))


def _like(tensor: Tensor, seed: int) -> Tensor:
    """Random numbers of the shape and type of a tensor, the same each time on every device."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    return numbers.to(device=tensor.device, dtype=tensor.dtype)


def _compare(actual: Tensor, expected: Tensor, tolerance: float) -> float:
    """The largest error in the scale of the expected numbers; raises if too large."""
    assert actual.shape == expected.shape, (
        f"expected shape {list(expected.shape)}, got {list(actual.shape)}"
    )
    if expected.numel() == 0:
        return 0.0
    scale = max(expected.abs().max().item(), 1.0)
    error = float((actual - expected).abs().max().item() / scale)
    assert error <= tolerance, f"error {error:.1e}, allowed {tolerance:.0e}"
    return error


def _compare_all(actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> float:
    pairs = zip(actual, expected, strict=True)
    return max(_compare(left, right, tolerance) for left, right in pairs)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _strided(tensor: Tensor) -> Tensor:
    """Every other number of a wider tensor that is NaN between them."""
    wide = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"))
    wide[..., ::2] = tensor
    return wide[..., ::2]


@contextmanager
def _no_fallback() -> Iterator[None]:
    """Makes vmap of an op without a rule of its own an error, not a loop."""
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(before)
