"""The parts of the module's panel; need the Slicer application."""
