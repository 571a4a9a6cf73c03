"""Trained models on images: sliding windows, results on the exact input grid, segmenting, classifying, evaluating."""
