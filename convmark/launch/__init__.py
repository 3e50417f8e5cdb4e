"""Start worker processes, hand them requests, follow their events, and end them."""

from convmark.launch.follower import Answer, OnEvent
from convmark.launch.interpreter import Interpreter, LiveWorker, zoo_folder
from convmark.launch.roots import import_roots
from convmark.launch.server import INTERPRETER_LOST

__all__ = [
    "INTERPRETER_LOST",
    "Answer",
    "Interpreter",
    "LiveWorker",
    "OnEvent",
    "import_roots",
    "zoo_folder",
]
