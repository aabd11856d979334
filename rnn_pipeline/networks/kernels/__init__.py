"""Fast trainers for groups of like members, one module per kind of machine.

Each gives ``available()``, None where it can run or the reason why not, and ``train(members, ...)``
for members that share cell, widths, outputs, features, lookback and batch size. What they compute
is what :mod:`~rnn_pipeline.networks.training` computes for one network at a time, which is the
oracle in their tests. They are imported lazily, and need torch and NumPy alone beside their own
compiler.
"""
