"""What all commands share: exit statuses, output, and how their arguments are parsed."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from convmark.core.backends import BACKENDS
from convmark.core.files import new_folder, writing
from convmark.core.fitting import tell
from convmark.core.option import Option
from convmark.core.option_values import did_you_mean
from convmark.core.options import OPTIONS, OWN_DEFAULTS
from convmark.core.tasks import TASKS, TIMED_TASKS, default_sizes
from convmark.core.text import Say, listed, plain_text

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

TARGET, BUDGET = "2", "60"
"""Half-width in per cent, and seconds per case, of a live comparison that is not told otherwise."""


def exit_status(good: bool, *, interrupted: bool = False) -> int:
    return EXIT_INTERRUPTED if interrupted else EXIT_OK if good else EXIT_FAILED


def sayer(name: str) -> Say:
    """Return what tells standard error a line, after the name of the program or command."""
    return lambda line: tell(line, before=f"{name}: ", stream=sys.stderr)


ANOTHER_PLACE = "; make it writable, or choose another place"


def write_folder(output: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files beside the new folder, then rename: nobody sees a part of it."""
    with writing(f"--output: {output}", ANOTHER_PLACE), new_folder(output.absolute()) as beside:
        for name, content in files:
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            (beside / name).write_bytes(content)


MOST_NAMES = 2
"""Of commands, in an error."""

_NOT_ONE_OF = re.compile(r"invalid choice: '(?P<given>.*)' \(choose from ")


class Parser(argparse.ArgumentParser):
    """Reports usage errors on one line, with the most similar option or command."""

    def error(self, message: str) -> NoReturn:
        """End with the conventional status; what is printed is one line."""
        self._end("; ".join(filter(None, [message, self._near(message)])))

    def refuse(self, unknown: Sequence[str], commands: Mapping[str, Parser]) -> NoReturn:
        """End because of words that are unknown here, and name the commands that know one of them.

        Of options their names are said, as pytest's are, and not the values that were left over.
        """
        flags = [word.partition("=")[0] for word in unknown if re.match("--|-[a-z]$", word)]
        words = f"unrecognized arguments: {' '.join(flags or unknown)}"
        for flag in flags:
            having = [name for name, one in commands.items() if flag in one._option_string_actions]
            if having:
                self._end(f"{words}; {flag} is an option of convmark {listed(having, MOST_NAMES)}")
        self.error(words)

    def _end(self, message: str) -> NoReturn:
        tell(plain_text(message), before=f"{self.prog}: ", stream=sys.stderr)
        self.exit(EXIT_USAGE)

    def _near(self, message: str) -> str:
        """Ask for the option or command that is most like what a message complains of."""
        choice = _NOT_ONE_OF.search(message)
        if choice is not None:
            choices = re.findall(r"[\w-]+", message[choice.end() :])
            return did_you_mean(choice["given"], choices, most=1, cutoff=0.6)
        unknown = message.partition("unrecognized arguments: ")[2]
        for word in unknown.split():
            name = word.partition("=")[0].rstrip(":")
            known = self._option_string_actions
            if re.fullmatch("-[a-z]", name):  # no option has a short form
                longer = [one for one in known if one.startswith(f"-{name}")]
                hint = f"did you mean {' or '.join(longer)}?" * (0 < len(longer) <= MOST_NAMES)
            else:
                is_unknown = name.startswith("--") and name not in known
                hint = did_you_mean(name, known, most=1, cutoff=0.6) if is_unknown else ""
            if hint:
                return hint
        return ""


_EXAMPLES = {
    "run": "convmark run --models resnet50,mobilenetv2 --tasks infer --batch-sizes 1,32",
    "doctor": "convmark doctor --backend jax",
    "list": "convmark list --format json",
    "show": "convmark show latest",
    "report": "convmark report results ../gpu-box/results -o report.html",
    "compare": "convmark compare 6 7",
    "comment": "convmark comment --badge badge.json",
    "accept": 'convmark accept 7 --reason "larger input"',
    "history": "convmark history lenet5-train-cpu-b32-float32",
    "merge": "convmark merge part-1 part-2 --results whole",
    "ab": 'convmark ab "tensorflow==2.20.*" "tensorflow==2.21.*" --models resnet50',
    "bisect": "convmark bisect --good 2.18.0 --bad 2.21.0 --models lenet5 --tasks train",
    "layers": "convmark layers resnet50 --batch-sizes 1 --top 10",
    "noise": "convmark noise --seconds 60 --models lenet5",
    "export": "convmark export --to openmetrics -o convmark.prom",
    "publish": "convmark publish submissions/* -o site",
    "check-submission": "convmark check-submission results --against ../main/results",
    "env list": "convmark env list --format json",
    "env make": 'convmark env make "tensorflow==2.20.*"',
    "env remove": "convmark env remove --all",
    "fleet doctor": "convmark fleet doctor --ray 10.0.0.1:6379",
}
"""One for each command that has arguments."""


