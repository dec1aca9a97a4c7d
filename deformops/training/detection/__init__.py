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
