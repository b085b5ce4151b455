"""The generated tables and pictures of the README and docs/: ``python -m export.report``.

command      the pages, and which function makes which of their tables
benchmarks   from ``benchmarks/*.json`` and ``benchmarks/runtimes/``
records      from other folders of ``benchmarks/``, and the prices of lowerings
goals        the taxes that are aimed at, and what of them is reached
results      from the weights folder
curves       the pictures of what trained models make of turned, zoomed and sheared images
comparisons  from what scripts in docs/ compared
families     from the layers themselves, and from the pictures of their kernels
gains        the points of top-1 that one model gains over another
files        which files the others read
markdown     tables and what stands around them
"""