_EXAMPLE = "example:\n  "


class _ExampleAsTyped(argparse.HelpFormatter):
    """Wraps all but the example, which is to be pasted."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLE) else super()._fill_text(text, width, indent)


def command(commands: Any, name: str, words: str, description: str = "") -> Parser:
    """Add a command, with its example.

    Args:
        words: for the list of commands.
        description: for its own help; the words where it is empty.
    """
    made: Parser = commands.add_parser(
        name,
        help=words,
        description=description or f"{words[0].upper()}{words[1:]}.",
        formatter_class=_ExampleAsTyped,
        allow_abbrev=False,
    )
    example = _EXAMPLES.get(made.prog.partition(" ")[2])
    made.epilog = f"{_EXAMPLE}{example}" if example else None
    return made


def actions(parser: Parser) -> Any:
    """Return what the actions of a command, such as `env list`, are added to."""
    return parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=Parser
    )


def add(parser: Parser, usage: str, help: str, **how: Any) -> None:
    """Add an argument.

    Args:
        usage: its names, then what its value is called: `--shard K/N`, or `runs RUN` where it is
            given by its place. With `...` at the end it may be given more than once; a flag
            without a value is a switch.
    """
    first, *words = usage.removesuffix("...").split()
    names = [first, *(word for word in words if word.startswith("-"))]
    if len(names) <= len(words):
        how["metavar"] = words[-1]
    elif first.startswith("-"):
        how["action"] = "store_true"
    if usage.endswith("..."):
        how |= {"action": "append", "default": []}
    parser.add_argument(*names, help=help, **how)


_OF_TIMED = {
    "tasks": f"{', '.join(TASKS[name].words for name in TIMED_TASKS)} (default: {{}})",
    "batch_sizes": "samples per replica per step (default: {})",
}
_OF_A_PAIR = {
    **_OF_TIMED,
    "batch_sizes": f"samples per replica per step (default: {default_sizes(TIMED_TASKS)})",
    "backend": f"backend of Keras, one of {', '.join(BACKENDS)} (default: {{}})",
    "isolation": "fork: fork each process from a warm interpreter; spawn: start a new interpreter "
    "(default: {})",
}
_OWN_HELP: Mapping[str, Mapping[str, str]] = {
    "layers": {
        **_OF_TIMED,
        "time_budget": "the rounds of a session take up to ten times this many seconds "
        "(default: {})",
    },
    "ab": {
        **_OF_A_PAIR,
        "layers": "also measure the time of each layer of both sides, and name the layers that "
        "moved (default: {})",
        "time_budget": "with --layers: the rounds of a session of layers take up to ten times this "
        "many seconds (default: {})",
    },
    "bisect": {**_OF_A_PAIR, "devices": "cpu or a GPU such as gpu:0 (default: {})"},
    "noise": {
        **_OF_A_PAIR,
        "threads": "threads of the measured process: numbers, such as 1,2,4, or default, the "
        "framework's own choice (default: default, on a CPU also 1)",
    },
}
"""By command and key the help of what takes less than in `convmark run`, without the default."""


def _help_of(command: str, option: Option) -> str:
    """Return the help of an option as a command has it, with the command's own default."""
    own = OWN_DEFAULTS.get(command, {}).get(option.key)
    text = _OWN_HELP.get(command, {}).get(option.key)
    if text is not None:
        return text.format(own or option.default or "no")
    if own is None:
        return option.help
    return f"{option.help.partition(' (default: ')[0]} (default: {own})"


def add_options(parser: Parser) -> None:
    """Add the fields of `Options` that the command has, those of a measurement in groups."""
    groups: dict[str, Any] = {}
    name = parser.prog.partition(" ")[2]
    for option in (option for option in OPTIONS if name in option.commands):
        if option.group and option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        to = groups[option.group].add_argument if option.group else parser.add_argument
        option.add_to(to, help=_help_of(name, option))
