"""The trained networks and the data that the benchmarks measure on."""

from .fashion_mnist import DatasetNotFoundError, data
from .networks import NETWORKS, build
from .train import accuracy, load_trained

__all__ = ["NETWORKS", "DatasetNotFoundError", "accuracy", "build", "data", "load_trained"]
