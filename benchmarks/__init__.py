"""The microbenchmark suite: ``python -m benchmarks``.

A suite (one file in ``benchmarks/suites``) says what is computed and who can compute it. Everything
else is here, once: competitors take turns (``rotation``), their outputs are compared before
anything is timed (``verify``), the floor is measured in the same minute (``limits``), memory in a
process of its own (``memory``), and the results go to the terminal, to JSON and to a chart.
"""
