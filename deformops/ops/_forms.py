"""Derivatives of any order, backwards and forwards, for ops that are derivatives of one form.

A *form* is a number that depends linearly on each of several tensors, its slots:

    F(input, weight, mask, grad_output; offset) = <grad_output, W . (mask * gather(input; offset))>

The raw ops are its partial derivatives: `deform_conv2d` is dF/dgrad_output, its backward pass is
dF/dinput, dF/dweight, ... What is left to write is the derivative of a gradient, the Hessian of F,
and since that is symmetric,

    backward   cotangents c_w of results w:   grad_s     = d/ds sum_w <c_w, dF/dw>
    forward    tangents t_s of arguments s:   tangent_w  = d/dw sum_s <t_s, dF/ds>

are the same Hessian-vector product, `hessian_product`. Because F is linear in a slot, <d, dF/ds> is
F itself with d in the place of s: the product asks for partial derivatives of F again, that is, it
calls the same raw ops with other arguments. They are differentiable in turn, so that derivatives of
every order, in any mix of the two modes, need no other kernel and no other formula.

Not every argument is linear. How F changes with a place (the offset) is for its class to say, in
`Form.along`: mostly it is a form of the same kind, one order of its sampling function higher.

The derivatives belong to the raw ops, at the dispatch key where torch keeps those of its own
operators, rather than to a Python function in front of them. So they are there in eager mode, under
`torch.func`, `torch.compile` and `torch.export`, in a reloaded program and for callers in C++.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

Values = Mapping[str, Any]
"""The tensor in each slot; None where there is none."""
Partials = dict[str, Tensor]
"""A partial derivative for each slot; one that is missing is zero."""
Unfold = Callable[[str, Tensor], Tensor]


class Form(ABC):
    """A number that is linear in its slots; instances hold what is not a tensor.

    A form with a differentiable argument in which it is not linear overrides `along` as well.
    """

    slots: ClassVar[tuple[str, ...]]
    """The differentiable arguments, by their names in the schemas of the raw ops."""

    @classmethod
    @abstractmethod
    def read(cls, ops: Any, arguments: Mapping[str, Any]) -> Form:
        """The form that a raw op with these arguments differentiates.

        Args:
            ops: the namespace of the raw ops, `torch.ops.<library>`.
            arguments: the arguments of the raw op by name. Under vmap, tensors have one leading
                dimension more.
        """

    @abstractmethod
    def partials(self, values: Values, wanted: Sequence[str]) -> Partials:
        """The derivatives with respect to the wanted slots, by calling differentiable ops."""

    def along(
        self, slot: str, direction: Tensor, values: Values, wanted: Sequence[str]
    ) -> Iterator[Partials]:
        """The derivatives of <direction, dF/dslot>, as terms of a sum.

        By linearity <direction, dF/dslot> is F with the direction in the slot, and does not depend
        on what was there.
        """
        others = [name for name in wanted if name != slot]
        yield self.partials({**values, slot: direction}, others)

    @abstractmethod
    def fold(
        self, size: int, values: Values, batched: Sequence[str], wanted: Sequence[str]
    ) -> tuple[Form, Values, Unfold]:
        """Turns a batch of forms, as vmap has it, into one form.

        Args:
            size: the number of forms.
            values: the tensors of all forms; those in `batched` have a first dimension of `size`,
                the others are the same for all.
            batched: slots with a value for each form; and other tensors that `read` has been given
                so.
            wanted: the slots with respect to which derivatives will be asked.

        Returns:
            The one form, its values, and a function that turns its derivative with respect to a
            slot into the derivatives of all forms, stacked.
        """


def fold(size: int, values: Values, batched: Sequence[str], dims: Mapping[str, int]) -> Values:
    """Makes the dimension of the batch of forms a part of another: [B, N, ...] -> [B * N, ...].

    Args:
        size: B, the number of forms.
        values: the tensors of all forms.
        batched: those with a first dimension of B; the others are repeated.
        dims: for each slot to fold, the dimension of a form's own tensor that becomes B times as
            long. Values of other slots stay as they are.
    """
    folded = dict(values)
    for slot, dim in dims.items():
        value = values[slot]
        if value is not None:
            stacked = value if slot in batched else value.expand(size, *value.shape)
            folded[slot] = stacked.movedim(0, dim).flatten(dim, dim + 1)
    return folded


def unfold(size: int, tensor: Tensor, dim: int) -> Tensor:
    """Undoes `fold` for one tensor: the batch of forms is its first dimension again."""
    return tensor.unflatten(dim, (size, tensor.shape[dim] // size)).movedim(dim, 0)


def hessian_product(
    form: Form, values: Values, directions: Mapping[str, Tensor | None], wanted: Sequence[str]
) -> Partials:
    """The derivatives of sum_s <direction_s, dF/ds> with respect to the wanted slots."""
    total: Partials = {}
    for slot, direction in directions.items():
        if direction is None:
            continue
        for term in form.along(slot, direction, values, wanted):
            for name, partial in term.items():
                total[name] = total[name] + partial if name in total else partial
    return total


def register_derivatives(
    library: torch.library.Library,
    name: str,
    form: type[Form],
    results: Sequence[str],
    found: str | None = None,
) -> None:
    """Gives a raw op its derivatives of every order and its vmap rule.

    Args:
        library: where the op is registered.
        name: the op's name.
        form: the class of the form that the op differentiates.
        results: the slots with respect to which it does, one for each tensor it returns. If the
            schema has an argument `wanted`, it holds a flag for each of them.
        found: a slot of the form that the op has no argument for, but finds out itself and returns
            behind the `results`: the op is a derivative of the form at that value. It is no number
            to differentiate (the index of a maximum). The schema has a flag `want_<found>`; a call
            without it returns an empty tensor there, and the derivatives, if there are to be any,
            ask for the value themselves.
    """
    op = RawOp(getattr(getattr(torch.ops, library.ns), name).default, form, results, found)
    library.impl(name, op.autograd, "Autograd", with_keyset=True)
    torch.library.register_vmap(f"{library.ns}::{name}", op.vmap, lib=library)


class RawOp:
    """A raw op seen as derivatives of a form with respect to the slots in `results`."""

    def __init__(
        self, overload: Any, form: type[Form], results: Sequence[str], found: str | None = None
    ) -> None:
        self.overload = overload
        self.form = form
        self.results = tuple(results)
        self.found = found
        schema = overload._schema.arguments
        self.arguments = tuple(argument.name for argument in schema if not argument.kwarg_only)
        self.namespace = getattr(torch.ops, overload.namespace)

    def read(
        self, args: Sequence[Any], found: Tensor | None = None
    ) -> tuple[Form, Values, list[str]]:
        """The form, its values and the results that are wanted, from the op's arguments."""
        arguments = dict(zip(self.arguments, args, strict=True))
        form = self.form.read(self.namespace, arguments)
        values = {slot: arguments.get(slot) for slot in form.slots}
        if self.found is not None:
            values[self.found] = found
        return form, values, self.wanted(arguments)

    def wanted(self, arguments: Mapping[str, Any]) -> list[str]:
        """The results that a call with these arguments asks for; the others are empty tensors."""
        flags = arguments.get("wanted", [True] * len(self.results))
        return [slot for slot, flag in zip(self.results, flags, strict=True) if flag]

    def wants_found(self, options: Mapping[str, Any]) -> bool:
        """Whether a call with these options asks for what the op finds."""
        return self.found is not None and options.get(f"want_{self.found}", True)

    def autograd(self, keyset: Any, *args: Any, **options: Any) -> Any:
        """The kernel at the Autograd key."""
        if self.found is None or self.wants_found(options) or not _is_differentiated(args):
            return self._differentiable(keyset, options, args)
        *results, found = self._differentiable(
            keyset, {**options, f"want_{self.found}": True}, args
        )
        return (*results, found.new_empty(0))

    def _differentiable(self, keyset: Any, options: dict[str, Any], args: Sequence[Any]) -> Any:
        """The op with its derivatives."""
        if not torch._C._are_functorch_transforms_active():
            return _Derivatives.apply(self, keyset, options, *args)
        with enable_single_level_autograd_function():
            return _Derivatives.apply(self, keyset, options, *args)

    def below_autograd(self, keyset: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """The op without derivatives."""
        with torch._C._AutoDispatchBelowAutograd():
            keyset &= torch._C._after_autograd_keyset
            return self.overload.redispatch(keyset, *args, **options)

    def vmap(self, info: Any, in_dims: tuple[Any, ...], *args: Any, **options: Any) -> Any:
        """The rule at the FuncTorchBatched key."""
        arguments = dict(zip(self.arguments, args, strict=True))
        dims = dict(zip(self.arguments, in_dims, strict=True))
        batched = [name for name in self.arguments if isinstance(arguments[name], Tensor)]
        batched = [name for name in batched if dims[name] is not None]
        for name in batched:
            arguments[name] = arguments[name].movedim(dims[name], 0)
        if info.batch_size == 0:
            # Forms of no size have no shape to unfold: those of one batch of zeros do.
            one = {
                name: arguments[name].new_zeros(1, *arguments[name].shape[1:]) for name in batched
            }
            results, out_dims = self._vmap(1, {**arguments, **one}, batched, options)
            if isinstance(results, Tensor):
                return results[:0], out_dims
            return tuple(
                result if dim is None else result[:0]
                for result, dim in zip(results, out_dims, strict=True)
            ), out_dims
        return self._vmap(info.batch_size, arguments, batched, options)

    def _vmap(self, size: int, arguments: Any, batched: Sequence[str], options: Any) -> Any:
        """The results of `size` forms, stacked, and the dimension that they are stacked in."""
        form, values, wanted = self.read(tuple(arguments.values()))
        if self.found is not None and self.wants_found(options):
            wanted.append(self.found)
        form, values, unfold = form.fold(size, values, batched, wanted)
        partials = form.partials(values, wanted)
        slots = self.results if self.found is None else (*self.results, self.found)
        if len(slots) == 1:
            (slot,) = slots
            return unfold(slot, partials[slot]), 0
        like = next(tensor for tensor in values.values() if tensor is not None)
        results = tuple(
            unfold(slot, partials[slot])
            if slot in wanted
            else partials[slot]
            if slot in partials
            else like.new_empty(0)
            for slot in slots
        )
        return results, tuple(0 if slot in wanted else None for slot in slots)


def _is_differentiated(args: Sequence[Any]) -> bool:
    """Whether a tensor asks for gradients, or has a tangent, at this level of torch.func."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(tensor, level=0).tangent is not None for tensor in tensors
    )


class _Derivatives(_SingleLevelFunction):
    """One call of a raw op, and the Hessian-vector products that are its derivatives.

    An autograd function for one level of torch.func, since the dispatcher comes here once for each.
    """

    apply: ClassVar[Callable[..., Any]]

    @staticmethod
    def forward(ctx: Any, op: RawOp, keyset: Any, options: dict[str, Any], *args: Any) -> Any:
        if torch._C._are_functorch_transforms_active():
            # Derivatives are off in here, but only for this level: those below take theirs.
            with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                result = op.below_autograd(keyset, args, options)
        else:
            result = op.below_autograd(keyset, args, options)
        results = (result,) if isinstance(result, Tensor) else result
        tensors = [arg if isinstance(arg, Tensor) else None for arg in args]
        tensors.append(results[-1] if op.found is not None else None)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.op = op
        ctx.constants = [None if isinstance(arg, Tensor) else arg for arg in args]
        ctx.set_materialize_grads(False)
        ctx.results = [(tensor.shape, tensor.dtype) for tensor in results]
        if len(results) > 1:
            wanted = op.wanted(dict(zip(op.arguments, args, strict=True)))
            named = zip_longest(op.results, results)
            ctx.mark_non_differentiable(*(tensor for slot, tensor in named if slot not in wanted))
        return result

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        op: RawOp = ctx.op
        form, values, results = op.read(*_saved(ctx))
        directions = {
            slot: cotangent
            for slot, cotangent in zip(op.results, cotangents, strict=False)
            if slot in results
        }
        needed = ctx.needs_input_grad[-len(op.arguments) :]
        wanted = [name for name, is_needed in zip(op.arguments, needed, strict=True) if is_needed]
        gradients = hessian_product(form, values, directions, wanted)
        return (None, None, None, *(gradients.get(name) for name in op.arguments))

    @staticmethod
    def jvp(ctx: Any, *given: Any) -> Any:
        op: RawOp = ctx.op
        # Level 0 is the only one torch has within a level of torch.func. The saved tensors carry
        # their tangents of this level, which the ops called here must not see again; those of the
        # levels below they must.
        args, found = _saved(ctx)
        primals = (
            forward_ad.unpack_dual(arg, level=0).primal if isinstance(arg, Tensor) else arg
            for arg in args
        )
        with forward_ad._set_fwd_grad_enabled(True):
            form, values, results = op.read(tuple(primals), found)
            tangents = dict(zip(op.arguments, given[-len(op.arguments) :], strict=True))
            directions = {slot: tangents.get(slot) for slot in form.slots}
            changes = hessian_product(form, values, directions, results)
        like = next(tangent for tangent in directions.values() if tangent is not None)
        for slot, (shape, dtype) in zip(op.results, ctx.results, strict=False):
            if slot in results and slot not in changes:
                changes[slot] = like.new_zeros(shape, dtype=dtype)
        result = tuple(changes.get(slot) for slot in op.results)
        if op.found is not None:
            return (*result, None)
        return result if len(result) > 1 else result[0]


def _saved(ctx: Any) -> tuple[tuple[Any, ...], Tensor | None]:
    """The arguments of the call, tensors and constants, and what the op has found."""
    *tensors, found = ctx.saved_tensors
    args = tuple(
        constant if tensor is None else tensor
        for tensor, constant in zip(tensors, ctx.constants, strict=True)
    )
    return args, found
