"""The parts of the panel of MedMAE Train; they need the Slicer application."""
