"""`shotstream completion`: a script that completes verbs and options in a shell."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import tyro

from shotstream_jax.cli.help import VERBS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """For which shell.

    Attributes:
      shell: the shell that reads the script.
      verbs_only: complete the verbs and not their options; at once, where all takes seconds.
    """

    shell: Annotated[
        Literal["bash", "zsh", "tcsh"], tyro.conf.Positional, tyro.conf.arg(metavar="SHELL")
    ]
    verbs_only: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def completion(args: Annotated[Completion, tyro.conf.arg(name="")]) -> None:
    """Print a script that completes verbs and options in bash, zsh or tcsh.

    For bash: `shotstream completion bash > ~/.local/share/bash-completion/completions/shotstream`

    Args:
      args: for which shell.
    """
    sys.stdout.write(completion_script(args.shell, verbs_only=args.verbs_only))


def completion_script(shell: str, *, verbs_only: bool = False) -> str:
    """The script for a shell, made by the parser of the options themselves."""
    import contextlib
    import io

    from shotstream_jax.cli.main import find_verb

    def plain(verb: str) -> Callable[..., Any]:
        # The options of `train` are those of an experiment file, which is not known here.
        return _nothing if verbs_only or verb == "train" else find_verb(verb)

    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            {verb: plain(verb) for verb in VERBS},
            prog="shotstream",
            args=["--tyro-print-completion", shell],
        )
    return script.getvalue()


def _nothing() -> None:
    pass
