"""What is made of labels and logits beside the label map: measurements, cleaned labels, probability and other maps."""
