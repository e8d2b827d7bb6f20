"""edgefer boards: the supported boards."""

from typing import Annotated

import typer

from edgefer.commands.inputs import AsJson
from edgefer.errors import InputError


def boards(
    name: Annotated[str, typer.Argument(metavar="BOARD", help="One board, with its install commands.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the supported boards, or show one.

    Settings, install commands, what will not work.

    - `edgefer boards`
    - `edgefer boards pi5`
    """
    from dataclasses import asdict

    from edgefer import console
    from edgefer.devices.board.boards import BOARDS, board_model, this_board

    here = this_board()
    if name and name not in BOARDS:
        raise InputError(f"There is no board {name!r}: choose {', '.join(BOARDS)}.")
    if as_json:
        wanted = [BOARDS[name]] if name else list(BOARDS.values())
        console.show_json({"boards": [asdict(board) | {"this_board": board is here} for board in wanted]})
    elif not name:
        console.show_table(
            "",
            ("", "name", "threads", "haar's width", "frames/s", ""),
            [
                (b.key, b.name, b.threads, b.haar_width, b.target_fps, "this board" if b is here else "")
                for b in BOARDS.values()
            ],
        )
        console.show(
            "Starting points, not measurements: for those run edgefer bench. Install commands: edgefer boards BOARD"
        )
    else:
        board = BOARDS[name]
        mark = f" (this board: {board_model() or 'it does not say its model'})" if board is here else ""
        console.show(f"{board.name}{mark}\n")
        console.show(
            f"Network threads {board.threads}, width of --detector haar {board.haar_width} px, aim {board.target_fps} frames/s"
        )
        console.show("\nInstall:")
        for line in board.install:
            console.show(f"  {line}")
        console.show("\nWhat will not work:")
        for line in board.limits:
            console.show(f"  - {line}")
