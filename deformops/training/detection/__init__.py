"""Training of detectors, and what they are used for afterwards."""
