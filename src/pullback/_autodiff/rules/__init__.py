"""Derivative rules of the standard's functions, one module for each chapter of the standard.

A rule has the signature of its function, after the namespace to compute in. It returns the value and, for each array
argument in order, ``(pull, *saved)`` or None. ``pull(xp, g, *saved)`` maps the cotangent `g`, which has the shape and
dtype of the value, to the cotangent of the argument. The result may broadcast to the argument's shape, or have a shape
or dtype to which the argument was broadcast or promoted: one place undoes that for all rules. A pull is no closure:
saved arrays are lifted to a deeper level where the pull itself is differentiated.
"""
