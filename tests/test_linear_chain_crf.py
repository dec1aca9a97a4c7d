"""The linear chain: by enumeration, against hidden Markov models, and learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deformops import LinearChain, grid_energy
from deformops.nn import LinearChainCRF
from tests.cases import assert_close, numpy
from tests.reference import chain as reference

DOUBLE = torch.float64
LENGTHS = (4, 2, 1)
MASK = torch.tensor([[True, True, True, True], [True, True, False, False], [True] + [False] * 3])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def scores() -> dict[str, Tensor]:
    """Of three sequences, the longest of four places, and three labels."""
    return {
        "emissions": random(3, 4, 3),
        "transitions": random(3, 3, seed=1),
        "start": random(3, seed=2),
        "end": random(3, seed=3),
    }


def score_of(n: int, given: dict[str, Tensor]) -> reference.Score:
    """The score of a labelling of sequence n, from its definition."""
    arrays = {name: numpy(value) for name, value in given.items()}
    arrays["emissions"] = arrays["emissions"][n, : LENGTHS[n]]
    return lambda labelling: reference.score(labelling=labelling, **arrays)


# --- by enumeration ------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [("start", "end"), ("start",), ()], ids=str)
def test_by_enumeration(ends: tuple[str, ...]) -> None:
    """Scores, log Z, both kinds of marginals and the best labelling, with several lengths."""
    given = {name: x for name, x in scores().items() if name in ("emissions", "transitions", *ends)}
    chain = LinearChain(**given, mask=MASK)
    assert chain.lengths.tolist() == list(LENGTHS)
    best, best_score = chain.viterbi()
    pairs = chain.pair_marginals()
    for n, length in enumerate(LENGTHS):
        score = score_of(n, given)
        assert float(chain.log_partition()[n]) == pytest.approx(
            reference.log_partition(length, 3, score)
        )
        want = reference.marginals(length, 3, score)
        assert_close(chain.marginals()[n, :length], want)
        assert chain.marginals()[n, length:].count_nonzero() == 0
        want_labels, want_score = reference.best(length, 3, score)
        assert tuple(best[n, :length].tolist()) == want_labels
        assert best[n, length:].count_nonzero() == 0
        assert float(best_score[n]) == pytest.approx(want_score)
        for i in range(3):

            def together(labelling: reference.Labelling, i: int = i) -> Any:
                table = np.zeros((3, 3))
                if i + 1 < len(labelling):
                    table[labelling[i], labelling[i + 1]] = 1
                return table

            assert_close(pairs[n, i], reference.expected(length, 3, score, together))
    labels = torch.tensor([[2, 0, 1, 1], [1, 2, 9, -4], [0, 7, 7, 7]])
    for n, length in enumerate(LENGTHS):
        want_score = score_of(n, given)(tuple(labels[n, :length].tolist()))
        assert float(chain.score(labels)[n]) == pytest.approx(want_score)
        likelihood = want_score - reference.log_partition(length, 3, score_of(n, given))
        assert float(chain.log_likelihood(labels)[n]) == pytest.approx(likelihood)


def test_steps_of_their_own() -> None:
    """Transitions for each step are those for all steps, when they are the same."""
    given = scores()
    own = given["transitions"].expand(3, 3, 3, 3)
    chain = LinearChain(**given, mask=MASK)
    other = LinearChain(**{**given, "transitions": own}, mask=MASK)
    labels = torch.tensor([[2, 0, 1, 1], [1, 2, 0, 0], [0, 0, 0, 0]])
    for name in ("log_partition", "marginals", "pair_marginals"):
        assert_close(getattr(other, name)(), getattr(chain, name)())
    assert_close(other.score(labels), chain.score(labels))
    assert torch.equal(other.viterbi()[0], chain.viterbi()[0])


def test_beyond_the_end_nothing_counts() -> None:
    given = scores()
    spoilt = given["emissions"].masked_fill(~MASK[..., None], 1e6)
    chain = LinearChain(**given, mask=MASK)
    other = LinearChain(**{**given, "emissions": spoilt}, mask=MASK)
    for name in ("log_partition", "marginals", "pair_marginals"):
        assert torch.equal(getattr(other, name)(), getattr(chain, name)())
    assert torch.equal(other.viterbi()[0], chain.viterbi()[0])


def test_a_chain_is_a_grid_of_height_one() -> None:
    given = scores()
    labels = torch.tensor([[2, 0, 1, 1], [1, 2, 0, 0], [0, 0, 2, 1]])
    chain = LinearChain(given["emissions"], given["transitions"])
    unary = -given["emissions"].transpose(1, 2).unsqueeze(2)
    energy = grid_energy(unary, labels.unsqueeze(1), -given["transitions"])
    assert_close(energy, -chain.score(labels))


@pytest.mark.parametrize("places", [1, 1200, 5000])
def test_long_sequences(places: int) -> None:
    """float32 is as good at thousands of places as at one."""
    emissions, transitions = 5 * random(2, places, 4), 3 * random(4, 4, seed=1)
    wide = LinearChain(emissions, transitions)
    single = LinearChain(emissions.float(), transitions.float())
    torch.testing.assert_close(single.marginals().double(), wide.marginals(), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        single.log_partition().double(), wide.log_partition(), atol=0, rtol=1e-6
    )
    assert torch.equal(single.viterbi()[0], wide.viterbi()[0])


def test_long_gradients() -> None:
    """The gradient of log Z are the marginals, after 1,200 places, too."""
    emissions = (3 * random(1, 1200, 3)).float().requires_grad_()
    chain = LinearChain(emissions, random(3, 3, seed=1).float())
    (gradient,) = torch.autograd.grad(chain.log_partition(), emissions)
    torch.testing.assert_close(gradient, chain.marginals(), atol=2e-5, rtol=0)


def test_forbidden_steps() -> None:
    """Scores of -inf: their labellings have no part, and gradients stay numbers."""
    emissions = random(1, 3, 2).requires_grad_()
    with torch.no_grad():
        emissions[0, 1, 0] = -torch.inf
    transitions = torch.tensor([[0.3, -0.2], [-torch.inf, 0.1]], dtype=DOUBLE, requires_grad=True)
    chain = LinearChain(emissions, transitions)

    def score(labelling: reference.Labelling) -> float:
        return reference.score(numpy(emissions[0]), numpy(transitions), labelling)

    with np.errstate(invalid="ignore"):
        want = reference.log_partition(3, 2, score)
        assert float(chain.log_partition()) == pytest.approx(want)
        assert_close(chain.marginals()[0], reference.marginals(3, 2, score))
    gradients = torch.autograd.grad(chain.log_partition().sum(), (emissions, transitions))
    assert_close(gradients[0], chain.marginals())
    assert_close(gradients[1], chain.pair_marginals().sum((0, 1)))
    impossible = LinearChain(torch.full((1, 3, 2), -torch.inf), torch.zeros(2, 2))
    assert float(impossible.log_partition()) == -torch.inf


@pytest.mark.parametrize("name", ["log_partition", "marginals", "pair_marginals", "score"])
def test_gradients(name: str) -> None:
    labels = torch.tensor([[2, 0, 1, 1], [1, 2, 0, 0], [0, 0, 0, 0]])

    def function(*tensors: Tensor) -> Tensor:
        given = dict(zip(scores(), tensors, strict=True))
        chain = LinearChain(**given, mask=MASK)
        result: Tensor = chain.score(labels) if name == "score" else getattr(chain, name)()
        return result

    leaves = [value.requires_grad_() for value in scores().values()]
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


def test_half_types() -> None:
    given = {name: value.bfloat16() for name, value in scores().items()}
    want = LinearChain(**{name: value.float() for name, value in given.items()})
    got = LinearChain(**given)
    assert got.log_partition().dtype == torch.float32
    assert_close(got.log_partition(), want.log_partition())


# --- hidden Markov models ------------------------------------------------------------------------


def hidden_markov_model(zeros: bool) -> tuple[Tensor, Tensor, Tensor]:
    initial, transition, emission = (
        random(*shape, seed=seed).softmax(-1) for seed, shape in enumerate(((3,), (3, 3), (3, 4)))
    )
    if zeros:  # from left to right
        transition = transition.triu()
        transition = transition / transition.sum(1, keepdim=True)
        initial = torch.tensor([1.0, 0.0, 0.0], dtype=DOUBLE)
    return initial, transition, emission


@pytest.mark.parametrize("zeros", [False, True])
def test_from_hmm(zeros: bool) -> None:
    """For every sequence of symbols: the same posterior, and Z is the symbols' probability."""
    model = hidden_markov_model(zeros)
    crf = LinearChainCRF.from_hmm(*model)
    initial, transition, emission = (numpy(each) for each in model)
    symbols = torch.tensor(list(reference.labellings(3, 4)))
    states = list(reference.labellings(3, 3))
    partition, marginals = crf.log_partition(symbols), crf.marginals(symbols)
    for n, seen in enumerate(symbols.tolist()):
        joint = np.array(
            [reference.hmm_joint(initial, transition, emission, each, seen) for each in states]
        )
        assert float(partition[n].exp()) == pytest.approx(joint.sum())
        for each, probability in zip(states, joint, strict=True):
            got = crf.log_likelihood(symbols[n : n + 1], torch.tensor([each])).exp()
            assert float(got) == pytest.approx(probability / joint.sum(), abs=1e-12)
        first = np.array([joint[[s[0] == k for s in states]].sum() for k in range(3)])
        assert_close(marginals[n, 0], first / joint.sum())


