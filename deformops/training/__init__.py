"""Training of segmentation networks, and what they are used for afterwards.

Detectors are trained by `deformops.training.detection`; both go through one `TrainingLoop`.

Networks are `deformops.nets.Segmenter`s. The commands `train-seg`, `eval-seg` and `segment` are
made of this.

    photos = LabelledPhotos.of(Path("camvid/train"), classes=11, ignore=11)
    augmentation = Augmentation(crop=(321, 321), ignore=11)
    recipe = Recipe(iterations=1000, batch=4, augmentation=augmentation)
    trainer = Trainer(build_segmenter("deeplab-largefov", 11), photos, recipe)
    while not trainer.done:
        loss, _ = trainer.step()
    scores = Predictor(trainer.net).scores(photo)
"""

from deformops.training.augmentation import Augmentation, color_components, ten_crops
from deformops.training.data import LabelledPhotos, Samples, class_names, find_split
from deformops.training.inference import Predictor, crf, crf_ablation, evaluate, most_probable
from deformops.training.loop import LoopRecipe, TrainingLoop
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
    "LoopRecipe",
    "Predictor",
    "Processes",
    "Recipe",
    "Samples",
    "Trainer",
    "TrainingLoop",
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
