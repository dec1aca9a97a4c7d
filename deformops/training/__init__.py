"""Training of segmentation networks, and what they are used for afterwards.

Networks are `deformops.nets.Segmenter`s. The commands `train-seg`, `eval-seg` and `segment` are
made of this.
"""

from deformops.training.augmentation import Augmentation, color_components, ten_crops
from deformops.training.data import LabelledPhotos, Samples, class_names, find_split
from deformops.training.inference import Predictor, crf, crf_ablation, evaluate, most_probable
from deformops.training.optimizer import parameter_groups, poly
from deformops.training.processes import Processes
from deformops.training.scores import Confusion, trimap
from deformops.training.tiles import in_tiles, spans, tiles
from deformops.training.trainer import DivergedError, Recipe, Trainer

__all__ = [
    "Augmentation",
    "Confusion",
    "DivergedError",
    "LabelledPhotos",
    "Predictor",
    "Processes",
    "Recipe",
    "Samples",
    "Trainer",
    "class_names",
    "color_components",
    "crf",
    "crf_ablation",
    "evaluate",
    "find_split",
    "in_tiles",
    "most_probable",
    "parameter_groups",
    "poly",
    "spans",
    "ten_crops",
    "tiles",
    "trimap",
]
