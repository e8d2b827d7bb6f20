"""edgefer cameras: lists and tests this computer's cameras."""

import typer

from edgefer.commands.inputs import AsJson


def cameras(as_json: AsJson = False) -> None:
    """List this computer's cameras and test each.

    The first column is the argument for `edgefer run --camera`. No image is saved. Exit code 1 when one gives no image.

    - `edgefer cameras`
    """
    from dataclasses import asdict

    from edgefer import console
    from edgefer.devices.sources.cameras import open_camera
    from edgefer.devices.sources.discovery import find_cameras, try_camera

    found = [(camera, try_camera(open_camera(camera.camera))) for camera in find_cameras()]
    if as_json:
        console.show_json({"cameras": [asdict(camera) | asdict(trial) for camera, trial in found]})
    elif not found:
        console.show("No usable camera was found. Plug one in; edgefer doctor says what is wrong.")
        console.show("Without one: edgefer run --source builtin")
    else:
        console.show_table(
            "",
            ("--camera", "name", "through", "image", "frames/s"),
            [
                (
                    c.camera,
                    c.name,
                    c.reached_by,
                    t.problem or f"{t.width}x{t.height}",
                    "" if t.problem else f"{t.fps:.1f}",
                )
                for c, t in found
            ],
        )
    if any(trial.problem for _, trial in found):
        raise typer.Exit(1)