def test_a_left_to_right_model_learns() -> None:
    """Forbidden steps stay forbidden, and no gradient is NaN."""
    crf = LinearChainCRF.from_hmm(*hidden_markov_model(zeros=True))
    symbols, labels = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[0, 0, 1, 2]])
    crf(symbols, labels).backward()
    for name, parameter in crf.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name


# --- the layer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["both", "start", "none"])
def test_layer_is_the_chain(boundary: str) -> None:
    crf = LinearChainCRF(3, boundary=boundary, dtype=DOUBLE)
    emissions, labels = random(3, 4, 3), torch.tensor([[2, 0, 1, 1], [1, 2, 0, 0], [0, 0, 0, 0]])
    ends = {"both": 2, "start": 1, "none": 0}[boundary]
    assert len(list(crf.parameters())) == 1 + ends
    chain = LinearChain(emissions, crf.transitions, start=crf.start, end=crf.end, mask=MASK)
    loss = -(chain.score(labels) - chain.log_partition())
    assert_close(crf(emissions, labels, MASK, reduction="none"), loss)
    assert_close(crf(emissions, labels, MASK), loss.mean())
    assert_close(crf(emissions, labels, MASK, reduction="sum"), loss.sum())
    assert_close(crf.score(emissions, labels, MASK), chain.score(labels))
    assert_close(crf.marginals(emissions, MASK), chain.marginals())
    assert torch.equal(crf.viterbi(emissions, MASK)[0], chain.viterbi()[0])
    assert f"boundary={boundary!r}" in repr(crf) or boundary == "both"


