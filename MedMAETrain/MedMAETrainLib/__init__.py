"""What the module MedMAETrain is made of; needs slicer, vtk and numpy, never torch."""
