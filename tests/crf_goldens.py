"""Published numbers for the dense CRF and its filter, with where they come from.

pydensecrf: run on its own inputs and on a 3x4 image (its lattice, its float32). MONAI: the tests of
its CPU kernels (``test_phl_cpu.py``, ``test_crf_cpu.py``). Those of its CUDA kernels are of another
kernel, which doubles isolated vertices, and are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _array(*rows: str) -> Array:
    return np.array([float(number) for row in rows for number in row.split(",")])


_Y, _X = (grid.ravel() for grid in np.mgrid[:3, :4])

SMALL_UNARY: Array = np.stack([0.3 * ((_X + 2 * _Y) % 5), 0.4 * ((3 * _X + _Y) % 4)]).reshape(
    2, 3, 4
)
"""Energies [L, H, W] of pydensecrf's 3x4 case."""
SMALL_IMAGE: Array = np.stack([40 * _X + 10 * _Y, 25 * _Y + 5 * _X, 200 - 30 * _X]).reshape(3, 3, 4)
"""Its image [3, H, W]."""

GAUSSIAN: dict[str, Any] = {"sigma": 3.0, "weight": 3.0}
BILATERAL: dict[str, Any] = {"sigma_xy": 5.0, "sigma_rgb": 20.0, "weight": 4.0}


@dataclass(frozen=True)
class Small:
    """One run of pydensecrf on the 3x4 case."""

    iterations: int
    kernels: tuple[str, ...]
    first: Array
    """Q of label 0, by rows."""
    normalization: str = "symmetric"
    weight: float | None = None
    """Of the kernel, in place of its own."""
    compatibility: Any = None


SMALL: dict[str, Small] = {
    "0 iterations": Small(0, ("gaussian",), _array(
        ".5,.710950,.549834,.377541,.450166,.289050,.5,.689974,.401312,.598688,.425557,.645656")),
    "gaussian, none": Small(1, ("gaussian",), _array(
        ".606797,.812507,.710724,.567411,.542548,.421859,.685077,.838836,.476853,.715366,.604022",
        ".805796"), "none"),
    "gaussian, before": Small(1, ("gaussian",), _array(
        ".512464,.724313,.570048,.399199,.460416,.303131,.522756,.710998,.409218,.612785,.446154",
        ".667513"), "before"),
    "gaussian, after": Small(1, ("gaussian",), _array(
        ".514550,.725988,.571952,.402435,.462835,.304304,.522613,.711758,.411811,.614634,.446777",
        ".668938"), "after"),
    "gaussian, symmetric": Small(1, ("gaussian",), _array(
        ".513510,.725159,.571019,.400797,.461613,.303745,.522729,.711410,.410486,.613734,.446512",
        ".668252")),
    "bilateral": Small(1, ("bilateral",), _array(
        ".474009,.838156,.623344,.310624,.360309,.214333,.505772,.862777,.258301,.642904,.322687",
        ".861371")),
    "both": Small(1, ("gaussian", "bilateral"), _array(
        ".487501,.847454,.643314,.331957,.371013,.226440,.528487,.874439,.265656,.657241,.341589",
        ".872918")),
    "both, 5 iterations": Small(5, ("gaussian", "bilateral"), _array(
        ".306152,.991695,.994584,.985068,.142289,.895840,.992150,.998145,.068024,.988044,.864555",
        ".997297")),
    "vector": Small(1, ("gaussian",), _array(
        ".373479,.591451,.415193,.262232,.330295,.191218,.361281,.559205,.289835,.467025,.297313",
        ".511458"), weight=1.0, compatibility=[2.0, 1.0]),
    "matrix": Small(1, ("gaussian",), _array(
        ".506756,.718109,.560454,.389106,.455884,.296345,.511371,.700802,.405891,.606236,.436006",
        ".657043"), weight=1.0, compatibility=[[0.0, 2.0], [1.0, 0.0]]),
}  # fmt: skip


def block_unary() -> Array:
    """Energies [2, 10, 10] of pydensecrf's own test: a frame and a 3x3 hole of doubt."""
    frame = np.zeros((10, 10))
    frame[:, [0, -1]] = frame[[0, -1], :] = 1
    hole = np.zeros((10, 10))
    hole[4:7, 4:7] = 1
    counts = np.stack([frame, hole])
    energies: Array = -np.log((counts + 1) / (counts.sum(0) + 2))
    return energies


def block_image() -> Array:
    """Its image [3, 10, 10]: a white 6x6 block."""
    image = np.zeros((3, 10, 10))
    image[:, 2:8, 2:8] = 255
    return image


BLOCK_KERNEL: dict[str, Any] = {"sigma_xy": 2.0, "sigma_rgb": 2.0, "weight": 3.0}
BLOCK_KL = _array("-153.2305,-167.3128,-190.0376,-210.5900,-222.7801,-228.6206")
"""pydensecrf's klDivergence at the start and after each of five steps.

It is <Q, U> + sum_k <Q, M_k> + <Q, log Q>, where the message M_k of Potts is -w K Q: every pair
twice, and less than the free energy by the constant that Potts adds.
"""


@dataclass(frozen=True)
class Filtered:
    """A filter of MONAI's tests: one image, homogeneously normalised."""

    input: Array  # [L, P]
    features: Array  # [P]
    output: Array  # [L, P]


_PEAKS = _array("1,.2,.5,.2,1")
_ENDS = _array(".229572,.182884,.202637,.182884,.229572")

FILTERED: dict[str, Filtered] = {
    "two ends": Filtered(
        _array("1,0,0,0,1")[None],
        _array("1,.2,.5,0,1"),
        _array(".468968,.364596,.4082,.332579,.468968")[None],
    ),
    "middle": Filtered(
        _array("0,0,1,0,0")[None],
        _array(".5,0,1,1,1"),
        _array(".202473,.176527,.220995,.220995,.220995")[None],
    ),
    "two channels": Filtered(np.eye(5)[[0, 4]], _PEAKS, np.stack([_ENDS, _ENDS])),
    "three channels": Filtered(
        np.eye(5)[[0, 2, 4]],
        _PEAKS,
        np.stack([_ENDS, _array(".201235,.208194,.205409,.208194,.201235"), _ENDS]),
    ),
}

MONAI_LOGITS = np.array([[0.8, 0.9, 0.6, 0.2, 0.3], [0.1, 0.3, 0.5, 0.8, 0.7]])
"""[L, P] of MONAI's CRF: 5 steps, bilateral (spatial 5, colour .5) 1, Gaussian (5) .3, "after"."""
MONAI_CRF: list[tuple[Array, float, Array]] = [
    (_array("1,1,1,.5,0"), 1.0, _array(".726896,.704883,.589467,.376669,.380321")),
    (_array("1,1,.5,0,0"), 1.0, _array(".741916,.720671,.551116,.328360,.376258")),
    (_array("1,1,1,.5,0"), 2.0, _array(".870921,.857105,.781170,.544729,.476710")),
    (_array("1,1,.5,0,0"), 2.0, _array(".867234,.852610,.648074,.334584,.386766")),
]
"""Image [P], the multiple of the identity that is the compatibility, Q of label 0."""
