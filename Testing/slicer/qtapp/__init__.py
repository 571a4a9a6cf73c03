"""A small Qt application that shows the module panels without Slicer: PySide6 in place of PythonQt, and stand-ins for the
widgets of CTK and qMRML. It proves that the panels load, react and look right; not how the real widgets behave.
"""
