"""The embedded demo: tasks of GLUE's kinds that the project's own code generates."""

from aaa.data.demo.lexicon import vocabulary
from aaa.data.demo.task import DemoTask

__all__ = ["DemoTask", "vocabulary"]
