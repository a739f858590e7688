"""What benchmarks.structure_exactness measures of one network, and how it is written down."""
