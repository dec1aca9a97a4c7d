"""Reference networks, each readable beside its paper, built from `deformops.nn`.

Classifiers have the state_dicts of torchvision where it has the network; `transplant` brings their
weights, and those of Caffe's files, into the networks for segmentation.
"""

from deformops.nets.alexnet import AlexNet, AlexNetFeatures, CaffeNet, TwoTowerConv2d
from deformops.nets.caffemodel import read_caffemodel
from deformops.nets.deeplab import DeepLabResNet, DeepLabVGG, DeformableDeepLab, MultiScale
from deformops.nets.fcn import FCN, FCNAlexNet
from deformops.nets.grid import Grid
from deformops.nets.preprocessing import CAFFE_BGR, TORCHVISION_RGB, Preprocessing
from deformops.nets.resnet import (
    RESNET50,
    RESNET101,
    Bottleneck,
    ResNet,
    ResNetTrunk,
    resnet50,
    resnet101,
)
from deformops.nets.segmentation import build_segmenter, networks
from deformops.nets.segmenter import Segmenter, WithCRF
from deformops.nets.transplant import (
    TransplantReport,
    convolutionalize,
    decimated,
    transplant,
)
from deformops.nets.vgg import VGG16, VGG16Features
from deformops.nets.weights import load_weights

__all__ = [
    "CAFFE_BGR",
    "FCN",
    "RESNET50",
    "RESNET101",
    "TORCHVISION_RGB",
    "VGG16",
    "AlexNet",
    "AlexNetFeatures",
    "Bottleneck",
    "CaffeNet",
    "DeepLabResNet",
    "DeepLabVGG",
    "DeformableDeepLab",
    "FCNAlexNet",
    "Grid",
    "MultiScale",
    "Preprocessing",
    "ResNet",
    "ResNetTrunk",
    "Segmenter",
    "TransplantReport",
    "TwoTowerConv2d",
    "VGG16Features",
    "WithCRF",
    "build_segmenter",
    "convolutionalize",
    "decimated",
    "load_weights",
    "networks",
    "read_caffemodel",
    "resnet50",
    "resnet101",
    "transplant",
]