def test_state_dict_names() -> None:
    assert set(LinearChainCRF(2).state_dict()) == {"transitions", "start", "end"}
    assert set(LinearChainCRF(2, num_symbols=5, boundary="none").state_dict()) == {
        "transitions",
        "emissions",
    }
    assert set(LinearChainCRF(2, features=[lambda *_: 1.0]).state_dict()) == {"weights"}


# Feature functions of a tagger: noun 0, verb 1, other 2.
SENTENCES = [["the", "dog", "barks"], ["dogs", "bark"], ["the", "barking", "dog", "runs"]]
LABELS = torch.tensor([[2, 0, 1, 0], [0, 1, 0, 0], [2, 2, 0, 1]])
FEATURES: list[Callable[[Any, int, int, int | None], float]] = [
    lambda s, i, label, previous: float(s[i].startswith("dog") and label == 0),
    lambda s, i, label, previous: float(previous == 0 and label == 1),
    lambda s, i, label, previous: float(previous is None and label == 2),
    lambda s, i, label, previous: float(s[i].endswith("s") and label == 1) * i,
    lambda s, i, label, previous: float(s[i - 1] == "the" and previous == 2 and label != 1),
]


def feature_sums(sentence: list[str], labelling: reference.Labelling) -> Any:
    previous = [None, *labelling[:-1]]
    return np.array(
        [
            sum(f(sentence, i, labelling[i], previous[i]) for i in range(len(sentence)))
            for f in FEATURES
        ]
    )


