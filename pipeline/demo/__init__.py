"""The demo dataset: synthetic videos of actions that differ in motion and object.

Terms of this package: a shape is a function of the plane, a part is a shape with place, size and
paint, an action turns a phase in [0, 1] into parts, a scene is the moving world behind them.
"""

from pipeline.demo.dataset import DemoPaths, make_demo

__all__ = ["DemoPaths", "make_demo"]
