"""Every option in one place: types, defaults, meanings; read from TOML, unknown keys refused.

The tables of the documentation, ``optiprune config --explain`` and the errors are all made from the
models of `optiprune.config.options`, so they cannot disagree.
"""

from .allocation import AllocationOptions
from .executor import ExecutorOptions
from .explain import explain, ignored_options
from .options import (
    AcceptOptions,
    BatchOptions,
    Config,
    CurvatureOptions,
    InitialOptions,
    JointOptions,
    LayerOptions,
    PruneOptions,
    RefitOptions,
    ScheduleOptions,
    load_config,
    parse_pattern,
)
from .presets import PRESETS, Preset
from .reading import ConfigError, read_toml, validate
from .resolve import resolved
from .subset import SubsetOptions
from .tune import TuneOptions
from .window import WindowOptions

__all__ = [
    "PRESETS",
    "AcceptOptions",
    "AllocationOptions",
    "BatchOptions",
    "Config",
    "ConfigError",
    "CurvatureOptions",
    "ExecutorOptions",
    "InitialOptions",
    "JointOptions",
    "LayerOptions",
    "Preset",
    "PruneOptions",
    "RefitOptions",
    "ScheduleOptions",
    "SubsetOptions",
    "TuneOptions",
    "WindowOptions",
    "explain",
    "ignored_options",
    "load_config",
    "parse_pattern",
    "read_toml",
    "resolved",
    "validate",
]