def test_feature_functions() -> None:
    """Scores, log Z, observed and expected features and the gradient, by enumeration."""
    crf = LinearChainCRF(3, features=FEATURES, dtype=DOUBLE)
    weights = np.array([1.0, 0.5, -0.3, 0.8, 1.2])
    with torch.no_grad():
        crf.weights.copy_(torch.from_numpy(weights))
    observed, expected = crf.observed_features(SENTENCES, LABELS), crf.expected_features(SENTENCES)
    for n, sentence in enumerate(SENTENCES):

        def score(labelling: reference.Labelling, sentence: list[str] = sentence) -> float:
            return float(weights @ feature_sums(sentence, labelling))

        length = len(sentence)
        labelling = tuple(LABELS[n, :length].tolist())
        assert_close(observed[n], feature_sums(sentence, labelling))
        assert float(crf.score(SENTENCES, LABELS)[n]) == pytest.approx(score(labelling))
        want = reference.log_partition(length, 3, score)
        assert float(crf.log_partition(SENTENCES)[n]) == pytest.approx(want)
        mean = reference.expected(length, 3, score, lambda x, s=sentence: feature_sums(s, x))
        assert_close(expected[n], mean)
        best, _ = crf.viterbi(SENTENCES)
        assert tuple(best[n, :length].tolist()) == reference.best(length, 3, score)[0]
    (gradient,) = torch.autograd.grad(-crf(SENTENCES, LABELS, reduction="sum"), crf.weights)
    assert_close(gradient, (observed - expected).sum(0))


