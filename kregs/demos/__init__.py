"""What is taught of regularization, claim by claim, measured on real data: `kregs demo NAME`.

One claim is one module in `claims/`, with four functions: `measure` trains (one row of a table a
run), `tabulate` takes means over seeds, `judge` says from the numbers whether the claim holds, and
`draw` makes the figure. Listing them imports none of them: TensorFlow stays unloaded.
"""

from kregs.demos.demonstration import Demonstration, demos, run

__all__ = ["Demonstration", "demos", "run"]
