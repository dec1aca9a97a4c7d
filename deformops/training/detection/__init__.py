"""Training of detectors, and what they are used for afterwards.

Networks are `deformops.nets.detection.Detector`s. The commands `train-det`, `eval-det` and `detect`
are made of this.

    photos = AnnotatedPhotos.of(Path("bccd"), "train")
    network = DetectionNetwork("faster-rcnn-resnet50", photos.class_names)
    net = network.build()
    trainer = DetectionTrainer(net, Scenes(photos), DetectionRecipe(iterations=1000))
    while not trainer.done:
        loss, _ = trainer.step()
    found = DetectionPredictor(net, network.size).detections(photo)
"""

from deformops.training.detection.alternation import beginning, four_steps, make_proposals
from deformops.training.detection.augmentation import fitting_scale, resized, side_by_side
from deformops.training.detection.data import AnnotatedPhotos, Objects
from deformops.training.detection.inference import DetectionPredictor, evaluate_detector
from deformops.training.detection.network import DetectionNetwork
from deformops.training.detection.scenes import Scene, Scenes, Variation
from deformops.training.detection.scores import CocoScores, DetectionScores
from deformops.training.detection.statistics import box_statistics
from deformops.training.detection.trainer import DetectionRecipe, DetectionTrainer

__all__ = [
    "AnnotatedPhotos",
    "CocoScores",
    "DetectionNetwork",
    "DetectionPredictor",
    "DetectionRecipe",
    "DetectionScores",
    "DetectionTrainer",
    "Objects",
    "Scene",
    "Scenes",
    "Variation",
    "beginning",
    "box_statistics",
    "evaluate_detector",
    "fitting_scale",
    "four_steps",
    "make_proposals",
    "resized",
    "side_by_side",
]
