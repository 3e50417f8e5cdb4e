"""Start worker processes, hand them requests, follow their events, and end them."""

from convmark.launch.follower import Answer, OnEvent
from convmark.launch.interpreter import Interpreter, LiveWorker, zoo_folder

__all__ = ["Answer", "Interpreter", "LiveWorker", "OnEvent", "zoo_folder"]
