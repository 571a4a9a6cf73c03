"""The effect MedMAE of the Segment Editor; the Segment Editor loads it by its file."""
