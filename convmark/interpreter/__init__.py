"""Start worker processes, hand them requests, follow their events, and end them."""

from convmark.core.installed import import_roots
from convmark.interpreter.follower import Answer, OnEvent
from convmark.interpreter.launch import Interpreter, LiveWorker, check_zoo, zoo_folder
from convmark.interpreter.server import INTERPRETER_LOST

__all__ = [
    "INTERPRETER_LOST",
    "Answer",
    "Interpreter",
    "LiveWorker",
    "OnEvent",
    "check_zoo",
    "import_roots",
    "zoo_folder",
]
