"""LinearChain: a distribution over sequences of labels whose neighbours depend on each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deformops.ops._checks import Checks
from deformops.ops._labels import check_integers, check_range


class LinearChain:
    """Sequences of labels, each with a probability in proportion to the exponential of its score.

        score(l) = start(l_1) + sum_i emissions(i, l_i) + sum_i transitions(l_{i-1}, l_i) + end(l_T)
        p(l) = exp(score(l)) / Z

    All recursions work on logarithms that are normalised at every place, so that float32 is as
    good at 10,000 places as at ten. Differentiable in all scores but for `viterbi`; scores of -inf
    forbid a label or a step.

    Args:
        emissions: [N, T, L] scores of each label at each place, T >= 1.
        transitions: [L, L] scores of steps, from label (row) to label (column), or
            [N, T - 1, L, L], with their own for each step.
        start: [L] scores of the first label; None: 0.
        end: [L] scores of the last label; None: 0.
        mask: [N, T] of bool, the places that sequences shorter than T have: from the first place on
            and without gaps. None: all.

    Raises:
        ValueError: shapes do not fit, or a mask has gaps.
        TypeError: an argument has the wrong type.

    Source: Lafferty, McCallum and Pereira, Conditional Random Fields (2001); Sutton and McCallum,
    An Introduction to Conditional Random Fields (2012), section 4.1.
    """

    def __init__(
        self,
        emissions: Tensor,
        transitions: Tensor,
        *,
        start: Tensor | None = None,
        end: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        checks = Checks("LinearChain")
        checks.tensor("emissions", emissions, "[N, T, L]")
        batch, length, labels = emissions.shape
        checks.require(length >= 1, "emissions", "at least one place", list(emissions.shape))
        checks.require(labels >= 1, "emissions", "at least one label", list(emissions.shape))
        kind = torch.promote_types(emissions.dtype, torch.float32)
        self.emissions = emissions.to(kind)
        one = isinstance(transitions, Tensor) and transitions.dim() == 2
        checks.tensor("transitions", transitions, "[L, L]" if one else "[N, T - 1, L, L]")
        checks.device("transitions", transitions, "emissions", emissions)
        if one:
            checks.shape("transitions", transitions, (labels, labels), "[L, L]")
        else:
            shape = (batch, length - 1, labels, labels)
            checks.shape("transitions", transitions, shape, "[N, T - 1, L, L]")
        self.transitions = transitions.to(kind)
        for name, scores in (("start", start), ("end", end)):
            if scores is not None:
                checks.tensor(name, scores, "[L]")
                checks.device(name, scores, "emissions", emissions)
                checks.shape(name, scores, (labels,), "[L]")
        zeros = self.emissions.new_zeros(labels)
        self.start = zeros if start is None else start.to(kind)
        self.end = zeros if end is None else end.to(kind)
        if mask is None:
            self.mask = emissions.new_ones(batch, length, dtype=torch.bool)
        else:
            self.mask = _checked_mask(checks, mask, emissions)

    @property
    def lengths(self) -> Tensor:
        """[N], the number of places of each sequence."""
        return self.mask.sum(1)

    def score(self, labels: Tensor) -> Tensor:
        """Returns the scores [N] of labellings [N, T], whatever they have beyond the end."""
        labels = self._checked(labels)
        at = self.emissions.gather(2, labels[..., None])[..., 0]
        total = self.start[labels[:, 0]] + torch.where(self.mask, at, 0.0).sum(1)
        before, after = labels[:, :-1], labels[:, 1:]
        if self.transitions.dim() == 2:
            steps = self.transitions[before, after]
        else:
            chosen = before[..., None, None].expand(-1, -1, 1, self.transitions.shape[-1])
            steps = self.transitions.gather(2, chosen)[:, :, 0].gather(2, after[..., None])[..., 0]
        total = total + torch.where(self.mask[:, 1:], steps, 0.0).sum(1)
        last = labels.gather(1, self.lengths[:, None] - 1)[:, 0]
        return total + self.end[last]

    def log_partition(self) -> Tensor:
        """Returns log Z, [N]."""
        alphas, totals = self._forwards()
        return totals.sum(1) + _logsumexp(alphas[:, -1] + self.end, 1)

    def log_likelihood(self, labels: Tensor) -> Tensor:
        """Returns log p, [N], of labellings [N, T]."""
        return self.score(labels) - self.log_partition()

    def marginals(self) -> Tensor:
        """Returns the probability of each label at each place, [N, T, L]; 0 beyond the end."""
        alphas, _ = self._forwards()
        probabilities = (alphas + self._backwards()).softmax(2)
        return torch.where(self.mask[..., None], probabilities, 0.0)

    def pair_marginals(self) -> Tensor:
        """Returns the probability of each step, [N, T - 1, L, L], (from, to); 0 beyond the end."""
        alphas, _ = self._forwards()
        arriving = (self.emissions + self._backwards())[:, 1:]
        scores = alphas[:, :-1, :, None] + self.transitions + arriving[:, :, None, :]
        probabilities = scores.flatten(2).softmax(2).reshape(scores.shape)
        return torch.where(self.mask[:, 1:, None, None], probabilities, 0.0)

    @torch.no_grad()
    def viterbi(self) -> tuple[Tensor, Tensor]:
        """Returns the labellings with the highest scores, [N, T], and these, [N].

        Beyond a sequence's end the label is 0. Of several with the highest score it is one.
        """
        length = self.emissions.shape[1]
        best = self.start + self.emissions[:, 0]
        total = torch.zeros_like(best[:, 0])
        origins = []
        for place in range(1, length):
            # What is best so far counts as 0, so that differences keep their digits.
            highest = _finite(best.amax(1))
            best, total = best - highest[:, None], total + highest
            scores, origin = (best[:, :, None] + self._steps(place)).max(1)
            inside = self.mask[:, place, None]
            best = torch.where(inside, scores + self.emissions[:, place], best)
            origins.append(origin)
        rest, label = (best + self.end).max(1)
        labels = torch.zeros_like(self.mask, dtype=torch.int64)
        labels[:, -1] = label
        for place in range(length - 1, 0, -1):
            inside = self.mask[:, place]
            previous = origins[place - 1].gather(1, label[:, None])[:, 0]
            label = torch.where(inside, previous, label)
            labels[:, place - 1] = label
        return labels.masked_fill(~self.mask, 0), total + rest

    def _steps(self, place: int) -> Tensor:
        """The scores of the step to a place, [L, L] or [N, L, L]."""
        return self.transitions if self.transitions.dim() == 2 else self.transitions[:, place - 1]

    def _forwards(self) -> tuple[Tensor, Tensor]:
        """Log probabilities of the label at each place, given what came so far, [N, T, L].

        Beyond the end they stay. With them what was taken out at each place, [N, T]: its sum is
        the logarithm of what all labellings of the places so far weigh.
        """
        alpha = self.start + self.emissions[:, 0]
        alphas: list[Tensor] = []
        totals: list[Tensor] = []
        for place in range(self.emissions.shape[1]):
            if place > 0:
                arrived = _logsumexp(alphas[-1][:, :, None] + self._steps(place), 1)
                alpha = arrived + self.emissions[:, place]
            total = _logsumexp(alpha, 1)
            alpha = alpha - _finite(total)[:, None]
            if place > 0:
                inside = self.mask[:, place]
                alpha = torch.where(inside[:, None], alpha, alphas[-1])
                total = torch.where(inside, total, 0.0)
            alphas.append(alpha)
            totals.append(total)
        return torch.stack(alphas, 1), torch.stack(totals, 1)

    def _backwards(self) -> Tensor:
        """Logarithms of what follows each label at each place, up to a number for each place."""
        end = self.end.expand(self.emissions.shape[0], -1)
        betas = [end]
        for place in range(self.emissions.shape[1] - 1, 0, -1):
            following = (betas[-1] + self.emissions[:, place])[:, None, :]
            beta = _logsumexp(following + self._steps(place), 2)
            beta = beta - _finite(_logsumexp(beta, 1))[:, None]
            betas.append(torch.where(self.mask[:, place, None], beta, end))
        return torch.stack(betas[::-1], 1)

    def _checked(self, labels: Any) -> Tensor:
        checks = Checks("LinearChain")
        check_integers(checks, "labels", labels)
        checks.device("labels", labels, "emissions", self.emissions)
        checks.require(
            labels.shape == self.mask.shape,
            "labels",
            f"shape [N, T] = {list(self.mask.shape)}",
            list(labels.shape),
        )
        inside = labels.long().masked_fill(~self.mask, 0)
        check_range(checks, "labels", inside, 0, self.emissions.shape[2] - 1)
        return inside


def _checked_mask(checks: Checks, mask: Any, emissions: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{checks.op}: mask: expected a tensor of bool, got {got}")
    checks.device("mask", mask, "emissions", emissions)
    expected = f"shape [N, T] = {list(emissions.shape[:2])}"
    checks.require(mask.shape == emissions.shape[:2], "mask", expected, list(mask.shape))
    if mask.device.type == "cpu":
        whole = bool(mask[:, 0].all()) and not bool((mask[:, 1:] & ~mask[:, :-1]).any())
        checks.require(whole, "mask", "sequences from the first place on, without gaps", "others")
    return mask


def _finite(total: Tensor) -> Tensor:
    """What to subtract from logarithms with this sum or maximum: nothing where all are -inf."""
    return torch.where(total == -torch.inf, 0.0, total)


def _logsumexp(scores: Tensor, dim: int) -> Tensor:
    """As torch's, with a derivative of 0, not NaN, where all scores are -inf."""
    highest = _finite(scores.detach().amax(dim, keepdim=True))
    total = (scores - highest).exp().sum(dim)
    reached = total > 0
    logarithm = torch.where(reached, total, 1.0).log()
    return torch.where(reached, logarithm, -torch.inf) + highest.squeeze(dim)
