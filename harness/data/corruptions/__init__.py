"""Corrupted images: the kinds and severities of ImageNet-C, the same for an image on every occasion."""
