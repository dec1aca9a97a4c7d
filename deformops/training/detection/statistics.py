"""How far from proposals the boxes of objects lie: means and deviations of what a head learns."""

from __future__ import annotations

from dataclasses import replace

import torch

from deformops.nets.detection import DetectorSettings, sample_rois, stack_targets
from deformops.training.detection.network import BoxCode
from deformops.training.detection.scenes import Scenes, proposals_of

# So many decimals tell codes apart, and are the same however sums are rounded.
DECIMALS = 4


def box_statistics(scenes: Scenes, settings: DetectorSettings, *, mirror: bool = True) -> BoxCode:
    """The mean and the deviation of the codes of each class, seen from the proposals of all photos.

    Those count that a head would learn from as objects, and the objects' own boxes. Where the boxes
    of a class do not differ on some axis, the deviation is that of `settings.roi_coder`.

    Args:
        scenes: photos, which are not read, with proposals.
        settings: of the detector.
        mirror: each photo counts twice, once mirrored.

    Returns:
        Means and deviations, 4 numbers for the background, which are not used, and for each class.

    Raises:
        ValueError: there are no proposals.

    Source: Girshick, Fast R-CNN (2015), section 2.3; py-faster-rcnn, `BBOX_NORMALIZE_TARGETS`.
    """
    classes = len(scenes.photos.class_names) + 1
    usual = torch.tensor(settings.roi_coder.stds, dtype=torch.float64).expand(classes, 4)
    plain = replace(settings.roi_coder, means=(0.0,) * 4, stds=(1.0,) * 4)
    count = torch.zeros(classes, 1, dtype=torch.float64)
    sums, squares = usual.new_zeros(classes, 4), usual.new_zeros(classes, 4)
    for number in range(len(scenes)):
        scene = scenes.scene(number)
        objects = {"boxes": scene.boxes, "labels": scene.labels}
        _, labels, codes = sample_rois(
            proposals_of([scene], like=usual),
            stack_targets([objects], like=usual),
            size=None,
            foreground=settings.foreground,
            background=settings.background,
            coder=plain,
        )
        shown = labels > 0
        label, code = labels[shown], codes[shown]
        if mirror:
            label = label.repeat(2)
            code = torch.cat([code, code * code.new_tensor([-1, 1, 1, 1])])
        count.index_add_(0, label, torch.ones(len(label), 1, dtype=torch.float64))
        sums.index_add_(0, label, code)
        squares.index_add_(0, label, code.square())
    means = sums / count.clamp(min=1)
    stds = (squares / count.clamp(min=1) - means.square()).clamp(min=0).sqrt()
    means, stds = means.round(decimals=DECIMALS), stds.round(decimals=DECIMALS)
    stds = torch.where(stds > 0, stds, usual)
    return tuple(map(tuple, means.tolist())), tuple(map(tuple, stds.tolist()))