def test_learning_finds_the_model() -> None:
    """At the optimum for labellings as frequent as a model has it, expected features match."""
    teacher = LinearChainCRF(3, features=FEATURES, dtype=DOUBLE)
    with torch.no_grad():
        teacher.weights.copy_(torch.tensor([1.0, 0.5, -0.3, 0.4, 0.7]))
    sentence = SENTENCES[0]
    labellings = torch.tensor(list(reference.labellings(3, 3)))
    copies = [sentence] * len(labellings)
    frequency = teacher.log_likelihood(copies, labellings).exp().detach()
    student = LinearChainCRF(3, features=FEATURES, dtype=DOUBLE)
    optimizer = torch.optim.LBFGS(student.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (frequency * student(copies, labellings, reduction="none")).sum()
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(
        student.expected_features([sentence]),
        teacher.expected_features([sentence]),
        atol=1e-5,
        rtol=0,
    )


def test_learns_with_a_network() -> None:
    """A network's scores and the CRF's learn together that label 1 follows symbol 3."""
    torch.manual_seed(0)
    symbols = torch.randint(0, 4, (8, 12))
    labels = torch.nn.functional.pad((symbols == 3).long()[:, :-1], (1, 0))
    crf = LinearChainCRF(2)
    network = torch.nn.Sequential(torch.nn.Embedding(4, 8), torch.nn.Conv1d(12, 12, 3, padding=1))
    layers = torch.nn.ModuleList([crf, network, torch.nn.Linear(8, 2)])
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = crf(layers[2](network(symbols)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_an_hmm_is_learnt_from_symbols() -> None:
    crf = LinearChainCRF(2, num_symbols=3, dtype=DOUBLE)
    symbols, labels = torch.tensor([[0, 1, 2, 1, 0]]), torch.tensor([[0, 1, 0, 1, 0]])
    optimizer = torch.optim.SGD(crf.parameters(), lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        crf(symbols, labels).backward()
        optimizer.step()
    assert torch.equal(crf.viterbi(symbols)[0], labels)


# --- bad input -----------------------------------------------------------------------------------

chain: Any = LinearChain  # which takes what it should not
layer: Any = LinearChainCRF
_E, _T = torch.zeros(2, 3, 4), torch.zeros(4, 4)

BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "emissions' rank": (lambda: chain(_E[0], _T), ValueError, r"emissions.*\[3, 4\]"),
    "emissions' type": (lambda: chain(_E.long(), _T), TypeError, "emissions.*int64"),
    "no places": (lambda: chain(_E[:, :0], _T), ValueError, "emissions.*one place"),
    "transitions": (lambda: chain(_E, _T[:3]), ValueError, r"transitions.*\[4, 4\].*\[3, 4\]"),
    "own transitions": (
        lambda: chain(_E, torch.zeros(2, 3, 4, 4)),
        ValueError,
        r"transitions.*\[2, 2, 4, 4\].*\[2, 3, 4, 4\]",
    ),
    "start": (lambda: chain(_E, _T, start=torch.zeros(3)), ValueError, r"start.*\[4\].*\[3\]"),
    "mask's type": (lambda: chain(_E, _T, mask=torch.ones(2, 3)), TypeError, "mask.*bool.*float"),
    "mask's shape": (
        lambda: chain(_E, _T, mask=torch.ones(2, 4, dtype=torch.bool)),
        ValueError,
        r"mask.*\[2, 3\].*\[2, 4\]",
    ),
    "a gap": (
        lambda: chain(_E, _T, mask=torch.tensor([[True, False, True]] * 2)),
        ValueError,
        "mask.*gaps",
    ),
    "no first place": (
        lambda: chain(_E, _T, mask=torch.zeros(2, 3, dtype=torch.bool)),
        ValueError,
        "mask.*first",
    ),
    "labels": (
        lambda: chain(_E, _T).score(torch.full((2, 3), 4)),
        ValueError,
        "labels from 0 to 3.*4",
    ),
    "labels' type": (lambda: chain(_E, _T).score(torch.zeros(2, 3)), TypeError, "labels.*float32"),
    "labels' shape": (
        lambda: chain(_E, _T).score(torch.zeros(3, dtype=torch.int64)),
        ValueError,
        r"labels.*\[2, 3\].*\[3\]",
    ),
    "layer's labels": (lambda: layer(0), ValueError, "num_labels.*0"),
    "boundary": (lambda: layer(2, boundary="left"), ValueError, "boundary.*'both'.*'left'"),
    "two kinds": (
        lambda: layer(2, num_symbols=3, features=FEATURES),
        ValueError,
        "features.*num_symbols",
    ),
    "reduction": (
        lambda: layer(4)(_E, torch.zeros(2, 3, dtype=torch.int64), reduction="max"),
        ValueError,
        "reduction.*'mean'.*'max'",
    ),
    "empty sentence": (
        lambda: layer(2, features=FEATURES).log_partition([["a"], []]),
        ValueError,
        r"lengths \[1, 0\]",
    ),
    "no features": (lambda: layer(2).expected_features([["a"]]), ValueError, "features.*None"),
    "no probabilities": (
        lambda: layer.from_hmm(torch.ones(2), torch.eye(2), torch.eye(2)),
        ValueError,
        "initial.*sum to 1",
    ),
    "hmm's shape": (
        lambda: layer.from_hmm(torch.tensor([1.0, 0.0]), torch.eye(3), torch.eye(2)),
        ValueError,
        r"transition.*\[2, 2\].*\[3, 3\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, says = BAD[name]
    with pytest.raises(error, match=says):
        call()
