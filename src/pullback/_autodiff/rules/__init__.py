"""The derivatives of the standard's functions, one module for each of its chapters.

A rule has the signature of its function, after the namespace to compute in. It returns the value and, for each array
argument in order, ``(pull, *saved)`` or None: ``pull(xp, g, *saved)`` takes the cotangent `g` of the value, which has
its shape and dtype, to that of the argument. What is returned may broadcast to the argument's shape, or have a shape or
dtype that the argument was broadcast or promoted to: that is undone for all rules in one place. `saved` holds all that
a pull needs: no closures, since what was saved is lifted where a pull is differentiated in turn.
"""
