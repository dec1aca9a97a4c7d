"""LinearChainCRF: sequence labelling with scores that are learned."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deformops.ops import LinearChain
from deformops.ops._checks import Checks

Feature = Callable[[Any, int, int, "int | None"], float]
"""f(sentence, place, label, previous label), the last None at the first place."""

_BOUNDARIES = ("both", "start", "none")


class LinearChainCRF(nn.Module):
    """A conditional random field over sequences.

        score(l | s) = start(l_1) + sum_i emissions(s, i, l_i) + sum_i transitions(l_{i-1}, l_i)
                       + end(l_T)
        p(l | s) = exp(score(l | s)) / Z(s)

    Transitions are learned. What a sequence `s` is, and who scores its places, is one of three:

    - scores, [N, T, L]: a network computes them, and learns with the CRF;
    - symbols, [N, T] of integers (`num_symbols` given): a table [num_symbols, L] is learned;
    - sentences, a list of whatever you like (`features` given): the score is a weighted sum of
      feature functions, sum_j weight_j sum_i f_j(s, i, l_i, l_{i-1}), and the weights are all that
      is learned. At the first place, l_{i-1} is None.

    The state_dict has, as far as they exist, `transitions` [L, L] (from, to), `start` [L], `end`
    [L], `emissions` [num_symbols, L] and `weights` [number of features].

    Args:
        num_labels: L.
        num_symbols: the number of symbols, if sequences are of symbols.
        features: feature functions, if sequences are sentences.
        boundary: which ends of a sequence have scores of their own: "both", "start" or "none".
            With features neither has: they see the first place themselves.
        device: where the parameters are made.
        dtype: their type.

    Raises:
        ValueError: an argument does not fit.

    Example:
        >>> crf = LinearChainCRF(num_labels=3)
        >>> scores, labels = torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.int64)
        >>> loss = crf(scores, labels)  # the mean of -log p
        >>> best, score = crf.viterbi(scores)
    """

    def __init__(
        self,
        num_labels: int,
        *,
        num_symbols: int | None = None,
        features: Sequence[Feature] | None = None,
        boundary: str = "both",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        Checks("LinearChainCRF").integer("num_labels", num_labels)
        if num_labels < 1:
            raise ValueError(f"LinearChainCRF: num_labels: expected at least 1, got {num_labels}")
        if boundary not in _BOUNDARIES:
            expected = " or ".join(map(repr, _BOUNDARIES))
            raise ValueError(f"LinearChainCRF: boundary: expected {expected}, got {boundary!r}")
        if features is not None and num_symbols is not None:
            raise ValueError("LinearChainCRF: features: expected None with num_symbols, got a list")
        self.num_labels = num_labels
        self.num_symbols = num_symbols
        self.features = None if features is None else tuple(features)
        self.boundary = boundary
        options: dict[str, Any] = {"device": device, "dtype": dtype}

        def parameter(present: bool, *shape: int) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(shape, **options)) if present else None

        scored = self.features is None
        self.transitions = parameter(scored, num_labels, num_labels)
        self.start = parameter(scored and boundary in ("both", "start"), num_labels)
        self.end = parameter(scored and boundary == "both", num_labels)
        self.emissions = parameter(num_symbols is not None, num_symbols or 0, num_labels)
        self.weights = parameter(not scored, len(self.features or ()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small random scores, so that nothing is decided yet; weights of features are 0."""
        for parameter in (self.transitions, self.start, self.end, self.emissions):
            if parameter is not None:
                nn.init.uniform_(parameter, -0.1, 0.1)
        if self.weights is not None:
            nn.init.zeros_(self.weights)

    @classmethod
    def from_hmm(cls, initial: Tensor, transition: Tensor, emission: Tensor) -> LinearChainCRF:
        """The CRF over symbols that is a hidden Markov model.

        Its posterior of the states is the model's for every sequence of symbols, and Z the model's
        probability of the symbols. Probabilities of 0 become scores of -inf.

        Args:
            initial: [L] probabilities of the first state.
            transition: [L, L] probabilities of the next state (column) after a state (row).
            emission: [L, num_symbols] probabilities of the symbols in each state.

        Raises:
            ValueError: shapes do not fit, or numbers are no probabilities.
        """
        states = initial.shape[0]
        for name, given, rows in (
            ("initial", initial, (states,)),
            ("transition", transition, (states, states)),
            ("emission", emission, (states, emission.shape[-1])),
        ):
            if tuple(given.shape) != rows:
                raise ValueError(
                    f"LinearChainCRF.from_hmm: {name}: expected shape {list(rows)}, "
                    f"got {list(given.shape)}"
                )
            sums = given.sum(-1)
            if bool((given < 0).any()) or not torch.allclose(
                sums, torch.ones_like(sums), atol=1e-4
            ):
                raise ValueError(
                    f"LinearChainCRF.from_hmm: {name}: expected probabilities that sum to 1, got "
                    f"{given.tolist()}"
                )
        crf = cls(
            states,
            num_symbols=emission.shape[1],
            boundary="start",
            device=emission.device,
            dtype=emission.dtype,
        )
        crf.load_state_dict(
            {
                "start": initial.log(),
                "transitions": transition.log(),
                "emissions": emission.t().log(),
            }
        )
        return crf

    def forward(
        self,
        observations: Any,
        labels: Tensor,
        mask: Tensor | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        """Returns the negative log-likelihood of labellings.

        Args:
            observations: scores, symbols or sentences; see the class.
            labels: [N, T] integers.
            mask: [N, T] of bool, the places that exist; None: all (of each sentence).
            reduction: over sequences: "mean", "sum" or "none".

        Returns:
            A number, or [N].

        Raises:
            ValueError: an argument does not fit.
            TypeError: an argument has the wrong type.
        """
        loss = -self.chain(observations, mask).log_likelihood(labels)
        if reduction == "none":
            return loss
        if reduction not in ("mean", "sum"):
            raise ValueError(
                f"LinearChainCRF: reduction: expected 'mean' or 'sum' or 'none', got {reduction!r}"
            )
        return loss.mean() if reduction == "mean" else loss.sum()

    def chain(self, observations: Any, mask: Tensor | None = None) -> LinearChain:
        """Returns the distribution over labellings; see `forward` for the arguments."""
        if self.features is not None:
            values, inside = self.feature_values(observations)
            assert self.weights is not None
            scores = values @ self.weights
            first = torch.zeros_like(scores[:, :, 0])
            first[:, 0] = scores[:, 0, 0]
            return LinearChain(first, scores[:, 1:], mask=inside if mask is None else mask)
        assert self.transitions is not None
        scores = observations
        if self.emissions is not None:
            scores = nn.functional.embedding(observations, self.emissions)
        return LinearChain(scores, self.transitions, start=self.start, end=self.end, mask=mask)

    def score(self, observations: Any, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the scores of labellings, [N]."""
        return self.chain(observations, mask).score(labels)

    def log_partition(self, observations: Any, mask: Tensor | None = None) -> Tensor:
        """Returns log Z, [N]."""
        return self.chain(observations, mask).log_partition()

    def log_likelihood(
        self, observations: Any, labels: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Returns log p(labels | observations), [N]."""
        return self.chain(observations, mask).log_likelihood(labels)

    def marginals(self, observations: Any, mask: Tensor | None = None) -> Tensor:
        """Returns the probability of each label at each place, [N, T, L]."""
        return self.chain(observations, mask).marginals()

    def viterbi(self, observations: Any, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the best labellings, [N, T], and their scores, [N]."""
        return self.chain(observations, mask).viterbi()

    def feature_values(self, sentences: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Asks every feature function at every place for every pair of labels.

        Args:
            sentences: N of them, each with a length of at least 1.

        Returns:
            values: [N, T, L, L, J], (place, previous label, label, feature), T being the longest
                length; at the first place the same for all previous labels.
            mask: [N, T], the places that exist.

        Raises:
            ValueError: a sentence is empty, or the CRF has no feature functions.
        """
        functions = self._feature_functions()
        lengths = [len(sentence) for sentence in sentences]
        if not lengths or min(lengths) == 0:
            raise ValueError(
                "LinearChainCRF: observations: expected sentences with places, got lengths "
                f"{lengths}"
            )
        count = range(self.num_labels)
        shape = (len(lengths), max(lengths), self.num_labels, self.num_labels, len(functions))
        values = torch.zeros(shape, dtype=torch.float64)
        for n, sentence in enumerate(sentences):
            for label, (j, function) in itertools.product(count, enumerate(functions)):
                values[n, 0, :, label, j] = function(sentence, 0, label, None)
                for place, previous in itertools.product(range(1, lengths[n]), count):
                    value = function(sentence, place, label, previous)
                    values[n, place, previous, label, j] = value
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        assert self.weights is not None
        return values.to(self.weights), mask.to(self.weights.device)

    def observed_features(self, sentences: Sequence[Any], labels: Tensor) -> Tensor:
        """Returns the sum of each feature function along labellings, [N, J]."""
        values, mask = self.feature_values(sentences)
        inside = labels.masked_fill(~mask, 0)
        previous = inside.roll(1, 1)  # at the first place any will do
        n, place = torch.meshgrid(*map(torch.arange, inside.shape), indexing="ij")
        return (values[n, place, previous, inside] * mask[..., None]).sum(1)

    def expected_features(self, sentences: Sequence[Any]) -> Tensor:
        """Returns what `observed_features` is on average over all labellings, [N, J].

        The gradient of log p with respect to the weights is the observed less the expected ones.
        """
        values, _ = self.feature_values(sentences)
        chain = self.chain(sentences)
        first = torch.einsum("nl,nlj->nj", chain.marginals()[:, 0], values[:, 0, 0])
        return first + torch.einsum("ntkl,ntklj->nj", chain.pair_marginals(), values[:, 1:])

    def _feature_functions(self) -> tuple[Feature, ...]:
        if self.features is None:
            raise ValueError("LinearChainCRF: features: expected feature functions, got None")
        return self.features

    def extra_repr(self) -> str:
        """What the constructor was told, where it is not the default."""
        text = f"num_labels={self.num_labels}"
        if self.num_symbols is not None:
            text += f", num_symbols={self.num_symbols}"
        if self.features is not None:
            text += f", {len(self.features)} features"
        return text if self.boundary == "both" else f"{text}, boundary={self.boundary!r}"
