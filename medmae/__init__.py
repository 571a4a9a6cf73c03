"""MedMAE: masked-autoencoder encoders for few-label medical image segmentation and classification."""

__version__ = "0.1.0"
