"""A small Qt application that shows the module panels without Slicer.

PySide6 stands in for PythonQt, small widgets for those of CTK and qMRML. It proves that the panels load, react and look
right; not how the real widgets behave.
"""
