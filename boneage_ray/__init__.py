"""boneage-ray: skeletal maturity from radiographs, trained and scored on Ray."""

__version__ = "0.1.0"
