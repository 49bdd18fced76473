"""Episodes on disk and in memory: Minari data sets, packed rows, samplers."""
