"""Pretraining of masked autoencoders on unlabelled images."""
